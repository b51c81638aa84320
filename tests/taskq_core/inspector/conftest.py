"""Both inspectors, asked in turn."""

import inspect
import itertools
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


@pytest.fixture
def ask(app: TaskQ) -> Ask:
    """Ask the inspectors in turn by the name of a method. That both pass on the same shows `test_faces`."""
    faces = itertools.cycle([AsyncInspector, Inspector])

    async def ask(method: str, *args: Any, **kwargs: Any) -> Any:
        answer = getattr(next(faces)(app), method)(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    return ask


@pytest.fixture
def enqueue(app: TaskQ, redis_server: RedisServer) -> Enqueue:
    """Enqueue a task `email:deliver` to a queue, with any options and a unique payload."""
    number = 0

    def enqueue(queue: str = "default", **options: Any) -> TaskHandle[Any]:
        nonlocal number
        number += 1
        name = options.pop("name", "email:deliver")
        redis_server.client.sadd("asynq:queues", queue)  # the client does so once, and a row may have emptied the store
        return app.client.enqueue(app.remote(name, queue=queue, **options).s(to=f"{number}@b.c"))

    return enqueue
