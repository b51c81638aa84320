"""How many tasks of one queue run at once: in a worker, and in all of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
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
    """Tasks that wait until they are let go, one at a time."""

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


async def test_a_worker_runs_so_many_of_a_queue_and_goes_on_with_others(app: TaskQ, start: Runner) -> None:
    crowd = Crowd(app)
    await crowd.fill("few", 6)
    await crowd.fill("default", 4)
    await start(concurrency=8, queues={"default": 1, "few": 1})

    await until(lambda: crowd.running == {"few": 2, "default": 4})
    for _ in range(10):
        crowd.places.release()
    await until(lambda: crowd.done == 10)
    assert crowd.most["few"] == 2


async def test_all_workers_run_so_many_of_a_queue(app: TaskQ, start: Runner) -> None:
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


async def test_the_number_of_a_queue_is_changed_while_tasks_wait(app: TaskQ, start: Runner) -> None:
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
