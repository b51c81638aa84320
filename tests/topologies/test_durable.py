"""A replica takes over while durable tasks run steps, wait for signals and call sub-tasks.

The surviving server shows what the failover kept: a step or sub-task whose result is stored there must not run again.
Data that the replica had not received is lost, so the test sends acknowledged signals again if they are missing.
"""

import asyncio
import logging
from collections import Counter
from contextlib import closing, suppress
from typing import Any, Self

import pytest

from taskq_core import EnqueueError, TaskContext, TaskIdConflictError, TaskQ, current_task
from taskq_core.errors import TaskQError, TaskStateError
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer
from tests.topologies.test_sentinel import NAME, Topology, is_up_to_date, start_topology, until
from tests.topologies.traffic import SHRUNK

pytestmark = [pytest.mark.redis, pytest.mark.slow]

logger = logging.getLogger("tests.topologies")


class DurableTraffic:
    """Durable tasks, a worker and a ledger; an asynchronous context manager.

    Args:
        topology: The servers.
    """

    def __init__(self, topology: Topology) -> None:
        self.survivor: RedisServer = topology.replica
        self.app = TaskQ(topology.url, enqueue_timeout=2.0)
        self.executions: Counter[tuple[str, str]] = Counter()
        self.wrong: list[tuple[str, str]] = []
        self.names: list[str] = []

        @self.app.task(name="child", retry_delay=0, max_retry=30)
        async def child(name: str, number: int) -> int:
            task = self.queue.task(current_task().id)
            node, _, _, workflow = (self.survivor.client.hget(task, "taskq_step") or b"0.0 t - -").decode().split()
            has_result = self.survivor.client.hexists(f"{workflow}:g0", node.removeprefix("0."))
            self.count(name, f"child {number}", has_result=has_result)
            return number

        @self.app.task(name="durable", retry_delay=0, max_retry=30, retention=600, replicated=True)
        async def durable(context: TaskContext, name: str) -> list[Any]:
            first = await context.astep("first", self.step, name, "first")
            one = await context.areceive("go", str)
            numbers = await context.acall(child.s(name, 1), child.s(name, 2))
            await context.asleep(0.2)
            two = await context.areceive("go", str, timeout=600)
            last = await context.astep("last", self.step, name, "last")
            return [first, last, one, two, *numbers]

        self.task = durable
        self.queue = self.app.runtime.keys.queue("default")

    async def __aenter__(self) -> Self:
        self.worker = Worker(self.app, WorkerConfig.from_settings(self.app.settings, concurrency=20, **SHRUNK))
        self._running = asyncio.create_task(self.worker.arun())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.worker.stop()
        try:
            await asyncio.wait_for(self._running, 60)
        finally:
            await self.app.aclose()

    def stored(self, name: str) -> dict[bytes, bytes]:
        """Return the record of a task's steps on the surviving server."""
        return self.survivor.client.hgetall(self.queue.steps_of(name))

    def count(self, name: str, what: str, *, has_result: bool) -> None:
        """Count an execution of a step or sub-task. It is wrong if the surviving server already has the result."""
        self.executions[name, what] += 1
        if has_result:
            self.wrong.append((name, what))

    async def step(self, name: str, step: str) -> str:
        self.count(name, step, has_result=f"s:{step}".encode() in self.stored(name))
        await asyncio.sleep(0.01)
        return f"{name} {step}"

    async def enqueue(self, name: str) -> None:
        """Enqueue a task. Repeat it under its id until a replica has confirmed it."""
        call = self.task.using(task_id=name).s(name)
        while True:
            try:
                await self.app.async_client.enqueue(call)
            except TaskIdConflictError:
                break
            except EnqueueError:
                await asyncio.sleep(0.05)
            else:
                break
        self.names.append(name)

    async def signal(self, name: str, value: str) -> None:
        """Send a value, unless the surviving server has it. Repeat it until it is acknowledged."""
        while not any(each.endswith(f'"{value}"'.encode()) for each in self.stored(name).values()):
            try:
                await (await self.app.aget(name)).asignal("go", value)
            except TaskStateError:  # the task has ended without this value, and its result shows that
                return
            except TaskQError:
                await asyncio.sleep(0.05)
            else:
                return

    async def keep_enqueueing(self, stopping: asyncio.Event) -> None:
        """Enqueue tasks, and send each its first signal at once."""
        number = 0
        while not stopping.is_set():
            name = f"during-{number}"
            await self.enqueue(name)
            await self.signal(name, "one")
            number += 1
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("way", ["planned", "killed"])
async def test_durable_tasks_survive_a_failover(way: str) -> None:
    with start_topology() as topology, closing(TaskQ(topology.primary.url, enqueue_timeout=0.2)) as stale:
        async with DurableTraffic(topology) as traffic:
            await until(topology.is_whole, "the Sentinels know each other")
            before = [f"before-{number}" for number in range(20)]
            for name in before:
                await traffic.enqueue(name)
            await until(lambda: all(b"waiting" in traffic.stored(each) for each in before), "the replica has all waits")
            confirmed, sent_during, lost = before[:8], before[8:14], before[14:]
            await asyncio.gather(*(traffic.signal(each, "one") for each in confirmed))
            await until(lambda: all(b"r:go#1" in traffic.stored(each) for each in confirmed), "the replica has them")
            stopping = asyncio.Event()
            during = asyncio.create_task(traffic.keep_enqueueing(stopping))
            await until(lambda: len(traffic.names) >= 30, "tasks are enqueued")

            if way == "planned":
                topology.sentinels[0].command("SENTINEL", "FAILOVER", NAME)
            else:
                topology.kill_primary()
            await asyncio.gather(*(traffic.signal(each, "one") for each in sent_during))
            await until(lambda: topology.is_named(topology.replica), "the replica is named")
            if way == "killed":
                topology.primary.replica_of = topology.replica
                topology.primary.start()
            for name in lost:  # the old primary may still acknowledge them
                with suppress(TaskQError):
                    await (await stale.aget(name)).asignal("go", "one")
            await until(lambda: is_up_to_date(topology.primary), "the old primary is a replica")
            stopping.set()
            await during

            assert all(b"r:go#1" in traffic.stored(each) for each in confirmed)
            for name in traffic.names:
                await traffic.signal(name, "one")  # unless the new primary has it
                await traffic.signal(name, "two")
            handles = {name: await traffic.app.aget(name) for name in traffic.names}
            results = {name: await handle.aresult(timeout=60) for name, handle in handles.items()}

        tasks, executions = len(traffic.names), traffic.executions
        queue, client = traffic.queue, traffic.survivor.client
        leftover = [
            each for each in ("active", "lease", "pending", "scheduled", "retry") if client.exists(queue.prefix + each)
        ]
        workflows = client.zcard(queue.own_prefix + "wf-ended")

    again = executions.total() - 4 * tasks
    logger.info("%s: %d tasks; steps and sub-tasks that ran again: %d", way, tasks, again)
    assert results == {each: [f"{each} first", f"{each} last", "one", "two", 1, 2] for each in traffic.names}
    assert traffic.wrong == [], "a step or sub-task ran after its result was stored"
    assert all(executions[each, "first"] == 1 for each in before), "the replica had their results"
    assert workflows == tasks, "no sub-tasks were enqueued twice"
    assert leftover == []
