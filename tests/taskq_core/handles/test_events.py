"""Test that `handle.events()` reports a task until its end, even if messages or connections are lost.

A worker's side is played by the operations themselves, as our workers send them, or by writing as Go's workers do.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from taskq_core import ConfigurationError, ResultTimeoutError, TaskContext, TaskEvent, TaskHandle, TaskQ, TaskState
from taskq_core.broker.operations import actions, runs, services, steps, views
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.sync import SyncRunner, SyncSubscription
from taskq_core.codec.progress import encode_progress
from taskq_core.handles import events, subscription
from taskq_core.testing import adrain, capture
from taskq_core.wire import completed_message, decode_message
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.worker.conftest import until

PENDING, ACTIVE, RETRY, COMPLETED = TaskState.PENDING, TaskState.ACTIVE, TaskState.RETRY, TaskState.COMPLETED


def summary(event: TaskEvent) -> Any:
    """Return the state and the completed amount of an event."""
    return event.state, None if event.progress is None else event.progress.done


class Follower:
    """Follows a task in the background, blocking or with asyncio, and collects its events."""

    def __init__(self, handle: TaskHandle[Any], *, is_async: bool, **options: Any) -> None:
        self._handle = handle
        self._options = options
        self.events: list[TaskEvent] = []
        self.task = asyncio.ensure_future(self._afollow() if is_async else asyncio.to_thread(self._follow))

    def _follow(self) -> None:
        for event in self._handle.events(**self._options):
            self.events.append(event)

    async def _afollow(self) -> None:
        async for event in self._handle.events(**self._options):
            self.events.append(event)

    async def until(self, condition: Callable[["Follower"], object]) -> None:
        await until(lambda: condition(self), "the event arrived")

    async def until_event(self, *expected: Any) -> None:
        await self.until(lambda follower: summary(follower.events[-1]) == expected if follower.events else False)

    async def to_the_end(self) -> list[Any]:
        await self.task
        return [summary(event) for event in self.events]


class Application:
    """A `TaskQ` with a worker's operations."""

    def __init__(self, taskq: TaskQ, server: RedisServer, *, is_async: bool) -> None:
        self.taskq = taskq
        self.server = server
        self.is_async = is_async
        self.keys = taskq.runtime.keys.queue("default")
        self.task = taskq.remote("t", retention=60)
        self.runs: dict[str, int] = {}  # the run of each task that was handed out

    def follow(self, handle: TaskHandle[Any], **options: Any) -> Follower:
        return Follower(handle, is_async=self.is_async, **options)

    async def followed(self, handle: TaskHandle[Any], **options: Any) -> Follower:
        """Return a follower that has subscribed."""
        follower = self.follow(handle, **options)
        await follower.until(lambda _: self.server.client.hget(self.keys.task(handle.id), "taskq_wait") == b"2")
        return follower

    def run(self, operation: Any) -> Any:
        return self.taskq.runtime.runner.run(operation, patience_s=30)

    def dequeue(self) -> dict[str, bytes]:
        call = time.monotonic_ns()
        found = self.run(runs.dequeue(self.keys, owner="w", call=call, limit=200, lease_s=30))
        self.runs.update((task_id, call) for task_id, _ in found.tasks)
        return dict(found.tasks)

    def progress(self, task_id: str, done: int) -> None:
        fields = {runs.PROGRESS_FIELD: encode_progress(done, 10)}
        assert self.run(runs.write_fields(self.keys, task_id, fields, owner="w", run=self.runs[task_id]))

    def settle(self, task_id: str, outcome: Outcome, message: bytes = b"", **facts: Any) -> None:
        settlement = Settlement(task_id, outcome, self.runs[task_id], message, **facts)
        assert self.run(runs.settle(self.keys, [settlement], owner="w")) == "1"

    def complete(self, task_id: str, message: bytes) -> None:
        done = completed_message(decode_message(message), completed_at_s=1)
        self.settle(task_id, Outcome.COMPLETE, done, seconds=60, result=b"5")

    def listeners(self) -> int:
        return len(self.server.client.client_list(_type="pubsub"))


@pytest.fixture(params=["blocking", "coroutine"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "coroutine")


@pytest.fixture
async def app(redis_server: RedisServer, is_async: bool) -> AsyncIterator[Application]:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    yield Application(taskq, redis_server, is_async=is_async)
    await taskq.aclose()
    await asyncio.to_thread(taskq.close)


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let followers read again only after a notification."""
    monkeypatch.setattr(subscription, "FIRST_PAUSE_S", 1000.0)
    monkeypatch.setattr(subscription, "LONGEST_PAUSE_S", 1000.0)


@pytest.fixture
def only_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let followers poll after a short time."""
    monkeypatch.setattr(subscription, "LONGEST_PAUSE_S", 0.05)


pytestmark = pytest.mark.redis


# --- reported events --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_polling")
async def test_followers_receive_states_and_progress_without_polling(app: Application) -> None:
    handle = await app.task.adelay()
    follower = await app.followed(handle)

    message = app.dequeue()[handle.id]
    await follower.until_event(ACTIVE, None)
    for done in (1, 2):
        app.progress(handle.id, done)
        await follower.until_event(ACTIVE, done)
    app.settle(handle.id, Outcome.RETRY_UNCOUNTED, message)
    await follower.until_event(RETRY, 2)
    app.run(actions.act(app.keys, actions.Action.RUN, [handle.id]))  # publishes nothing, unlike the dequeue after it
    message = app.dequeue()[handle.id]
    await follower.until_event(ACTIVE, 2)
    app.settle(handle.id, Outcome.REQUEUE)
    await follower.until_event(PENDING, 2)
    message = app.dequeue()[handle.id]
    await follower.until_event(ACTIVE, 2)
    app.complete(handle.id, message)

    assert (await follower.to_the_end())[-1] == (COMPLETED, 2)
    last = follower.events[-1]
    assert last.is_final
    assert last.task is not None
    assert last.task.result == b"5"
    assert not any(event.is_final for event in follower.events[:-1])
    ids = [event.id for event in follower.events]  # two starts within a millisecond send equal messages
    assert all(one != other for one, other in itertools.pairwise(ids))


@pytest.mark.usefixtures("no_polling")
@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.ARCHIVE])
async def test_events_end_when_the_task_is_dropped_or_archived(app: Application, outcome: Outcome) -> None:
    handle = await app.task.adelay()
    follower = await app.followed(handle)
    message = app.dequeue()[handle.id]

    app.settle(handle.id, outcome, message)

    end = (TaskState.ARCHIVED, None) if outcome is Outcome.ARCHIVE else (None, None)
    assert (await follower.to_the_end())[-1] == end
    assert follower.events[-1].is_final


@pytest.mark.usefixtures("no_polling")
async def test_followers_receive_the_recovery_of_a_task_from_a_dead_worker(app: Application) -> None:
    handle = await app.task.adelay()
    follower = await app.followed(handle)
    message = app.dequeue()[handle.id]
    await follower.until_event(ACTIVE, None)
    app.server.client.zadd(app.keys.lease, {handle.id: 1})
    (listed,) = app.run(services.list_expired(app.keys, grace_s=30)).tasks

    back = [services.Recovery(listed, services.Verdict.RETRY, message)]
    assert app.run(services.recover(app.keys, back, grace_s=30)) == "1"

    await follower.until_event(RETRY, None)
    await handle.acancel()
    assert (await follower.to_the_end())[-1] == (None, None)


@pytest.mark.usefixtures("only_polling")
async def test_polling_finds_changes_that_nobody_publishes(app: Application) -> None:
    """Workers in Go publish nothing when they change a task."""
    handle = await app.task.adelay()
    follower = await app.followed(handle)
    client, key = app.server.client, app.keys.task(handle.id)

    client.hset(key, "state", "active")
    await follower.until_event(ACTIVE, None)
    client.hset(key, "state", "completed")

    assert await follower.to_the_end() == [(PENDING, None), (ACTIVE, None), (COMPLETED, None)]


async def test_a_heartbeat_causes_no_event(app: Application) -> None:
    """Other writes that change neither state nor progress cause no event either."""
    handle = await app.task.adelay()
    app.dequeue()
    stored = app.run(views.read_task(app.keys, handle.id))
    app.run(runs.extend_leases(app.keys, [(handle.id, app.runs[handle.id])], owner="w", lease_s=90))
    fence: Any = {"owner": "w", "run": app.runs[handle.id]}
    app.run(steps.load_steps(app.keys, handle.id, **fence))
    app.run(steps.store_step(app.keys, handle.id, steps.POSITION, b"1 1 {}", output=steps.Output([], 1, 1), **fence))

    again = app.run(views.read_task(app.keys, handle.id, publish_changes=True))

    assert again.score != stored.score
    assert events.event_of(again).id == events.event_of(stored).id


async def test_an_ended_or_deleted_task_has_one_event(app: Application) -> None:
    handle = await app.task.adelay()
    for task_id, message in app.dequeue().items():
        app.complete(task_id, message)

    assert await app.follow(handle).to_the_end() == [(COMPLETED, None)]
    assert app.server.client.hget(app.keys.task(handle.id), "taskq_wait") is None, "a single look writes nothing"

    app.server.client.delete(app.keys.task(handle.id))
    assert await app.follow(handle).to_the_end() == [(None, None)]


async def test_a_task_that_waits_in_an_outbox_does_not_count_as_deleted(app: Application) -> None:
    handle = await app.task.using(task_id="late").adelay()
    app.server.client.delete(app.keys.task("late"))
    app.server.client.delete(app.keys.pending)
    handle.is_late = True
    follower = app.follow(handle)
    await asyncio.sleep(0)

    sent = await app.task.using(task_id="late").adelay()
    await follower.until_event(PENDING, None)
    await sent.acancel()

    assert await follower.to_the_end() == [(PENDING, None), (None, None)]


# --- resuming ---------------------------------------------------------------------------------------------------------


async def test_a_follower_that_resumes_receives_only_new_events(app: Application) -> None:
    handle = await app.task.adelay()
    follower = await app.followed(handle)
    await follower.until_event(PENDING, None)
    seen = follower.events[-1].id
    follower.task.cancel()
    again = await app.followed(handle, after=seen)
    assert again.events == []

    for task_id, message in app.dequeue().items():
        app.complete(task_id, message)

    assert (await again.to_the_end())[-1] == (COMPLETED, None)
    assert await app.follow(handle, after=again.events[-1].id).to_the_end() == [], "it has seen the end"
    assert await app.follow(handle, after=seen).to_the_end() == [(COMPLETED, None)]
    assert await app.follow(handle, after="no event at all").to_the_end() == [(COMPLETED, None)]


# --- messages that are lost, and a Redis that is away -----------------------------------------------------------------


async def test_no_follower_misses_the_end_of_its_task(app: Application) -> None:
    """This holds for any order of reads, subscriptions and published messages."""
    handles = list(await app.taskq.async_client.enqueue_many(app.task.s() for _ in range(60)))
    followers = [app.follow(handle, timeout=60) for handle in handles[: 60 if app.is_async else 12]]

    for task_id, message in app.dequeue().items():
        app.complete(task_id, message)
        await asyncio.sleep(0)

    for follower in followers:
        assert (await follower.to_the_end())[-1] == (COMPLETED, None)


@pytest.mark.usefixtures("only_polling")
async def test_followers_receive_the_end_although_their_subscriptions_are_closed(app: Application) -> None:
    handle = await app.task.adelay()
    follower = await app.followed(handle)
    message = app.dequeue()[handle.id]

    for done in range(1, 4):
        app.server.client.client_kill_filter(_type="pubsub")
        app.progress(handle.id, done)
        await follower.until_event(ACTIVE, done)
    app.server.client.client_kill_filter(_type="pubsub")
    app.complete(handle.id, message)

    assert (await follower.to_the_end())[-1] == (COMPLETED, 3)


def test_blocking_followers_pause_if_redis_closes_each_subscription(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe = SyncRunner.subscribe
    happened: list[str] = []

    def subscribe_and_lose(runner: SyncRunner, channel: str) -> SyncSubscription:
        happened.append("subscribe")
        lost = subscribe(runner, channel)
        redis_server.client.client_kill_filter(_type="pubsub")
        return lost

    monkeypatch.setattr(SyncRunner, "subscribe", subscribe_and_lose)
    monkeypatch.setattr(time, "sleep", lambda pause_s: happened.append(f"pause {pause_s}"))
    with closing(TaskQ(redis_server.url, enqueue_timeout=30)) as taskq:
        handle = taskq.remote("t").delay()
        with closing(taskq.runtime.source.follower("default", handle.id)) as follower:
            for _ in range(5):
                follower.wait(30)

    assert happened == ["subscribe", "pause 30", "subscribe", "pause 30", "subscribe"]


async def test_following_raises_when_the_timeout_is_over(app: Application, clock: Clock) -> None:
    """This holds even if almost no time is left for the last read."""
    handle = await app.task.adelay()
    with pytest.raises(ResultTimeoutError, match=r"the task did not end within 0 s"):
        await app.follow(handle, timeout=0).to_the_end()

    follower = await app.followed(handle, timeout=60)
    await clock.advance(55)
    assert not follower.task.done()
    await clock.advance(10)
    with pytest.raises(ResultTimeoutError, match=r"the task did not end within 60 s"):
        await follower.to_the_end()


@rows("timeout", [-1, "soon", float("nan")])
def test_an_invalid_timeout_is_refused_at_once(redis_server: RedisServer, timeout: Any) -> None:
    app = TaskQ(redis_server.url, enqueue_timeout=30)
    handle = app.remote("t").delay()
    app.close()

    with pytest.raises(ConfigurationError, match="timeout must be"):
        handle.events(timeout=timeout)


# --- costs ------------------------------------------------------------------------------------------------------------


async def test_a_follower_that_stops_early_closes_its_connection(app: Application) -> None:
    before = app.listeners()
    handle = await app.task.adelay()
    assert handle.id in app.dequeue()
    app.progress(handle.id, 1)

    def leave() -> None:
        for number, _ in enumerate(handle.events()):
            app.progress(handle.id, number + 2)
            if number == 1:
                break

    async def aleave() -> None:
        number = 0
        async for _ in handle.events():
            app.progress(handle.id, number + 2)
            if number == 1:
                break
            number += 1

    for _ in range(3):
        await (aleave() if app.is_async else asyncio.to_thread(leave))
    seen: list[TaskEvent] = []

    async def follow_on() -> None:
        async for event in handle.events(after="cancelled meanwhile"):
            seen.append(event)  # noqa: PERF401 - also what came before it was cancelled

    following = asyncio.create_task(follow_on())
    await until(lambda: seen, "it follows")
    following.cancel()
    await asyncio.wait((following,))

    await until(lambda: app.listeners() <= before, "the server has noticed that connections were closed")


async def test_tasks_without_followers_publish_nothing(redis_server: RedisServer) -> None:
    """A real worker runs the task with progress, retries and an end."""
    taskq = TaskQ(redis_server.url, defaults={"retention": 60, "max_retry": 2, "retry_delay": 0}, enqueue_timeout=30)

    @taskq.task(name="go")
    async def go(context: TaskContext) -> None:
        async for _ in context.iterate(range(3), every=1):
            context.progress(1)
        if context.attempt == 1:
            raise ValueError

    follower = redis_server.client.pubsub()
    follower.psubscribe("*")
    assert follower.get_message(timeout=60)
    for _ in range(5):
        await go.adelay()
    await adrain(taskq, advance=60, raises=False)

    redis_server.client.publish("end", "of it")
    message = follower.get_message(timeout=60)
    while message["data"] == b"":  # a starting worker checks its permissions
        message = follower.get_message(timeout=60)
    assert message["channel"] == b"end", message
    follower.close()
    await taskq.aclose()
    await asyncio.to_thread(taskq.close)


async def test_a_follower_receives_each_item_of_a_real_worker(app: Application) -> None:
    steps: list[threading.Event] = [threading.Event() for _ in range(3)]

    @app.taskq.task(name="go", retention=60)
    def go(context: TaskContext) -> None:
        for number in context.iterate(range(3)):
            steps[number].wait(60)

    handle = await go.adelay()
    follower = await app.followed(handle)
    draining = asyncio.create_task(adrain(app.taskq))
    await follower.until_event(ACTIVE, 0)
    steps[0].set()
    await follower.until_event(ACTIVE, 1)
    for step in steps:
        step.set()
    await draining

    assert (await follower.to_the_end())[-1] == (COMPLETED, 3)


# --- other stores -----------------------------------------------------------------------------------------------------


@pytest.fixture
def captured() -> Iterator[Any]:
    taskq = TaskQ("redis://nobody:1", defaults={"retention": 60})
    with capture(taskq) as tasks:
        yield taskq, tasks


async def test_events_work_for_captured_tasks(captured: Any) -> None:
    taskq, tasks = captured

    @taskq.task(name="go")
    async def go(context: TaskContext) -> None:
        context.progress(1, 2)

    handle = await go.adelay()
    assert summary(await anext(aiter(handle.events()))) == (PENDING, None)
    assert summary(next(iter(handle.events()))) == (PENDING, None)
    await tasks.arun()

    assert [summary(event) async for event in handle.events()] == [(COMPLETED, 1)]
    assert [summary(event) for event in handle.events()] == [(COMPLETED, 1)]
