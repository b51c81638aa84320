"""Run plain functions of tasks with `executor="process"` in separate processes.

Each process runs one task at a time. Processes start on demand, are reused, and are replaced after `RUNS_MOST` tasks.
If a function must end, `TaskInterrupted` is raised in it. If it has not ended within a second, its process is killed,
which also ends a call into C. If a process dies, only the attempt of its task fails.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import asdict
from typing import Any

import msgspec

from taskq_core.broker.connection import Address
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.codec.oversized import OversizedResult, read_oversized
from taskq_core.errors import TaskProcessError
from taskq_core.telemetry import launched
from taskq_core.wire import encode_message
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.deadlines import Deadlines
from taskq_core.worker.progress import ProgressWriter
from taskq_core.worker.run import Run
from taskq_core.worker.task_process import frames, signals
from taskq_core.worker.task_process.failures import decode_failure

logger = logging.getLogger("taskq.worker")

BOOT_S = 120.0
"""Seconds a process gets to start, and again to import a module. The timeout of a task begins after that."""
INTERRUPT_S = 1.0
"""Seconds an interrupted function gets to end before its process is killed."""
CLOSE_S = 2.0
"""Seconds that idle processes get to end, for example to send telemetry, before they are killed."""
RUNS_MOST = 1000
"""Number of tasks after which a task process is replaced."""
_POLL_S = 0.02
"""Seconds between two checks whether a task process has ended."""
_ALIVE_EVERY_S = 1.0
"""Seconds between two checks whether a busy process is alive. The socket does not show this, because children of a dead
process may keep it open."""


class TaskProcesses:
    """Runs the plain functions of tasks in separate processes.

    Args:
        context: The worker.
        deadlines: Computes when runs must end.
        progress: Writes the progress of runs.
        name: Socket that proves that the worker or one of its processes lives. Processes inherit it; see
            `liveness.hold`.
    """

    def __init__(
        self,
        context: WorkerContext,
        deadlines: Deadlines,
        progress: ProgressWriter,
        name: socket.socket | None,
    ) -> None:
        self._app = context.app
        self._worker = context.token
        self._redis_clock = context.redis_clock
        self._deadlines = deadlines
        self._progress = progress
        self._name = name
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def call(self, run: Run) -> object:
        """Run the function of a run and return its result, as JSON or as `OversizedResult`.

        A cancellation ends the function.

        Raises:
            TaskProcessError: The process could not be started, or ended during the run.
            BaseException: The function's exception, rebuilt from JSON; see `task_process.failures`.
        """
        while True:
            self._deadlines.hold(run)
            idle = self._take_idle()
            process = await self._start(run) if idle is None else idle
            try:
                return await self._call(process, run)
            except _NotStartedError:  # the idle process ended before it received the task: use another process
                if idle is None:
                    raise self._died(run, process) from None

    async def _call(self, process: "_Process", run: Run) -> object:
        is_whole = has_started = False
        facts = self._facts(run)
        module = facts["module"]
        try:
            async with asyncio.timeout(BOOT_S) as import_limit:
                if module in process.modules:  # the module is already imported, so the task's timeout begins now
                    import_limit.reschedule(None)
                    self._deadlines.begin_again(run)
                await process.send(frames.TASK, json.dumps({**facts, "number": process.runs}).encode())
                await process.send(frames.MESSAGE, encode_message(run.message))
                while True:
                    kind, data = await process.next_frame()
                    if kind == frames.STARTED:
                        has_started = True
                        if module not in process.modules:
                            process.modules.add(module)
                            import_limit.reschedule(None)
                            self._deadlines.begin_again(run)
                    elif kind in (frames.PROGRESS, frames.WRITTEN, frames.WRITTEN_OVERSIZED):
                        self._store_written(process, run, kind, data)
                    elif kind == frames.RESULT:
                        is_whole = True
                        return msgspec.Raw(data) if data else None
                    elif kind == frames.OVERSIZED:
                        is_whole = True
                        return _oversized(data)
                    elif kind == frames.FAILURE:
                        is_whole = True
                        raise decode_failure(data)
        except TimeoutError:
            if not import_limit.expired():  # the function raised the TimeoutError, not the import limit
                raise
            problem = f"the process did not import {module} within {BOOT_S:g} s"
            raise TaskProcessError(run.queue.name, run.task_id, None, problem) from None
        except _EndedError:
            await process.end()
            if not has_started:
                raise _NotStartedError from None
            raise self._died(run, process) from None
        finally:
            process.runs += 1
            if is_whole and process.runs < RUNS_MOST:
                self._idle.append(process)
            elif is_whole:
                self._release(process)
            else:
                await process.interrupt()
                self._all.discard(process)

    def _take_idle(self) -> "_Process | None":
        """Return an idle process, or None. Discard idle processes that have ended."""
        dead = [each for each in self._idle if each.process.poll() is not None]
        for process in dead:
            self._idle.remove(process)
            self._release(process)
        return self._idle.pop() if self._idle else None

    def _store_written(self, process: "_Process", run: Run, kind: bytes, content: bytes) -> None:
        number, data = frames.read_number(content)
        if number != process.runs:
            logger.warning("a child process of an ended task still reports progress or results; they are dropped")
        elif kind == frames.PROGRESS:
            self._progress.of(run).store_progress(data)
        else:
            self._progress.of(run).write_result(_oversized(data) if kind == frames.WRITTEN_OVERSIZED else data)

    def _release(self, process: "_Process") -> None:
        """Make a process end after its last task, without waiting for it."""
        self._all.discard(process)
        process.hang_up()
        leaving = asyncio.create_task(process.end(CLOSE_S), name="taskq process")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _facts(self, run: Run) -> dict[str, Any]:
        assert run.task is not None
        return {
            "module": run.task.function.__module__,
            "name": run.name,
            "queue": run.queue.name,
            "worker": self._worker,
            "clock_ahead_s": self._redis_clock.time() - SYSTEM_CLOCK.time(),
            "traceparent": None if run.span is None else run.span.traceparent,
        }

    def _died(self, run: Run, process: "_Process") -> TaskProcessError:
        return TaskProcessError(run.queue.name, run.task_id, process.process.poll())

    async def _start(self, run: Run) -> "_Process":
        try:
            process = await _Process.start(self._name)
        except OSError as error:
            raise TaskProcessError(
                run.queue.name, run.task_id, None, f"the process cannot be started: {error}"
            ) from error
        self._all.add(process)
        is_ready = False
        try:
            await process.send(frames.BOOT, json.dumps(self._boot()).encode())
            async with asyncio.timeout(BOOT_S):
                await process.next_frame()
            is_ready = True
        except (_EndedError, TimeoutError) as error:
            within = f" within {BOOT_S:g} s" if isinstance(error, TimeoutError) else ""
            problem = f"the process did not start{within}; its output shows the reason"
            await process.end(0.0 if within else INTERRUPT_S)
            status = None if within else process.process.poll()
            raise TaskProcessError(run.queue.name, run.task_id, status, problem) from None
        finally:
            if not is_ready:
                process.kill()
                self._release(process)
        return process

    def _boot(self) -> dict[str, Any]:
        settings = self._app.settings
        broker: dict[str, Any] = {}
        if isinstance(settings.url, str):
            broker = {"url": settings.url, "prefix": settings.prefix}
        elif isinstance(settings.url, Address):
            broker = {"address": {**asdict(settings.url)}, "prefix": settings.prefix}
        main = sys.modules.get("__main__")
        spec = getattr(main, "__spec__", None)
        return {
            "path": sys.path,
            "set_up": self._app.process_set_up,
            "broker": broker,
            "log_level": logging.getLogger().level,
            "main_module": None if spec is None else spec.name,
            "main_path": getattr(main, "__file__", None),
        }

    async def close(self) -> None:
        """End all processes. Kill busy ones, and give idle ones time to end by themselves."""
        waiting, self._idle = self._idle, []
        for process in self._all.difference(waiting):
            process.kill()  # the process is busy, but the worker has already requeued its task
        for process in waiting:
            process.hang_up()
        await asyncio.gather(*(process.end(CLOSE_S) for process in self._all), *self._leaving)
        self._all.clear()


def _oversized(data: bytes) -> OversizedResult:
    found = read_oversized(data)
    assert found is not None
    return found


class _EndedError(Exception):
    """Raised when a task process has ended."""


class _NotStartedError(Exception):
    """Raised when a task process ended before it began the task. Another process may then run the task."""


class _Process:
    """One task process, and the worker's connection to it."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._frames = frames.Frames()
        self._inbox: deque[tuple[bytes, bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self.runs = 0
        self.modules: set[str] = set()
        """Modules of tasks that the process has imported."""

    @classmethod
    async def start(cls, name: socket.socket | None) -> "_Process":
        """Start a process that inherits a socket.

        Raises:
            OSError: The system cannot start it.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [theirs.fileno()] if name is None else [theirs.fileno(), name.fileno()]
            module = ["-m", "taskq_core.worker.task_process", str(os.getpid()), *map(str, descriptors)]
            flags = [f"-W{each}" for each in sys.warnoptions]
            try:
                with signals.held_back():
                    process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own, and made in a few milliseconds
                        [sys.executable, *flags, *module],
                        env=launched(os.environ, [each for each in sys.path if each]),
                        pass_fds=descriptors,
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,  # a terminal sends Ctrl-C only to the worker's session
                    )
            except OSError:
                ours.close()
                raise
        return cls(process, *await asyncio.open_connection(sock=ours))

    async def send(self, kind: bytes, data: bytes) -> None:
        """Send a frame. If the process has ended, do nothing: the next read reports it."""
        with contextlib.suppress(OSError, RuntimeError):  # uvloop raises RuntimeError if the connection is closed
            self._writer.write(frames.encode(kind, data))
            await self._writer.drain()

    async def next_frame(self) -> tuple[bytes, bytes]:
        """Return the next frame from the process.

        Raises:
            _EndedError: The process has ended.
        """
        while not self._inbox:
            data = await self._read(_ALIVE_EVERY_S)
            if data is None:
                if self.process.poll() is None:
                    continue
                # Read twice: if the loop was blocked for longer than the timeout, the first read may time out although
                # the last bytes of the process are ready. The second read returns them.
                data = await self._read(_POLL_S) or await self._read(_POLL_S)
            if not data:
                raise _EndedError
            self._inbox.extend(self._frames.feed(data))
        return self._inbox.popleft()

    async def _read(self, within_s: float) -> bytes | None:
        """Return received bytes, b"" at the end of the connection, or None on timeout."""
        try:
            async with asyncio.timeout(within_s):
                return await self._reader.read(262_144)
        except TimeoutError:
            return None
        except OSError:
            return b""

    async def interrupt(self) -> None:
        """End the process: interrupt its function, and kill the process if the function does not end.

        This call cannot be cancelled.
        """
        with contextlib.suppress(OSError, RuntimeError):  # uvloop raises RuntimeError if the connection is closed
            self._writer.write(frames.encode(frames.INTERRUPT))
        until = self._loop.time() + INTERRUPT_S
        has_answered = False
        while self.process.poll() is None:
            if has_answered:
                self.hang_up()
            if self._loop.time() > until:
                self.kill()
            try:
                has_answered = has_answered or await self._answers()
                await asyncio.sleep(_POLL_S)
            except asyncio.CancelledError:  # the caller was cancelled a second time, so stop waiting
                self.kill()
        self.hang_up()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _answers(self) -> bool:
        """Wait at most `_POLL_S` for a frame from the process.

        Return whether the frame reports the end of the function.
        """
        try:
            async with asyncio.timeout(_POLL_S):
                kind, _ = await self.next_frame()
            return kind in (frames.RESULT, frames.OVERSIZED, frames.FAILURE)
        except (TimeoutError, _EndedError, OSError):
            return False

    async def end(self, within_s: float = INTERRUPT_S) -> None:
        """Wait until the process has ended. Kill it after `within_s`."""
        until = self._loop.time() + within_s
        while self.process.poll() is None:
            if self._loop.time() > until:
                self.kill()
            await asyncio.sleep(_POLL_S)
        self.hang_up()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def hang_up(self) -> None:
        """Close the connection. An idle process then ends by itself."""
        self._writer.close()

    def kill(self) -> None:
        """Kill the process and its children, except children with a separate session."""
        if self.process.poll() is None:
            with contextlib.suppress(OSError):
                # The process leads a session, so its process id is also the id of its process group.
                os.killpg(self.process.pid, signal.SIGKILL)
