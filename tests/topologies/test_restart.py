"""Kill a Redis with an append-only file several times. No acknowledged task may be lost."""

from contextlib import closing

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from tests.conformance.stores import redis_programs
from tests.redis_server import RedisServer
from tests.topologies.traffic import Traffic

pytestmark = [pytest.mark.redis, pytest.mark.slow]

KILLS = 10
PROGRAMS = redis_programs()


@pytest.mark.parametrize(
    ("program", "kills"), [(program, 3 if number else KILLS) for number, program in enumerate(PROGRAMS)]
)
async def test_ten_kills_lose_nothing(program: str, kills: int) -> None:
    """Producers and the worker continue by themselves, and every acknowledged task runs.

    Programs other than Redis are killed only three times.
    """
    recoveries = []
    options = {"appendfsync": "everysec"}
    with RedisServer(tcp=True, appendonly=True, options=options, binary=PROGRAMS[program]) as server:
        async with Traffic(server.url) as traffic:
            for _ in range(kills):
                await traffic.until_flowing(20)
                # With "everysec" Redis may acknowledge before it writes, while an fsync runs on a busy disk.
                server.command("CONFIG", "SET", "appendfsync", "always")
                server.kill()
                server.start()
                recoveries.append(await traffic.until_flowing())
            await traffic.finish()

    traffic.ledger.log(f"kills of {program}", recoveries)
    assert traffic.ledger.lost() == set()
    assert traffic.ledger.repeated <= kills * 10, "only tasks that ran at a kill may run again"


async def test_killed_connections_and_flushed_scripts_cause_no_error() -> None:
    """No enqueue raises an error, no task is lost, and no task runs twice."""
    with RedisServer(tcp=True) as server:
        async with Traffic(server.url, is_patient=True) as traffic:
            for _ in range(20):
                await traffic.until_flowing(10)
                server.command("SCRIPT", "FLUSH")
                server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await traffic.finish()

    traffic.ledger.log("connections killed", [])
    assert traffic.ledger.problems == {}
    assert traffic.ledger.lost() == set()
    assert traffic.ledger.repeated == 0


async def test_a_redis_that_comes_back_empty() -> None:
    """The tasks in it are lost, which only Redis could prevent. Later tasks run."""
    with RedisServer(tcp=True) as server:
        async with Traffic(server.url) as traffic:
            for _ in range(3):
                await traffic.until_flowing(20)
                server.kill()
                server.start()
            await traffic.until_flowing()
            before = set(traffic.ledger.acknowledged)
            recovery = await traffic.until_flowing(100)
            await traffic.finish()

    traffic.ledger.log("back empty", [recovery])
    assert traffic.ledger.lost() <= before


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_truncated_append_only_file_contains_only_complete_tasks(program: str) -> None:
    """A power loss truncates the file like this. Only the last tasks are missing, and no task is incomplete."""
    ids = [f"{number:03}" for number in range(200)]
    with (
        RedisServer(appendonly=True, options={"appendfsync": "always"}, binary=PROGRAMS[program]) as server,
        closing(TaskQ(server.unix_url, defaults={"unique_for": 600}, enqueue_timeout=60)) as taskq,
    ):
        for task_id in ids:
            taskq.remote("t", task_id=task_id).delay(n=task_id)
        server.kill()
        for cut in (7, 1000, 20_001):
            file = max(server.folder.glob("**/*.aof"), key=lambda each: each.stat().st_size)
            with file.open("r+b") as tail:
                tail.truncate(file.stat().st_size - cut)
            server.start()
            listed = [each.decode() for each in server.client.lrange("asynq:{default}:pending", 0, -1)][::-1]
            stored = sorted(key.decode().rpartition(":")[2] for key in server.client.keys("asynq:{default}:t:*"))
            locks = len(server.client.keys("asynq:{default}:unique:*"))
            report = Inspector(taskq).reconcile("default")
            server.kill()

            assert listed == ids[: len(listed)] == stored
            assert len(listed) == locks < len(ids)
            assert not report.findings
            assert report.is_complete
