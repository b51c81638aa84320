"""Test `handle.events()` with Sentinel and on a cluster: it reports the end of a task after a failover."""

import asyncio
import time
from typing import Any

import pytest

from taskq_core import TaskHandle, TaskQ, TaskState
from taskq_core.broker.operations import runs
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.codec.progress import encode_progress
from taskq_core.wire import completed_message, decode_message
from tests.redis_server import start_cluster
from tests.topologies.test_cluster import queues_on
from tests.topologies.test_sentinel import start_topology, until

pytestmark = [pytest.mark.redis, pytest.mark.slow]

PATIENCE_S = 60


class Followers:
    """Two followers of a task, blocking and asyncio, and the events that they received."""

    def __init__(self, handle: TaskHandle[Any]) -> None:
        self._handle = handle
        self.events: list[list[Any]] = [[], []]
        self.tasks = [asyncio.create_task(asyncio.to_thread(self._follow)), asyncio.create_task(self._afollow())]

    def _follow(self) -> None:
        for event in self._handle.events(timeout=60):
            self.events[0].append((event.state, event.progress and event.progress.done))

    async def _afollow(self) -> None:
        async for event in self._handle.events(timeout=60):
            self.events[1].append((event.state, event.progress and event.progress.done))

    async def until_event(self, *last: Any) -> None:
        await until(lambda: all(each and each[-1] == last for each in self.events), f"both get {last}")


def act(taskq: TaskQ, operation: Any) -> Any:
    return taskq.runtime.runner.run(operation, patience_s=PATIENCE_S)


def begin(taskq: TaskQ, queue: str) -> tuple[str, bytes]:
    keys = taskq.runtime.keys.queue(queue)
    ((task_id, message),) = act(taskq, runs.dequeue(keys, owner="w", call=1, limit=1, lease_s=600)).tasks
    fields = {runs.PROGRESS_FIELD: encode_progress(1)}
    assert act(taskq, runs.write_fields(keys, task_id, fields, owner="w", run=1))
    return task_id, message


def complete(taskq: TaskQ, queue: str, task_id: str, message: bytes) -> None:
    done = completed_message(decode_message(message), completed_at_s=int(time.time()))
    settlement = Settlement(task_id, Outcome.COMPLETE, 1, done, seconds=60)
    assert act(taskq, runs.settle(taskq.runtime.keys.queue(queue), [settlement], owner="w")) == "1"


async def test_the_end_is_reported_after_a_failover() -> None:
    with start_topology() as topology:
        await until(topology.is_whole, "the Sentinels know each other")
        taskq = TaskQ(topology.url, enqueue_timeout=PATIENCE_S)
        handle = await taskq.remote("t", retention=60).adelay()
        followers = Followers(handle)
        await followers.until_event(TaskState.PENDING, None)
        task_id, message = await asyncio.to_thread(begin, taskq, "default")
        await followers.until_event(TaskState.ACTIVE, 1)
        await until(lambda: topology.replica.client.hget(f"asynq:{{default}}:t:{task_id}", "taskq_progress"), "a copy")

        await asyncio.to_thread(topology.kill_primary)
        await until(lambda: topology.is_named(topology.replica), "the replica takes over")
        await asyncio.to_thread(complete, taskq, "default", task_id, message)

        await followers.until_event(TaskState.COMPLETED, 1)
        await asyncio.gather(*followers.tasks)
        await taskq.aclose()
        await asyncio.to_thread(taskq.close)


async def test_tasks_on_every_node_of_a_cluster_are_followed() -> None:
    with start_cluster(3) as nodes:
        url = f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"
        taskq = TaskQ(url, enqueue_timeout=PATIENCE_S)
        for queue in queues_on(nodes):
            handle = await taskq.remote("t", retention=60, queue=queue).adelay()
            followers = Followers(handle)
            await followers.until_event(TaskState.PENDING, None)
            task_id, message = await asyncio.to_thread(begin, taskq, queue)
            await followers.until_event(TaskState.ACTIVE, 1)
            await asyncio.to_thread(complete, taskq, queue, task_id, message)
            await followers.until_event(TaskState.COMPLETED, 1)
            await asyncio.gather(*followers.tasks)
        await taskq.aclose()
        await asyncio.to_thread(taskq.close)
