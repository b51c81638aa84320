"""A settlement that reaches Redis late, after the worker has repeated it, changes no later run of the same task."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskq_core import SkipRetry, TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import Ends, Runner, state_of, stored, until

ID = "order-1"
QUIET: dict[str, Any] = {"lease": 90, "heartbeat": 30, "concurrency": 1}
"""Only settlements change tasks during a test: no lease is extended."""


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    """A relay before the shared server."""
    with Relay(redis_server.socket_path) as relay:
        yield relay


class Work:
    """A task. Each run waits until the test lets it end; the first ends as the test wants, the second fails."""

    def __init__(self, app: TaskQ, first_end: str) -> None:
        self.may_end = [asyncio.Event(), asyncio.Event()]
        self.runs = 0

        @app.task(name="work", retry_delay=500)
        async def work() -> None:
            self.runs += 1
            run = self.runs
            await self.may_end[run - 1].wait()
            if run == 1 and first_end == "archived":
                raise SkipRetry("not again")
            if run == 2 or first_end == "retry":
                raise ValueError(f"run {run}")


async def enqueue(app: TaskQ, first_end: str) -> None:
    retention = 600 if first_end == "completed" else 0
    await app.remote("work", max_retry=3, retention=retention).using(task_id=ID).adelay()


async def make_pending_again(app: TaskQ, first_end: str) -> None:
    inspector = Inspector(app)
    if first_end in ("retry", "archived"):
        inspector.run_task("default", ID)
        return
    if first_end == "completed":
        inspector.delete_task("default", ID)
    await enqueue(app, first_end)


def snapshot(server: RedisServer, queue: QueueKeys) -> dict[str, Any]:
    """Return everything that a settlement may change."""
    client = server.client
    sets = (queue.lease, queue.retry, queue.archived, queue.completed)
    return {
        "task": client.hgetall(queue.task(ID)),
        **{key: client.zrange(key, 0, -1, withscores=True) for key in sets},
        **{key: client.lrange(key, 0, -1) for key in (queue.active, queue.pending)},
        "processed": client.get(queue.processed),
    }


async def check_second_run(
    app: TaskQ,
    far: TaskQ,
    start: Runner,
    server: RedisServer,
    first_end: str,
    hold: Callable[[], Callable[[], object]],
) -> None:
    """Run a task twice on one worker, and deliver the held settlement of the first run during the second.

    `hold` returns a function. The next settlement of `far` reaches Redis only when that function is called.
    """
    queue, ends = app.runtime.keys.queue("default"), Ends()
    work = Work(far, first_end)
    worker = await start(app=far, listener=ends, **QUIET)
    await enqueue(app, first_end)
    await until(lambda: work.runs == 1)
    deliver = hold()
    work.may_end[0].set()
    settled = None if first_end == "deleted" else first_end
    await until(lambda: state_of(server, queue, ID) == settled, "the worker repeats the settlement")
    await make_pending_again(app, first_end)
    await until(lambda: work.runs == 2)

    before = snapshot(server, queue)
    await asyncio.to_thread(deliver)
    assert snapshot(server, queue) == before

    work.may_end[1].set()
    await until(lambda: len(ends.of(ID)) == 2 and worker.running_count == 0)
    await start.stop(worker)
    await far.aclose()
    assert state_of(server, queue, ID) == "retry"
    assert stored(server, queue, ID).error_msg == "ValueError: run 2"


@pytest.mark.parametrize("first_end", ["deleted", "completed", "retry", "archived"])
async def test_a_late_settlement_does_not_touch_the_next_run_on_the_same_worker(
    app: TaskQ, start: Runner, redis_server: RedisServer, relay: Relay, first_end: str
) -> None:
    settlements = [redis_server.load("settle"), redis_server.load("settle_and_dequeue")]

    def hold() -> Callable[[], object]:
        return relay.hold_request(*settlements, hang_up=True).deliver

    await check_second_run(app, TaskQ(relay.url), start, redis_server, first_end, hold)


async def test_a_late_requeue_at_shutdown_does_not_affect_the_run_on_another_worker(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, relay: Relay
) -> None:
    far, ends = TaskQ(relay.url), Ends()
    stopping, next_work = Work(far, "given back"), Work(app, "retry")
    stopping_worker = await start(app=far, shutdown_grace=0, **QUIET)
    await enqueue(app, "given back")
    await until(lambda: stopping.runs == 1)

    held = relay.hold_request(redis_server.load("settle"), hang_up=True)
    await start.stop(stopping_worker)
    worker = await start(listener=ends, **QUIET)
    await until(lambda: next_work.runs == 1)
    before = snapshot(redis_server, queue)
    await asyncio.to_thread(held.deliver)

    assert snapshot(redis_server, queue) == before
    next_work.may_end[0].set()
    await until(lambda: state_of(redis_server, queue, ID) == "retry")
    await start.stop(worker)
    await far.aclose()
    assert ends.of(ID) == ["retried"]
