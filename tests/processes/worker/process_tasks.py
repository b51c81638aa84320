"""Tasks that run in separate processes, for `test_processes.py`. The processes import this module."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opentelemetry import trace

from taskq_core import Discard, Retry, SkipRetry, Snooze, TaskContext, TaskQ, current_task
from taskq_core.errors import StepError, TaskInterrupted
from taskq_core.tasks.middleware import Middleware

app = TaskQ("redis://localhost:1", defaults={"retention": 600, "max_retry": 0}, enqueue_timeout=60)
logger = logging.getLogger("shop")


class Marking(Middleware):
    """Middleware that records that it runs in the process of the function."""

    def around(self, context: TaskContext, call: Callable[[], Any]) -> Any:
        os.environ["MARKED"] = f"{context.queue} {os.getpid()}"
        return call()


app.use(Marking())


@app.task(executor="process")
def durable(context: TaskContext) -> list[str]:
    """Return the errors of the methods for steps."""
    errors = []
    for call in (
        lambda: context.step("step", int),
        lambda: context.sleep(1),
        lambda: context.receive("go"),
        lambda: context.call(who.s()),
        lambda: context.emit(1),
    ):
        try:
            call()
        except StepError as error:
            errors.append(str(error))
    return errors


@app.task(executor="process")
def who() -> dict[str, Any]:
    return {"pid": os.getpid(), "main": threading.current_thread() is threading.main_thread()}


@app.task(executor="process")
def about(context: TaskContext, text: str) -> dict[str, Any]:
    """Return the context of the task inside its process."""
    logger.warning("said in there")
    current = trace.get_current_span().get_span_context()
    return {
        "text": text,
        "id": current_task().id,
        "same": current_task() is context,
        "attempt": context.attempt,
        "worker": context.worker,
        "deadline": timedelta(0) < context.deadline - datetime.now(UTC) < timedelta(hours=1),
        "marked": os.environ.get("MARKED") == f"default {os.getpid()}",
        "trace": f"{current.trace_id:032x}",
    }


@app.task(executor="process")
def steps(context: TaskContext, until: str) -> str:
    context.progress(3, 4, "nearly")
    context.write_result(b'"so far"')
    while not Path(until).exists():
        time.sleep(0.01)
    return "all"


@app.task(executor="process")
def leave_behind(context: TaskContext, how: str, until: str, reported: str) -> None:
    """Leave a thread or a process that reports progress after the end of the task."""

    def report() -> None:
        end = time.monotonic() + 60
        while not Path(until).exists() and time.monotonic() < end:
            time.sleep(0.01)
        context.progress(1, 2, "late")
        context.write_result(b'"late"')
        Path(reported).touch()

    if how == "thread":
        threading.Thread(target=report, daemon=True).start()
    elif os.fork() == 0:
        report()
        os._exit(0)


@app.task(executor="process")
def wait_for(started: str, until: str) -> None:
    Path(started).write_text(f"{os.getpid()}")
    while not Path(until).exists():
        time.sleep(0.01)


@app.task(executor="process")
def iterate(context: TaskContext) -> None:
    for _ in context.iterate([1, 2]):
        pass


class OddError(ValueError):
    """An exception whose constructor needs more than a message."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(code, hint)
        self.code, self.hint = code, hint

    def __str__(self) -> str:
        return f"{self.code}: {self.hint}"


class MuteError(Exception):
    """An exception that cannot be converted to text."""

    def __str__(self) -> str:
        raise SystemExit("str")

    __repr__ = __str__


class FacelessError(Exception):
    """An exception whose `__class__` raises an error."""

    @property
    def __class__(self) -> Any:
        raise SystemExit("class")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


@app.task(executor="process")
def fail(how: str) -> object:
    if how == "step":
        raise StepError("too large", is_final=True)
    if how == "odd":
        raise OddError(7, hint="no luck")
    if how == "os":
        raise FileNotFoundError(2, "not there", "/nowhere")
    if how == "exit":
        raise SystemExit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "mute":
        raise MuteError
    if how == "faceless":
        raise FacelessError("x")
    if how == "retry":
        try:
            raise KeyError("k")
        except KeyError:
            raise Retry(after=3600) from None
    if how == "snooze":
        raise Snooze(after=3600)
    if how == "skip":
        raise SkipRetry("enough")
    if how == "discard":
        raise Discard
    return object()  # cannot be encoded as JSON


@app.task(executor="process")
def die(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(executor="process")
def die_once_begun(runs: str, returns: bool) -> str:
    """Record the run and kill the process, either at once or after its result was sent."""
    with Path(runs).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if not returns:
        os._exit(3)
    threading.Thread(target=_exit_after_result).start()
    return "done"


def _exit_after_result() -> None:
    """Exit this process after its main thread has sent the result and waits for the next task."""
    main = threading.main_thread().ident
    assert main is not None
    while sys._current_frames()[main].f_code.co_name != "serve":
        time.sleep(0.001)
    os._exit(3)


@app.task(executor="process")
def stuck(started: str) -> None:
    """Stay in one C call that holds the GIL and that no exception can interrupt."""
    Path(started).write_text(f"{os.getpid()}")
    ctypes.PyDLL(None).usleep(int(3.6e9))


@app.task(executor="process")
def stuck_with_child(started: str) -> None:
    """Start a program and then do the same as `stuck`."""
    child = subprocess.Popen(["sleep", "3600"])
    Path(started).write_text(f"{child.pid}")
    ctypes.PyDLL(None).usleep(int(3.6e9))


@app.task(executor="process")
def clean_up(started: str, ended: str) -> None:
    """Wait forever, and clean up when interrupted."""
    try:
        Path(started).write_text(f"{os.getpid()}")
        while True:
            time.sleep(0.01)
    except TaskInterrupted:
        Path(ended).write_text("cleaned")
        raise


@app.task(executor="process")
def compute(count: int) -> int:
    total = 0
    for number in range(count):
        total += number * number % 7
    return total


@app.task(executor="process")
def enqueue() -> str:
    return compute.delay(count=1).id


@app.task(executor="process")
def spawn() -> int:
    """Leave a child process that inherits the open connections of this process."""
    if os.fork() == 0:
        time.sleep(5)  # longer than a worker takes to look whether its process is alive
    os._exit(3)


@app.task(executor="process", max_result_bytes=10)
def large(context: TaskContext, returned: int, written: int) -> str | None:
    context.write_result(b"1" * written)
    return "x" * returned or None
