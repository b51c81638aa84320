"""Cancel tasks by their handle: what waits, what runs, and what is to become of it, on whichever worker."""

import asyncio
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    Discard,
    SkipRetry,
    TaskCancelledError,
    TaskFailedError,
    TaskInterrupted,
    TaskNotFoundError,
    TaskQ,
)
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    PATIENCE_S,
    Ends,
    Runner,
    receives_cancels,
    stored,
    until,
)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
async def test_cancel_archives_retries_or_drops_a_running_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, kind: str
) -> None:
    """The caller that cancels chooses the outcome."""
    runs: dict[str, int] = {}
    errors: list[BaseException] = []

    async def work(name: str) -> str:
        runs[name] = runs.get(name, 0) + 1
        if runs[name] == 1:
            await asyncio.Event().wait()
        return "second"

    def plain(name: str) -> str:
        runs[name] = runs.get(name, 0) + 1
        while runs[name] == 1:
            pass
        return "second"

    task: Any = app.task(name="work", retry_delay=0, unique_for=600)(work if kind == "coroutine" else plain)

    @app.on_error
    async def see(error: BaseException, context: Any) -> None:
        errors.append(error)

    ends = Ends()
    await start(listener=ends)
    archived, retried, dropped = [await task.adelay(name) for name in ("archive", "retry", "drop")]
    await until(lambda: len(runs) == 3 and receives_cancels(redis_server))

    assert await archived.acancel()
    assert await retried.acancel(retry=True)
    assert await dropped.acancel(keep=False)

    assert await retried.aresult(PATIENCE_S) == "second"
    with pytest.raises(TaskFailedError, match="context canceled"):
        await archived.aresult(PATIENCE_S)
    with pytest.raises(TaskNotFoundError):
        await dropped.aresult(PATIENCE_S)
    assert runs == {"archive": 1, "retry": 2, "drop": 1}
    assert ends.of(archived.id) == ["archived"]
    assert ends.of(retried.id) == ["retried", "completed"]
    assert ends.of(dropped.id) == ["discarded"]
    await until(lambda: len(errors) == 3)
    assert {type(error) for error in errors} == {TaskCancelledError}
    await task.adelay("drop")  # its unique lock is free


async def test_a_cancelled_task_without_attempts_left_is_archived(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A retry uses an attempt, and an earlier wish holds for its run alone."""
    started: list[int] = []

    @app.task(retry_delay=0, max_retry=1)
    async def work() -> None:
        started.append(1)
        await asyncio.Event().wait()

    await start()
    await until(lambda: receives_cancels(redis_server))
    handle = await work.adelay()
    for count in (1, 2):
        await until(lambda count=count: len(started) == count)
        assert await handle.acancel(retry=True)
    with pytest.raises(TaskFailedError):
        await handle.aresult(PATIENCE_S)

    assert stored(redis_server, queue, handle.id).retried == 1

    await asyncio.to_thread(Inspector(app).run_task, "default", handle.id)
    await until(lambda: len(started) == 3)
    assert redis_server.client.hget(queue.task(handle.id), "taskq_cancel") is None
    assert await handle.acancel()
    with pytest.raises(TaskFailedError, match="context canceled"):
        await handle.aresult(PATIENCE_S)


@pytest.mark.parametrize("kind", ["coroutine", "plain"])
@pytest.mark.parametrize("retry", [False, True])
async def test_skip_retry_and_discard_work_in_a_cancelled_function(
    app: TaskQ, start: Runner, redis_server: RedisServer, retry: bool, kind: str
) -> None:
    """`SkipRetry` archives with its reason, also where it was to be retried; `Discard` drops."""
    started: list[str] = []

    async def work(name: str) -> None:
        started.append(name)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise (SkipRetry("tidied up") if name == "skip" else Discard()) from None

    def plain(name: str) -> None:
        started.append(name)
        try:
            while True:
                pass
        except TaskInterrupted:
            raise (SkipRetry("tidied up") if name == "skip" else Discard()) from None

    task: Any = app.task(name="work")(work if kind == "coroutine" else plain)
    await start()
    skip, discard = await task.adelay("skip"), await task.adelay("discard")
    await until(lambda: len(started) == 2 and receives_cancels(redis_server))
    await skip.acancel(retry=retry)
    await discard.acancel(retry=retry)

    with pytest.raises(TaskFailedError, match="tidied up"):
        await skip.aresult(PATIENCE_S)
    with pytest.raises(TaskNotFoundError):
        await discard.aresult(PATIENCE_S)


async def test_cancel_deletes_archives_or_keeps_a_waiting_task(app: TaskQ, redis_server: RedisServer) -> None:
    """`retry` asks for nothing that waiting is not already."""
    work = app.remote("t", retention=60)
    for options in ({}, {"run_after": 60}, {"aggregate": "g"}):
        deleted, archived, left, gone = [await work.using(**options).adelay(n=number) for number in range(4)]

        assert await deleted.acancel()
        assert await archived.acancel(keep=True)
        assert not await left.acancel(retry=True)
        assert await gone.acancel(keep=False)

        with pytest.raises(TaskNotFoundError):
            await deleted.arefresh()
        with pytest.raises(TaskNotFoundError):
            await gone.arefresh()
        with pytest.raises(TaskFailedError, match="context canceled"):
            await asyncio.to_thread(archived.result, 5)
        assert (await left.arefresh()).state == left.first_state
        assert not await archived.acancel()
        assert not await archived.acancel(keep=True)
        assert not await deleted.acancel(keep=True)


def test_invalid_options_of_cancel_are_refused(app: TaskQ) -> None:
    handle = app.remote("t").delay()

    with pytest.raises(ConfigurationError, match="keep must not be set together with retry=True"):
        handle.cancel(retry=True, keep=True)
    with pytest.raises(ConfigurationError, match="retry must be True or False"):
        handle.cancel(retry="yes")  # type: ignore[arg-type]
    assert handle.cancel()
