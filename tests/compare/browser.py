"""A real browser for pages: headless Chromium, watched for errors and for anything it asks of a network."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    """The browser that KDX_CHROMIUM names, else one on PATH."""
    return os.environ.get("KDX_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def missing(what: str) -> None:
    """Skips the test; fails it where a browser is required (KDX_REQUIRE_BROWSER=1, as in CI)."""
    if os.environ.get("KDX_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{what}, and KDX_REQUIRE_BROWSER=1 asks for it")
    pytest.skip(what)


@pytest.fixture(scope="module")  # while it is open an event loop runs, in which other tests cannot start their own
def chromium() -> Iterator[Any]:
    """A Chromium of Playwright's, closed after the module."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    executable = find_chromium()
    if executable is None:
        missing("there is no Chromium on PATH; KDX_CHROMIUM may name one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


class Seen:
    """A page in the browser, what went wrong on it, and what it asked for besides itself."""

    def __init__(
        self, chromium: Any, file: Path, width: int = 1400, theme: str = "light", motion: str = "reduce", touch: bool = False
    ) -> None:
        self.context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            reduced_motion=motion,
            has_touch=touch,
            is_mobile=touch,
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console", lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.refused: list[str] = []  # by the page's own policy
        self.page.on("requestfailed", lambda it: self.refused.append(it.url) if it.failure == "csp" else None)
        self.page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.file = file
        self.page.goto(file.as_uri())

    def abroad(self) -> list[str]:
        """What was asked for besides the file itself and what is inside it."""
        own = (self.file.as_uri(), "data:", "blob:")
        return [url for url in self.requests if not url.startswith(own)]

    def scroll_through(self) -> None:
        """Brings every chart into sight once, and waits until all are drawn."""
        for plot in self.page.locator(".chart .plot").all():
            plot.scroll_into_view_if_needed()
        self.wait("[...document.querySelectorAll('.chart .plot')].every((e) => e.querySelector('svg.main-svg'))")

    def wait(self, condition: str, seconds: float = 60.0) -> None:
        """Waits until a JavaScript expression is true, also while the page loads itself anew.

        `page.wait_for_function` evaluates text within the page, whose policy forbids it: it raises EvalError unless the
        condition is true at once. `page.evaluate` goes through the debugger.
        """
        from playwright.sync_api import Error

        end = time.monotonic() + seconds
        while True:
            try:
                if self.page.evaluate(condition):
                    return
            except Error as error:
                if "context was destroyed" not in str(error) and "navigation" not in str(error):
                    raise
            assert time.monotonic() < end, f"not within {seconds:g} s: {condition}"
            self.page.wait_for_timeout(50)
