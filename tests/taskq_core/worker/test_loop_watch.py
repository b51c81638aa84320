"""Test that the log names a coroutine while it blocks its worker's event loop."""

import threading
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.worker.loop_watch import BLOCKED_S
from tests.clock import Clock
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, until, until_blocking


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "[loop-blocked]" in record.getMessage()]


async def test_a_coroutine_that_blocks_is_told_of_while_it_does(
    app: TaskQ, start: Runner, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    @app.task(name="slow")
    async def slow() -> None:
        watch: Any = worker._keepalive._look
        clock.skip(5)  # the watch looks at each heartbeat while nothing runs
        until_blocking(lambda: watch.__self__._asked_at is not None, "the watch has asked for a sign of life")
        clock.skip(BLOCKED_S)
        until_blocking(lambda: warnings_of(caplog), "it is told of while it blocks")
        told.extend(warnings_of(caplog))

    worker = await start()
    await (await slow.adelay()).aresult(PATIENCE_S)

    assert len(told) == 1
    assert "in task 'slow'" in told[0]
    assert f"{__file__}:" in told[0]
    assert "until_blocking(lambda: warnings_of(caplog)" in told[0]


async def test_a_plain_function_that_lasts_is_not(
    app: TaskQ, start: Runner, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It lasts longer than a coroutine may hold the loop, and several looks long."""
    going = threading.Event()

    @app.task(name="plain")
    def plain() -> None:
        going.wait(PATIENCE_S)

    worker = await start()
    handle = await plain.adelay()
    await until(lambda: worker.running_count == 1)
    await clock.advance(20)
    going.set()
    await handle.aresult(PATIENCE_S)

    assert [each for each in warnings_of(caplog) if "'plain'" in each] == []
