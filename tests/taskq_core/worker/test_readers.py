"""Test that all readers of tasks and workflows wait in the same way while Redis does not answer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskContext, TaskEvent, TaskHandle, TaskQ, WorkflowHandle, group
from taskq_core.errors import BrokerUnavailableError, ResultTimeoutError, WorkflowTimeoutError
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis

Read = Callable[[TaskHandle[Any], WorkflowHandle, float | None], Any]


def in_thread(read: Callable[..., Any]) -> Read:
    async def reading(*args: Any) -> Any:
        return await asyncio.to_thread(read, *args)

    return reading


def last_result(events: list[TaskEvent]) -> Any:
    task = events[-1].task
    assert task is not None
    return json.loads(task.result)


async def events(task: TaskHandle[Any], _: Any, timeout: float | None) -> Any:
    return last_result([event async for event in task.events(timeout=timeout)])


async def stream(task: TaskHandle[Any], _: Any, timeout: float | None) -> Any:
    return [each.value async for each in task.stream(timeout=timeout)]


READERS: dict[str, Read] = {
    "result": in_thread(lambda task, _, timeout: task.result(timeout)),
    "aresult": lambda task, _, timeout: task.aresult(timeout),
    "workflow result": in_thread(lambda _, workflow, timeout: workflow.result(timeout)),
    "workflow aresult": lambda _, workflow, timeout: workflow.aresult(timeout),
    "events": in_thread(lambda task, _, timeout: last_result(list(task.events(timeout=timeout)))),
    "async events": events,
    "stream": in_thread(lambda task, _, timeout: [each.value for each in task.stream(timeout=timeout)]),
    "async stream": stream,
}


class Away:
    """Lets the reads of an application fail, as if Redis did not answer."""

    def __init__(self, app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures = 0
        """Number of requests that still fail."""
        run, arun = app.runtime.runner.run, app.runtime.async_runner.run

        def running(operation: Any, **more: Any) -> Any:
            self._fail()
            return run(operation, **more)

        async def arunning(operation: Any, **more: Any) -> Any:
            self._fail()
            return await arun(operation, **more)

        monkeypatch.setattr(app.runtime.runner, "run", running)
        monkeypatch.setattr(app.runtime.async_runner, "run", arunning)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailableError("no answer")


@pytest.mark.parametrize("reader", READERS)
async def test_a_reader_waits_while_redis_does_not_answer_and_goes_on_where_it_was(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    go, read = asyncio.Event(), READERS[reader]

    @app.task(retention=60)
    async def count(context: TaskContext) -> list[int]:
        await context.aemit(1)
        await go.wait()
        await context.aemit(2)
        return [1, 2]

    @app.task
    async def member(number: int) -> int:
        await go.wait()
        return number

    await start()
    task, workflow = await count.adelay(), await group(member.s(1), member.s(2)).adelay()
    away = Away(app, monkeypatch)
    away.failures = 3

    reading = asyncio.ensure_future(read(task, workflow, None))
    await until(lambda: not away.failures)
    away.failures = 3
    go.set()

    assert await reading == [1, 2]


@pytest.mark.parametrize("reader", READERS)
async def test_a_reader_says_what_happened_when_its_time_is_over(
    app: TaskQ, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    @app.task(retention=60)
    def never() -> None: ...

    task, workflow = await never.adelay(), await group(never.s()).adelay()
    away = Away(app, monkeypatch)

    with pytest.raises(WorkflowTimeoutError if "workflow" in reader else ResultTimeoutError, match="within 0 s"):
        await READERS[reader](task, workflow, 0)
    away.failures = 1
    with pytest.raises(BrokerUnavailableError, match="no answer"):
        await READERS[reader](task, workflow, 0)


async def test_a_blocking_reader_of_a_closed_client_does_not_wait(redis_server: RedisServer) -> None:
    app = TaskQ(redis_server.url, defaults={"retention": 60})

    @app.task
    def never() -> None: ...

    handle = await never.adelay()
    await app.aclose()

    for read in (handle.result, lambda: list(handle.events()), lambda: list(handle.stream())):
        with pytest.raises(BrokerUnavailableError, match="is closed"):
            await asyncio.to_thread(read)
