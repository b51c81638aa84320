"""Run a dashboard and use it without a browser: cookies, forms, links."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

from httpx import ASGITransport, AsyncClient, Response
from starlette.requests import Request

from taskq_core import TaskQ
from taskq_dashboard import Role, User, taskq_dashboard

ORIGIN = "http://test"
TOKEN = "csrf_token"


def by_header(request: Request) -> User | None:
    """Log in the user of the header `x-user`, which holds a name and a role."""
    name, _, role = request.headers.get("x-user", "").partition(":")
    return User(name, Role(role or "viewer")) if name else None


@asynccontextmanager
async def looking(
    app: Any, *, user: str = "olga:operator", base: str = ORIGIN, **headers: str
) -> AsyncIterator[AsyncClient]:
    """Return an HTTP client of a user of the dashboard."""
    transport = ASGITransport(app)
    message_of = {"x-user": user, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with AsyncClient(
        transport=transport, base_url=base, headers={k: v for k, v in message_of.items() if v}
    ) as web:
        yield web


def dashboard_of(taskq: TaskQ, **options: Any) -> Any:
    """Return a dashboard with the test login and without a limit of requests."""
    return taskq_dashboard(taskq, login=by_header, **{"failed_logins": None, **options})


class Fields(HTMLParser):
    """Collects the addresses of links and forms of a page, and the values of hidden fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[str] = []
        self.hidden: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record links, forms and fields."""
        found = dict(attrs)
        self.tags.append((tag, found))
        for name in ("href", "src"):
            if found.get(name) is not None:
                self.links.append(str(found[name]))
        if tag == "form":
            self.forms.append(found.get("action") or "")
        if tag == "input" and found.get("type") == "hidden":
            self.hidden[str(found["name"])] = found.get("value") or ""


async def token_of(web: AsyncClient, page: str = "/settings") -> str:
    """Return the form token of a user."""
    return Fields((await web.get(page)).text).hidden[TOKEN]


async def act(web: AsyncClient, path: str, page: str = "/settings", **fields: Any) -> Response:
    """Send a form of a page, as a browser does."""
    token = fields.pop("token", None) or await token_of(web, page)
    return await web.post(path, data={TOKEN: token, **fields}, headers={"sec-fetch-site": "same-origin"})


def message_of(response: Response) -> str:
    """Return the one-time message of a page as text."""
    found = re.search(r'<p class="notice notice-\w+" role="status">(.*?)</p>', response.text, re.DOTALL)
    return found[1] if found else ""
