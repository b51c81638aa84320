"""A worker process for tests: its tasks note in Redis what they do, under keys `mark:<name>`."""

import asyncio
import ctypes
import json
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import redis

from taskq_core import Concurrency, GroupedTask, Signature, TaskContext, TaskInfo, TaskQ, current_task
from taskq_core.errors import TaskInterrupted
from taskq_core.worker import Worker, WorkerConfig, WorkerListener
from tests.processes.worker import harm
from tests.processes.worker.durable_task import Ledger

app = TaskQ(os.environ.get("URL", "redis://localhost:1"), defaults={"retention": 600, "max_retry": 3})
notes: redis.Redis
one_dies = threading.Lock()
ledger = Ledger(app)


def note(name: str, what: str) -> None:
    notes.rpush(f"mark:{name}", what)


@app.task(name="quick", retry_delay=0)
def quick(name: str) -> str:
    note(name, "ran")
    return "done"


@app.task(name="wait")
async def wait(name: str, until: str) -> str:
    """Note the start, then wait for a key without blocking the loop."""
    note(name, f"started {current_task().attempt}")
    try:
        while not notes.exists(until):  # noqa: ASYNC110 - a key in Redis
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note(name, "cancelled")
        raise
    note(name, "ended")
    return f"{os.getpid()}"


@app.task(name="block")
async def block(name: str, seconds: float) -> str:
    """Block the event loop, as a coroutine should not."""
    note(name, f"started {current_task().attempt}")
    time.sleep(seconds)  # noqa: ASYNC251 - what is tested
    note(name, "ended")
    return "done"


@app.task(name="plain_wait")
def plain_wait(context: TaskContext, name: str, until: str) -> str:
    """As `wait`, in a thread."""
    try:
        note(name, f"started {context.attempt}")
        while not notes.exists(until):
            time.sleep(0.01)
    except TaskInterrupted:
        note(name, "interrupted")
        raise
    note(name, "ended")
    return "done"


@app.task(name="wait_in_process", executor="process")
def wait_in_process(context: TaskContext, name: str, until: str) -> str:
    """Do the same as `wait` in a separate process, which has no notes yet."""
    global notes
    notes = redis.from_url(str(app.settings.url))
    return plain_wait.function(context, name, until)


@app.task(name="iterate", retry_delay=0)
def iterate(
    context: TaskContext, name: str, count: int, pause_s: float, every: int | None = None, until: str = ""
) -> str:
    """Note each item with the attempt, before the time it takes; the last one takes until a key is there, if named."""
    for number in context.iterate(range(count), every=every):
        note(name, f"{context.attempt} {number}")
        time.sleep(pause_s)
        while until and number == count - 1 and not notes.exists(until):
            time.sleep(0.01)
    return "done"


@app.task(name="iterate_coroutine", retry_delay=0)
async def iterate_coroutine(name: str, count: int, pause_s: float, every: int | None = None, until: str = "") -> str:
    """As `iterate`, on the event loop."""
    context = current_task()
    async for number in context.iterate(range(count), every=every):
        note(name, f"{context.attempt} {number}")
        await asyncio.sleep(pause_s)
        while until and number == count - 1 and not notes.exists(until):  # noqa: ASYNC110 - a key in Redis
            await asyncio.sleep(0.01)
    return "done"


@app.task(name="stubborn")
def stubborn(name: str) -> None:
    """Cannot be interrupted: it sits in one C call."""
    note(name, "started")
    time.sleep(60)


@app.task(name="stubborn_coroutine")
async def stubborn_coroutine(name: str) -> None:
    """Swallow every cancellation."""
    note(name, "started")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            note(name, "swallowed")


@app.task(name="stubborn_thread_of_a_coroutine")
async def stubborn_thread_of_a_coroutine(name: str) -> None:
    """Wait for a thread that cannot be interrupted."""
    note(name, "started")
    await asyncio.to_thread(time.sleep, 3600)


@app.task(name="leave_generator")
async def leave_generator() -> str:
    """Leave a generator behind that does not end when it is closed."""

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(3600)

    generators.append(numbers())
    return f"{await anext(generators[-1])}"


generators: list[AsyncIterator[int]] = []


@app.task(name="die")
def die(name: str) -> None:
    """Take the process along."""
    note(name, "started")
    os._exit(9)


@app.task(name="fails_for_good", max_retry=0)
def fails_for_good(name: str) -> None:
    raise ValueError(name)


@app.task(name="note_letter")
def note_letter(task_id: str) -> None:
    """Handle an archived task as its dead-letter task."""
    note("letters", task_id)


@app.on_archived
def tell(task: TaskInfo) -> None:
    """Take the process along, as often as a key says, before the letter is sent."""
    with one_dies:  # each death is counted, even if several are reported at once
        if int(notes.get("kill-letters") or 0) > 0:
            notes.decr("kill-letters")
            os._exit(9)


@app.task(name="brief")
async def brief(name: str, seconds: float) -> None:
    """Note the start with the task's id, and take some time."""
    note(name, current_task().id)
    await asyncio.sleep(seconds)


@app.task(name="timed", retry_delay=0)
async def timed(name: str, seconds: float = 0.0, fails: int = 0) -> None:
    """Note when Redis handed it out, its beginning and its end; fail on its first attempts."""
    context = current_task()
    key = app.runtime.keys.queue(context.queue).task(context.id)
    note(f"{name}:at", str(notes.hget(key, "taskq_started"), "ascii"))  # type: ignore[arg-type]  # of a blocking client
    note(name, f"+{context.id}")
    await asyncio.sleep(seconds)
    note(name, f"-{context.id}")
    if context.attempt <= fails:
        raise RuntimeError("it is to fail")


@app.task(name="one_at_a_time", concurrency=Concurrency(1, key="name"))
async def one_at_a_time(name: str, seconds: float = 0.0) -> None:
    """As `timed`, with a limit that producers may not know."""
    note(name, f"+{current_task().id}")
    await asyncio.sleep(seconds)
    note(name, f"-{current_task().id}")


@app.task(name="poison", retry_delay=0)
def poison(name: str, how: str, until: str = "") -> None:
    """End the process, or take what memory it may have until a file is there."""
    note(name, "started")
    if how == "exit":
        os._exit(9)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "memory":
        taken = []
        try:
            while True:
                taken.append(bytes(1 << 16))
        except MemoryError:
            while not os.path.exists(until):
                time.sleep(0.01)
            raise
    raise AssertionError(how)


@app.task(name="hold_lock", max_retry=0)
def hold_lock(name: str, seconds: float) -> None:
    """Sit in one C call that does not release Python's interpreter lock, as some extensions do."""
    note(name, "started")
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    while True:
        pass


@app.task(name="take_files")
def take_files(name: str, until: str) -> str:
    """Open files until there are none left, and hold them until a file is there."""
    files = []
    try:
        while True:
            files.append(os.dup(0))
    except OSError as error:
        note(name, str(error.errno))
    while not os.path.exists(until):
        time.sleep(0.01)
    for each in files:
        os.close(each)
    return "done"


@app.aggregator("grouped", max_size=3, timeout=3)
def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
    """Turn tasks into one; with a key `mark:hang` there, sit in a C call first."""
    note("aggregate", ",".join(sorted(task.id for task in tasks)))
    if notes.exists("mark:hang"):
        time.sleep(60)
    return quick.using(retention=0).s("combined")


class Told(WorkerListener):
    def started(self, worker: Any) -> None:
        print("started", flush=True)


def main() -> int:
    global notes
    settings = json.loads(sys.argv[1])
    logging.basicConfig(
        level=logging.INFO, format="%(name)s %(levelname)s %(message)s", filename=settings["harm"].get("log")
    )
    app.configure(type(app.settings).from_mapping({"URL": settings["url"], "DEFAULTS": dict(app.settings.defaults)}))
    notes = redis.from_url(settings["notes"], client_name="notes")
    notes.ping()
    ledger.notes = notes
    harm.install(settings["harm"], notes)
    return Worker(app, WorkerConfig(**settings["config"]), listener=Told()).run()


if __name__ == "__main__":
    sys.exit(main())
