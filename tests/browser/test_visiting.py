"""Test that `Visitor` detects every kind of trouble. Otherwise tests that use it could not fail."""

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import OpenBrowser
from tests.browser.visiting import SCRIPT, Visitor, same_document, width_beyond

pytestmark = pytest.mark.nightly


@pytest.fixture
def visitor(tmp_path: Path, open_browser: OpenBrowser) -> Iterator[Visitor]:
    """A visitor of a site with one page."""
    (tmp_path / "index.html").write_text("<title>a page</title><p>still")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        visitor = open_browser(f"http://127.0.0.1:{server.server_port}")
        yield visitor
        visitor.context.close()
        server.shutdown()
        thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def page(visitor: Visitor) -> Page:
    page = visitor.new_page()
    page.goto("/")
    return page


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        (f"{SCRIPT}('name')", "a script ran"),
        ("alert('hello')", "a dialog: hello"),
        ("console.error('broken')", "console: broken"),
        ("setTimeout(() => { throw new Error('late') }, 0)", "error in a script: late"),
        ("fetch('/missing')", "404"),
        (
            "fetch('http://127.0.0.1:9/elsewhere').catch(() => null)",
            "request to another server: http://127.0.0.1:9/elsewhere",
        ),
    ],
)
def test_an_unexpected_browser_error_fails_the_test(visitor: Visitor, page: Page, script: str, trouble: str) -> None:
    visitor.check()

    page.evaluate(f"() => {{ {script} }}")
    page.wait_for_function("() => document.readyState === 'complete'")
    while not any(trouble in each for each in visitor.troubles):
        page.wait_for_timeout(10)  # before the next check

    with pytest.raises(AssertionError):
        visitor.check()
    visitor.expect_errors(".")
    visitor.check()


def test_a_page_that_is_too_wide_is_detected(page: Page) -> None:
    assert width_beyond(page) == 0
    page.evaluate("document.body.style.width = document.documentElement.clientWidth + 7 + 'px'")
    page.evaluate("document.body.style.margin = 0")
    assert width_beyond(page) == 7


def test_a_page_that_is_reloaded_is_detected(page: Page) -> None:
    with same_document(page):
        page.evaluate("document.title = 'another'")
    with pytest.raises(AssertionError, match="reloaded"), same_document(page):
        page.reload()
