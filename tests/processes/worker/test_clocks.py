"""Test jumps of the clock of Redis's machine."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, stored, until
from tests.wall_clock import WallClock


@pytest.fixture
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[WallClock]:
    """The wall clock of all servers that are started during a test."""
    with WallClock() as clock:
        monkeypatch.setenv("LD_PRELOAD", str(clock.library))
        monkeypatch.setenv("TEST_WALL_CLOCK", str(clock.file))
        yield clock


@pytest.mark.slow
@pytest.mark.skipif(not WallClock.is_possible(), reason="needs Linux and a C compiler to move the clock of one process")
@pytest.mark.parametrize("jump_s", [600, -600], ids=["forward", "back"])
async def test_redis_clock_jumps(start: Runner, wall_clock: WallClock, jump_s: int) -> None:
    """Scheduled tasks run too early or too late by the jump. No task is lost, and running tasks are not recovered."""
    with RedisServer() as server:
        app = TaskQ(server.url, defaults={"retention": 86_400, "max_retry": 3}, enqueue_timeout=60)
        queue = app.runtime.keys.queue("default")
        runs: Counter[str] = Counter()
        release = asyncio.Event()

        @app.task
        async def hold() -> str:
            runs["hold"] += 1
            await release.wait()
            return "ran"

        @app.task
        async def work(name: str) -> str:
            runs[name] += 1
            return "ran"

        before = server.client.time()[0]
        worker = await start(app=app, concurrency=4)
        held = await hold.adelay()
        later = await work.using(run_after=300).adelay("later")
        await until(lambda: runs["hold"])
        wall_clock.move(jump_s)
        await until(lambda: abs(server.client.time()[0] - before - jump_s) < 60, "the clock has jumped")
        now = await work.adelay("now")
        assert await now.aresult(15) == "ran"
        # The lease is in terms of the new time, so it was extended after the jump.
        await until(lambda: abs((server.client.zscore(queue.lease, held.id) or 0) - before - jump_s) < 60)
        if jump_s > 0:
            assert await later.aresult(15) == "ran"
        else:
            assert runs["later"] == 0
            wall_clock.move(1200)
            assert await later.aresult(15) == "ran"
        release.set()
        assert await held.aresult(15) == "ran"
        assert stored(server, queue, held.id).retried == runs["hold"] - 1
        await start.stop(worker)
        await app.aclose()

    assert runs["later"] == runs["now"] == 1
    assert runs["hold"] <= 2, "only tasks that were active may run again"
