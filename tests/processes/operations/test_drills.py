"""Run the drills of the page with its commands under load, and check the documented effects."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from tests.processes.operations.shell import commands, headings, shell
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import until
from tests.topologies.traffic import Traffic

pytestmark = [pytest.mark.redis, pytest.mark.slow]

PAGE = "back-up-and-restore"
BY_OTHER_TESTS = {
    "A worker is killed",
    "A task kills its worker",
    "The data of Redis are gone",
    "Redis fails over",
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(tcp=True, appendonly=True, options={"appendfsync": "everysec"}) as server:
        yield server


async def drill(heading: str, server: RedisServer, folder: Path, mark: str = "drill") -> str:
    """Run the commands of a drill, and return their output."""
    output = [
        await asyncio.to_thread(shell, command, folder, {"REDIS": server.url})
        for command in commands(PAGE, mark=mark, heading=heading)
    ]
    assert output
    return "".join(output)


def test_every_drill_of_the_page_has_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")

    assert {heading for heading in headings(PAGE) if f'drill("{heading}"' not in source} == BY_OTHER_TESTS


async def test_redis_is_restarted(server: RedisServer, tmp_path: Path) -> None:
    async with Traffic(server.url) as traffic:
        await drill("Redis is restarted", server, tmp_path)
        await until(lambda: not server.is_running, "it has ended")
        await until(lambda: traffic.ledger.problems, "enqueues fail")
        server.stop()
        server.start()
        await traffic.until_flowing()
        await traffic.finish()

    assert traffic.ledger.lost() == set()
    assert traffic.ledger.repeated <= 10, "only tasks that ran at the restart may run again"
    assert set(traffic.ledger.problems) <= {"EnqueueError", "EnqueueUnknownError"}


async def test_redis_is_frozen(server: RedisServer, tmp_path: Path) -> None:
    async with Traffic(server.url, is_patient=True) as traffic:
        await drill("Redis hangs", server, tmp_path)
        await traffic.until_flowing()
        await traffic.finish()

    assert (traffic.ledger.lost(), traffic.ledger.repeated, traffic.ledger.problems) == (set(), 0, {})


async def test_redis_loses_its_scripts_and_connections(server: RedisServer, tmp_path: Path) -> None:
    async with Traffic(server.url, is_patient=True) as traffic:
        for _ in range(3):
            await drill("Redis forgets its scripts and its connections", server, tmp_path)
            await traffic.until_flowing()
        await traffic.finish()

    assert (traffic.ledger.lost(), traffic.ledger.repeated, traffic.ledger.problems) == (set(), 0, {})


async def test_redis_is_full(server: RedisServer, tmp_path: Path) -> None:
    async with Traffic(server.url) as traffic:
        await drill("Redis is full", server, tmp_path)
        await until(lambda: traffic.ledger.problems["EnqueueError"], "producers are refused")
        await until(lambda: not traffic.ledger.lost(), "workers go on until the queue is empty")
        doctor = await asyncio.to_thread(
            shell, 'taskq doctor --quick --url "$REDIS"', tmp_path, {"REDIS": server.url}, status=None
        )
        await drill("Redis is full", server, tmp_path, "drill: afterwards")
        await traffic.until_flowing()
        await traffic.finish()

    assert "memory" in doctor
    assert traffic.ledger.lost() == set()


async def test_a_key_is_deleted(server: RedisServer, tmp_path: Path) -> None:
    with closing(TaskQ(server.url, enqueue_timeout=30)) as taskq:
        taskq.client.enqueue_many(taskq.remote("work", task_id=f"t{number}").s() for number in range(5))
        inspector = Inspector(taskq)
        await drill("Somebody deletes a key", server, tmp_path)
        assert inspector.queue_info("default").size == 0

        output = await drill("Somebody deletes a key", server, tmp_path, "drill: afterwards")

        assert "not_listed" in output
        assert sorted(each.id for each in inspector.tasks("default", "pending").tasks) == [f"t{n}" for n in range(5)]


async def test_a_queue_is_stopped_immediately(server: RedisServer, tmp_path: Path) -> None:
    async with Traffic(server.url) as traffic:
        await drill("You must stop a queue now", server, tmp_path)
        acknowledged, ran = len(traffic.ledger.acknowledged), len(traffic.ledger.executed)
        await until(lambda: len(traffic.ledger.acknowledged) > acknowledged + 30, "producers notice nothing")
        ran_meanwhile = len(traffic.ledger.executed) - ran
        await drill("You must stop a queue now", server, tmp_path, "drill: afterwards")
        await traffic.until_flowing()
        await traffic.finish()

    assert ran_meanwhile <= 10, "only tasks that were running may have ended"
    assert traffic.ledger.lost() == set()
