"""Run tasks for a worker, one at a time, on the main thread of this process.

The worker starts this process and gives it a socket. The process ends with the worker: the socket closes, and on Linux
the kernel kills the process, even inside a call into C. To end a task, the worker sends a frame, and `TaskInterrupted`
is raised in the function. If the function goes on, the worker kills the process. The process does not act on SIGTERM,
SIGINT and SIGHUP from elsewhere: a service manager or a terminal sends them to all processes, but running tasks have a
grace period.
"""

import contextlib
import ctypes
import importlib
import json
import logging
import math
import os
import queue
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

from taskq_core.app import TaskQ, applications
from taskq_core.broker.connection import Address
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.codec import encode_result_within
from taskq_core.codec.oversized import OversizedResult
from taskq_core.errors import StepError, TaskInterrupted, UnknownTaskError
from taskq_core.execution.context import TaskContext, current
from taskq_core.execution.logs import LineFormatter, complete_exported_logs
from taskq_core.execution.step_record import Steps
from taskq_core.tasks.task import Task
from taskq_core.telemetry import is_log_exporter
from taskq_core.wire import TaskMessage, decode_message
from taskq_core.wire.durations import LATEST_S
from taskq_core.worker.run import Run, ends_at
from taskq_core.worker.task_process import frames, signals
from taskq_core.worker.task_process.failures import encode_failure

logger = logging.getLogger("taskq.worker")

PROGRESS_EVERY_S = 0.2
"""Minimum seconds between two progress frames. The last progress is sent at the end of the task."""
MAIN = "__mp_main__"
"""Module name of a script whose functions are tasks. `multiprocessing` uses the same name, so that the script does not
run as `__main__`."""
_SET_DEATH_SIGNAL = 1  # value of PR_SET_PDEATHSIG in <sys/prctl.h>

_NO_STEPS = (
    "a task with executor='process' has no steps: step, sleep, receive, call, emit, iterate, checkpoint and cursor do "
    "not work in a separate process"
)


class TaskProcess:
    """The state of this task process, and the loop that serves the worker.

    Args:
        connection: Socket to the worker.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._inbox: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._is_running = self._is_interrupt_requested = self._was_interrupted = False
        self._boot: dict[str, Any] = {}
        self._has_loaded_script = False

    def serve(self) -> None:
        """Run tasks until the worker ends or closes the connection."""
        threading.Thread(target=self._read, name="taskq-task-process", daemon=True).start()
        boot = self._inbox.get()
        if boot is None:
            return
        self._boot = json.loads(boot[1])
        _set_up(self._boot)
        self.send(frames.READY)
        while (frame := self._inbox.get()) is not None:
            message = self._inbox.get()
            if message is None:
                return
            self._run(json.loads(frame[1]), message[1])

    def send(self, kind: bytes, data: bytes = b"") -> None:
        """Send a frame. Do nothing if the worker has ended."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(frames.encode(kind, data))

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """If the worker requested it, interrupt the running task, or exit if no task runs. Ignore all other signals."""
        if not self._is_interrupt_requested:
            return
        self._is_interrupt_requested = False
        if not self._is_running:
            raise SystemExit(0)
        self._was_interrupted = True
        raise TaskInterrupted

    def _interrupt(self) -> None:
        """Interrupt the main thread with a signal, which also ends a blocking system call."""
        self._is_interrupt_requested = True
        main = threading.main_thread().ident
        assert main is not None
        signals.interrupt(main)

    def _read(self) -> None:
        found = frames.Frames()
        while True:
            try:
                data = self._connection.recv(65_536)
            except OSError:
                data = b""
            if not data:
                break
            for kind, content in found.feed(data):
                if kind == frames.INTERRUPT:
                    self._interrupt()
                else:
                    self._inbox.put((kind, content))
        if self._is_running:  # the worker has ended and cannot receive the outcome of the running task
            os._exit(1)
        self._inbox.put(None)

    # --- a task -------------------------------------------------------------------------------------------------------

    def _run(self, facts: Mapping[str, Any], data: bytes) -> None:
        self._was_interrupted = False
        started = self._guarded(partial(self._load, facts["module"]))
        if self._was_interrupted and started[0] == frames.STARTED:  # the imported module has caught the interruption
            started = frames.FAILURE, encode_failure(TaskInterrupted())
        self.send(*started)
        if started[0] == frames.FAILURE:
            return
        sender = _ProgressSender(self, facts["number"], facts["name"])
        kind, answer = self._guarded(partial(self._call, facts, data, sender))
        sender.close()
        self.send(kind, answer)

    def _guarded(self, work: Callable[[], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        """Call a function that may fail or be interrupted. Return the frame with its outcome."""
        try:
            try:
                self._is_running = True
                return work()
            finally:
                self._is_running = False
        except BaseException as error:
            return frames.FAILURE, encode_failure(error)

    def _call(self, facts: Mapping[str, Any], data: bytes, sender: "_ProgressSender") -> tuple[bytes, bytes]:
        message = decode_message(data)
        app, task = self._find(facts["module"], facts["name"])
        sender.max_result_bytes = task.options.max_result_bytes
        context = _context(facts, message, sender)
        queue = app.runtime.keys.queue(facts["queue"])
        run = Run(queue, message.id, message, lease_until=math.inf, task=task, context=context)
        run.decode()
        headers: Mapping[str, str] = message.headers
        if facts["traceparent"] is not None:  # continue the trace of the worker's span for this run
            headers = {**headers, "traceparent": facts["traceparent"]}
        token = current.set(context)
        try:
            with app.runtime.tracing.continued(headers):
                result = run.bound(app.middleware)()
        finally:
            current.reset(token)
        if not message.retention or result is None:
            return frames.RESULT, b""
        answer = encode_result_within(result, task.options.max_result_bytes)
        return (frames.OVERSIZED, answer.stored) if isinstance(answer, OversizedResult) else (frames.RESULT, answer)

    def _find(self, module: str, name: str) -> tuple[TaskQ, Task[Any, Any]]:
        found = [(app, task) for app in applications() if (task := app.find_task(name)) is not None]
        found.sort(key=lambda each: each[1].function.__module__ != module)
        for app, task in found:
            if task.runs_in_process:
                _connect(app, self._boot["broker"])
                return app, task
        raise UnknownTaskError(name)

    def _load(self, module: str) -> tuple[bytes, bytes]:
        if module != "__main__":
            importlib.import_module(module)
        elif self._boot["main_module"]:
            importlib.import_module(self._boot["main_module"])
        elif not self._has_loaded_script:
            runpy.run_path(self._boot["main_path"], run_name=MAIN)
            self._has_loaded_script = True
        return frames.STARTED, b""


class _ProgressSender:
    """Sends progress and results of a running task to the worker, which stores them.

    The sender does not support steps.

    A thread that a function leaves behind may write after its task has ended. This object drops these writes. A forked
    process that a function leaves behind may also write. The worker recognizes such writes by the run's number, and
    drops them.

    Args:
        process: This process.
        number: Number of the run in this process.
        name: Name of the task.
    """

    is_stopping = False

    def __init__(self, process: TaskProcess, number: int, name: str) -> None:
        self._process = process
        self._number = number
        self._name = name
        self.max_result_bytes = 0  # 0 until the module is imported, then the task's limit
        self._lock = threading.Lock()
        self._progress: bytes | None = None
        self._next_at = 0.0
        self._is_over = self._has_warned = False

    def write_result(self, data: bytes | OversizedResult) -> None:
        if isinstance(data, OversizedResult):
            kind, content = frames.WRITTEN_OVERSIZED, data.stored
        else:
            kind, content = frames.WRITTEN, data
        with self._lock:
            if not self._is_over:
                self._process.send(kind, frames.numbered(self._number, content))
                return
        self._warn_dropped()

    def store_progress(self, progress: bytes) -> None:
        with self._lock:
            if not self._is_over:
                self._progress = progress
                if time.monotonic() >= self._next_at:
                    self._next_at = time.monotonic() + PROGRESS_EVERY_S
                    self._send_progress()
                return
        self._warn_dropped()

    def close(self) -> None:
        """Send progress that was not sent yet, and refuse further writes."""
        with self._lock:
            self._send_progress()
            self._is_over = True

    def _send_progress(self) -> None:
        if self._progress is not None:
            self._process.send(frames.PROGRESS, frames.numbered(self._number, self._progress))
            self._progress = None

    def _warn_dropped(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "task %s has ended, but its thread still reports progress or results; they are dropped", self._name
            )

    @property
    def steps(self) -> Steps:
        raise StepError(_NO_STEPS)

    def check(self) -> None:
        """Do nothing: a signal interrupts the function."""

    def save_position(self, position: bytes) -> None:
        """Do nothing. This method is never called, because `iterate` needs the record of steps."""

    def report(self, done: int, total: int | None) -> None:
        """Do nothing. This method is never called, because `iterate` needs the record of steps."""


def _context(facts: Mapping[str, Any], message: TaskMessage, sender: _ProgressSender) -> TaskContext:
    ahead_s = facts["clock_ahead_s"]  # Redis's clock minus the clock of this machine
    ends_s = ends_at(message, SYSTEM_CLOCK.time(), clock_ahead_s=ahead_s) + ahead_s
    return TaskContext(
        id=message.id,
        name=facts["name"],
        queue=facts["queue"],
        retried=message.retried,
        max_retry=message.retry,
        deadline=utc_datetime(min(ends_s, LATEST_S)),
        headers=dict(message.headers),
        worker=facts["worker"],
        _open_buffer=lambda: sender,
    )


def _connect(app: TaskQ, broker: Mapping[str, Any]) -> None:
    """Make an application use the worker's broker instead of the broker that its code configures."""
    if not broker:
        return
    url: Any = Address(**_hashable(broker["address"])) if "address" in broker else broker["url"]
    settings = app.settings
    if (settings.url, settings.prefix) != (url, broker["prefix"]):
        app.configure(replace(settings, url=url, prefix=broker["prefix"]))


def _hashable(address: Mapping[str, Any]) -> dict[str, Any]:
    return {**address, "hosts": tuple((str(host), int(port)) for host, port in address["hosts"])}


def _set_up(boot: Mapping[str, Any]) -> None:
    sys.path[:] = boot["path"]
    if boot["set_up"]:
        module, _, name = boot["set_up"].partition(":")
        getattr(importlib.import_module(module), name)()
    root = logging.getLogger()
    if all(map(is_log_exporter, root.handlers)):
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter("%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(boot["log_level"])
    complete_exported_logs()


def _die_with(parent: int) -> None:
    """Make the kernel kill this process when the worker ends, where that is possible."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the worker ended before `prctl`, so no signal will follow
        os._exit(1)


def main() -> None:
    """Run tasks for the worker that started this process."""
    parent, descriptor, *names = map(int, sys.argv[1:])
    _die_with(parent)
    connection = socket.socket(fileno=descriptor)
    connection.setblocking(True)
    for each in (descriptor, *names):  # child processes of tasks must not inherit the worker's sockets
        os.set_inheritable(each, False)
    process = TaskProcess(connection)
    signals.handle(process.on_signal)
    process.serve()


if __name__ == "__main__":
    main()
