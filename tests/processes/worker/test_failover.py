"""Test that a worker uses the new primary after a failover, before the old one learns of it."""

from contextlib import ExitStack

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = [pytest.mark.redis, pytest.mark.slow]


async def test_a_worker_leaves_an_old_primary_that_still_accepts_writes(start: Runner) -> None:
    """Tasks settled on the old primary would be lost when it becomes a replica ten seconds later."""
    with ExitStack() as stack:
        first = stack.enter_context(RedisServer(tcp=True))
        second = stack.enter_context(RedisServer(tcp=True, replica_of=first))
        sentinel = stack.enter_context(RedisServer(sentinel_of=first))
        await until(lambda: second.client.info("replication")["master_link_status"] == "up", "the replica has its copy")
        known = ("SENTINEL", "REPLICAS", RedisServer.MASTER_NAME)
        await until(lambda: sentinel.command(*known), "the Sentinel knows the replica")
        app = TaskQ(f"redis+sentinel://127.0.0.1:{sentinel.port}/{RedisServer.MASTER_NAME}")
        there = TaskQ(second.url, defaults={"retention": 600}, enqueue_timeout=60)

        @app.task(name="count")
        async def count(number: int) -> int:
            return number

        remote = there.remote("count")
        worker = await start(app=app, safety_net=0.5)
        await until(lambda: worker._fetcher.last_answer is not None, "it has asked for tasks")
        await until(lambda: app.runtime.endpoint._primary is not None, "it knows the primary")
        sentinel.fail_over()
        await until(lambda: second.command("ROLE")[0] == b"master", "the replica has taken over")
        handle = await remote.adelay(number=7)

        assert await handle.aresult(timeout=30) == 7
        assert first.command("ROLE")[0] == b"master", (
            "the old primary became a replica before the worker could leave it"
        )
        assert await start.stop(worker) == 0
        await there.aclose()
        await app.aclose()
