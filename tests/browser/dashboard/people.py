"""Who looks at the dashboard, and where its pages are."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from playwright.sync_api import Locator, Page, expect
from starlette.types import ASGIApp, Receive, Scope, Send

from taskq_core import TaskQ
from taskq_fastapi import taskq_lifespan
from taskq_fastapi.dashboard import Role, User, taskq_dashboard
from tests.browser.conftest import OpenBrowser
from tests.browser.visiting import Visitor

OFTEN = "theme=system&interval=2&rows=20"
"""Settings of a user with the shortest refresh interval."""


def by_header(request: Request) -> User | None:
    """The header `x-user` holds a name and a role."""
    name, _, role = request.headers.get("x-user", "").partition(":")
    return User(name, Role(role)) if name else None


@dataclass
class Site:
    """The dashboard on a server, and its users.

    Attributes:
        origin: Scheme, host and port.
        home: Address of the home page, with a slash at its end.
        posts: Actions that were done: their paths, in order.
    """

    origin: str
    home: str
    posts: list[str]
    open_browser: OpenBrowser
    visitors: list[Visitor] = field(default_factory=list)

    def operator(self, name: str = "olga", **options: Any) -> Visitor:
        """Return the browser of an operator."""
        return self._enter(f"{name}:operator", options)

    def viewer(self, **options: Any) -> Visitor:
        """Return the browser of a viewer."""
        return self._enter("vera:viewer", options)

    def _enter(self, user: str, options: dict[str, Any]) -> Visitor:
        visitor = self.open_browser(f"{self.origin}", **options)
        visitor.context.set_extra_http_headers({"x-user": user})
        visitor.context.add_cookies(
            [{"name": "taskq_settings", "value": OFTEN, "url": f"{self.origin}{self.home}", "sameSite": "Lax"}]
        )
        self.visitors.append(visitor)
        return visitor

    def at(self, address: str) -> str:
        """Return where a page is."""
        return self.home + address.removeprefix("./")


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an app in a thread; yields its origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)  # between two looks
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Noting:
    """Notes which actions are done.

    Args:
        app: The app.
        posts: Where they are noted.
    """

    def __init__(self, app: ASGIApp, posts: list[str]) -> None:
        self._app, self._posts = app, posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def noting(message: Any) -> None:
            is_done = message["type"] == "http.response.start" and message["status"] == 303
            if is_done and scope["method"] == "POST":
                self._posts.append(scope["path"].rpartition("/")[2])
            await send(message)

        await self._app(scope, receive, noting if scope["type"] == "http" else send)


def app_of(taskq: TaskQ, posts: list[str], *, mount: str = "", **options: Any) -> ASGIApp:
    """Return an app with the dashboard mounted in it."""
    app = FastAPI(lifespan=taskq_lifespan(taskq), openapi_url=None)
    app.mount(mount or "/", taskq_dashboard(taskq, **{"login": by_header, "failed_logins": None, **options}))
    return Noting(app, posts)


# --- pages and actions ------------------------------------------------------------------------------------------------


def rows(page: Page, table: str = "table") -> Locator:
    """Return the rows of a table."""
    return page.locator(f"{table} > tbody > tr")


def row(page: Page, text: str, table: str = "table") -> Locator:
    """Return the row of a table that has this text."""
    return rows(page, table).filter(has_text=text)


def confirm(page: Page, button: str) -> None:
    """Press the button of the question that is asked in a dialog."""
    page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()


def expect_told(page: Page, text: str) -> None:
    """Wait until the page says once what was done, and can do all that a page does by its script."""
    expect(page.locator("p.notice[role=status]")).to_contain_text(text)
    page.wait_for_load_state()


def tries(*paths: str) -> Any:
    """Say which actions a test does in the browser; it fails if it does not."""

    def mark(test: Any) -> Any:
        test.tries = paths
        return test

    return mark


def tried_by(test: Any) -> Sequence[str]:
    """Return which actions a test does."""
    found: Sequence[str] = getattr(test, "tries", ())
    return found
