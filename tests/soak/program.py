"""The `TaskQ` application that all processes of the soak share: its tasks, and the recording of runs in the ledger.

Middleware records the start and the end of every run, so the functions of tasks are ordinary code.
"""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from taskq_core import CatchUp, TaskContext, TaskQ, current_task
from taskq_core.broker.operations import workflows
from taskq_core.errors import LeaseLostError
from taskq_core.tasks.middleware import Middleware
from taskq_core.worker import WorkerListener
from taskq_core.worker import dead_letters as letters
from tests.soak.effects import Effects
from tests.soak.ledger import Ledger

QUEUES = {"default": 3, "bulk": 1, "damaged": 1}
"""Queues of the soak, with their weights. Fault 31 damages only tasks of the last queue."""
DAMAGED = "damaged"
PATIENCE_S = 15
"""Replaces two timeouts of a minute: for an archive handler, and for missing members of a group. It is longer than any
outage, and short enough to end within the soak."""
KEPT_S = 3600
"""Retention in seconds of tasks whose results are checked after the soak."""
UNIQUE_S = 600

app = TaskQ(
    os.environ.get("SOAK_URL", "redis://localhost:1"),
    queues=QUEUES,
    # A constant delay: after repeated losses, exponential delays would make the soak wait longer for idle queues.
    defaults={"max_retry": 10, "retry_delay": 1, "replicated": bool(os.environ.get("SOAK_REPLICATED"))},
)

_numbers = itertools.count(1)
_number_of: dict[int, int] = {}  # number of a run by id() of its context, which listeners and handlers also get
ledger: Ledger
effects: Effects


def open_ledger(folder: Path, who: str) -> Ledger:
    """Open the ledger and the table of effects. Must be called before any task is enqueued or run."""
    global ledger, effects
    letters.CLAIM_S = workflows.OPENING_S = PATIENCE_S
    (folder / "ledger").mkdir(exist_ok=True)
    ledger = Ledger(folder / "ledger", who)
    effects = Effects(folder / "effects.table")
    return ledger


class RunRecorder(Middleware):
    """Records start and end of each run."""

    def _start(self, context: TaskContext) -> tuple[int, str]:
        number = _number_of[id(context)] = next(_numbers)
        key = context.headers.get("soak-key", "")
        ledger.write(
            "start",
            id=context.id,
            name=context.name,
            queue=context.queue,
            attempt=context.attempt,
            run=number,
            **({"key": key} if key else {}),
        )
        return number, context.id

    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        number, task_id = self._start(context)
        try:
            result = call()
        except Exception:
            ledger.write("raised", id=task_id, run=number)
            raise
        except BaseException:
            ledger.write("interrupted", id=task_id, run=number)
            raise
        ledger.write("end", id=task_id, run=number)
        return result

    async def aaround(self, context: TaskContext, call: Callable[[], Awaitable[object]]) -> object:
        number, task_id = self._start(context)
        try:
            result = await call()
        except Exception:
            ledger.write("raised", id=task_id, run=number)
            raise
        except BaseException:
            ledger.write("interrupted", id=task_id, run=number)
            raise
        ledger.write("end", id=task_id, run=number)
        return result


class Outcomes(WorkerListener):
    """Records how the worker is about to settle each run, and calls `ready` when the worker has started."""

    per_task = True

    def __init__(self, ready: Callable[[Any], None]) -> None:
        self._ready = ready

    def started(self, worker: Any) -> None:
        self._ready(worker)

    def task_ended(self, context: TaskContext, outcome: str, duration_s: float, error: BaseException | None) -> None:
        if outcome != "completed":  # the middleware has recorded the end
            ledger.write("outcome", id=context.id, outcome=outcome, run=_number_of.get(id(context), 0))


app.use(RunRecorder())


def record(event: str, **facts: Any) -> None:
    """Record an event of the current run."""
    context = current_task()
    ledger.write(event, id=context.id, run=_number_of.get(id(context), 0), **facts)


@app.on_error
async def record_lost_lease(error: BaseException, context: TaskContext) -> None:
    """Record that the worker lost the task of a run, before or after the end of the function."""
    if isinstance(error, LeaseLostError):
        ledger.write("lost", id=context.id, run=_number_of.get(id(context), 0))


class ExpectedFailureError(Exception):
    """Raised by tasks that fail on purpose."""


def _sleep(seconds: float) -> None:
    """Sleep in short steps, so that the worker can interrupt the thread."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(0.05, left))


@app.task(name="quick")
def quick(slot: int, secret: str = "") -> None:
    effects.put(slot)


@app.task(name="aquick")
async def aquick(slot: int, secret: str = "") -> None:
    effects.put(slot)


@app.task(name="slow")
def slow(slot: int, seconds: float, secret: str = "") -> None:
    _sleep(seconds)
    effects.put(slot)


@app.task(name="aslow")
async def aslow(slot: int, seconds: float, secret: str = "") -> None:
    await asyncio.sleep(seconds)
    effects.put(slot)


@app.task(name="kept", retention=KEPT_S)
def kept(slot: int, secret: str = "") -> int:
    effects.put(slot)
    return slot


@app.task(name="flaky")
async def flaky(slot: int, failures: int, secret: str = "") -> None:
    """Fail in its first attempts."""
    if current_task().attempt <= failures:
        raise ExpectedFailureError("on purpose")
    effects.put(slot)


@app.task(name="letter", queue="bulk", retention=KEPT_S)
async def letter(task_id: str) -> None:
    """Dead-letter task. Its retention keeps the id in use, so that a second task with this id would be noticed."""
    record("letter", of=task_id)


@app.task(name="stumbling")
async def stumbling(slot: int, seconds: float) -> None:
    """Fail immediately in the first attempt, and sleep in the second."""
    if current_task().attempt == 1:
        raise ExpectedFailureError("on purpose")
    await asyncio.sleep(seconds)
    effects.put(slot)


@app.task(name="hopeless", max_retry=1, dead_letter=letter)
def hopeless(slot: int, secret: str = "") -> None:
    raise ExpectedFailureError("on purpose")


@app.task(name="unique", unique_for=UNIQUE_S)
async def unique(key: str, seconds: float) -> None:
    """At most one unfinished task per payload; `seconds` depends on `key`."""
    await asyncio.sleep(seconds)


@app.task(name="poison", max_retry=1, dead_letter=letter)
def poison(how: str) -> None:
    """Kill the worker's process."""
    if how == "exit":
        os._exit(9)
    if how == "abort":
        os.abort()
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


@app.task(name="long")
def long(slot: int, seconds: float) -> None:
    """Sleep for longer than the worker's shutdown grace."""
    _sleep(seconds)
    effects.put(slot)


@app.task(name="along")
async def along(slot: int, seconds: float) -> None:
    await asyncio.sleep(seconds)
    effects.put(slot)


@app.task(name="blocking")
async def blocking(slot: int, seconds: float) -> None:
    """Block the event loop, as a coroutine should not."""
    time.sleep(seconds)  # noqa: ASYNC251 - the soak tests this error
    effects.put(slot)


@app.task(name="stubborn")
def stubborn(slot: int, seconds: float) -> None:
    """Stay in one C call, which cannot be interrupted."""
    time.sleep(seconds)
    effects.put(slot)


@app.task(name="victim", queue=DAMAGED)
async def victim(slot: int) -> None:
    """A task that fault 31 damages while it waits."""
    effects.put(slot)


@app.task(name="beat")
async def beat() -> None:
    """A periodic task."""


BEAT_ENTRY = "beat"
app.schedule("@every 1s", beat.s(), id=BEAT_ENTRY, catch_up=CatchUp.ALL)
