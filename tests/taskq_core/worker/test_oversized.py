"""Results over the limit `max_result_bytes`: the run succeeds, the result is not stored, and its task says why."""

import logging
from typing import Any

import pytest

from taskq_core import OversizedResult, ResultTooLargeError, TaskContext, TaskQ, TaskState
from taskq_core.testing import eager
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner


async def test_a_result_over_the_limit_is_not_stored(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """The task is completed after one attempt. Go's tools find an empty result, never the reason in its place."""

    @app.task(retention=600, max_result_bytes=100)
    def answer(context: TaskContext, size: int) -> str:
        context.write_result(b'"so far"')
        return "x" * size

    ends = Ends()
    await start(listener=ends)
    fits, over = await answer.adelay(size=98), await answer.adelay(size=99)

    assert await fits.aresult(PATIENCE_S) == "x" * 98
    with pytest.raises(ResultTooLargeError, match=r"its result of 101 bytes was not stored.*limit is 100") as caught:
        await over.aresult(PATIENCE_S)
    assert (caught.value.size, caught.value.limit) == (101, 100)
    info = await over.arefresh()
    assert (info.state, info.retried, info.result) == (TaskState.COMPLETED, 0, b"")
    assert info.oversized_result == OversizedResult(size=101, limit=100)
    assert ends.of(over.id) == ["completed"]
    assert redis_server.client.hget(queue.task(over.id), "result") == b""
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.__dict__["task_id"] for each in warnings if "101 bytes" in each.getMessage()] == [over.id]


async def test_the_default_limit_is_16_mib(app: TaskQ, start: Runner) -> None:
    @app.task(retention=600)
    async def answer() -> list[str]:
        return ["x" * (1 << 20)] * 16

    await start()

    with pytest.raises(ResultTooLargeError, match="the limit is 16,777,216"):
        await (await answer.adelay()).aresult(PATIENCE_S)


async def test_a_written_result_over_the_limit_does_not_end_the_run(app: TaskQ, start: Runner) -> None:
    """The last write counts, whether it fits or not."""

    @app.task(retention=600, max_result_bytes=10)
    def write(context: TaskContext, sizes: list[int]) -> Any:
        for size in sizes:
            context.write_result(bytearray(b"1" * size))

    await start()
    over, fits = await write.adelay(sizes=[3, 11]), await write.adelay(sizes=[11, 3])
    empty = await write.adelay(sizes=[11, 0])

    with pytest.raises(ResultTooLargeError):
        await over.aresult(PATIENCE_S)
    assert (await over.arefresh()).oversized_result == OversizedResult(size=11, limit=10)
    assert await fits.aresult(PATIENCE_S) == 111
    assert (await fits.arefresh()).oversized_result is None
    assert await empty.aresult(PATIENCE_S) is None


def test_a_captured_task_enforces_the_result_limit(app: TaskQ) -> None:
    @app.task(retention=600, max_result_bytes=10)
    def answer(context: TaskContext, written: int, returned: int) -> Any:
        context.write_result(b"1" * written)
        return "x" * returned or None

    with eager(app):
        for written, returned in ((3, 20), (20, 0)):
            with pytest.raises(ResultTooLargeError):
                answer.delay(written=written, returned=returned).result(PATIENCE_S)
        assert answer.delay(written=20, returned=3).result(PATIENCE_S) == "xxx"
