"""Telling others of new events: a command of the user's, or a webhook.

The command is run without a shell and gets the lines of the feed as JSON on its standard input. The webhook's address
can hold a secret, so the configuration holds only the name of an environment variable; it is never logged, nor part of
an error. Neither runs if there is nothing to tell.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from urbandelta.errors import NotifyError
from urbandelta.event_feed import FeedLine

__all__ = ["message", "post_webhook", "run_command"]

log = logging.getLogger(__name__)

COMMAND_SECONDS = 60.0
WEBHOOK_SECONDS = 10.0
WEBHOOK_ATTEMPTS = 4
_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 60
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_QUOTED = 300
"""Characters of a command's own complaint that are passed on."""


def message(lines: Sequence[FeedLine], *, name: str = "") -> dict[str, Any]:
    """What is sent: the kind of message, the monitor's name, and the lines of the feed."""
    return {"type": "urbandelta.events", "version": 1, "monitor": name, "lines": [line.to_json() for line in lines]}


def run_command(
    command: str | Sequence[str], lines: Sequence[FeedLine], *, name: str = "", timeout: float = COMMAND_SECONDS
) -> bool:
    """Run a command with new lines of the feed on its standard input; returns whether there was anything to tell.

    Parameters
    ----------
    command : str or sequence of str
        Program and arguments; a text is split as a shell would, but no shell sees it: nothing is expanded.
    lines : sequence of FeedLine
    name : str
        The monitor's.
    timeout : float
        Seconds after which it is killed.

    Raises
    ------
    NotifyError
        If the command cannot be started, fails, or takes too long.
    """
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise NotifyError(f"the notification command cannot be read ({error}); check its quotes") from error
    if not words:
        raise NotifyError("the notification command is empty; give a program and its arguments")
    if not lines:
        return False
    text = json.dumps(message(lines, name=name))
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    except OSError as error:
        raise NotifyError(
            f"{words[0]}: cannot be started ({error.strerror}); check the notification command"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NotifyError(
            f"{words[0]}: still ran after {timeout:g} s and was stopped; make it return sooner"
        ) from error
    if done.returncode:
        complaint = " ".join(done.stderr.split())[-_QUOTED:]
        raise NotifyError(f"{words[0]}: failed with exit code {done.returncode}; it said: {complaint or 'nothing'}")
    log.info("%s: told of %d events", words[0], len(lines))
    return True


def post_webhook(
    variable: str,
    lines: Sequence[FeedLine],
    *,
    name: str = "",
    timeout: float = WEBHOOK_SECONDS,
    attempts: int = WEBHOOK_ATTEMPTS,
    backoff: float = _BACKOFF_SECONDS,
) -> bool:
    """Post new lines of the feed as JSON to an address; returns whether there was anything to tell.

    Parameters
    ----------
    variable : str
        Name of the environment variable that holds the address: https, or http to this machine.
    lines : sequence of FeedLine
    name : str
        The monitor's.
    timeout : float
        Seconds to connect, and to wait for an answer.
    attempts : int
        Busy and failing servers (408, 429, 5xx) and broken connections are tried again, later each time, and not
        before `Retry-After`.
    backoff : float
        Seconds before the second attempt but one; doubles each time.

    Raises
    ------
    NotifyError
        If the variable is not set or holds no such address, or the server does not take the lines.
    """
    url = os.environ.get(variable, "")
    where = _host(variable, url)
    if not lines:
        return False
    # NOTE: urllib3 logs addresses at debug level, and its errors name them: neither may reach anybody.
    import urllib3

    class Patient(urllib3.Retry):
        """Waits as long as a server asks for, but no server can stop an update for good."""

        def get_retry_after(self, response: Any) -> float | None:
            seconds = super().get_retry_after(response)
            return None if seconds is None else min(seconds, _LONGEST_BACKOFF_SECONDS)

    retries = Patient(
        total=max(attempts, 1) - 1,
        status_forcelist=_TRY_AGAIN,
        allowed_methods=None,
        backoff_factor=backoff,
        backoff_max=_LONGEST_BACKOFF_SECONDS,
        redirect=0,
        raise_on_redirect=False,
        raise_on_status=False,
    )
    quiet = logging.getLogger("urllib3")
    level = quiet.level
    quiet.setLevel(logging.CRITICAL)
    failure = ""
    status = 0
    try:
        with urllib3.PoolManager(timeout=timeout, retries=retries) as pool:
            body = json.dumps(message(lines, name=name)).encode()
            answer = pool.request("POST", url, body=body, headers={"Content-Type": "application/json"}, redirect=False)
            status = answer.status
    except urllib3.exceptions.HTTPError as error:
        failure = type(getattr(error, "reason", None) or error).__name__
    finally:
        quiet.setLevel(level)
    # Raised outside the handler: a chained error would carry the address into a traceback.
    if failure:
        raise NotifyError(f"webhook at {where} ({variable}): no answer ({failure}); check the address and the network")
    if not 200 <= status < 300:
        raise NotifyError(f"webhook at {where} ({variable}): answered {status}; check the address and its permission")
    log.info("webhook at %s: told of %d events", where, len(lines))
    return True


def _host(variable: str, url: str) -> str:
    """The server of an address, which is all of it that may be told."""
    if not url:
        raise NotifyError(f"the environment variable {variable} is not set; export it with the webhook's address")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host, parts = "", urlsplit("")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        raise NotifyError(f"{variable} holds no https address; http is taken for this machine only")
    return host
