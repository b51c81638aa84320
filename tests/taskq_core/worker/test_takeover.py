"""A worker takes back at once what another one held whose process has provably ended, and nothing else."""

from itertools import count
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import runs, services
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import MANY_QUEUES
from taskq_core.worker.liveness import hold, place
from taskq_core.worker.takeover import SUPERVISOR_S, Takeover
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, context_of, state_of

pytestmark = pytest.mark.redis


async def test_a_stopped_worker_leaves_no_record(start: Runner, redis_server: RedisServer, queue: QueueKeys) -> None:
    worker = await start()
    key = queue.peers(place())
    await next(worker._services.of(Takeover)).has_checked.wait()
    assert redis_server.client.hkeys(key) == [worker.token.encode()]
    assert 0 < redis_server.client.ttl(key) <= 120

    await start.stop(worker)

    assert not redis_server.client.exists(key)


class Scene:
    """A worker that is dead according to its host, and a worker that checks it."""

    token = "0123456789abcdef"

    def __init__(self, app: TaskQ, server: RedisServer, queue: QueueKeys) -> None:
        self.app, self.server, self.queue = app, server, queue
        self.runner = AsyncRunner(app.runtime.endpoint)
        self.now = 1000.0
        self.calls = count(1)
        context = context_of(app, self.runner, clock=self, token="fedcba9876543210")
        self.takeover = Takeover(context, [queue], "here")

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def record(self, supervisor: str = "") -> None:
        self.server.client.hset(self.queue.peers("here"), self.token, supervisor)

    @property
    def is_recorded(self) -> bool:
        return bool(self.server.client.hexists(self.queue.peers("here"), self.token))

    async def take(self) -> str:
        """Let the worker take a task."""
        handle = await self.app.remote("t", retention=600).adelay()
        await self.runner.run(runs.dequeue(self.queue, owner=self.token, call=next(self.calls), limit=1, lease_s=30))
        return handle.id

    async def state_after_look(self, task_id: str) -> str | None:
        await self.takeover.work()
        return state_of(self.server, self.queue, task_id)


@pytest.fixture
async def scene(app: TaskQ, redis_server: RedisServer, queue: QueueKeys) -> Any:
    scene = Scene(app, redis_server, queue)
    yield scene
    await scene.runner.aclose()
    await app.aclose()


async def test_a_second_check_finds_tasks_of_a_late_request(scene: Scene) -> None:
    scene.record()
    first = await scene.take()
    assert await scene.state_after_look(first) == "retry"
    late = await scene.take()

    scene.now += 1

    assert await scene.state_after_look(late) == "retry"
    assert not scene.is_recorded


async def test_tasks_are_not_taken_over_while_a_process_of_the_dead_worker_lives(scene: Scene) -> None:
    """This process may still run its task."""
    scene.record()
    task_id = await scene.take()
    name = hold(scene.token)
    assert name is not None

    assert await scene.state_after_look(task_id) == "active"
    name.close()
    assert await scene.state_after_look(task_id) == "retry"


@pytest.mark.parametrize("then", ["its supervisor ends too", "its supervisor does nothing"])
async def test_a_dead_worker_is_left_to_its_supervisor(scene: Scene, then: str) -> None:
    scene.record(supervisor="test-supervisor")
    supervisor = hold("test-supervisor")
    assert supervisor is not None
    task_id = await scene.take()
    assert await scene.state_after_look(task_id) == "active"

    if then == "its supervisor ends too":
        supervisor.close()
    else:
        scene.now += SUPERVISOR_S

    assert await scene.state_after_look(task_id) == "retry"
    supervisor.close()


async def test_the_lead_of_a_dead_worker_is_released(scene: Scene) -> None:
    """Otherwise recovered tasks would wait until the lead expires."""
    scene.record()
    await scene.runner.run(services.lead(scene.queue.leader("forwarder"), owner=scene.token, leader_ms=60_000))
    await scene.runner.run(services.lead(scene.queue.leader("limiter"), owner="another", leader_ms=60_000))

    await scene.takeover.work()

    assert await scene.runner.run(services.lead_left(scene.queue, "forwarder")) == -2
    assert await scene.runner.run(services.lead_left(scene.queue, "limiter")) > 0


async def test_a_worker_of_many_queues_reads_some_records_per_heartbeat_and_notices_new_workers(
    app: TaskQ, redis_server: RedisServer
) -> None:
    queues = {f"q{number}": 1 for number in range(MANY_QUEUES + 50)}
    runner = AsyncRunner(app.runtime.endpoint)
    context = context_of(app, runner, token="fedcba9876543210", queues=queues)
    takeover = Takeover(context, context.queues, "here")
    client = redis_server.client
    last = context.queues[-1]

    async def reads() -> int:
        client.config_resetstat()
        await takeover.work()
        stats: Any = client.info("commandstats")
        return int(stats["cmdstat_hgetall"]["calls"])

    assert await reads() == len(queues) + 1
    assert [await reads() for _ in range(3)] == [MANY_QUEUES + 1] * 3
    handle = await app.remote("t", queue=last.name, retention=600).adelay()
    await runner.run(runs.dequeue(last, owner=Scene.token, call=1, limit=1, lease_s=30))
    for key in (last.peers("here"), context.keys.peers("here")):
        client.hset(key, Scene.token, "")

    await takeover.work()

    state = client.hget(last.task(handle.id), "state")
    assert state == b"retry"
    assert await reads() == MANY_QUEUES + 1
    await takeover.resign()
    assert client.hkeys(context.keys.peers("here")) == [Scene.token.encode()]
    await runner.aclose()


async def test_a_record_key_of_another_type_is_not_changed(scene: Scene) -> None:
    scene.server.client.set(scene.queue.peers("here"), "a string")
    await scene.takeover.work()
    assert scene.server.client.hlen(scene.queue.peers("here")) == 1
