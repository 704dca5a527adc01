"""A served city and a browser to look at it with, for the tests of the page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headless_chromium import CHROMIUM
from playwright.sync_api import Browser, sync_playwright

# MapLibre draws with WebGL; SwiftShader does that without a graphics card.
FLAGS = (
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
)  # fmt: skip


@contextmanager
def served(target: Path, *words: str) -> Iterator[str]:
    """`urbandelta serve` in a process of its own; yields its address."""
    command = [sys.executable, "-m", "urbandelta", "serve", str(target), "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[0]
        finally:
            server.terminate()


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, driven by playwright."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), headless=True)
        try:
            yield chromium
        finally:
            chromium.close()


class View:
    """A page that is ready, and what went wrong on it."""

    def __init__(self, browser: Browser, url: str, hash_: str = "", **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 820}, **options})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type == "error" else None
        )
        self.page.goto(url + hash_)
        self.page.wait_for_selector("html[data-ready=yes]", state="attached")

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("urbandelta.shown()")

    def values(self) -> dict[str, Any]:
        return self.page.evaluate("({...urbandelta.state.values})")

    def point(self, longitude: float, latitude: float) -> dict[str, float]:
        """Where on the map a place is."""
        return self.page.evaluate(f"(({{x, y}}) => ({{x, y}}))(urbandelta.map.project([{longitude}, {latitude}]))")

    def focused(self) -> str:
        """The element that has the focus: its id, else class and tag."""
        return self.page.evaluate("(e => e.id || `${e.tagName} ${e.className}`)(document.activeElement)")

    def close(self) -> None:
        self.context.close()
