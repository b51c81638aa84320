"""Test that the options of a task decide how it is recovered from a dead worker."""

import time
from typing import Any

import pytest

from taskq_core import LeaseLostError, RawTask, TaskQ, current_task
from taskq_core.broker.operations.services import ExpiredTask, Verdict
from taskq_core.wire import QueueKeys, build_message, decode_message
from taskq_core.worker.recoverer import decide
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, push_raw, state_of, stored, until

NOW_S = 1_700_000_000


def expired(*, retried: int = 1, retry: int = 3) -> ExpiredTask:
    message = build_message(type="t", payload=b"{}", id="x", queue="default", retry=retry, retried=retried)
    return ExpiredTask("x", str(NOW_S - 100), message.SerializeToString())


@pytest.mark.parametrize(
    ("counts", "retried", "verdict", "after"),
    [
        (True, 1, Verdict.RETRY, 2),
        (False, 1, Verdict.RETRY_UNCOUNTED, 1),
        (True, 3, Verdict.ARCHIVE, 3),
        (False, 3, Verdict.ARCHIVE, 3),
    ],
)
def test_a_lost_lease_uses_an_attempt_if_it_counts_as_failure(
    counts: bool, retried: int, verdict: Verdict, after: int
) -> None:
    """Without attempts left the task is archived in any case, as in Go."""
    seen: list[BaseException] = []
    app = TaskQ("redis://localhost")

    def ask(error: BaseException) -> bool:
        seen.append(error)
        return counts

    app.task(name="t", is_failure=ask)(lambda: None)
    queue = app.runtime.keys.queue("default")

    recovery = decide(app, queue, expired(retried=retried), NOW_S, lambda message: False)

    assert recovery.verdict is verdict
    stored = decode_message(recovery.message)
    assert (stored.retried, stored.last_failed_at) == (after, NOW_S)
    assert stored.error_msg.startswith("asynq: task lease expired")
    assert len(seen) == (verdict is not Verdict.ARCHIVE)


def lose(server: RedisServer, queue: QueueKeys, task_id: str, name: str, **fields: Any) -> None:
    """Store a task as a worker leaves it that was killed while it ran."""
    message = build_message(type=name, payload=b"{}", id=task_id, queue="default", retry=3, retention=60, **fields)
    push_raw(server, queue, task_id, message.SerializeToString())
    server.client.lrem(queue.pending, 0, task_id)
    server.client.lpush(queue.active, task_id)
    server.client.zadd(queue.lease, {task_id: int(time.time()) - 100})
    server.client.hset(queue.task(task_id), mapping={"state": "active", "taskq_owner": "somebody:1"})


async def test_is_failure_of_a_task_or_handler_applies_to_a_lost_lease(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A worker that dies is not the fault of what it ran."""
    asked: list[BaseException] = []

    def is_failure(error: BaseException) -> bool:
        asked.append(error)
        return not isinstance(error, LeaseLostError)

    @app.task(name="spared", is_failure=is_failure)
    async def spared() -> int:
        return current_task().attempt

    @app.task(name="counted")
    async def counted() -> int:
        return current_task().attempt

    @app.handler("raw:", is_failure=is_failure)
    async def raw(message: RawTask) -> int:
        return message.retried + 1

    for task_id, name in (("a", "spared"), ("b", "counted"), ("c", "raw:x")):
        lose(redis_server, queue, task_id, name, retried=1)
    await start()
    for task_id in "abc":
        await until(lambda task_id=task_id: state_of(redis_server, queue, task_id) == "completed")

    assert [redis_server.client.hget(queue.task(each), "result") for each in "abc"] == [b"2", b"3", b"2"]
    assert [type(error) for error in asked] == [LeaseLostError, LeaseLostError]
    assert redis_server.client.get(queue.failed) == b"1"


async def test_the_retry_delay_of_a_task_applies_after_a_lost_lease(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Without a retry delay the task is due at once, because lease and grace are over."""
    app.task(name="slow", retry_delay=[10, 3600])(lambda: None)
    lose(redis_server, queue, "slow", "slow", retried=1)
    lose(redis_server, queue, "plain", "unknown", retried=1)
    redis_server.client.set(queue.paused, 1)
    await start()
    await until(lambda: redis_server.client.zcard(queue.lease) == 0)

    message = stored(redis_server, queue, "slow")
    assert message.retried == 2
    assert redis_server.client.zscore(queue.retry, "slow") >= message.last_failed_at + 3600  # type: ignore[operator]
    await until(lambda: state_of(redis_server, queue, "plain") == "pending")


async def test_a_long_list_of_expired_leases_is_recovered_in_several_calls(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Each call is bounded, and one pass of the recoverer recovers all lost tasks."""
    lost = [f"lost-{number}" for number in range(70)]
    for task_id in lost:
        lose(redis_server, queue, task_id, "unknown")
    for _ in range(5):
        redis_server.client.rpush(queue.active, *(f"x{number}" for number in range(10_000)))
    await start(recover_every=600, reconcile_every=600)

    await until(lambda: redis_server.client.zcard(queue.lease) == 0)
    assert redis_server.client.zcard(queue.retry) == len(lost)
    assert redis_server.client.llen(queue.active) == 50_000
