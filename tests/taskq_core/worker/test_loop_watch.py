"""A coroutine that blocks the event loop of its worker is told of by name, while it does."""

import threading

import pytest

from taskq_core import TaskQ
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "[loop-blocked]" in record.getMessage()]


async def test_a_coroutine_that_blocks_is_told_of_while_it_does(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()
    told: list[str] = []

    @app.task(name="slow")
    async def slow() -> None:
        for _ in range(int(PATIENCE_S * 10)):  # ends as soon as it was told of
            told[:] = warnings_of(caplog)
            if told or goes_on.wait(0.1):
                break

    await start()
    await (await slow.adelay()).aresult(PATIENCE_S)

    assert len(told) == 1
    assert "in task 'slow'" in told[0]
    assert f"{__file__}:" in told[0]
    assert "goes_on.wait(0.1)" in told[0]


async def test_a_plain_function_that_lasts_is_not(app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """It lasts longer than a coroutine may hold the loop, and several looks long."""
    going = threading.Event()

    @app.task(name="plain")
    def plain() -> None:
        going.wait(2.5)

    await start()
    await (await plain.adelay()).aresult(PATIENCE_S)

    assert [each for each in warnings_of(caplog) if "'plain'" in each] == []
