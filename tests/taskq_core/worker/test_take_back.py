"""Test that the tasks of a dead process are recovered at once, in the same way as by the recoverer later."""

from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from taskq_core import LeaseLostError, TaskContext, TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import runs
from taskq_core.handles.attempts import read_attempts
from taskq_core.wire import QueueKeys, TaskMessage
from taskq_core.worker.recoverer import LOST_TEXT, delay_after_loss
from taskq_core.worker.take_back import list_overrun, take_back
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import state_of, stored

pytestmark = pytest.mark.redis


class Gone:
    """A dead worker that holds tasks."""

    token = "gone"

    def __init__(self, app: TaskQ, queue: QueueKeys) -> None:
        self.app, self.queue = app, queue
        self.runner = AsyncRunner(app.runtime.endpoint)
        self.calls = count(1)

    async def take(self, **options: Any) -> str:
        handle = await self.app.remote("t", retention=600, **options).adelay()
        await self.runner.run(runs.dequeue(self.queue, owner=self.token, call=next(self.calls), limit=1, lease_s=30))
        return handle.id

    async def take_back(self, **options: Any) -> int:
        return await take_back(self.runner, [self.queue], self.token, self.app, **options)


@pytest.fixture
async def gone(app: TaskQ, queue: QueueKeys) -> Any:
    gone = Gone(app, queue)
    yield gone
    await gone.runner.aclose()
    await app.aclose()


async def test_a_recovered_task_uses_an_attempt(gone: Gone, redis_server: RedisServer, queue: QueueKeys) -> None:
    task_id = await gone.take()

    assert await gone.take_back() == 1
    assert await gone.take_back() == 0, "there is nothing left"

    message = stored(redis_server, queue, task_id)
    assert (message.retried, message.error_msg) == (1, LOST_TEXT)
    assert state_of(redis_server, queue, task_id) == "retry"


async def test_recovery_after_the_last_attempt_archives_the_task(
    gone: Gone, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = await gone.take(max_retry=0)
    assert await gone.runner.run(runs.mark_starts(queue, [(task_id, 1)], owner=gone.token)) == [True]

    await gone.take_back()

    assert state_of(redis_server, queue, task_id) == "archived"
    assert "no attempt is left" in stored(redis_server, queue, task_id).error_msg
    assert "a task's process has ended; the task is archived, because no attempt is left" in caplog.messages


async def test_the_last_attempt_is_not_used_before_its_run_starts(
    gone: Gone, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The mark of another run does not count."""
    task_id = await gone.take(max_retry=0)
    redis_server.client.hset(queue.task(task_id), "taskq_begun", f"{gone.token}.0")

    await gone.take_back()

    message = stored(redis_server, queue, task_id)
    assert (state_of(redis_server, queue, task_id), message.retried) == ("retry", 0)
    assert message.error_msg.endswith("the worker was lost before the run started; no attempt is used")
    (attempt,) = read_attempts(redis_server.client.hget(queue.task(task_id), "taskq_attempts"))  # type: ignore[arg-type]
    assert "is lost before its run started" in attempt.traceback


async def test_a_lost_lease_that_does_not_count_uses_no_attempt(
    gone: Gone, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    app.task(name="t", is_failure=lambda error: False)(lambda: None)
    task_id = await gone.take()

    await gone.take_back()

    assert stored(redis_server, queue, task_id).retried == 0


async def test_a_task_that_exceeded_its_timeout_is_recovered_with_that_error(
    gone: Gone, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Other tasks of the process are recovered as lost."""
    overran, beside = await gone.take(), await gone.take()

    await gone.take_back(overran=[("default", overran)])

    texts = [stored(redis_server, queue, each).error_msg for each in (overran, beside)]
    assert texts == ["context deadline exceeded", LOST_TEXT]


async def test_tasks_beyond_their_timeout_are_listed(gone: Gone, redis_server: RedisServer, queue: QueueKeys) -> None:
    """The list is for a process that does not respond."""
    short, long = await gone.take(timeout=1), await gone.take(timeout=1000)
    for task_id in (short, long):
        started_ms = int(redis_server.client.hget(queue.task(task_id), "taskq_started") or 0)  # type: ignore[arg-type]
        redis_server.client.hset(queue.task(task_id), "taskq_started", str(started_ms - 60_000))

    assert await list_overrun(gone.runner, [queue], gone.token, grace_s=10) == [("default", short)]
    assert await list_overrun(gone.runner, [queue], gone.token, grace_s=100) == []


async def test_the_retry_delay_of_a_task_applies_after_a_loss(
    gone: Gone, app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The function receives what it receives after a failure, the context included."""
    seen: list[tuple[int, BaseException, TaskContext]] = []

    def later(retried: int, error: BaseException, context: TaskContext) -> timedelta:
        seen.append((retried, error, context))
        return timedelta(hours=1)

    app.task(name="t", retry_delay=later)(lambda: None)
    task_id = await gone.take(max_retry=5)

    await gone.take_back()

    message = stored(redis_server, queue, task_id)
    assert redis_server.client.zscore(queue.retry, task_id) >= message.last_failed_at + 3600  # type: ignore[operator]
    ((retried, error, context),) = seen
    assert (retried, type(error), context.id, context.max_retry) == (0, LeaseLostError, task_id, 5)


def test_without_a_retry_delay_the_first_loss_causes_no_delay(app: TaskQ, queue: QueueKeys) -> None:
    """The delay applies if the task is lost again, or if it exceeded its timeout."""
    lost = LeaseLostError("default", "x")

    assert delay_after_loss(app, queue, TaskMessage(type="t", error_msg="ValueError"), lost) == 0
    assert delay_after_loss(app, queue, TaskMessage(type="t", error_msg=LOST_TEXT, retried=1), lost) >= 16
    assert delay_after_loss(app, queue, TaskMessage(type="t"), TimeoutError()) >= 15
