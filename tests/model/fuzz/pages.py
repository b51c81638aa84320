"""Fuzz targets for the front ends: requests with any address, form or body.

The first line of an input is `GET` or `POST` and the address below the root of the front end. The rest is the body. A
response must not be a server error (5xx), contain markup from a request or a task, redirect to another site, or take
too long.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_to_bytes

import fakeredis
from fastapi import FastAPI

from taskq_core import TaskQ
from taskq_dashboard import Role, User, taskq_dashboard
from taskq_dashboard.forgery import COOKIE, FIELD, token_for
from taskq_fastapi import taskq_router
from tests.model.fuzz.targets import Target

CPU_S = 10.0
"""Maximum processor time of a request while memory is traced. Requests take far less."""
MARK = "xq"
"""A tag and an attribute that taskq's pages do not have. Inputs of the corpora try to inject it."""
SCRIPT = f"\"'><{MARK} {MARK}=1 onload={MARK}>&lt;{MARK}&gt;"
SECRET = "s" * 43
_SAME_SITE = re.compile(r"(?!//)(?:\./)?[^\s<>\"\\:?#/]*(?:/[^\s<>\"\\?#]*)?(?:\?[^\s<>\"\\]*)?(?:#[\w-]*)?")
"""A relative address of the same site: without a colon before the first slash, so without a scheme."""
_LOADED = ("src", "href", "action", "formaction", "data", "poster", "srcset")


def sample() -> Any:
    """Return an in-memory Redis with data for each page. All texts in it are markup."""
    from tests.taskq_fastapi.api import populate  # here because of a circular import

    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    taskq = TaskQ(client, defaults={"retention": 3600})
    populate(taskq, SimpleNamespace(client=client), SCRIPT)  # type: ignore[arg-type]  # uses only the client of the server
    taskq.remote(SCRIPT, queue="low").using(task_id=SCRIPT).delay(word=SCRIPT)
    taskq.close()
    return client


# --- checks of responses ----------------------------------------------------------------------------------------------


class _PageCheck(HTMLParser):
    """Collects parts of a page that must not be there."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Check a tag and its attributes."""
        if MARK in tag:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if MARK in name or name.startswith("on"):
                self.wrong.append(f"<{tag} {name}>")
            if name in _LOADED and value is not None and not _SAME_SITE.fullmatch(value):
                self.wrong.append(f"<{tag} {name}={value!r}>")
        if (
            tag == "script"
            and not any(name == "src" for name, _ in attrs)
            and dict(attrs).get("type") not in ("application/json",)
        ):
            self.wrong.append("<script> in the page")

    def handle_comment(self, data: str) -> None:
        """Check a comment, because markup in it would be injected as well."""
        if MARK in data:
            self.wrong.append(f"<!--{data[:80]}-->")


def check_page(html: str) -> None:
    """Check that a page has no injected markup and no addresses of other sites."""
    wrong = _PageCheck(html).wrong
    assert not wrong, wrong


def check_headers(headers: Mapping[str, str]) -> None:
    """Check that headers have no line breaks and do not redirect to another site."""
    assert all("\r" not in text and "\n" not in text for pair in headers.items() for text in pair)
    location = headers.get("location", "./")
    assert _SAME_SITE.fullmatch(location), location


def parts(data: bytes) -> tuple[str, bytes, bytes, bytes]:
    """Return method, path, query and body of an input."""
    line, _, body = data.partition(b"\n")
    word, _, address = line.partition(b" ")
    path, _, query = address.partition(b"?")
    # Servers pass only these bytes to the application, and respond to others with 400.
    path, query = (bytes(each for each in text if 0x21 <= each <= 0x7E) for text in (path, query))
    return "POST" if word == b"POST" else "GET", path, query, body


async def ask(
    app: Any, method: str, path: bytes, query: bytes, body: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Send a request to an ASGI app, as a server does, and return status, headers and body of the response."""
    messages: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in {"host": "test", **headers}.items()],
        "client": ("192.0.2.1", 1),
        "server": ("test", 80),
        "state": {},
    }
    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    response_headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    return start["status"], response_headers, b"".join(message.get("body", b"") for message in sent)


@contextmanager
def timed() -> Iterator[None]:
    """Check the processor time, which does not depend on the load of the machine."""
    before = time.process_time()
    yield
    took_s = time.process_time() - before
    assert took_s < CPU_S, f"the request took {took_s:.1f} s of processor time"


@cache
def _loop() -> asyncio.Runner:
    return asyncio.Runner()


# --- the web dashboard ------------------------------------------------------------------------------------------------


@cache
def _dashboard() -> Any:
    who = User(SCRIPT, Role.OPERATOR)
    return taskq_dashboard(TaskQ(sample()), login=lambda request: who, failed_logins=None)


def dashboard(data: bytes) -> None:
    """Request a page or an action of the web dashboard as an operator. Forms have a valid CSRF token."""
    method, path, query, body = parts(data)
    form = body + f"&{FIELD}={token_for(SECRET, SCRIPT)}".encode()
    headers = {
        "cookie": f"{COOKIE}={SECRET}",
        "sec-fetch-site": "same-origin",
        "content-type": "application/x-www-form-urlencoded",
    }
    with timed():
        status, response_headers, content = _loop().run(
            ask(_dashboard(), method, b"/" + path, query, form if method == "POST" else b"", headers)
        )
    assert status in (200, 303, 400, 403, 404, 405, 409, 413, 415), f"{status}: {content[:2000]!r}"
    check_headers(response_headers)
    if response_headers.get("content-type", "").startswith("text/html"):
        check_page(content.decode())


# --- the JSON API -----------------------------------------------------------------------------------------------------


@cache
def _api() -> Any:
    app = FastAPI(redirect_slashes=False)  # FastAPI's redirects use the host in the request
    app.include_router(taskq_router(TaskQ(sample()), allow_anonymous=True, show_payloads=True, failed_logins=None))
    return app


def api(data: bytes) -> None:
    """Request a route of the JSON API. In a `POST`, the path may begin with another method: `PATCH:` or `DELETE:`."""
    method, path, query, body = parts(data)
    word, _, rest = path.partition(b":")
    if method == "POST" and word in (b"PATCH", b"DELETE"):
        method, path = word.decode(), rest
    with timed():
        status, response_headers, content = _loop().run(
            ask(_api(), method, b"/" + path, query, body, {"content-type": "application/json"})
        )
    is_unknown = status == 503 and path == b"redis"  # the in-memory Redis does not have INFO
    assert is_unknown or status in (200, 400, 403, 404, 405, 409, 413, 415, 422, 429), f"{status}: {content[:2000]!r}"
    check_headers(response_headers)
    if content:
        assert response_headers["content-type"] in ("application/json", "application/problem+json"), response_headers
        json.loads(content)


# --- Django's admin ---------------------------------------------------------------------------------------------------


def admin(data: bytes) -> None:
    """Request a page of the admin as a superuser. Needs the settings and databases of `django_ready`."""
    from django.contrib.auth.models import User as DjangoUser
    from django.test import Client

    method, path, query, body = parts(data)
    root = DjangoUser.objects.filter(username="root").first() or DjangoUser.objects.create_superuser("root")
    client = Client(raise_request_exception=True)
    client.force_login(root)
    address = f"/admin/taskq_django/{path.decode()}?{query.decode()}"
    with timed():
        try:
            if method == "POST":
                response = client.post(address, body, content_type="application/x-www-form-urlencoded")
            else:
                response = client.get(address)
        except ValueError as error:  # Django raises this for invalid ids in every admin
            if "Field 'id' expected a number" in str(error):
                return
            raise
        content = b"".join(response) if response.streaming else response.content
    assert response.status_code in (200, 301, 302, 400, 403, 404, 405), f"{response.status_code}: {content[:2000]!r}"
    check_headers({name.lower(): value for name, value in response.items()})
    assert "/login/" not in response.get("location", "")
    if response.get("content-type", "").startswith("text/html"):
        check_page(content.decode())


@contextmanager
def django_ready() -> Iterator[None]:
    """Set up Django with separate databases, outside pytest."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.taskq_django.settings")
    import django

    django.setup()
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases

    setup_test_environment()
    made = setup_databases(verbosity=0, interactive=False)
    try:
        with admin_settings():
            yield
    finally:
        teardown_databases(made, verbosity=0)


@contextmanager
def admin_settings() -> Iterator[None]:
    """Connect the admin to an in-memory Redis."""
    from django.test import override_settings

    from taskq_django import taskq

    with override_settings(TASKQ={"URL": sample(), "QUEUES": {"default": 1, "low": 1}}):
        try:
            yield
        finally:
            taskq.close()


PAGE_TARGETS: Mapping[str, Target] = {"dashboard": dashboard, "api": api, "admin": admin}
