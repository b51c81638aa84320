"""Visit pages as a user, and detect trouble.

At the end of a test, no page may have run a script of a payload, opened a dialog, written to the console, or sent a
request to another server.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, expect

SCRIPT = "taskqHacked"
"""The function that a hostile payload calls."""
DESKTOP = {"width": 1280, "height": 800}
NARROW = {"width": 375, "height": 812}
PATIENCE_MS = 60_000
"""Timeout of all waits. Without an error, no wait takes so long."""


expect.set_options(timeout=PATIENCE_MS)


class Visitor:
    """A separate browser with its own cookies, storage and any number of tabs. A context manager.

    Args:
        browser: The Chromium to use.
        origin: Scheme, host and port of the site. Requests to other servers count as trouble.
        options: Options of Playwright's `new_context`, for example `color_scheme="dark"`.
    """

    def __init__(self, browser: Browser, origin: str, **options: Any) -> None:
        self.origin = origin
        self.troubles: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        self.context: BrowserContext = browser.new_context(
            **{"base_url": origin, "viewport": DESKTOP, "locale": "en-GB", "timezone_id": "UTC", **options}
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.expose_function(SCRIPT, lambda *what: self.troubles.append(f"a script ran: {what}"))
        self.context.on("page", self._watch)
        self.context.on("request", self._on_request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.context.close()

    def new_page(self) -> Page:
        """Open a tab."""
        return self.context.new_page()

    def expect_errors(self, pattern: str) -> None:
        """Allow console messages of this kind, because the console reports every response that is not a success."""
        self._expected.append(re.compile(pattern))

    def check(self) -> None:
        """Fail if there was trouble."""
        unexpected = [each for each in self.troubles if not any(pattern.search(each) for pattern in self._expected)]
        assert not unexpected, "\n".join(unexpected)

    def _watch(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.troubles.append(f"error in a script: {error}"))
        page.on("dialog", self._on_dialog)

    def _on_console(self, message: ConsoleMessage) -> None:
        url = message.location.get("url", "")
        if urlsplit(url).path == "/favicon.ico":
            return  # browsers request it by themselves
        if message.type in ("error", "warning"):
            self.troubles.append(f"console: {message.text} ({url})")

    def _on_dialog(self, dialog: Dialog) -> None:
        self.troubles.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.troubles.append(f"request to another server: {request.url}")


def stop_time(page: Page) -> None:
    """Stop a tab's clock, so that only `page.clock.run_for` advances it."""
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    page.clock.install(time=noon)
    page.clock.pause_at(
        noon + timedelta(hours=1)
    )  # a time in the future, because the tab's clock cannot be paused in the past


def width_beyond(page: Page) -> int:
    """Return by how many pixels a page is wider than its window, so that it must be scrolled sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@contextmanager
def same_document(page: Page) -> Iterator[None]:
    """Check that the page is not reloaded within the block."""
    page.evaluate("window.taskqMark = true")
    yield
    assert page.evaluate("window.taskqMark === true"), "the page was reloaded"


def hostile(field: str) -> str:
    """Return a text that runs a script if it is not escaped in text, in an attribute or in a script."""
    call = f"{SCRIPT}('{field}')"
    return (
        f'{field}</script></pre></textarea></title><script>{call}</script><img src=x onerror="{call}">'
        f"' onfocus='{call}' autofocus=' \" onfocus=\"{call}\" autofocus=\" javascript:{call} {{{{ 7|add:7 }}}}"
    )


def expect_fields(page: Page, *fields: str) -> None:
    """Wait until the page shows the hostile texts of these fields unchanged, or at least their beginning."""
    for field in fields:
        expect(page.locator("main")).to_contain_text(f"{field}</script>"[:11])
