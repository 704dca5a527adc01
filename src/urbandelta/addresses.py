"""Addresses as they may be shown: without user, query and fragment, which can hold passwords, tokens and signatures."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

_QUERY = re.compile(r"\?[^\s\"']*")


def shown(href: str) -> str:
    """An address for messages and logs."""
    if "://" not in href:
        return href  # a path, where a question mark is a letter like others
    try:
        parts = urlsplit(href)
    except ValueError:
        return "an address that is none"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def local_file(href: str) -> Path | None:
    """Path of a plain path or a file:// address; None for others."""
    if "://" not in href:
        return Path(href)
    try:
        parts = urlsplit(href)
    except ValueError:
        return None
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


class HideQueries(logging.Filter):
    """Takes queries out of the records of a logger that is not ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, cleaned."""
        message = record.getMessage()
        if "?" in message:
            record.msg, record.args = _QUERY.sub("?...", message), None
        return True


class HideAll(logging.Filter):
    """Drops all records of a logger that is not ours and tells secrets."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        """Let none through."""
        return False
