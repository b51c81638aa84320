"""Users and addresses of the web dashboard, and helpers for its pages."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from playwright.sync_api import Locator, Page, expect
from starlette.types import ASGIApp

from taskq_core import TaskQ
from taskq_dashboard import Role, User, taskq_dashboard
from taskq_fastapi import taskq_lifespan
from tests.browser.conftest import OpenBrowser
from tests.browser.visiting import Visitor

OFTEN = "theme=system&interval=2&rows=20"
"""Settings of a user with the shortest refresh interval."""


def by_header(request: Request) -> User | None:
    """Return the user in the header `x-user`, which has a name and a role."""
    name, _, role = request.headers.get("x-user", "").partition(":")
    return User(name, Role(role)) if name else None


@dataclass
class Site:
    """The dashboard on a server, and its users.

    Attributes:
        origin: Scheme, host and port.
        home: Address of the home page, with a slash at its end.
    """

    origin: str
    home: str
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
        """Return the address of a page."""
        return self.home + address.removeprefix("./")


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an app in a thread, and yield its origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)  # before the next check
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def app_of(taskq: TaskQ, *, mount: str = "", **options: Any) -> ASGIApp:
    """Return an app with the dashboard mounted in it."""
    app = FastAPI(lifespan=taskq_lifespan(taskq), openapi_url=None)
    app.mount(mount or "/", taskq_dashboard(taskq, **{"login": by_header, "failed_logins": None, **options}))
    return app


# --- pages and actions ------------------------------------------------------------------------------------------------


def rows(page: Page, table: str = "table") -> Locator:
    """Return the rows of a table."""
    return page.locator(f"{table} > tbody > tr")


def row(page: Page, text: str, table: str = "table") -> Locator:
    """Return the row of a table that contains this text."""
    return rows(page, table).filter(has_text=text)


def confirm(page: Page, button: str) -> None:
    """Press a button of the confirmation dialog."""
    page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()


def expect_message(page: Page, text: str) -> None:
    """Wait until the page shows this message and its scripts are loaded."""
    expect(page.locator("p.notice[role=status]")).to_contain_text(text)
    page.wait_for_load_state()
