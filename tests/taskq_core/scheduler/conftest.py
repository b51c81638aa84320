"""Run schedulers in tests: on the test's own event loop."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic as _MONOTONIC  # noqa: N812 - what a test's clock does not move
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.scheduler import Scheduler, SchedulerConfig, SchedulerListener
from taskq_core.scheduler.entries import EntryBook
from taskq_core.tasks.periodic import Firing, FiringOutcome, PeriodicTask
from taskq_core.wire import SchedulerEnqueueEvent, SchedulerEntry, TaskMessage, decode_message
from tests.clock import Clock
from tests.redis_server import RedisServer

PATIENCE_S = 60.0
"""Seconds after which a condition counts as never met. Nothing waits that long when all is well."""
HOUR = 3600


async def until(
    condition: Callable[[], Any], what: str = "the condition", *, meanwhile: Callable[[], object] = lambda: None
) -> Any:
    """Wait until the condition (or what it returns, awaited) is true; return it. Time does not pass by itself.

    Args:
        condition: The condition to wait for.
        what: What to call it if it never comes.
        meanwhile: Called repeatedly during the wait, for example to skip time.
    """
    deadline = _MONOTONIC() + PATIENCE_S
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert _MONOTONIC() < deadline, f"not within {PATIENCE_S} s: {what}"
        meanwhile()
        await asyncio.sleep(0.005)


class Fired(SchedulerListener):
    """Records what a scheduler did."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int, FiringOutcome]] = []
        self.errors: list[Exception | None] = []

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        self.all.append((firing.entry.id, int(firing.at.timestamp()), outcome))
        self.errors.append(error)

    def outcomes(self, entry_id: str) -> list[FiringOutcome]:
        return [outcome for each, _, outcome in self.all if each == entry_id]


class Runner:
    """Starts schedulers on the test's loop and ends them with the test."""

    def __init__(self, app: TaskQ) -> None:
        self.app = app
        self.running: list[tuple[Scheduler, asyncio.Task[int]]] = []

    async def __call__(
        self, *, app: TaskQ | None = None, listener: SchedulerListener | None = None, **config: Any
    ) -> Scheduler:
        """Start a scheduler and return it once it runs."""
        started = asyncio.Event()

        class Told(SchedulerListener):
            def started(self, scheduler: Any) -> None:
                started.set()
                if listener is not None:
                    listener.started(scheduler)

            def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
                if listener is not None:
                    listener.fired(firing, outcome, error)

        scheduler = Scheduler(app or self.app, SchedulerConfig(**config), listener=Told())
        running = asyncio.create_task(scheduler.arun())
        self.running.append((scheduler, running))
        await until(lambda: started.is_set() or running.done(), "the scheduler starts")
        assert not running.done(), "the scheduler ended at once"
        return scheduler

    async def stop(self, scheduler: Scheduler) -> int:
        """Stop a scheduler and return its exit status."""
        scheduler.stop()
        return await next(running for each, running in self.running if each is scheduler)

    async def close(self) -> None:
        for scheduler, _ in self.running:
            scheduler.stop()
        for result in await asyncio.gather(*(running for _, running in self.running), return_exceptions=True):
            if isinstance(result, Exception):
                raise result


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(redis_server.url)
    yield app
    app.close()


@pytest.fixture
async def start(app: TaskQ, clock: Clock) -> AsyncIterator[Runner]:
    """Start schedulers of `app`, for which time passes as the test says."""
    runner = Runner(app)
    yield runner
    await runner.close()
    await app.aclose()


class Looker:
    """Looks at what schedulers left in Redis, and puts marks there."""

    def __init__(self, server: RedisServer, app: TaskQ, clock: Clock) -> None:
        self.raw: Any = server.client
        self.clock = clock
        self.app = app
        self.keys = app.runtime.keys

    def now_s(self) -> int:
        return int(self.clock.time())

    def mark_key(self, entry: PeriodicTask) -> str:
        book = EntryBook(self.keys, zone="UTC")
        book.replace(0, [entry])
        (found,) = book.entries.values()
        return found.queue.tick(found.key)

    def mark(self, entry: PeriodicTask) -> int:
        """The last firing dealt with, 0 if the entry is not known."""
        value = self.raw.get(self.mark_key(entry))
        return 0 if value is None else int(value.split(b":")[0])

    def set_mark(self, entry: PeriodicTask, at_s: int) -> None:
        """Pretend that schedulers dealt with what came up to a moment."""
        self.raw.set(self.mark_key(entry), f"{at_s}:")

    def pending(self, queue: str = "default") -> list[TaskMessage]:
        """Messages of pending tasks, next to run first."""
        keys = self.keys.queue(queue)
        ids = self.raw.lrange(keys.pending, 0, -1)[::-1]
        return [decode_message(self.raw.hget(keys.task(each.decode()), "msg")) for each in ids]

    def entries(self) -> list[SchedulerEntry]:
        """What tools are shown."""
        members = self.raw.zrangebyscore(self.keys.schedulers, self.now_s(), "+inf")
        return [SchedulerEntry.decode(each) for key in members for each in self.raw.lrange(key, 0, -1)]

    def history(self, entry_id: str) -> list[SchedulerEnqueueEvent]:
        """Events of an entry, the newest first."""
        found = self.raw.zrevrange(self.keys.scheduler_history(entry_id), 0, -1)
        return [SchedulerEnqueueEvent.decode(each) for each in found]


@pytest.fixture
def looker(redis_server: RedisServer, app: TaskQ, clock: Clock) -> Looker:
    return Looker(redis_server, app, clock)
