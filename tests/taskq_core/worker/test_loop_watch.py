"""Test that the log names a coroutine while it blocks its worker's event loop."""

import asyncio
import threading
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.worker.loop_watch import BLOCKED_S
from tests.clock import Clock
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, until, until_blocking


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings, each with its stack."""
    records = [record for record in caplog.records if "[loop-blocked]" in record.getMessage()]
    return [f"{record.getMessage()}\n{record.stack_info}" for record in records]


async def test_a_coroutine_that_blocks_the_loop_is_logged(
    app: TaskQ, start: Runner, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    may_end = threading.Event()

    @app.task(name="slow")
    async def slow() -> None:
        may_end.wait(PATIENCE_S)  # the only line, so that every check of the watch finds it

    def block() -> list[str]:
        """Let time pass in another thread until the task is named. Return what was logged by then."""
        watch: Any = worker._keepalive._check_loop
        until_blocking(lambda: worker.running_count)
        clock.skip(5)  # an idle worker runs the watch at each heartbeat
        until_blocking(lambda: watch.__self__._callback_sent_at is not None, "the watch has asked for a sign of life")
        clock.skip(BLOCKED_S)
        warning = until_blocking(lambda: warnings_of(caplog), "the warning while the loop is blocked")
        may_end.set()
        return warning

    worker = await start()
    blocking = asyncio.get_running_loop().run_in_executor(None, block)
    await (await slow.adelay()).aresult(PATIENCE_S)
    (warning,) = await blocking

    assert "task 'slow' has blocked" in warning
    assert f"{__file__}:" in warning
    assert "may_end.wait(PATIENCE_S)" in warning


async def test_a_long_plain_function_is_not_logged(
    app: TaskQ, start: Runner, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The function runs longer than a coroutine may block the loop, for several checks."""
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
