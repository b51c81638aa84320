"""Tasks of the soak with limits, sequences, unique keys, iterations, priorities or expiries."""

import asyncio
import time
from contextlib import suppress

from taskq_core import Concurrency, RateLimit, TaskContext, TaskSequence, Unique, current_task
from taskq_core.errors import TaskQError
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import Inspector
from tests.soak import program
from tests.soak.limits import LIMITS, Bucket, Places, Window
from tests.soak.program import KEPT_S, ExpectedFailureError, app


def record_start_time() -> None:
    """Record when a worker took the current task, by Redis's clock. Record nothing if Redis is unavailable."""
    context = current_task()
    with suppress(TaskQError):
        found = Inspector(app).task(context.queue, context.id)
        if isinstance(found, TaskInfo) and found.started_at is not None:
            program.record("taken", at=found.started_at.timestamp())


def _places(name: str) -> tuple[Concurrency, ...]:
    found = [limit for limit in LIMITS[name] if isinstance(limit, Places)]
    return tuple(Concurrency(limit.number, key="who" if limit.keyed else None) for limit in found)


def _bucket(name: str) -> RateLimit:
    (limit,) = (each for each in LIMITS[name] if isinstance(each, Bucket))
    return RateLimit(f"{limit.tokens}/s", burst=limit.burst, cost="cost")


def _window(name: str) -> RateLimit:
    (limit,) = (each for each in LIMITS[name] if isinstance(each, Window))
    return RateLimit(f"{limit.number}/{limit.period_s}s", window="fixed", key="who")


@app.task(name="placed", concurrency=_places("placed"))
async def placed(slot: int, secret: str = "") -> None:
    """At most three at once, in all workers together."""
    await asyncio.sleep(0.1)
    program.effects.put(slot)


@app.task(name="placed_by", concurrency=_places("placed_by"))
def placed_by(slot: int, who: str) -> None:
    """At most one at once for each `who`."""
    time.sleep(0.05)
    program.effects.put(slot)


@app.task(name="rated", rate_limit=_bucket("rated"))
def rated(slot: int, cost: int = 1) -> None:
    record_start_time()
    program.effects.put(slot)


@app.task(name="rated_by", rate_limit=_window("rated_by"))
def rated_by(slot: int, who: str) -> None:
    record_start_time()
    program.effects.put(slot)


@app.task(name="strict", concurrency=_places("strict"), rate_limit=_bucket("strict"))
def strict(slot: int, who: str, failures: int = 0, cost: int = 1) -> None:
    """Several limits, which a failure must release."""
    record_start_time()
    if current_task().attempt <= failures:
        raise ExpectedFailureError("on purpose")
    time.sleep(0.05)
    program.effects.put(slot)


@app.task(name="ordered", sequence=TaskSequence("who"))
async def ordered(slot: int, who: str, failures: int = 0) -> None:
    """A sequence. A task that fails delays the others until it has succeeded."""
    if current_task().attempt <= failures:
        raise ExpectedFailureError("on purpose")
    await asyncio.sleep(0.02)
    program.effects.put(slot)


@app.task(
    name="skipping",
    sequence=TaskSequence("who", on_failure="skip"),
    max_retry=1,
    dead_letter=program.letter,
)
def skipping(slot: int | None, who: str) -> None:
    """A sequence that skips tasks that failed for good. A task without a slot always fails."""
    if slot is None:
        raise ExpectedFailureError("on purpose")
    program.effects.put(slot)


@app.task(name="only", unique=Unique(args=["key"]))
async def only(key: str, seconds: float) -> None:
    """At most one unfinished task per key."""
    await asyncio.sleep(seconds)


@app.task(
    name="once",
    retention=KEPT_S,
    unique=Unique(args=["key"], states="while_exists", on_conflict="return_existing"),
)
async def once(key: str, slot: int) -> None:
    """At most one task per key exists, also after its end."""
    program.effects.put(slot)


@app.task(name="walk")
def walk(context: TaskContext, slot: int, count: int) -> None:
    for item in context.iterate(range(count), every=1):
        program.record("item", item=item)
        time.sleep(0.06)
    program.effects.put(slot)


@app.task(name="awalk")
async def awalk(context: TaskContext, slot: int, count: int) -> None:
    async for item in context.iterate(range(count), every=1):
        program.record("item", item=item)
        await asyncio.sleep(0.06)
    program.effects.put(slot)


@app.task(name="ranked")
def ranked(slot: int) -> None:
    """Enqueued with different priorities."""
    record_start_time()
    program.effects.put(slot)


@app.task(name="late")
def late(slot: int) -> None:
    """Enqueued with an expiry."""
    record_start_time()
    program.effects.put(slot)
