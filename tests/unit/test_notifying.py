from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from event_scene import GRID, scores_of

from urbandelta.errors import NotifyError
from urbandelta.event_feed import changes_since
from urbandelta.events import find_events
from urbandelta.notifying import post_webhook, run_command

SECRET = "/hook/s3cr3t?token=t0ps3cret"


@pytest.fixture(scope="module")
def lines():
    return changes_since([], find_events(scores_of([(slice(2, 7), slice(2, 7), 200)])), grid=GRID)


class Hook(ThreadingHTTPServer):
    """Answers with the statuses it is given, then 200, and keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.bodies, self.paths = list(statuses), [], []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.append(self.path)
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hook(request) -> Iterator[Hook]:
    server = Hook(*getattr(request, "param", ()))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_command_gets_the_lines_on_its_standard_input(lines, tmp_path):
    target = tmp_path / "got.json"
    script = f"import sys; open({str(target)!r}, 'w').write(sys.stdin.read())"
    assert run_command([sys.executable, "-W", "ignore", "-c", script], lines, name="liege")
    got = json.loads(target.read_text())
    assert (got["type"], got["version"], got["monitor"]) == ("urbandelta.events", 1, "liege")
    assert got["lines"] == [json.loads(json.dumps(line.to_json())) for line in lines]


def test_no_shell_sees_a_command(lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = "import sys; assert sys.argv[1:] == ['$HOME;touch', 'x', '`touch', 'y`', '>z'], sys.argv"
    run_command(f'{sys.executable} -c "{script}" $HOME;touch x `touch y` >z', lines)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_tell_runs_nothing(monkeypatch):
    monkeypatch.setenv("HOOK", "http://127.0.0.1:1/")
    assert not run_command("/no/such/program", [])
    assert not post_webhook("HOOK", [])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/no/such/program", "cannot be started"),
        (f"{sys.executable} -c \"import sys; sys.exit('no  disk')\"", "exit code 1; it said: no disk"),
        ("", "is empty"),
        ("say 'it", "check its quotes"),
    ],
)
def test_commands_that_fail_say_so(command, message, lines):
    with pytest.raises(NotifyError, match=message):
        run_command(command, lines)


def test_a_command_that_hangs_is_stopped(lines):
    with pytest.raises(NotifyError, match="still ran after"):
        run_command([sys.executable, "-c", "import time; time.sleep(60)"], lines, timeout=0.2)


@pytest.mark.parametrize("hook", [(), (503,), (429, 500, 503)], indirect=True)
def test_a_webhook_is_tried_until_it_takes_the_lines(hook, lines, monkeypatch):
    monkeypatch.setenv("HOOK", hook.address)
    tries = len(hook.statuses) + 1
    assert post_webhook("HOOK", lines, name="liege", backoff=0.001)
    assert hook.paths == [SECRET] * tries
    assert json.loads(hook.bodies[-1])["lines"][0]["kind"] == "new"


@pytest.mark.parametrize(
    ("hook", "message"),
    [((403,), "answered 403"), ((302,), "answered 302"), ((500,) * 9, "answered 500")],
    indirect=["hook"],
)
def test_refusals_are_told_without_the_secret(hook, message, lines, monkeypatch, caplog):
    monkeypatch.setenv("HOOK", hook.address)
    with caplog.at_level(logging.DEBUG), pytest.raises(NotifyError, match=message) as caught:
        post_webhook("HOOK", lines, backoff=0.001, attempts=3)
    assert len(hook.paths) <= 3
    assert "s3cr3t" not in caplog.text + str(caught.value)
    assert "t0ps3cret" not in caplog.text + str(caught.value)


def test_silence_is_told_without_the_secret(lines, monkeypatch, caplog):
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:1{SECRET}")
    with caplog.at_level(logging.DEBUG), pytest.raises(NotifyError, match="no answer") as caught:
        post_webhook("HOOK", lines, backoff=0.001, attempts=2)
    told = caplog.text + str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert "s3cr3t" not in told


@pytest.mark.parametrize("address", ["", "http://example.org/hook", "ftp://example.org", "nonsense", "https://[x"])
def test_addresses_that_would_leak_or_lead_nowhere_are_refused(address, lines, monkeypatch):
    monkeypatch.setenv("HOOK", address)
    with pytest.raises(NotifyError, match="HOOK") as caught:
        post_webhook("HOOK", lines)
    assert "example.org" not in str(caught.value)
