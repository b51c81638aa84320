"""A worker notes its attempts with the task, where the inspector finds them."""

import asyncio
from datetime import UTC, datetime, timedelta

from taskq_core import Retry, Snooze, TaskQ, TaskState, current_task
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import AsyncInspector
from tests.clock import Clock
from tests.taskq_core.worker.conftest import Ends, Runner, until


class ShopError(Exception):
    """An error of the user's own."""


async def look(app: TaskQ, task_id: str) -> TaskInfo:
    return await AsyncInspector(app).task("default", task_id)


async def stored(app: TaskQ, task_id: str) -> TaskInfo:
    """Return a task once its outcome is stored. Listeners are called earlier."""

    async def settled() -> TaskInfo | None:
        info = await look(app, task_id)
        return info if info.state is not TaskState.ACTIVE else None

    info: TaskInfo = await until(settled)
    return info


async def test_failed_and_successful_attempts_are_recorded(app: TaskQ, start: Runner, clock: Clock) -> None:
    ends = Ends()

    @app.task(name="flaky", max_retry=3, retry_delay=0, retention=60)
    def flaky() -> str:
        if current_task().attempt == 1:
            raise ShopError("sold out")
        if current_task().attempt == 2:
            try:
                raise KeyError("place")
            except KeyError as error:
                raise Retry(after=0) from error
        return "done"

    handle = await flaky.adelay()
    worker = await start(listener=ends)
    for number in (1, 2):
        await until(lambda: len(ends.of(handle.id)) >= number)  # noqa: B023 - awaited in the loop
        await clock.advance(2)
    await until(lambda: "completed" in ends.of(handle.id))
    info = await stored(app, handle.id)

    token = worker.id.replace("-", "")[:16]
    assert info.state is TaskState.COMPLETED
    assert [(each.number, each.worker) for each in info.attempts] == [(1, token), (2, token), (3, token)]
    assert [each.error for each in info.attempts] == [f"{__name__}.ShopError", "builtins.KeyError", ""]
    assert "sold out" in info.attempts[0].traceback
    assert 'raise ShopError("sold out")' in info.attempts[0].traceback
    assert "executor.py" not in info.attempts[0].traceback, "the worker's own frames are left out"
    for each in info.attempts:
        assert each.started_at is not None
        assert each.ended_at is not None
        assert timedelta(0) <= each.ended_at - each.started_at < timedelta(seconds=20)


async def test_snoozes_and_deleted_tasks_leave_no_record_of_an_attempt(app: TaskQ, start: Runner) -> None:
    ends = Ends()

    @app.task(name="later", retention=60)
    def later() -> None:
        raise Snooze(3600)

    handle = await later.adelay()
    await start(listener=ends)
    await until(lambda: ends.ends)

    info = await stored(app, handle.id)
    assert (info.state, info.attempts) == (TaskState.RETRY, ())


async def test_a_running_task_shows_its_worker_and_its_start(app: TaskQ, start: Runner) -> None:
    release = asyncio.Event()

    @app.task(name="slow")
    async def slow() -> None:
        await release.wait()

    handle = await slow.adelay()
    worker = await start()

    async def running() -> TaskInfo | None:
        info: TaskInfo = await look(app, handle.id)
        return info if info.state is TaskState.ACTIVE else None

    info = await until(running)
    release.set()

    assert info.worker == worker.id.replace("-", "")[:16]
    assert abs(info.started_at - datetime.now(UTC)) < timedelta(seconds=20)
