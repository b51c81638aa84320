"""Both inspectors, asked alike."""

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from taskq_core import TaskHandle, TaskQ
from taskq_core.inspector import AsyncInspector, Inspector
from tests.redis_server import RedisServer

Ask = Callable[..., Any]
Enqueue = Callable[..., TaskHandle[Any]]


@pytest.fixture
async def app(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield app
    await app.aclose()


@pytest.fixture(params=[Inspector, AsyncInspector])
def ask(request: pytest.FixtureRequest, app: TaskQ) -> Ask:
    """Ask either inspector by the name of a method; both have to answer alike."""

    async def ask(method: str, *args: Any, **kwargs: Any) -> Any:
        answer = getattr(request.param(app), method)(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    return ask


@pytest.fixture
def enqueue(app: TaskQ) -> Enqueue:
    """Enqueue a task `email:deliver` to a queue, with any options and a payload of its own."""
    number = 0

    def enqueue(queue: str = "default", **options: Any) -> TaskHandle[Any]:
        nonlocal number
        number += 1
        name = options.pop("name", "email:deliver")
        return app.client.enqueue(app.remote(name, queue=queue, **options).s(to=f"{number}@b.c"))

    return enqueue
