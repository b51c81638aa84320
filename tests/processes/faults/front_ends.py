"""Helpers to send the same requests to all front ends: Django's admin, the web dashboard, the JSON API, the command."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib.admin import site
from django.test import Client
from django.urls import NoReverseMatch, reverse
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response

from taskq_core import TaskQ
from taskq_dashboard import Role, User, taskq_dashboard
from taskq_dashboard.registry import PAGES
from taskq_fastapi import taskq_router
from taskq_fastapi.api import models
from tests.console import invoke

WEB_LOOKS = [
    *(f"/ops/{page.path}?queue=default&name=default&id=1&step=note" for page in PAGES.values()),
    f"/ops/workflow?queue=default&id={models.ID}",
    f"/ops/workflow-step?queue=default&id={models.ID}&step=note",
    "/ops/schedule?id=nightly",
]
API_LOOKS = [
    "/api/queues",
    "/api/queues/default",
    "/api/tasks",
    "/api/tasks/default/1",
    "/api/tasks/search?text=1",
    "/api/tasks/search?queue=default&state=archived",
    "/api/workers",
    "/api/schedules",
    "/api/redis",
    "/api/workflows?queue=default",
    "/api/types?hours=2",
]
CLI_LOOKS = [
    ("stats",),
    ("queue", "list"),
    ("queue", "inspect", "default"),
    ("queue", "history", "default"),
    ("queue", "types", "default"),
    ("task", "list"),
    ("task", "list", "-q", "default", "-s", "archived"),
    ("task", "inspect", "-q", "default", "-i", "1"),
    ("task", "find", "-q", "default", "-s", "archived", "--error", "x"),
    ("server", "list"),
    ("cron", "list"),
    ("group", "list", "-q", "default"),
    ("limit", "list", "-q", "default"),
    ("workflow", "list", "-q", "default"),
    ("health",),
    ("doctor",),
]


def web_app(taskq: TaskQ, role: Role = Role.OPERATOR, **api: Any) -> FastAPI:
    """An app with the dashboard at /ops and the JSON API at /api."""
    app = FastAPI()
    app.mount("/ops", taskq_dashboard(taskq, login=lambda request: User("olga", role), failed_logins=None))
    app.include_router(taskq_router(taskq, allow_anonymous=True, failed_logins=None, **api), prefix="/api")
    return app


def web(app: FastAPI, *asked: tuple[str, str, Any]) -> list[Response]:
    """Send requests to an app. Each has a method, an address and data: a mapping for a form, otherwise JSON."""

    async def ask() -> list[Response]:
        transport = ASGITransport(app, raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            found = []
            for method, address, body in asked:
                how: Mapping[str, Any] = {"json": body} if address.startswith("/api") else {"data": body}
                found.append(await client.request(method, address, **(how if body is not None else {})))
            return found

    return asyncio.run(ask())


FEW_LOOKS = ("/ops/", "/ops/task?queue=default&id=1", "/ops/redis", "/api/queues", "/api/redis")
"""A sample of pages, for checks in which all pages give the same response."""


def web_looks(app: FastAPI, addresses: Sequence[str] = (*WEB_LOOKS, *API_LOOKS)) -> str:
    """Return everything that the dashboard and the JSON API show, with the headers of the responses."""
    answers = web(app, *[("GET", address, None) for address in addresses])
    statuses = {str(answer.request.url): answer.status_code for answer in answers}
    assert set(statuses.values()) <= {200, 403, 404, 503}, statuses
    return "\n".join(f"{answer.headers}\n{answer.text}" for answer in answers)


def command(*words: str, url: str, status: int | None = None) -> str:
    """Return the output of the command on both streams."""
    result = invoke(words, env={"TASKQ_URL": url})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert status is None or result.exit_code == status, result.output
    return result.output


def command_looks(url: str, *more: str, commands: Sequence[tuple[str, ...]] = CLI_LOOKS) -> str:
    """Return everything that the command shows."""
    output = [command(*words, *more, url=url) for words in commands]
    assert not [each for each in output if "--help)" in each], "the test uses a command that does not exist"
    return "\n".join(output)


def admin_addresses(key: str = "default_2F1") -> list[str]:
    """Return the addresses of all pages of taskq's models in the admin."""
    found = []
    for model in site._registry:
        if model._meta.app_label != "taskq_django":
            continue
        name = f"admin:taskq_django_{model._meta.model_name}"
        for page, args in (
            ("changelist", ()),
            ("add", ()),
            ("change", (key,)),
            ("history", (key,)),
            ("delete", (key,)),
            ("act", (key, "run")),
        ):
            try:
                found.append(reverse(f"{name}_{page}", args=args))
            except NoReverseMatch:
                assert page == "act", "only models in Redis have pages for actions"
    return found


def admin_looks(client: Client, addresses: Sequence[str] | None = None) -> str:
    """Return everything that the admin shows."""
    answers = [client.get(address) for address in addresses or admin_addresses()]
    return "\n".join(f"{dict(answer.items())}\n{answer.content.decode()}" for answer in answers)
