"""Convert calls to task messages: the part of an enqueue without I/O, which both clients share.

Before anything is sent, the preparer binds and checks the arguments, encodes the payload and checks its size, chooses
the id, and adds the trace to the headers. It also converts responses of Redis to errors.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from taskq_core.broker.operations.new_tasks import HELD, Codes, NewTask, StoreCode
from taskq_core.errors import (
    BrokerError,
    BrokerReplicationError,
    DuplicateTaskError,
    EnqueueError,
    EnqueueUnknownError,
    NotReplicatedError,
    PayloadTooLargeError,
    QueueFullError,
    TaskIdConflictError,
)
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.source import HandleSource
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.limits import HEADER, Limits
from taskq_core.tasks.middleware import MiddlewareStack
from taskq_core.tasks.plan import Plan
from taskq_core.tasks.registry import Registry
from taskq_core.telemetry import ClientMetrics, ProducerSpan, Tracing, fit, type_name
from taskq_core.telemetry.propagation import USER_HEADERS_LIMIT, headers_size
from taskq_core.warnings import PayloadSizeWarning, warn_caller
from taskq_core.wire import ENQUEUED, QueueKeys, encode_headers
from taskq_core.wire.tokens import new_token
from taskq_core.wire.uniqueness import digest as digest_of

R = TypeVar("R")

PAYLOAD_WARNS = 1 << 20
"""Payload size in bytes above which an enqueue warns: 1 MiB."""
PAYLOAD_MAX = 16 << 20
"""Maximum payload size in bytes: 16 MiB."""
REGISTER_EVERY_S = 10.0
"""Seconds after which a client registers a queue again, because another process may have removed it."""
_IDS_AT_ONCE = 256
_ready_ids: deque[str] = deque()


class Prepared(Struct, Generic[R], eq=False):
    """A task that is ready to be sent, with its handle and its span."""

    queue: QueueKeys
    task: NewTask
    handle: TaskHandle[R]
    span: ProducerSpan

    def settle(self, code: str, answer: Codes | None = None, holder: str = "") -> EnqueueError | None:
        """Update the handle for the outcome of the enqueue. Return an error if the task was refused, otherwise None.

        Args:
            code: The `StoreCode` of the task.
            answer: The response of the enqueue script that contains the code. None if another script returned the code.
            holder: Id of the task that holds the unique lock, "" if unknown.
        """
        if code == StoreCode.STORED:
            if self.task.confirm is None:  # otherwise an earlier call may have stored the task
                self.handle.generation = self.task.generation or self.handle.generation
            return None
        if code in HELD:
            if holder:
                self.handle.mark_existing(holder)
            return None
        return refusal(code, self.handle.name, self.handle.queue, self.handle.id, answer, holder)

    def failure(self, cause: BrokerError) -> EnqueueError:
        """Return the error for a request that failed."""
        return failure(self.handle.name, self.handle.queue, self.handle.id, cause)


def failure(name: str, queue: str, task_id: str, cause: BrokerError) -> EnqueueError:
    """Return the error of a task whose request failed."""
    facts = (name, queue, task_id, str(cause))
    error: EnqueueError
    if isinstance(cause, BrokerReplicationError):
        error = NotReplicatedError(*facts, cause.wanted, cause.confirmed)
    else:
        error = EnqueueUnknownError(*facts) if cause.may_have_happened else EnqueueError(*facts)
    error.__cause__ = cause
    return error


def failures(sent: Sequence[Prepared[Any]], cause: BrokerError) -> list[EnqueueError]:
    """Return one error for each task of a request that failed.

    Tasks that the response names as refused were certainly not stored, and get another error than the rest.
    """
    answer = cause.answer if isinstance(cause, BrokerReplicationError) else None
    if not isinstance(answer, Codes):
        return [prepared.failure(cause) for prepared in sent]
    codes = zip(sent, answer.each(), strict=True)
    return [prepared.settle(code, answer, holder) or prepared.failure(cause) for prepared, (code, holder) in codes]


def refusal(
    code: str, name: str, queue: str, task_id: str, answer: Codes | None = None, holder: str = ""
) -> EnqueueError:
    """Return the error of a refused task: its unique lock or its id is taken, or its queue is full."""
    if code == StoreCode.FULL and answer is not None:
        return QueueFullError(name, queue, task_id, answer.pending, answer.limit)
    if code == StoreCode.DUPLICATE:
        return DuplicateTaskError(name, queue, task_id, existing_id=holder)
    return TaskIdConflictError(name, queue, task_id)


def not_a_call(value: object) -> TypeError:
    """Return the error for an argument that is not a call, for example a task without `s()`."""
    return TypeError(f"enqueue needs a call such as task.s(...), got {type(value).__name__}")


class Preparer:
    """Converts calls to task messages.

    Args:
        source: Sends the requests of task handles.
        tracing: Opens producer spans.
        app: The queue application. Tasks of other applications are rejected. None skips the check, for tests.

    Attributes:
        middleware: Middleware of the application. Clients call it before the preparer, because it may be a coroutine.
        observer: Receives notifications of tasks that clients have enqueued. None if no adapter has set one.
        registered_until: Monotonic time at which the client registers a queue again, by queue name.
        propagated: Returns the headers that a task propagates from the current context to its run.
    """

    def __init__(self, source: HandleSource, tracing: Tracing, app: Registry | None = None) -> None:
        self.keys = source.keys
        self.source = source
        self._app = app
        self.middleware = MiddlewareStack() if app is None else app.middleware
        self.observer = None if app is None else app.observer
        self.metrics = ClientMetrics(server=tracing.server)
        self.tracing = tracing
        propagate = None if app is None else app.propagate
        self.propagated: Callable[[], Mapping[str, str]] = propagate or dict
        self.registered_until: dict[str, float] = {}

    def plan(self, task: BaseTask[Any]) -> Plan:
        """Return the data that all calls of a task share.

        Raises:
            ConfigurationError: The task belongs to another queue application.
        """
        return task.plan(self.keys, self._app)

    def prepare(self, call: Signature[R], *, task_id: str | None = None, links: Sequence[Any] = ()) -> Prepared[R]:
        """Prepare a call to be sent alone, with its own producer span.

        Args:
            call: The call.
            task_id: Id for a task that sets none.
            links: Links of the span, from `Tracing.links`.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The arguments are not valid.
            ConfigurationError: The task belongs to another queue application.
            TypeError: `call` is not a call.
        """
        if not isinstance(call, Signature):
            raise not_a_call(call)
        task = call.task
        plan = task.current_plan
        if plan is None or plan.keys is not self.keys:
            plan = task.plan(self.keys, self._app)
        payload = task.encode(call.args, call.kwargs)
        if len(payload) >= PAYLOAD_WARNS:
            check_size(task.name, len(payload))
        chosen_id = plan.task_id or task_id
        task_id = chosen_id or new_task_id()
        span = self.tracing.start_producer(plan.queue.name, task.name, task_id, body_size=len(payload), links=links)
        try:
            limit = "" if plan.limits is None else limit_of(plan.limits, call)
            trace = span.trace_headers() if span.context else {}
            propagated = self.propagated()
            headers = plan.encoded_headers
            if trace or propagated or limit:
                headers = self.headers(plan, trace, propagated, limit=limit)
            new = self.new_task(task.name, plan, task_id, payload, headers, limit)
        except BaseException as error:
            span.end(error)
            raise
        handle: TaskHandle[R] = plan.handle(self.source, id=task_id)
        if chosen_id is None:
            handle.generation = ""  # no later task gets this random id
        return Prepared(plan.queue, new, handle, span)

    def headers(
        self,
        plan: Plan,
        trace: Mapping[str, str],
        propagated: Mapping[str, str],
        *,
        more: Mapping[str, str] | None = None,
        limit: str = "",
    ) -> bytes:
        """Return the headers of a task, encoded: the user's headers, propagated context, trace, and headers of taskq.

        Propagated headers that exceed the size limit are left out, except the time of the enqueue.
        """
        if not (trace or propagated or more or limit):
            return plan.encoded_headers
        headers = dict(plan.headers)
        for name, value in propagated.items():
            if name == ENQUEUED or headers_size(headers) + headers_size({name: value}) <= USER_HEADERS_LIMIT:
                headers[name] = value
        if more:
            headers |= more
        left_out = fit(headers, trace) if trace else 0
        if left_out:
            self.metrics.baggage_cut(plan.queue.name, left_out)
        if limit:
            headers[HEADER] = limit
        return encode_headers(headers)

    def defer(self, prepared: Prepared[Any]) -> None:
        """Mark a task as deferred: it was created, and is sent later or never."""
        prepared.handle.mark_deferred()
        prepared.span.end_as_created(prepared.queue.name)

    def begin_sending(self, prepared: Prepared[Any]) -> None:
        """Start the span of the send of a deferred task, if its creation was recorded."""
        if prepared.span.span is not None:
            handle, created = prepared.handle, prepared.span.span_context
            prepared.span = self.tracing.start_sending(handle.queue, [created], handle.name, handle.id)

    def record_sent(self, prepared: Prepared[Any], error: EnqueueError | None, started: float) -> None:
        """Close the span of a sent task and count the task. `started` is the monotonic time at which it was sent."""
        if prepared.span.span is not None:
            prepared.span.end(error)
        self.metrics.sent(
            prepared.handle.queue,
            prepared.handle.name,
            duration_s=time.monotonic() - started,
            error_type=None if error is None else type_name(error),
        )

    def new_task(self, name: str, plan: Plan, task_id: str, payload: bytes, headers: bytes, limit: str) -> NewTask:
        """Return a task to store. `headers` is the result of `headers`, and `limit` the value of the limits header."""
        unique_key = ""
        if plan.unique is not None:
            unique_key = plan.queue.lock(name, digest_of(payload, plan.unique.args))
        elif plan.unique_s:
            unique_key = plan.queue.unique(name, payload)
        message = plan.template.encode(task_id, payload, headers, unique_key)
        new = NewTask(task_id, message, plan.start_at_s, plan.start_in_ms, unique_key, plan.unique_s, plan.group, limit)
        if plan.has_rules:
            new.marks, new.unique_rule, new.confirm = plan.marks, plan.unique_rule, plan.confirm
            new.digest = "" if plan.confirm is None else _digest(name, payload)
        if plan.task_id is not None:
            new.generation = new_token()
        return new

    def handle(self, task: BaseTask[R], task_id: str) -> TaskHandle[R]:
        """Return the handle of an enqueued task."""
        return self.plan(task).handle(self.source, id=task_id)

    def is_unregistered(self, queue: QueueKeys) -> bool:
        """Return whether this client should add a queue to the set of known queues now.

        True if it has not done so recently.
        """
        return time.monotonic() >= self.registered_until.get(queue.name, 0.0)

    def forget_registered(self) -> None:
        """Forget which queues were registered, because the client uses another store from now on."""
        self.registered_until.clear()

    def record_registered(self, queue: QueueKeys) -> None:
        """Record that this client has just added a queue to the set of known queues."""
        self.registered_until[queue.name] = time.monotonic() + REGISTER_EVERY_S


def limit_of(limits: Limits, call: Signature[Any]) -> str:
    """Return the value of the limits header of a call."""
    return limits.text(call.arguments if limits.need_arguments else {})


def _digest(name: str, payload: bytes) -> str:
    return hashlib.blake2b(name.encode() + b"\0" + payload, digest_size=8).hexdigest()


def check_size(name: str, size: int) -> None:
    """Warn of a payload of at least `PAYLOAD_WARNS` bytes. Refuse a payload of more than `PAYLOAD_MAX` bytes."""
    if size > PAYLOAD_MAX:
        raise PayloadTooLargeError(name, size, PAYLOAD_MAX)
    warn_caller(
        f"the payload of task {name!r} is {size} bytes, which Redis keeps in memory; "
        "store the data elsewhere and pass its address",
        PayloadSizeWarning,
    )


def new_task_id() -> str:
    """Return a random UUIDv4 as 36 characters of text (RFC 9562, section 5.4).

    The random bytes of many ids are read from the operating system at once.
    """
    try:
        return _ready_ids.pop()
    except IndexError:
        first, *others = _draw_ids(_IDS_AT_ONCE)
        _ready_ids.extend(others)
        return first


def _draw_ids(count: int) -> list[str]:
    digits = os.urandom(16 * count).hex()
    ids = []
    for start in range(0, 32 * count, 32):
        part = digits[start : start + 32]
        variant = "89ab"[int(part[16], 16) & 3]
        ids.append(f"{part[:8]}-{part[8:12]}-4{part[13:16]}-{variant}{part[17:20]}-{part[20:]}")
    return ids


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ready_ids.clear)  # a forked child must not return the same ids as its parent
