"""Test the dashboard under a path, behind a proxy that changes path and host, and against attacks by another site."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import expect
from starlette.types import ASGIApp, Receive, Scope, Send

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from tests.browser.conftest import OpenBrowser
from tests.browser.dashboard.people import Site, app_of, confirm, expect_message, row, serving
from tests.browser.visiting import same_document

pytestmark = [pytest.mark.redis, pytest.mark.nightly]


class Proxy:
    """Remove the first part of the path and change the host, without informing the app."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(self._prefix)
            headers = [(name, b"internal:1234" if name == b"host" else value) for name, value in scope["headers"]]
            scope = {**scope, "path": path, "raw_path": path.encode(), "headers": headers}
        await self._app(scope, receive, send)


@pytest.fixture(params=["mounted", "behind a proxy"])
def place(request: pytest.FixtureRequest, taskq: TaskQ, open_browser: OpenBrowser) -> Iterator[Site]:
    """The dashboard behind a proxy, so that its address differs from that of its server."""
    inner = TaskQ(taskq.settings.url, enqueue_timeout=30)
    if request.param == "mounted":
        app, home = app_of(inner, mount="/ops/taskq"), "/ops/taskq/"
    else:
        app, home = Proxy(app_of(inner, mount="/inner"), "/outer"), "/outer/inner/"
    with serving(app) as origin:
        site = Site(origin, home, open_browser)
        yield site
        for visitor in site.visitors:
            visitor.context.close()


def test_pages_actions_and_live_updates_work(place: Site, taskq: TaskQ, inspector: Inspector) -> None:
    taskq.remote("note").delay()
    page = place.operator().new_page()
    page.goto(place.home)
    page.get_by_role("button", name="Pause default").click()
    expect_message(page, "is paused")
    with same_document(page):
        inspector.resume("default")
        expect(row(page, "default", "#queues")).to_contain_text("no worker")
    page.get_by_role("link", name="default", exact=True).click()
    page.wait_for_load_state()  # without its script a page uses a separate confirmation page
    page.get_by_role("button", name="Delete").click()
    confirm(page, "Delete")
    expect_message(page, "queue 'default'")
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Colors").select_option("dark")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="Queues", exact=True).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


class TestAnotherSite:
    """A page of another site, open in the browser of an operator."""

    @pytest.fixture
    def other(self, site: Site) -> Iterator[str]:
        """The origin of another site: another port on the same host, which browsers treat as the same site."""
        app = FastAPI()

        @app.get("/form", response_class=HTMLResponse)
        def form() -> str:
            return (
                f'<form method="post" action="{site.origin}/queue-pause"><input name="queue" value="default">'
                '<input name="csrf_token" value="x"><button>You have won</button></form>'
            )

        @app.get("/frame", response_class=HTMLResponse)
        def frame() -> str:
            return f'<iframe src="{site.origin}/"></iframe>'

        with serving(app) as origin:
            yield origin

    def test_another_site_cannot_do_actions(self, site: Site, other: str, taskq: TaskQ, inspector: Inspector) -> None:
        taskq.remote("note").delay()
        visitor = site.operator()
        visitor.expect_errors("403|request to another server")
        page = visitor.new_page()
        page.goto(site.home)
        page.goto(f"{other}/form")
        page.get_by_role("button").click()
        expect(page.locator("main")).to_contain_text("a page of another site cannot do this")
        assert not inspector.queue_info("default").is_paused

    def test_another_site_cannot_show_a_page_in_a_frame(self, site: Site, other: str, taskq: TaskQ) -> None:
        visitor = site.operator()
        visitor.expect_errors("frame|request to another server|ERR_BLOCKED_BY_RESPONSE")
        page = visitor.new_page()
        with page.expect_event("console", lambda message: "frame-ancestors" in message.text):
            page.goto(f"{other}/frame")
        expect(page.frame_locator("iframe").get_by_role("heading", name="Queues")).to_have_count(0)
