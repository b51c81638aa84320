"""Requests as targets: whatever stands in an address, a form or a body, the answer is one that was meant.

The first line of an input is `GET` or `POST` and what stands behind the address of the front end; the rest is the body.
No answer is a failure (5xx), holds markup that a request or a task brought, leads elsewhere, or takes for ever.
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
from taskq_fastapi import taskq_router
from taskq_fastapi.dashboard import Role, User, taskq_dashboard
from taskq_fastapi.dashboard.forgery import COOKIE, FIELD, token_for
from tests.model.fuzz.targets import Target

CPU_S = 10.0
"""Seconds of the processor that one request may take, with memory traced: far more than any takes."""
MARK = "xq"
"""A tag and an attribute that no page of ours has; corpora are full of it."""
SCRIPT = f"\"'><{MARK} {MARK}=1 onload={MARK}>&lt;{MARK}&gt;"
SECRET = "s" * 43
_OWN = re.compile(r"(?!//)(?:\./)?[^\s<>\"\\:?#/]*(?:/[^\s<>\"\\?#]*)?(?:\?[^\s<>\"\\]*)?(?:#[\w-]*)?")
"""An address of this site, seen from a page: no colon before the first slash, so it has no scheme."""
_LOADED = ("src", "href", "action", "formaction", "data", "poster", "srcset")


def sample() -> Any:
    """A Redis in memory with something to see on each page, whose texts are markup."""
    from tests.taskq_fastapi.api import populate  # the tests of another folder: not at the top, where it is a circle

    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    taskq = TaskQ(client, defaults={"retention": 3600})
    populate(taskq, SimpleNamespace(client=client), SCRIPT)  # type: ignore[arg-type]  # of a server only its client
    taskq.remote(SCRIPT, queue="low").using(task_id=SCRIPT).delay(word=SCRIPT)
    taskq.close()
    return client


# --- what an answer may be --------------------------------------------------------------------------------------------


class _Seen(HTMLParser):
    """Notes what a page must not have."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at a tag and its attributes."""
        if MARK in tag:
            self.wrong.append(f"<{tag}>")
        for name, value in attrs:
            if MARK in name or name.startswith("on"):
                self.wrong.append(f"<{tag} {name}>")
            if name in _LOADED and value is not None and not _OWN.fullmatch(value):
                self.wrong.append(f"<{tag} {name}={value!r}>")
        if (
            tag == "script"
            and not any(name == "src" for name, _ in attrs)
            and dict(attrs).get("type") not in ("application/json",)
        ):
            self.wrong.append("<script> in the page")

    def handle_comment(self, data: str) -> None:
        """A comment would hide what stands in it."""
        if MARK in data:
            self.wrong.append(f"<!--{data[:80]}-->")


def check_page(html: str) -> None:
    """Refuse a page with markup that is not ours."""
    wrong = _Seen(html).wrong
    assert not wrong, wrong


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that lead elsewhere or were broken in two."""
    assert all("\r" not in text and "\n" not in text for pair in headers.items() for text in pair)
    location = headers.get("location", "./")
    assert _OWN.fullmatch(location), location


def parts(data: bytes) -> tuple[str, bytes, bytes, bytes]:
    """Return the method, the path and the query of an input, and its body."""
    line, _, body = data.partition(b"\n")
    word, _, address = line.partition(b" ")
    path, _, query = address.partition(b"?")
    # A server lets only these through; it answers all else with 400 by itself.
    path, query = (bytes(each for each in text if 0x21 <= each <= 0x7E) for text in (path, query))
    return "POST" if word == b"POST" else "GET", path, query, body


async def ask(
    app: Any, method: str, path: bytes, query: bytes, body: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Send a request to an ASGI app, as a server does, and return status, headers and body of its answer."""
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
    told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    return start["status"], told, b"".join(message.get("body", b"") for message in sent)


@contextmanager
def timed() -> Iterator[None]:
    """Refuse what takes for ever, however busy the machine is."""
    before = time.process_time()
    yield
    took_s = time.process_time() - before
    assert took_s < CPU_S, f"it took {took_s:.1f} s of the processor"


@cache
def _loop() -> asyncio.Runner:
    return asyncio.Runner()


# --- the web dashboard ------------------------------------------------------------------------------------------------


@cache
def _dashboard() -> Any:
    who = User(SCRIPT, Role.OPERATOR)
    return taskq_dashboard(TaskQ(sample()), login=lambda request: who, failed_logins=None)


def dashboard(data: bytes) -> None:
    """A page or an action of the web dashboard, asked for by an operator; a form has the token of its page."""
    method, path, query, body = parts(data)
    form = body + f"&{FIELD}={token_for(SECRET, SCRIPT)}".encode()
    headers = {
        "cookie": f"{COOKIE}={SECRET}",
        "sec-fetch-site": "same-origin",
        "content-type": "application/x-www-form-urlencoded",
    }
    with timed():
        status, told, answer = _loop().run(
            ask(_dashboard(), method, b"/" + path, query, form if method == "POST" else b"", headers)
        )
    assert status in (200, 303, 400, 403, 404, 405, 409, 413, 415), f"{status}: {answer[:2000]!r}"
    check_headers(told)
    if told.get("content-type", "").startswith("text/html"):
        check_page(answer.decode())


# --- the JSON API -----------------------------------------------------------------------------------------------------


@cache
def _api() -> Any:
    app = FastAPI(redirect_slashes=False)  # an app's own, to the host that a request names
    app.include_router(taskq_router(TaskQ(sample()), allow_anonymous=True, show_payloads=True, failed_logins=None))
    return app


def api(data: bytes) -> None:
    """A route of the JSON API. `POST` stands for any change: the first word of the path says which."""
    method, path, query, body = parts(data)
    word, _, rest = path.partition(b":")
    if method == "POST" and word in (b"PATCH", b"DELETE"):
        method, path = word.decode(), rest
    with timed():
        status, told, answer = _loop().run(
            ask(_api(), method, b"/" + path, query, body, {"content-type": "application/json"})
        )
    is_unknown = status == 503 and path == b"redis"  # the Redis in memory knows no INFO
    assert is_unknown or status in (200, 400, 403, 404, 405, 409, 413, 415, 422, 429), f"{status}: {answer[:2000]!r}"
    check_headers(told)
    if answer:
        assert told["content-type"] in ("application/json", "application/problem+json"), told
        json.loads(answer)


# --- Django's admin ---------------------------------------------------------------------------------------------------


def admin(data: bytes) -> None:
    """A page of the admin, asked for by a superuser. Settings and a database are there: see `ready`."""
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
        except ValueError as error:  # as in each admin of Django whose lists are asked for forged ids
            if "Field 'id' expected a number" in str(error):
                return
            raise
        answer = b"".join(response) if response.streaming else response.content
    assert response.status_code in (200, 301, 302, 400, 403, 404, 405), f"{response.status_code}: {answer[:2000]!r}"
    check_headers({name.lower(): value for name, value in response.items()})
    assert "/login/" not in response.get("location", "")
    if response.get("content-type", "").startswith("text/html"):
        check_page(answer.decode())


@contextmanager
def ready() -> Iterator[None]:
    """Set Django up with databases of its own, outside pytest."""
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
    """Let the admin look at a Redis in memory."""
    from django.test import override_settings

    from taskq_django import taskq

    with override_settings(TASKQ={"URL": sample(), "QUEUES": {"default": 1, "low": 1}}):
        try:
            yield
        finally:
            taskq.close()


PAGE_TARGETS: Mapping[str, Target] = {"dashboard": dashboard, "api": api, "admin": admin}
