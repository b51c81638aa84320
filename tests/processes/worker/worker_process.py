"""A worker process for tests. Its tasks record what they do in Redis, under the keys `mark:<name>`."""

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


def add_mark(name: str, what: str) -> None:
    notes.rpush(f"mark:{name}", what)


@app.task(name="quick", retry_delay=0)
def quick(name: str) -> str:
    add_mark(name, "ran")
    return "done"


@app.task(name="wait")
async def wait(name: str, until: str) -> str:
    """Record the start, then wait until a key exists, without blocking the event loop."""
    add_mark(name, f"started {current_task().attempt}")
    try:
        while not notes.exists(until):  # noqa: ASYNC110 - a key in Redis
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        add_mark(name, "cancelled")
        raise
    add_mark(name, "ended")
    return f"{os.getpid()}"


@app.task(name="block")
async def block(name: str, seconds: float) -> str:
    """Block the event loop, which is an error in a coroutine."""
    add_mark(name, f"started {current_task().attempt}")
    time.sleep(seconds)  # noqa: ASYNC251 - the tests need this error
    add_mark(name, "ended")
    return "done"


@app.task(name="plain_wait")
def plain_wait(context: TaskContext, name: str, until: str) -> str:
    """Do the same as `wait` in a thread."""
    try:
        add_mark(name, f"started {context.attempt}")
        while not notes.exists(until):
            time.sleep(0.01)
    except TaskInterrupted:
        add_mark(name, "interrupted")
        raise
    add_mark(name, "ended")
    return "done"


@app.task(name="wait_in_process", executor="process")
def wait_in_process(context: TaskContext, name: str, until: str) -> str:
    """Do the same as `wait` in a separate process, which must first connect to Redis."""
    global notes
    notes = redis.from_url(str(app.settings.url))
    return plain_wait.function(context, name, until)


@app.task(name="iterate", retry_delay=0)
def iterate(
    context: TaskContext, name: str, count: int, pause_s: float, every: int | None = None, until: str = ""
) -> str:
    """Record each item with the attempt, then sleep. With `until`, the last item lasts until this key exists."""
    for number in context.iterate(range(count), every=every):
        add_mark(name, f"{context.attempt} {number}")
        time.sleep(pause_s)
        while until and number == count - 1 and not notes.exists(until):
            time.sleep(0.01)
    return "done"


@app.task(name="iterate_coroutine", retry_delay=0)
async def iterate_coroutine(name: str, count: int, pause_s: float, every: int | None = None, until: str = "") -> str:
    """Do the same as `iterate` in a coroutine."""
    context = current_task()
    async for number in context.iterate(range(count), every=every):
        add_mark(name, f"{context.attempt} {number}")
        await asyncio.sleep(pause_s)
        while until and number == count - 1 and not notes.exists(until):  # noqa: ASYNC110 - a key in Redis
            await asyncio.sleep(0.01)
    return "done"


@app.task(name="stubborn")
def stubborn(name: str) -> None:
    """Stay in one C call, which cannot be interrupted."""
    add_mark(name, "started")
    time.sleep(60)


@app.task(name="stubborn_coroutine")
async def stubborn_coroutine(name: str) -> None:
    """Suppress every cancellation."""
    add_mark(name, "started")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            add_mark(name, "swallowed")


@app.task(name="stubborn_thread_of_a_coroutine")
async def stubborn_thread_of_a_coroutine(name: str) -> None:
    """Wait for a thread that cannot be interrupted."""
    add_mark(name, "started")
    await asyncio.to_thread(time.sleep, 3600)


@app.task(name="leave_generator")
async def leave_generator() -> str:
    """Leave a generator that does not end when it is closed."""

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
    """Kill the process."""
    add_mark(name, "started")
    os._exit(9)


@app.task(name="fails_for_good", max_retry=0)
def fails_for_good(name: str) -> None:
    raise ValueError(name)


@app.task(name="mark_dead_letter")
def mark_dead_letter(task_id: str) -> None:
    """Handle an archived task as its dead-letter task."""
    add_mark("letters", task_id)


@app.on_archived
def kill_before_dead_letter(task: TaskInfo) -> None:
    """Kill the process before the dead letter is sent, as often as a key says."""
    with one_dies:  # each death is counted, even if several are reported at once
        if int(notes.get("kill-letters") or 0) > 0:
            notes.decr("kill-letters")
            os._exit(9)


@app.task(name="brief", retry_delay=0)
async def brief(name: str, seconds: float) -> None:
    """Record the start with the task's id, then sleep. It runs again at once after each killed worker."""
    add_mark(name, current_task().id)
    await asyncio.sleep(seconds)


@app.task(name="timed", retry_delay=0)
async def timed(name: str, seconds: float = 0.0, fails: int = 0) -> None:
    """Record when Redis returned the task, its start and its end. Fail in the first attempts."""
    context = current_task()
    key = app.runtime.keys.queue(context.queue).task(context.id)
    add_mark(f"{name}:at", str(notes.hget(key, "taskq_started"), "ascii"))  # type: ignore[arg-type]  # of a blocking client
    add_mark(name, f"+{context.id}")
    await asyncio.sleep(seconds)
    add_mark(name, f"-{context.id}")
    if context.attempt <= fails:
        raise RuntimeError("it is to fail")


@app.task(name="one_at_a_time", concurrency=Concurrency(1, key="name"))
async def one_at_a_time(name: str, seconds: float = 0.0) -> None:
    """Do the same as `timed`, with a limit that producers may not know."""
    add_mark(name, f"+{current_task().id}")
    await asyncio.sleep(seconds)
    add_mark(name, f"-{current_task().id}")


@app.task(name="poison", retry_delay=0)
def poison(name: str, how: str, until: str = "") -> None:
    """End the process, or allocate all memory until a file exists."""
    add_mark(name, "started")
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
    """Stay in one C call that does not release the GIL, as some extensions do."""
    add_mark(name, "started")
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    while True:
        pass


@app.task(name="take_files")
def take_files(name: str, until: str) -> str:
    """Open files until no descriptor is left, and keep them open until a file exists."""
    files = []
    try:
        while True:
            files.append(os.dup(0))
    except OSError as error:
        add_mark(name, str(error.errno))
    while not os.path.exists(until):
        time.sleep(0.01)
    for each in files:
        os.close(each)
    return "done"


@app.aggregator("grouped", max_size=3, timeout=3)
def aggregate(group: str, tasks: list[GroupedTask]) -> Signature[Any]:
    """Combine tasks. If the key `mark:hang` exists, stay in a C call first."""
    add_mark("aggregate", ",".join(sorted(task.id for task in tasks)))
    if notes.exists("mark:hang"):
        time.sleep(60)
    return quick.using(retention=0).s("combined")


class ReadyListener(WorkerListener):
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
    return Worker(app, WorkerConfig(**settings["config"]), listener=ReadyListener()).run()


if __name__ == "__main__":
    sys.exit(main())
