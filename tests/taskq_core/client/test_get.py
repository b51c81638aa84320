"""Test `taskq.get`, which returns the handle of a task by its id."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskContext, TaskHandle, TaskNotFoundError, TaskQ, TaskState
from taskq_core.inspector import Inspector
from taskq_core.testing import adrain, capture
from tests.redis_server import RedisServer
from tests.rows import rows

pytestmark = pytest.mark.redis
Get = Callable[..., Any]


@pytest.fixture
async def taskq(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30, queues={"default": 1, "low": 1}, defaults={"max_retry": 0})
    yield taskq
    await taskq.aclose()


@pytest.fixture(params=["blocking", "coroutine"])
def get(request: pytest.FixtureRequest, taskq: TaskQ) -> Get:
    async def get(task_id: Any, **options: Any) -> TaskHandle[Any]:
        if request.param == "coroutine":
            return await taskq.aget(task_id, **options)
        return await asyncio.to_thread(taskq.get, task_id, **options)

    return get


def requests(server: RedisServer) -> int:
    stats: Any = server.client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "smembers"))


@pytest.mark.parametrize(("queue", "asked"), [("default", 2), ("critical", 2), ("elsewhere", 4)])
async def test_a_task_is_found_in_any_queue(
    taskq: TaskQ, redis_server: RedisServer, get: Get, queue: str, asked: int
) -> None:
    """Two requests suffice for any number of queues: the first finds the queue, the second reads the task."""

    @taskq.task(queue="critical")
    def known() -> None: ...

    for number in range(30):
        await taskq.remote("t", queue=f"other-{number}").adelay()
    sent = await taskq.remote("t", queue=queue).adelay()
    await get(sent.id)  # connects, and loads the scripts
    redis_server.client.config_resetstat()

    handle = await get(sent.id)

    assert (handle.id, handle.queue, handle.name, handle.state) == (sent.id, queue, "t", TaskState.PENDING)
    assert requests(redis_server) == asked


async def test_the_handle_has_state_progress_times_and_the_typed_result(taskq: TaskQ, get: Get) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    @taskq.task(retention=60)
    async def count(context: TaskContext) -> dict[int, str]:
        context.progress(1, 2)
        begun.set()
        await goes_on.wait()
        return {1: "one"}

    sent = await count.adelay()
    draining = asyncio.create_task(adrain(taskq))
    await begun.wait()
    running = await get(sent.id)
    goes_on.set()
    await draining
    ended = await get(sent.id)

    assert (running.state, running.ended_at, running.error) == (TaskState.ACTIVE, None, "")
    assert running.started_at is not None
    assert ended.state is TaskState.COMPLETED
    assert (ended.progress.done, ended.progress.total) == (1, 2)
    assert ended.started_at is not None
    assert ended.ended_at is not None
    assert await ended.aresult() == {1: "one"}


async def test_the_handle_of_a_failed_task_has_its_error(taskq: TaskQ, get: Get) -> None:
    @taskq.task
    async def fail() -> None:
        raise ValueError("no such order")

    sent = await fail.adelay()
    await adrain(taskq, raises=False)

    handle = await get(sent.id)

    assert (handle.state, handle.error) == (TaskState.ARCHIVED, "ValueError: no such order")
    assert handle.ended_at is not None


@rows("task_id", ["none", "", "x" * 300, "a\0b", None])
async def test_an_unknown_id_is_not_found(get: Get, task_id: Any) -> None:
    with pytest.raises(TaskNotFoundError, match="in any queue"):
        await get(task_id)


async def test_the_first_configured_queue_with_the_id_wins(taskq: TaskQ, get: Get) -> None:
    for queue in ("another", "low", "default"):
        await taskq.remote("t", queue=queue, task_id="nightly").adelay()

    assert (await get("nightly")).queue == "default"
    assert (await get("nightly", queue="another")).queue == "another"
    with pytest.raises(TaskNotFoundError, match="in queue 'empty'"):
        await get("nightly", queue="empty")
    with pytest.raises(ConfigurationError, match="queue name"):
        await get("nightly", queue="}")


async def test_a_moved_task_is_found(taskq: TaskQ, get: Get) -> None:
    sent = await taskq.remote("t").adelay()
    Inspector(taskq).move_task("default", sent.id, "low")

    assert (await get(sent.id)).queue == "low"


def test_get_finds_captured_tasks() -> None:
    taskq = TaskQ("redis://nowhere.invalid")

    @taskq.task(retention=60)
    def double(number: int) -> int:
        return 2 * number

    with capture(taskq) as tasks:
        sent = double.delay(4)
        tasks.run()

        assert taskq.get(sent.id).result() == 8
