"""A person in front of the terminal dashboard."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from textual._compositor import Compositor
from textual._context import visible_screen_stack

import taskq_core.warnings
from taskq_core import TaskHandle, TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import run
from tests.taskq_terminal.person import Person, open_terminal

__all__ = ["run"]

Open = Callable[..., AbstractAsyncContextManager[Person]]
Put = Callable[..., TaskHandle[Any]]


@pytest.fixture(autouse=True, scope="module")
def _enqueueing_beside_a_loop() -> Iterator[None]:
    """Let tasks be enqueued in this thread, which has an event loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taskq_core.warnings, "_warned_of_blocking", True)
        yield


@pytest.fixture(autouse=True)
def _nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip rendering terminal output. `Person` reads the screen's contents, and the tests have no terminal."""

    def render_update(self: Compositor, **options: Any) -> None:
        visible_screen_stack.set(options.get("screen_stack") or [])
        self._dirty_regions.clear()

    monkeypatch.setattr(Compositor, "render_update", render_update)


@pytest.fixture
async def taskq(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    """A queue application on the test's server."""
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield app
    await app.aclose()


@pytest.fixture
def opened(taskq: TaskQ) -> Open:
    """Open the dashboard, with 80 columns by 24 lines by default. It refreshes only when the test asks for it."""

    @asynccontextmanager
    async def opened(size: tuple[int, int] = (80, 24), **config: Any) -> AsyncIterator[Person]:
        async with open_terminal(taskq, size, **config) as person:
            yield person

    return opened


@pytest.fixture
def enqueued(taskq: TaskQ) -> Put:
    """Enqueue a task with an id, by default to `mail`."""

    def enqueued(task_id: str, name: str = "mail:send", queue: str = "mail", **options: Any) -> TaskHandle[Any]:
        arguments = options.pop("arguments", {"to": f"{task_id}@example.com"})
        return taskq.client.enqueue(taskq.remote(name, queue=queue, task_id=task_id, **options).s(**arguments))

    return enqueued
