"""The steps of one run of a task.

This module reads the stored record of earlier steps, counts the uses of each step name, stores results and the position
of loops, and decides whether the run has to wait.
"""

import asyncio
import logging
import math
import re
import shlex
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from taskq_core.broker.operations import steps as operations
from taskq_core.broker.operations.operation import Operation, run_owner
from taskq_core.broker.operations.steps import Record, Refusal
from taskq_core.codec import check_step_name, encode_result
from taskq_core.errors import (
    StepError,
    TaskControl,
    TaskInterrupted,
    TaskPaused,
    TaskWaiting,
    WorkflowCancelledError,
    WorkflowFailedError,
)
from taskq_core.execution.step_failures import (
    FAILED,
    StepErrors,
    StepFailure,
    StepPolicy,
    branch,
    decode_failure,
    encode_failure,
    missed_handler,
)
from taskq_core.settings import Duration, seconds, unknown
from taskq_core.telemetry import ConsumerSpan, Tracing
from taskq_core.wire import QueueKeys

logger = logging.getLogger("taskq.worker")

T = TypeVar("T")

RECORD_BYTES = 4 << 20
"""Maximum size in bytes of all stored step results of a task together."""
STEPS_MAX = 1_000
"""Maximum number of steps of a task."""
REASON_CHARS = 4_000
"""Maximum length of the stored reason why sub-tasks failed."""
WAITS = {"z": "sleep", "r": "receive", "o": "receive_any", "v": "receive", "c": "call", "y": "the retry of step"}
"""What waits, by the first letter of the wait in the record."""
PARTIAL = b"?"
"""Precedes the JSON of `PartialResults` in the results of sub-tasks."""
current_step: ContextVar[str] = ContextVar("taskq_current_step", default="")
"""Name of the step that runs this code, "" outside of steps."""


class PartialResults(msgspec.Struct):
    """The results of sub-tasks of which some failed.

    Attributes:
        results: The results as a JSON list, with null for each failed sub-task.
        errors: The errors of failed sub-tasks, by position.
        queue: Home queue of their workflow.
        workflow: Id of their workflow.
    """

    results: msgspec.Raw
    errors: dict[int, str]
    queue: str
    workflow: str


class Steps(ABC):
    """The steps of one run of a task.

    All its coroutines run on the worker's event loop. They raise `TaskInterrupted` if the run must end, and `StepError`
    if the record is lost. Subclasses send the requests, for a worker and for tests.

    Args:
        queue: Key names of the task's queue.
        task_id: Id of the task.
        owner: Token of the worker.
        run: Number of the run.
        tracing: Records the spans of steps.
        span: The span of the run, which links to the request whose signal has resumed the task.
        signals: The signals that the task declares, with the types of their values. Empty: all names are allowed.
        step_errors: Exception classes that the code may catch from its steps.
        max_emitted: Approximate number of emitted values that are stored.

    Attributes:
        span: Returns a context manager that records the span of a step.
        position: The newest position of the loops as JSON, stored or not. None: there is nothing to store.
        is_closed: True once the function has ended. Code that it started may still run.
        wish: What becomes of the task after its function has ended, if its cancellation was requested: archive or
            discard. "" otherwise.
        is_cancelled: Whether the function was interrupted for this. It may still call further steps.
    """

    def __init__(
        self,
        queue: QueueKeys,
        task_id: str,
        *,
        owner: str,
        run: int,
        tracing: Tracing,
        span: ConsumerSpan | None,
        signals: Mapping[str, Any],
        step_errors: StepErrors,
        max_emitted: int,
    ) -> None:
        self.span = tracing.step
        self._process = span
        self.is_closed = False
        self.wish = ""
        self.is_cancelled = False
        self._cancelled_ms = math.inf  # when the cancellation was requested
        self.position: bytes | None = None
        self._stored_position: bytes | None = None
        self._queue = queue
        self._task_id = task_id
        self._signals = signals
        self._step_errors = step_errors
        self._max_emitted = max_emitted
        self._failures: list[StepFailure] = []  # failures that the code of this run got
        self._storing = asyncio.Lock()  # a branch waits until a failure that it has caught is stored
        self._fence: dict[str, Any] = {"owner": owner, "run": run}
        self._names: Counter[str] = Counter()
        self._record: Record = {}
        self._has_links = self._links_stored = False  # whether links contain the fence of this run, and the record too
        self._lock = asyncio.Lock()
        self._ahead_ms = -1.0  # Redis's clock minus the monotonic clock; -1 before the stored steps are loaded
        self._loaded_ms = 0  # when this run has loaded the stored steps
        self._size = 0  # bytes of the stored results of all steps
        self._attempt = 1
        self._calls = 0  # number of requests that appended emitted values
        self._emitted = 0  # number of values that this run emitted outside of steps
        self._open = 0  # number of running steps
        self._waiting: tuple[str, int, int] | None = None  # arguments of the `TaskWaiting` that ends the run
        self._quiet = asyncio.Event()  # set while no step runs
        self._quiet.set()

    def forget_command(self, name: str) -> str:
        """Return the command that deletes the stored result of a step, or the value of a signal."""
        return shlex.join(["taskq", "task", "forget-step", "--queue", self._queue.name, self._task_id, name])

    # --- what subclasses implement ------------------------------------------------------------------------------------

    @abstractmethod
    async def _ask(self, operation: Operation[T], *, at_end: bool = False) -> T:
        """Send an operation, and return the answer.

        `at_end`: also send the operation if the run has to end, because it stores what the run has done.
        """

    @abstractmethod
    async def _hold_lease(self) -> None:
        """Raise `TaskInterrupted` if another worker may have taken the task, so that no step of it may start."""

    @abstractmethod
    async def _interrupt(self, *, is_first: bool) -> None:
        """Cancel the coroutine of the run, and wait until the caller is cancelled. Return if it is no coroutine.

        `is_first`: False if the coroutine is cancelled already.
        """

    @abstractmethod
    def _counts(self, error: Exception) -> bool:
        """Return whether an exception of a step counts as a failure."""

    @abstractmethod
    async def _pause(self, seconds: float) -> bool:
        """Wait until the next attempt of a step. Return False if the delay is so long that the run has to end."""

    @abstractmethod
    async def _start_children(self, name: str, workflow_id: str, calls: Sequence[Any]) -> None:
        """Enqueue sub-tasks as a workflow with this id, unless it exists."""

    @abstractmethod
    async def _read_children(self, workflow_id: str, *, each: bool) -> bytes | None:
        """Return the results of ended sub-tasks as a JSON list.

        Return None if a user has retried some of them, so that they have not ended. Raise the error of a failed
        sub-task. With `each`, return `PARTIAL` and the JSON of `PartialResults` instead.
        """

    @abstractmethod
    async def _send(self, step: str, value: bytes) -> None:
        """Append a value to the output of the task, at once or in a later batch."""

    @abstractmethod
    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of this class from blocking code."""

    @abstractmethod
    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of this class from a coroutine on any event loop."""

    # --- the record ---------------------------------------------------------------------------------------------------

    async def _load(self) -> Record:
        async with self._lock:  # concurrent steps load the stored steps only once
            while self._ahead_ms < 0 or self._has_links != self._links_stored:
                self._links_stored = self._has_links
                load = operations.load_steps(self._queue, self._task_id, has_links=self._links_stored, **self._fence)
                loaded = _accepted(await self._ask(load))
                self._record = loaded.record
                self._size = sum(len(value) for field, value in loaded.record.items() if field[:2] in ("s:", "k:"))
                self._attempt = loaded.attempt
                self.read_wish(loaded.record)
                if self._ahead_ms < 0 and self._process is not None and (sender := loaded.sender):
                    self._process.link(sender)
                self._ahead_ms, self._loaded_ms = loaded.now_ms - time.monotonic() * 1000, loaded.now_ms
        return self._record

    @property
    def _now_ms(self) -> int:
        return round(self._ahead_ms + time.monotonic() * 1000)

    async def _store(
        self, field: str, value: bytes, *, missed: str = "", values: Sequence[tuple[str, bytes]] = ()
    ) -> bytes:
        """Store a field of the steps' record, after emitted values that are not stored yet.

        Return the stored value, which is an earlier value if the field was already stored.
        """
        output = self._output(values) if values else None
        store = operations.store_step(
            self._queue, self._task_id, field, value, missed=missed, output=output, **self._fence
        )
        stored = self._record[field] = _accepted(await self._ask(store, at_end=True))
        return stored

    async def _append(self, values: Sequence[tuple[str, bytes]]) -> None:
        """Append values, each with the name of its step, to the output of the task."""
        append = operations.emit(self._queue, self._task_id, self._output(values), **self._fence)
        _accepted(await self._ask(append, at_end=True))

    def _output(self, values: Sequence[tuple[str, bytes]]) -> operations.Output:
        self._calls += 1
        return operations.Output(values, self._calls, self._attempt, self._max_emitted)

    def _count(self, kind: str, what: str, name: str) -> int:
        """Check the name of a step, and count its use in this run. Return the number of its uses."""
        if current_step.get():
            problem = f"{what} {name!r:.120} is inside step {current_step.get()!r}; steps cannot be nested"
            cure = "begin it in the function of the task, before or after the step"
            raise StepError(f"{problem}: {cure}", is_final=True)
        counted = kind + check_step_name(what, name)
        self._names[counted] += 1
        if self._names.total() > STEPS_MAX:
            problem = f"a task has at most {STEPS_MAX:,} steps and waits; use `iterate` for many small items"
            raise StepError(problem, is_final=True)
        return self._names[counted]

    def _numbered(self, kind: str, what: str, name: str) -> str:
        """Return the name of a step.

        From the second use of the name in this run on, a number follows it, as in `fetch#2`.
        """
        number = self._count(kind, what, name)
        return name if number == 1 else f"{name}#{number}"

    def read_wish(self, record: Record) -> None:
        """Read from a record whether the cancellation of the task was requested."""
        if "cancel" in record:
            requested_ms, _, self.wish = record["cancel"].decode().partition(" ")
            self._cancelled_ms = int(requested_ms)

    def _event(self, field: str) -> bytes | None:
        """Return a field that begins with the time of an event, None if it is missing or after the cancellation.

        So a wait that was cancelled is cancelled in each later run too, whatever happens in the meantime.
        """
        stored = self._record.get(field)
        return None if stored is None or int(stored.partition(b" ")[0]) > self._cancelled_ms else stored

    async def _check_cancel(self) -> None:
        """Interrupt the function, once in a run, if the cancellation of the task was requested.

        Called where the function would do something new. Afterwards, it may call further steps.
        """
        if self.wish and (not self.is_cancelled or self._is_late()):
            is_first, self.is_cancelled = not self.is_cancelled, True
            await self._interrupt(is_first=is_first)
            raise TaskInterrupted

    def _is_late(self) -> bool:
        """Return whether the calling code began before the function was interrupted, and does not know of it yet."""
        return False

    # --- steps --------------------------------------------------------------------------------------------------------

    async def begin(self, name: str) -> tuple[str, bytes | None, int]:
        """Return the name of a step with its number, its stored result, and the time in Unix ms.

        Without a result, the caller must call `end`.
        """
        if self._waiting is not None:  # called by a `finally` or by background code, after the wait began
            raise TaskWaiting(*self._waiting)
        if self.is_closed:  # background code of the function has called `begin`
            raise TaskInterrupted
        name = self._numbered("s:", "name of a step", name)
        self._open += 1
        self._quiet.clear()
        stored, retry = None, ""
        try:
            await self._store_caught()
            record = await self._load()
            stored = record.get(f"s:{name}")
            if stored is None:
                await self._check_cancel()
                retry = self._early_retry(name)
                if not retry:
                    await self._hold_lease()
        except BaseException:
            self._close()
            raise
        if stored is None and not retry:
            return name, None, self._now_ms
        self._close()
        if stored is None:
            raise await self._wait(retry, int(self._record[f"u:{retry}"].partition(b" ")[0]))
        data = read_result(stored)[2]
        if data.startswith(FAILED):
            raise self._failed(StepFailure(name, decode_failure(name, data, self._step_errors), is_final=True))
        return name, data, self._now_ms

    async def has_result(self, name: str) -> bool:
        """Return whether the record has a result of a step, stored in this run or an earlier one."""
        return f"s:{name}" in await self._load()

    def _close(self) -> None:
        self._open -= 1
        if not self._open:
            self._quiet.set()

    async def _others_end(self) -> None:
        """Wait until no step runs."""
        while self._open:
            await self._quiet.wait()  # in a loop, because code after a step may begin another step

    async def end(
        self,
        name: str,
        data: bytes | None,
        started_ms: int,
        error: Exception | None = None,
        policy: StepPolicy | None = None,
    ) -> bytes | None:
        """Store the result of a step that has begun, and return the JSON that is stored.

        If the step raised `error`, count its failure, and raise what the code of the task gets. Return None if the
        policy of the step wants the next attempt now.

        The code gets a failure after all other steps have ended: the failure may end the run, and after its end the
        results of the other steps could not be stored.
        """
        retry, until_ms = "", 0
        failed: Exception | None = error
        try:
            if data is not None:
                return await self._store_result("s", name, data, started_ms)
            if error is None:  # the step was interrupted
                return b""
            if not isinstance(error, TaskControl):
                count = await self._count_failure(name, error)
                delay_s = None if policy is None else policy.delay_s(error, count)
                if delay_s is None:
                    failed = self._failure(name, error, started_ms, count, is_final=policy is not None)
                elif await self._pause(delay_s):
                    await self._hold_lease()
                    self._open += 1  # for the next attempt
                    return None
                else:
                    retry, until_ms = f"y:{name}#{count}", math.ceil(self._now_ms + delay_s * 1000)
        finally:
            self._close()
        if retry:
            raise await self._wait(retry, until_ms)
        await self._others_end()
        assert failed is not None
        if failed is error:
            raise error
        raise failed from error

    async def _store_result(self, kind: str, name: str, data: bytes, started_ms: int) -> bytes:
        """Store the result of a step or of sub-tasks. Return the JSON that is stored."""
        now_ms = self._now_ms
        value = b"%d %d %b" % (now_ms, max(0, now_ms - started_ms), data)
        size = self._size + len(value)
        if size > RECORD_BYTES:
            problem = f"the results of all steps must be at most {RECORD_BYTES:,} bytes, got {size:,}"
            raise StepError(problem, is_final=True)
        self._size = size
        store = self._store_step(name, value) if kind == "s" else self._store(f"{kind}:{name}", value)
        return read_result(await store)[2]

    async def _count_failure(self, name: str, error: Exception) -> int:
        """Return how many times a step has failed. Store the number if this failure counts."""
        count = _count(self._record, name)
        if self._counts(error):
            count += 1
            await self._store(f"a:{name}", b"%d %d" % (count, self._now_ms))
        return count

    def _failure(self, name: str, error: Exception, started_ms: int, count: int, *, is_final: bool) -> Exception:
        """Remember a failure of this run, and return the exception that the code gets."""
        data = encode_failure(error, self._step_errors)
        raised = decode_failure(name, data, self._step_errors)
        return self._failed(
            StepFailure(
                name,
                raised,
                original=error,
                count=count,
                is_final=is_final,
                branch=branch.get(),
                started_ms=started_ms,
                data=data,
            )
        )

    def _failed(self, failure: StepFailure) -> Exception:
        """Remember a failure, and return the exception that the code gets."""
        self._failures.append(failure)
        return failure.raised

    def _early_retry(self, name: str) -> str:
        """Return the wait of a step for its next attempt, "" if it does not wait or the wait is over."""
        retry = f"y:{name}#{_count(self._record, name)}"
        until = self._record.get(f"u:{retry}")
        return retry if until is not None and int(until.partition(b" ")[0]) > self._now_ms else ""

    async def _store_caught(self) -> None:
        """Store the failures that the calling branch has caught, because it begins another step or a wait."""
        if any(each.data for each in self._failures):
            async with self._storing:
                for each in self._failures:
                    if each.data and each.is_caught_by(branch.get()):
                        await self._store_result("s", each.name, each.data, each.started_ms)
                        each.data, each.is_final = b"", True

    def failure_behind(self, error: BaseException | None) -> tuple[BaseException | None, StepFailure | None]:
        """Return the original of the exception that has ended the run, and the failed step behind it.

        The failed step is None if the exception is not that of a step. If an exception group has several, return one
        that is final if there is one. Log a warning if the code probably expects the original exception.
        """
        if isinstance(error, BaseExceptionGroup):
            parts = [self.failure_behind(each) for each in error.exceptions]
            found = sorted((each for _, each in parts if each is not None), key=lambda each: each.is_final)
            if not found:
                return error, None
            group = error.derive([each for each, _ in parts if each is not None])
            return group.with_traceback(error.__traceback__), found[-1]
        failure = next((each for each in self._failures if each.raised is error), None)
        if failure is None or failure.original is None:
            return error, failure
        if (code := missed_handler(failure)) is not None:
            kind = type(failure.original).__name__
            logger.warning(
                "step %r raised %s, which the function %s names but did not get; to catch it, declare "
                "step_errors=(%s,) in the options of the task, or catch StepFailedError",
                failure.name,
                kind,
                code.co_qualname,
                kind,
                extra={"queue": self._queue.name, "task_id": self._task_id},
            )
        return failure.original, failure

    async def _store_step(self, name: str, value: bytes) -> bytes:
        """Store the result of a step, not before the values that the step has emitted."""
        return await self._store(f"s:{name}", value)

    async def _wait(self, wait: str, until_ms: int = 0) -> TaskWaiting:
        """Wait until all concurrent steps have ended, and return the exception that ends this run.

        The exception is that of the first wait, even if a `finally` block of the function waits for something else.
        """
        await self._others_end()
        await self._check_cancel()
        if self.is_cancelled and wait[0] != "y":
            problem = f"{WAITS[wait[0]]} {wait[2:]!r} cannot wait, because the task was cancelled"
            raise StepError(f"{problem}; its code may only call further steps", is_final=True)
        if self._waiting is None:
            self._waiting = wait, until_ms, self._emitted
        return TaskWaiting(*self._waiting)

    def check_end(self, error: BaseException | None) -> BaseException | None:
        """Return the error of a run that has ended: a `StepError` if its function has suppressed `TaskWaiting`.

        Args:
            error: What the function has raised. None: it has returned.
        """
        if self._waiting is None or (error is not None and not _is_raised_after_wait(error)):
            return error
        wait, how = self._waiting[0], "returned" if error is None else f"raised {type(error).__name__}"
        problem = StepError(
            f"the function {how} after {WAITS[wait[0]]} {wait[2:]!r} had begun to wait; let TaskWaiting pass, which "
            "ends the run: `except Exception` does not catch it, but `except:` and `except BaseException` do"
        )
        problem.__cause__ = error
        return problem

    async def _end_wait(self, wait: str, duration_ms: float) -> None:
        """Return if a wait is over.

        Raise `TaskWaiting` otherwise. The run in which the wait began has set the end of the wait.
        """
        stored = self._record.get(f"u:{wait}", b"-").partition(b" ")[0]
        until_ms = math.ceil(self._now_ms + duration_ms) if stored == b"-" else int(stored)
        if until_ms > min(self._now_ms, self._cancelled_ms):
            raise await self._wait(wait, until_ms)

    # --- the position of loops ----------------------------------------------------------------------------------------

    async def load_position(self) -> bytes:
        """Return the position of the loops that earlier runs have stored, as JSON. b"" without one."""
        stored = (await self._load()).get(operations.POSITION)
        return b"" if stored is None else read_result(stored)[2]

    @property
    def _has_new_position(self) -> bool:
        return self.position is not None and self.position is not self._stored_position

    async def store_position(self) -> None:
        """Store the newest position of the loops, unless it is stored."""
        await self._store_position(())

    async def _store_position(self, values: Sequence[tuple[str, bytes]]) -> None:
        """Store emitted values, and after them the newest position."""
        position = self.position
        if position is None or position is self._stored_position:
            if values:
                await self._append(values)
            return
        now_ms = self._now_ms
        value = b"%d %d %b" % (now_ms, now_ms - self._loaded_ms, position)
        output, field = self._output(values), operations.POSITION
        store = operations.store_step(self._queue, self._task_id, field, value, output=output, **self._fence)
        _accepted(await self._ask(store, at_end=True))
        self._stored_position = position

    # --- waits --------------------------------------------------------------------------------------------------------

    async def sleep(self, name: str, duration: Duration | datetime) -> None:
        """Return if the sleep is over. Raise `TaskWaiting` otherwise."""
        name = self._numbered("z:", "name of a sleep", name)
        await self._store_caught()
        await self._load()
        if not isinstance(duration, datetime):
            duration_ms = 0.0 if _is_negative(duration) else seconds("sleep", duration) * 1000
        elif duration.tzinfo is None:
            raise StepError(f"sleep takes a datetime with a time zone, got {duration!r}", is_final=True)
        else:
            duration_ms = duration.timestamp() * 1000 - self._now_ms
        await self._end_wait(f"z:{name}", duration_ms)

    def next_receive(self, name: str) -> tuple[int, int, str]:
        """Return the numbers of the next `receive` of a name, without and with `ask`, and a generation of the task.

        Before the record is loaded, its generation is unknown. Then the fence of the run takes its place, which the
        request that loads the record adds to the record.
        """
        self._check_signal(name)
        numbers = self._names[f"r:{name}"] + 1, self._names[f"v:{name}"] + 1
        if self._ahead_ms >= 0:
            return *numbers, self._record["of"].decode()
        self._has_links = True
        return *numbers, run_owner(**self._fence)

    async def receive(self, name: str, timeout: Duration | None) -> tuple[str, bytes | None]:
        """Return the name and number of the next signal, and its value as JSON, None after the timeout.

        Raise `TaskWaiting` if the signal has not arrived.
        """
        numbered = f"{name}#{self._count('r:', 'name of a signal', name)}"
        self._check_signal(name)
        await self._store_caught()
        field = f"r:{numbered}"
        await self._load()
        data = self._event(field)
        if data is None:
            if timeout is None:
                raise await self._wait(field)
            await self._end_wait(field, seconds("timeout", timeout) * 1000)
            data = await self._store(field, b"%d " % self._now_ms, missed=name)
        return numbered, data.partition(b" ")[2] or None

    async def receive_any(self, names: Sequence[str], timeout: Duration | None) -> tuple[str, bytes]:
        """Return the name and number of the first signal that arrived, and its value as JSON. "" after the timeout.

        Raise `TaskWaiting` without one. The choice is stored, so each later run gets the same signal.
        """
        for name in names:
            self._count("o:", "name of a signal", name)
            self._check_signal(name)
            if "|" in name:
                raise StepError(f"receive_any takes names of signals without '|', got {name!r}", is_final=True)
        uses = self._names[f"o:{names[0]}"]
        await self._store_caught()
        record = await self._load()
        numbered = [f"{name}#{self._names[f'r:{name}'] + 1}" for name in names]
        wait = f"o:{' | '.join(numbered)} | #{uses}"
        choice = record.get(wait)
        if choice is None:
            signals = [(each, self._event(f"r:{each}")) for each in numbered]
            arrived = [(int(signal.partition(b" ")[0]), each) for each, signal in signals if signal is not None]
            first = min(arrived, key=lambda each: each[0])[1] if arrived else ""
            if timeout is None and not first:
                raise await self._wait(wait)
            if not first:
                await self._end_wait(wait, seconds("timeout", timeout) * 1000)
            choice = b"%d %b" % (self._now_ms, first.encode())
        chosen = choice.partition(b" ")[2].decode()
        if chosen:
            self._names[f"r:{chosen.rpartition('#')[0]}"] += 1
        if wait not in record and not await self._store(wait, choice):  # a signal arrived as the timeout was stored
            raise await self._wait(wait, self._now_ms)
        return chosen, record[f"r:{chosen}"].partition(b" ")[2] if chosen else b""

    async def ask(
        self, name: str, question: bytes, timeout: Duration | None
    ) -> tuple[str, operations.StoredAnswer | None, int]:
        """Return the name and number of a question, its answer, and when the answer arrived (Unix ms).

        The answer is None after the timeout. Raise `TaskWaiting` if nobody has answered.

        Args:
            name: Name of the question.
            question: What is asked, from `encode_question`.
            timeout: As for `receive`.
        """
        self._check_signal(name)
        await self._store_caught()
        record = await self._load()
        if self._began_as_signal(name):
            numbered, data = await self.receive(name, timeout)
            return numbered, None if data is None else operations.StoredAnswer("", msgspec.Raw(data)), self._now_ms
        numbered = f"{name}#{self._count('v:', 'name of a question', name)}"
        field = f"v:{numbered}"
        stored = self._event(field)
        if stored is None:
            if f"q:{numbered}" not in record:
                await self._check_cancel()
                received = self._names[f"r:{name}"]
                await self._store(f"q:{numbered}", b"%d %d %b" % (self._now_ms, received, question))
            if timeout is None:
                raise await self._wait(field)
            await self._end_wait(field, seconds("timeout", timeout) * 1000)
            stored = await self._store(field, b"%d " % self._now_ms)
        return numbered, operations.read_answer(stored), int(stored.partition(b" ")[0])

    def _began_as_signal(self, name: str) -> bool:
        """Return whether the code waited for a signal at the next question, because it did not ask yet."""
        asked, received = self._names[f"v:{name}"], self._names[f"r:{name}"]
        question = self._record.get(f"q:{name}#{asked + 1}")
        is_known = question is not None and int(question.split(b" ", 3)[2]) == received
        return not is_known and f"u:r:{name}#{received + 1}" in self._record

    def _check_signal(self, name: str) -> None:
        if self._signals and name not in self._signals:
            raise StepError(str(unknown("signal", name, self._signals)))

    async def call(self, name: str, calls: Sequence[Any], *, each: bool) -> tuple[str, bytes]:
        """Return the name and number of a call, and the results of its sub-tasks as a JSON list.

        Raise `TaskWaiting` if the sub-tasks have not ended. If some of them failed, raise the error, or with `each`
        return what `_read_children` returns.
        """
        name = self._numbered("c:", "name of a call", name)
        await self._store_caught()
        record = await self._load()
        stored = record.get(f"k:{name}")
        data = await self._children(name, calls, each=each) if stored is None else read_result(stored)[2]
        if data.startswith(FAILED):
            facts = msgspec.json.decode(data[len(FAILED) :], type=tuple[str, str, str])
            raise self._failed(StepFailure(name, WorkflowFailedError(*facts), is_final=True))
        return name, data

    async def _children(self, name: str, calls: Sequence[Any], *, each: bool) -> bytes:
        """Enqueue sub-tasks, or store their results if all of them have ended."""
        record = self._record
        begun = record.get(f"c:{name}")
        if begun is None:
            await self._check_cancel()
            begun = b"%d %b" % (self._now_ms, children_id(self._task_id, record["of"].decode(), name).encode())
            begun = await self._store(f"c:{name}", begun)
        started_ms, _, workflow_id = begun.decode().partition(" ")
        if self._event(f"e:{name}") is not None:
            try:
                data = await self._read_children(workflow_id, each=each)
            except (WorkflowFailedError, WorkflowCancelledError) as error:
                facts = [error.queue, workflow_id, error.reason[:REASON_CHARS]]
                data = FAILED + encode_result(facts)
            if data is not None:
                return await self._store_result("k", name, data, int(started_ms))
        else:
            await self._start_children(name, workflow_id, calls)
        raise await self._wait(f"c:{name}")

    async def emit(self, value: bytes) -> None:
        """Emit a value, unless an earlier run of this attempt has already emitted it before a wait."""
        step = current_step.get()
        record = await self._load()
        if self._waiting is not None:  # the next run emits the value again
            raise TaskWaiting(*self._waiting)
        if not step:
            self._emitted += 1
            if self._emitted <= int(record.get("x", 0)):
                return
        await self._send(step, value)


def _accepted(answer: T | Refusal) -> T:
    """Return the answer of a script. Raise an error if the script refused the request of this run."""
    if isinstance(answer, Refusal):
        if answer.is_lost:
            raise StepError(operations.LOST, is_final=True)
        raise TaskInterrupted
    return answer


def _is_raised_after_wait(error: BaseException) -> bool:
    """Return whether code that caught `TaskWaiting` raised an error, and not for example a concurrent step."""
    if isinstance(error, TaskPaused):
        return False
    found: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in found and not isinstance(each, BaseExceptionGroup):
        found.add(id(each))
        if isinstance(each, TaskWaiting):
            return True
        each = each.__context__
    return False


def _is_negative(duration: object) -> bool:
    if isinstance(duration, timedelta):
        return duration < timedelta()
    return isinstance(duration, int | float) and -math.inf < duration < 0


def _count(record: Record, name: str) -> int:
    """Return how many times a step has failed."""
    return int(record.get(f"a:{name}", b"0").partition(b" ")[0])


def read_result(stored: bytes) -> tuple[int, int, bytes]:
    """Return the end (Unix ms), the duration (ms) and the JSON of the stored result of a step or of sub-tasks."""
    ended_ms, took_ms, data = stored.split(b" ", 2)
    return int(ended_ms), int(took_ms), data


def children_id(task_id: str, mark: str, name: str) -> str:
    """Return the id of the workflow of sub-tasks. A later task with the same id gets another workflow id."""
    import hashlib  # imported here, because few tasks have sub-tasks

    digest = hashlib.blake2b(f"{task_id}\n{mark}\n{name}".encode(), digest_size=8).hexdigest()
    label = re.sub(r"[^\w.-]", "-", f"{task_id[:64]}.{name[:32]}", flags=re.ASCII)
    return f"{label}.{digest}"
