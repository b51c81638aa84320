"""How many tasks of one queue run at once: in a worker, and in all of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskq_core import TaskContext, TaskQ
from taskq_core.inspector import AsyncInspector
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis


@pytest.fixture
def app(redis_server: RedisServer) -> TaskQ:
    return TaskQ(
        redis_server.url,
        queues={"default": 1, "few": 1},
        limits={"few": {"CONCURRENCY": 3, "WORKER_CONCURRENCY": 2}},
        enqueue_timeout=60,
    )


@pytest.fixture
async def start(app: TaskQ) -> AsyncIterator[Runner]:
    runner = Runner(app)
    yield runner
    await runner.close()
    await app.aclose()


class Crowd:
    """Tasks that wait until the test releases them, one at a time."""

    def __init__(self, app: TaskQ) -> None:
        self.running: dict[str, int] = {"few": 0, "default": 0}
        self.most = dict(self.running)
        self.done = 0
        self.places = asyncio.Semaphore(0)

        @app.task(name="stay")
        async def stay(queue: str) -> None:
            self.running[queue] += 1
            self.most[queue] = max(self.most[queue], self.running[queue])
            await self.places.acquire()
            self.running[queue] -= 1
            self.done += 1

        self.task = stay

    async def fill(self, queue: str, count: int) -> None:
        for _ in range(count):
            await self.task.using(queue=queue).adelay(queue)


async def test_a_queue_at_its_limit_does_not_stop_other_queues(app: TaskQ, start: Runner) -> None:
    crowd = Crowd(app)
    await crowd.fill("few", 6)
    await crowd.fill("default", 4)
    await start(concurrency=8, queues={"default": 1, "few": 1})

    await until(lambda: crowd.running == {"few": 2, "default": 4})
    for _ in range(10):
        crowd.places.release()
    await until(lambda: crowd.done == 10)
    assert crowd.most["few"] == 2


async def test_the_limit_of_a_queue_holds_for_all_workers_together(app: TaskQ, start: Runner) -> None:
    crowd = Crowd(app)
    await crowd.fill("few", 12)
    for _ in range(3):
        await start(concurrency=4, queues={"few": 1})

    await until(lambda: crowd.running["few"] == 3)
    for _ in range(12):
        crowd.places.release()
        await asyncio.sleep(0)
    await until(lambda: crowd.done == 12)
    assert crowd.most["few"] == 3


async def test_the_limit_of_a_queue_can_be_changed_while_tasks_wait(app: TaskQ, start: Runner) -> None:
    crowd = Crowd(app)
    await crowd.fill("few", 4)
    await AsyncInspector(app).set_limit("few", "", concurrency=1)
    for _ in range(2):
        await start(concurrency=4, queues={"few": 1})
    await until(lambda: crowd.running["few"] == 1)
    assert await AsyncInspector(app).clear_limit("few", "")
    crowd.places.release()

    await until(lambda: crowd.running["few"] == 3)
    for _ in range(4):
        crowd.places.release()
    await until(lambda: crowd.done == 4)


async def test_the_end_of_a_task_causes_a_query_only_if_its_queue_has_a_limit(
    app: TaskQ, start: Runner, clock: Clock, exchanges: list[list[tuple[str, Any]]]
) -> None:
    """Otherwise each task in another queue costs a request for each queue of the worker."""
    crowd = Crowd(app)
    await start(concurrency=4, queues={"default": 1, "few": 1})
    dequeues: dict[str, int] = {}
    for queue in crowd.running:
        await crowd.fill(queue, 1)
        await until(lambda queue=queue: crowd.running[queue])
        await clock.settle()
        exchanges.clear()
        crowd.places.release()
        await until(lambda: any(name.startswith("settle") for exchange in exchanges for name, _ in exchange))
        await clock.settle()
        dequeues[queue] = sum("dequeue" in name for exchange in exchanges for name, _ in exchange)

    assert dequeues["default"] == 0
    assert dequeues["few"] > 0


async def test_a_running_error_handler_does_not_count_for_the_limit_of_a_queue(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    """The error handler occupies only a slot of the worker."""
    started: list[int] = []
    may_fail, is_over = asyncio.Event(), asyncio.Event()

    @app.task(queue="few", max_retry=0)
    async def fail(number: int) -> None:
        started.append(number)
        await may_fail.wait()
        raise ValueError

    @app.on_error
    async def report(error: BaseException, context: TaskContext) -> None:
        await is_over.wait()

    for number in range(6):
        await fail.adelay(number)
    await start(concurrency=8, queues={"few": 1})
    await until(lambda: len(started) == 2)
    await clock.settle()
    may_fail.set()
    await clock.settle()  # a worker that checks rarely has not checked by then

    assert sorted(started) == list(range(6))
    is_over.set()
