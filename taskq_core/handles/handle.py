"""The handle of an enqueued task: its id, its state and the wait for its outcome."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeVar

from taskq_core.broker.operations import views
from taskq_core.broker.operations.operation import Confirmation, confirmation
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.codec import decode_result
from taskq_core.codec.oversized import read_oversized
from taskq_core.codec.progress import Progress
from taskq_core.errors import (
    ConfigurationError,
    ResultNotKeptError,
    ResultTimeoutError,
    ResultTooLargeError,
    TaskFailedError,
    TaskNotFoundError,
    TaskNotSentError,
)
from taskq_core.handles import changing
from taskq_core.handles.durable import TaskStream, signal
from taskq_core.handles.events import TaskEvents
from taskq_core.handles.expiry import expired_error
from taskq_core.handles.questions import Question, answer, question
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.handles.sent_later import SentLater
from taskq_core.handles.source import NOT_YET, HandleSource
from taskq_core.settings import Duration, seconds
from taskq_core.wire import QueueKeys, TaskState, decode_message, validate_queue_name

R_co = TypeVar("R_co", covariant=True)
_ANY_SIGNALS: Mapping[str, Any] = MappingProxyType({})


class SupportsCall(Protocol):
    """A task with its arguments, as returned by `task.s(...)`."""

    @property
    def task(self) -> Any:
        """The task."""
        ...

    @property
    def args(self) -> tuple[object, ...]:
        """The positional arguments."""
        ...

    @property
    def kwargs(self) -> Mapping[str, object]:
        """The keyword arguments."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """The state of a task as of its handle's last `refresh`. The state is `deferred` until Redis has the task."""

    id: str
    queue: str
    name: str
    state: TaskState | Literal["deferred"]
    progress: Progress | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class TaskHandle(SentLater, Generic[R_co]):
    """One enqueued task.

    Attributes:
        id: Id of the task, chosen before it was sent.
        queue: Queue of the task.
        name: Name of the task.
        existing: True if an existing task held the unique lock (`Unique`), so the call added no task. The handle then
            belongs to the existing task. Set once the task was sent.
        info: The task as of the last `refresh`, or None.
        first_state: State of the task right after its enqueue: pending, scheduled or aggregating.
        signals: Names and types of the signals that the task declares. Empty: all signals are allowed.
        is_late: True while the task may still wait in an outbox although its transaction has committed.
        note: Data that an adapter stores until the send has succeeded or failed.
        generation: Distinguishes the task from later tasks with the same id, so that no request of this handle reaches
            a later one. "": the id is random, so no later task has it. None: the first request asks Redis.
        confirm: Replicas or disks that must have a signal or a change, by the options `replicated` and `fsynced` of the
            task, or by `DEFAULTS`.
    """

    existing = False
    generation: str | None = None
    info: TaskInfo | None = None
    _not_sent = TaskNotSentError
    _last_state: TaskState | None = None

    def __init__(
        self,
        source: HandleSource,
        *,
        id: str,  # noqa: A002 - the attribute's name
        queue: str,
        name: str,
        is_kept: bool,
        result_type: Any = Any,
        first_state: TaskState = TaskState.PENDING,
        signals: Mapping[str, Any] = _ANY_SIGNALS,
        confirm: Confirmation | None = None,
    ) -> None:
        self._source = source
        self.id = id
        self.queue = queue
        self.name = name
        self.is_kept = is_kept
        self.result_type = result_type
        self.first_state = first_state
        self.signals = signals
        self.confirm = confirm

    def __repr__(self) -> str:
        return f"TaskHandle(id={self.id!r}, name={self.name!r}, queue={self.queue!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let a FastAPI route return a handle. The response is a `TaskSummary`, without arguments, result and error.

        The schema is written without Pydantic's functions, because the core does not import Pydantic.
        """
        summary = handler.generate_schema(TaskSummary)
        return {
            "type": "function-wrap",
            "function": {"type": "no-info", "function": _checked},
            "schema": summary,
            "serialization": {"type": "function-plain", "function": _summarize, "return_schema": summary},
        }

    @property
    def state(self) -> TaskState:
        """State as of the last `refresh`. Before the first one, the state right after the enqueue."""
        return self.first_state if self.info is None else self.info.state

    @property
    def progress(self) -> Progress | None:
        """Progress last reported by the task, as of the last `refresh`; None if it reported nothing."""
        return None if self.info is None else self.info.progress

    @property
    def error(self) -> str:
        """Error of the last failed run, as of the last `refresh`; "" before a run has failed."""
        return "" if self.info is None else self.info.last_error

    @property
    def started_at(self) -> datetime | None:
        """When the current or last run began, as of the last `refresh`; None if unknown."""
        return None if self.info is None else self.info.last_started_at

    @property
    def ended_at(self) -> datetime | None:
        """When the task succeeded or was archived, as of the last `refresh`; None if it has not ended."""
        return None if self.info is None else self.info.ended_at

    def mark_existing(self, task_id: str) -> None:
        """Record that an existing task holds the unique lock. The handle belongs to that task from now on."""
        self.id = task_id
        self.existing = True
        self.generation = None

    def result(self, timeout: Duration | None = None) -> R_co:
        """Block until the task has ended, and return its result.

        Args:
            timeout: Maximum seconds to wait, also while Redis does not answer; then up to two more seconds. None: no
                limit.

        Raises:
            BrokerUnavailableError: The time is over, and Redis does not answer.
            ResultNotKeptError: The result of the task is not stored, because its `retention` is 0.
            ResultTimeoutError: The task did not end in time. It is not cancelled.
            ResultTooLargeError: The task succeeded, but its result is larger than `max_result_bytes` and was not
                stored.
            TaskFailedError: The task was archived after its last failure.
            TaskNotFoundError: The task was deleted, or its retention is over.
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        self._check_can_wait()
        return self._checked(self._source.poll(self._ask_outcome, self.queue, self.id, timeout), timeout)

    async def aresult(self, timeout: Duration | None = None) -> R_co:
        """Wait until the task has ended, and return its result. Like `result`, for coroutines."""
        self._check_can_wait()
        outcome = await self._source.apoll(self._ask_outcome, self.queue, self.id, timeout)
        return self._checked(outcome, timeout)

    @property
    def _keys(self) -> QueueKeys:
        return self._source.keys.queue(self.queue)

    def _check_can_wait(self) -> None:
        self._check_sent()
        if not self.is_kept:
            raise ResultNotKeptError(
                self.queue,
                self.id,
                "the result is not stored, because the task's retention is 0; set retention=, for example "
                "@task(retention=3600), or set DEFAULTS['retention']",
            )

    def _ask_outcome(self) -> RequestPlan[Any]:
        """Return the result, or `NOT_YET` while the task has not ended. Raise the reason why it has no result."""
        stored = yield from ask(views.read_task(self._keys, self.id, publish_end=True))
        if stored is None:
            if self.is_late:
                return NOT_YET
            raise TaskNotFoundError(self.queue, self.id)
        self.is_late = False
        if stored.state is TaskState.COMPLETED:
            if stored.result:
                return decode_result(stored.result, self.result_type)
            oversized = read_oversized(stored.oversized)
            if oversized is not None:
                raise ResultTooLargeError(self.queue, self.id, oversized.size, oversized.limit)
            return None
        if stored.state is not TaskState.ARCHIVED:
            self._last_state = stored.state
            return NOT_YET
        message = decode_message(stored.message)
        text = message.error_msg
        raise expired_error(message, self.queue) or TaskFailedError(
            self.queue, self.id, f"the task failed and was archived: {text}" if text else "archived"
        )

    def _checked(self, outcome: Any, timeout: Duration | None) -> R_co:
        if outcome is NOT_YET:
            waited_s = seconds("timeout", timeout)
            text = f"the task did not end within {waited_s:g} s"
            if self._last_state is not None:
                text += f"; it is {self._last_state}"
            if self._last_state is TaskState.PENDING:
                text += ", because no worker has taken it yet"
            raise ResultTimeoutError(self.queue, self.id, text)
        result: R_co = outcome
        return result

    def refresh(self) -> TaskInfo:
        """Read the task from Redis and return it. The task is also stored as the attribute `info`.

        Raises:
            TaskNotFoundError: The task ended without retention, or was deleted.
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        self.info = self._source.run(self._ask_info())
        return self.info

    async def arefresh(self) -> TaskInfo:
        """Read the task from Redis and return it. Like `refresh`, for coroutines."""
        self.info = await self._source.arun(self._ask_info())
        return self.info

    def _ask_info(self) -> RequestPlan[TaskInfo]:
        self._check_sent()
        stored = yield from ask(views.read_task(self._keys, self.id, identify=self.generation is None))
        if stored is not None:
            self._bind(stored.generation)
            return task_info(stored)
        if self.is_late:
            raise TaskNotSentError(self.queue, self.id, "the task waits in the outbox until a worker sends it")
        raise TaskNotFoundError(self.queue, self.id)

    def _bind(self, generation: str) -> None:
        """Use the generation of the task as read for all requests, unless the handle already has one."""
        if self.generation is None and generation:
            self.generation = generation

    def _identified(self) -> RequestPlan[str]:
        """Return the generation for a request to the task."""
        if self.generation is not None:
            return self.generation
        generation = yield from changing.identify(self._keys, self.id)
        if generation != changing.NO_TASK:
            self._bind(generation)
        return generation

    def events(self, *, after: str | None = None, timeout: Duration | None = None) -> TaskEvents:
        """Return an iterable of the task's events from now on, for `for` and `async for`: state and progress.

        The first event has the current state, the last event the final state. If the task ended without retention, was
        deleted or never existed, the event has no task. While Redis does not answer, the loop waits. Leaving the loop
        closes its connection.

        Args:
            after: Id of an event that you have already received. The loop starts with the first event that differs from
                it. If that event was the last one, the loop ends at once.
            timeout: Maximum seconds of the loop. The loop may take two more seconds if Redis does not answer. None: no
                limit.

        Raises:
            TaskNotSentError: The surrounding transaction has not committed yet.
            ResultTimeoutError: Raised in the loop: the task did not end in time. It is not cancelled.
            BrokerUnavailableError: Raised in the loop: the time is over, and Redis does not answer.
        """
        self._check_sent()
        return TaskEvents(
            self._source,
            self.queue,
            self.id,
            may_wait_in_outbox=lambda: self.is_late,
            after=after,
            timeout=timeout,
        )

    def cancel(self, *, retry: bool = False, keep: bool | None = None, children: bool = False) -> bool:
        """Delete a waiting task, or ask the worker of a running task to cancel it.

        A running task is archived when its function has ended, whatever the function returns or raises. If it raises
        `SkipRetry`, the task is archived with that reason. If it raises `Discard`, the task is deleted.

        A task whose steps have begun ends by its own code, also if it waits: its next run is interrupted at the first
        step or wait without a stored result, and may call further steps. Then the task is archived, or deleted with
        `keep=False`.

        Args:
            retry: Run a running task again, like a failed task: this uses an attempt and applies the retry delay. A
                task without attempts left is archived. A waiting task is not changed.
            keep: True archives the task, False deletes it, whether it waits or runs. None deletes a waiting task and
                archives a running one.
            children: Also cancel the sub-tasks that the task has enqueued with `context.call`.

        Returns:
            True if the task was deleted or archived, or its worker was asked to cancel it, or its code is to end it.
            False if the task has already ended, or if it waits and `retry` is set.

        Raises:
            TaskNotSentError: The surrounding transaction has not committed yet.
            ConfigurationError: `keep` is given together with `retry`.
        """
        return self._source.run(self._cancel(retry, keep, children))

    async def acancel(self, *, retry: bool = False, keep: bool | None = None, children: bool = False) -> bool:
        """Cancel the task. Like `cancel`, for coroutines."""
        return await self._source.arun(self._cancel(retry, keep, children))

    def delete(self) -> bool:
        """Delete the task if it waits or has ended. Unlike `cancel`, the code of a task with steps does not run.

        Returns:
            True if the task was deleted. False if it runs or does not exist.

        Raises:
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        return self._source.run(self._delete())

    async def adelete(self) -> bool:
        """Delete the task if it waits or has ended. Like `delete`, for coroutines."""
        return await self._source.arun(self._delete())

    def _delete(self) -> RequestPlan[bool]:
        self._check_sent()
        return (yield from changing.delete(self._keys, self.id, generation=self._identified()))

    def _cancel(self, retry: bool, keep: bool | None, children: bool) -> RequestPlan[bool]:
        self._check_sent()
        plan = changing.cancel(
            self._source.keys,
            self._keys,
            self.id,
            retry=retry,
            keep=keep,
            children=children,
            generation=self._identified(),
        )
        return (yield from plan)

    def signal(
        self,
        name: str,
        value: object = None,
        *,
        signal_id: str | None = None,
        replicated: bool | int | None = None,
    ) -> None:
        """Send a value to the task, which gets it from `context.receive(name)`.

        If the task already waits for this signal, it is started.

        Values of one name are received in the order in which they were sent. A value that is sent before the task waits
        is stored for it.

        Args:
            name: Name of the signal, 1 to 100 characters.
            value: A value with a JSON form.
            signal_id: Your id of this signal, 1 to 64 characters. A signal with the id of an earlier signal has no
                effect, so you can repeat a request that got no answer.
            replicated: Number of replicas that must have the value before this method returns; True: one, False: none.
                None: as the options of the task, or `DEFAULTS`, require for enqueues.

        Raises:
            TaskNotFoundError: The task does not exist, or it ended without retention.
            TaskStateError: The task has ended.
            StepError: The task does not declare the name, the value does not fit its type or has no JSON form, the id
                is not valid, or the task has received too many signals.
            BrokerReplicationError: The value is stored, but was not confirmed in time. A failover may lose it. Repeat
                the call with the same `signal_id`.
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        self._source.run(self._signal(name, value, signal_id, replicated))

    async def asignal(
        self,
        name: str,
        value: object = None,
        *,
        signal_id: str | None = None,
        replicated: bool | int | None = None,
    ) -> None:
        """Send a value to the task. Like `signal`, for coroutines."""
        await self._source.arun(self._signal(name, value, signal_id, replicated))

    def _signal(
        self, name: str, value: object, signal_id: str | None, replicated: bool | int | None
    ) -> RequestPlan[None]:
        self._check_sent()
        return signal(
            self._keys,
            self.id,
            name,
            value,
            declared=self.signals,
            signal_id=signal_id,
            generation=self._identified(),
            confirm=confirmation(replicated, self.confirm),
        )

    def question(self) -> Question | None:
        """Return the question that the task asks with `context.receive(name, type, ask={...})`. None without one.

        Raises:
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        return self._source.run(self._question())

    async def aquestion(self) -> Question | None:
        """Return the question that the task asks. Like `question`, for coroutines."""
        return await self._source.arun(self._question())

    def _question(self) -> RequestPlan[Question | None]:
        self._check_sent()
        return question(self._keys, self.id)

    def answer(self, number: int, value: object, *, by: str = "", replicated: bool | int | None = None) -> None:
        """Answer one question of the task, which is started. Only the first answer counts.

        Args:
            number: `Question.number`.
            value: The answer. It must fit the schema of the question.
            by: Who answers. The task can read this text with the type `Answer`.
            replicated: As for `signal`.

        Raises:
            TaskNotFoundError: The task does not exist, or it ended without retention.
            TaskStateError: The question was answered, the task no longer waits for it or never asked it, or the task
                has ended.
            StepError: The value does not fit the question, or the task has received too many signals and answers.
            BrokerReplicationError: The answer is stored, but was not confirmed in time. A failover may lose it.
            TaskNotSentError: The surrounding transaction has not committed yet.
        """
        self._source.run(self._answer(number, value, by, replicated))

    async def aanswer(self, number: int, value: object, *, by: str = "", replicated: bool | int | None = None) -> None:
        """Answer one question of the task. Like `answer`, for coroutines."""
        await self._source.arun(self._answer(number, value, by, replicated))

    def _answer(self, number: int, value: object, by: str, replicated: bool | int | None) -> RequestPlan[None]:
        self._check_sent()
        generation = yield from self._identified()
        confirm = confirmation(replicated, self.confirm)
        yield from answer(
            self._keys, self.id, number, value, by=by, declared=self.signals, generation=generation, confirm=confirm
        )

    def stream(self, *, after: str = "", value_type: Any = Any, timeout: Duration | None = None) -> TaskStream:
        """Return an iterable of the values that the task emits, for `for` and `async for`, until the task has ended.

        While Redis does not answer, the loop waits, and then goes on after the last value.

        Args:
            after: Id of the last item that you have received. "": start with the first stored value.
            value_type: Type of the values.
            timeout: Maximum seconds of the loop. The loop may take two more seconds if Redis does not answer. None: no
                limit.

        Raises:
            StepError: `after` is not the id of an item.
            TaskNotSentError: The surrounding transaction has not committed yet.
            ResultTimeoutError: Raised in the loop: the task did not end in time. It is not cancelled.
            BrokerUnavailableError: Raised in the loop: the time is over, and Redis does not answer.
        """
        self._check_sent()
        return TaskStream(self._source, self, after=after, type_=value_type, timeout=timeout)

    def reschedule(
        self,
        *,
        at: datetime | None = None,
        after: Duration | None = None,
        call: SupportsCall | None = None,
        replicated: bool | int | None = None,
    ) -> None:
        """Change the start of the task, and its arguments if a call is given. The task keeps its id.

        Start and arguments change in one step, so no worker takes the task between the two changes. A pending or
        grouped task becomes scheduled. An archived task waits for a retry. The unique lock changes to the new arguments
        and expires at the same time as before.

        Args:
            at: The new start, with a time zone. Rounded up to whole seconds.
            after: Time from now, instead of `at`.
            call: `task.s(...)` of the same task with the new arguments.
            replicated: As for `signal`.

        Raises:
            TaskNotFoundError: The task ended without retention, or was deleted.
            TaskStateError: The task has succeeded. `TaskActiveError` if it runs.
            DuplicateTaskError: Another task holds the unique lock of the new arguments.
            TaskArgumentsError: The arguments do not match the task's parameters.
            TaskNotSentError: The surrounding transaction has not committed yet.
            ConfigurationError: Both or neither of `at` and `after` are given, or the call is of another task.
        """
        self._source.run(self._reschedule(at, after, call, replicated))

    async def areschedule(
        self,
        *,
        at: datetime | None = None,
        after: Duration | None = None,
        call: SupportsCall | None = None,
        replicated: bool | int | None = None,
    ) -> None:
        """Change the start of the task. Like `reschedule`, for coroutines."""
        await self._source.arun(self._reschedule(at, after, call, replicated))

    def _reschedule(
        self,
        at: datetime | None,
        after: Duration | None,
        call: SupportsCall | None,
        replicated: bool | int | None,
    ) -> RequestPlan[None]:
        self._check_sent()
        yield from changing.reschedule(
            self._keys,
            self.id,
            at=at,
            after=after,
            payload=self._payload_of(call),
            generation=self._identified(),
            confirm=confirmation(replicated, self.confirm),
        )

    def move(self, to_queue: str, *, call: SupportsCall | None = None) -> None:
        """Move the task to another queue, unless it runs or has succeeded. `queue` becomes the new queue.

        An archived task runs again there. If the move is interrupted, call `move` again; see `Inspector.move_task`.

        Args:
            to_queue: Name of the other queue.
            call: `task.s(...)` of the same task with new arguments. The unique lock changes to these arguments.

        Raises:
            TaskNotFoundError: The task ended without retention, or was deleted.
            TaskIdConflictError: The other queue has a task with this id. The task was not moved.
            DuplicateTaskError: Another task in the other queue holds the unique lock. The task was not moved.
            TaskStateError: The task has succeeded, or is being moved to a third queue. `TaskActiveError` if it runs.
            TaskNotSentError: The surrounding transaction has not committed yet.
            TaskArgumentsError: The arguments do not match the task's parameters.
            ConfigurationError: The name of the other queue is not valid or is the same. Or the call is of another task.
        """
        self._source.run(self._move(to_queue, call))

    async def amove(self, to_queue: str, *, call: SupportsCall | None = None) -> None:
        """Move the task to another queue. Like `move`, for coroutines."""
        await self._source.arun(self._move(to_queue, call))

    def _move(self, to_queue: str, call: SupportsCall | None) -> RequestPlan[None]:
        self._check_sent()
        validate_queue_name(to_queue)
        if to_queue == self.queue:
            raise ConfigurationError(f"the task is in queue {to_queue!r} already; name another queue")
        keys, payload = self._source.keys, self._payload_of(call)
        yield from changing.move_one(
            keys, self._keys, keys.queue(to_queue), self.id, payload=payload, generation=self._identified()
        )
        self.queue = to_queue

    def _payload_of(self, call: SupportsCall | None) -> bytes | None:
        """Return the payload of a call of this task, None without a call."""
        if call is None:
            return None
        if call.task.name != self.name:
            raise ConfigurationError(f"call must be a call of task {self.name!r}, got one of {call.task.name!r}")
        payload: bytes = call.task.encode(call.args, call.kwargs)
        return payload


check_answer: Callable[[TaskHandle[Any]], None] = TaskHandle.check_not_lost
"""Raises an error for a handle that a route returns, if its task was not sent. `taskq_fastapi` replaces it by a
function that raises errors with an HTTP status."""


def _checked(value: Any, _: Any) -> TaskHandle[Any]:
    if not isinstance(value, TaskHandle):
        raise ValueError(f"expected a TaskHandle, got {type(value).__name__}")
    check_answer(value)
    return value


def _summarize(handle: TaskHandle[Any]) -> TaskSummary:
    return TaskSummary(
        id=handle.id,
        queue=handle.queue,
        name=handle.name,
        state=handle.state if handle.is_sent else "deferred",
        progress=handle.progress,
        started_at=handle.started_at,
        ended_at=handle.ended_at,
    )
