"""Test a process that dies while it moves tasks."""

import signal
import subprocess
import sys

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations.actions import MOVE_S
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis


class TestMovesThatWereCutOff:
    @pytest.mark.parametrize("step", ["move_in", "move_end"])
    async def test_a_worker_finishes_interrupted_moves(
        self, app: TaskQ, start: Runner, queue: QueueKeys, redis_server: RedisServer, step: str
    ) -> None:
        """The process dies between two requests of the move. A minute later a worker finishes the move."""
        raw, low = redis_server.client, app.runtime.keys.queue("low")
        task_id = app.client.enqueue(app.remote("t", unique_for=600).s()).id
        die_before(step, redis_server.unix_url, task_id)
        assert [raw.llen(queue.pending), raw.zcard(queue.moving)] == [0, 1]
        ((_, since),) = raw.zrange(queue.moving, 0, -1, withscores=True)
        raw.zadd(queue.moving, {task_id: since - MOVE_S})

        await start(reconcile_every=0.05)
        await until(lambda: not raw.zcard(queue.moving), "its way has ended")

        assert raw.lrange(low.pending, 0, -1) == [task_id.encode()]
        assert not raw.exists(queue.task(task_id))
        (lock,) = raw.keys("asynq:*:unique:*")
        assert (lock.startswith(b"asynq:{low}:"), raw.get(lock)) == (True, task_id.encode())


def die_before(step: str, url: str, task_id: str) -> None:
    """Move a task to the queue `low` in a process that is killed before an operation of the move."""
    script = """if True:
        import os, signal, sys
        from taskq_core import TaskQ
        from taskq_core.broker.sync import SyncRunner
        from taskq_core.inspector import Inspector

        step, url, task_id = sys.argv[1:]
        real = SyncRunner.run

        def run(self, operation, **more):
            if operation.name == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, operation, **more)

        SyncRunner.run = run
        Inspector(TaskQ(url)).move_task("default", task_id, "low")
    """
    process = subprocess.run([sys.executable, "-c", script, step, url, task_id], timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL
