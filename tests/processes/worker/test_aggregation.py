"""Test workers that are killed while they combine groups."""

import signal
from collections.abc import Callable

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import WorkerProcess, marks, until


class TestFailures:
    async def test_members_of_a_killed_worker_are_combined_once_in_the_next_set(
        self, start_process: Callable[..., WorkerProcess], redis_server: RedisServer, app: TaskQ, queue: QueueKeys
    ) -> None:
        redis_server.client.set("mark:hang", "1")
        notify = app.remote("quick", aggregate="grouped")
        first = start_process(aggregate_every=0.05, leader_lease=0.3)
        ids = sorted(handle.id for handle in app.client.enqueue_many(notify.s(name="x") for _ in range(3)))
        await until(lambda: marks(redis_server, "aggregate"))
        first.signal(signal.SIGKILL)
        redis_server.client.delete("mark:hang")
        assert first.wait() == -signal.SIGKILL

        start_process(aggregate_every=0.05, leader_lease=0.3)
        await until(lambda: marks(redis_server, "combined"))

        assert marks(redis_server, "aggregate") == [",".join(ids)] * 2
        assert marks(redis_server, "combined") == ["ran"]
        assert redis_server.client.exists(*(queue.task(task_id) for task_id in ids)) == 0
