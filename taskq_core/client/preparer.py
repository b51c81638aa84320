"""Turn calls into messages: the part of enqueueing without input or output, shared by both clients.

Arguments are bound and checked, the payload encoded and measured, the id chosen and the trace written into the headers
here, before anything is sent; what does not fit is refused here. What became of a task that was sent is read here too.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from taskq_core.broker.operations import new_tasks
from taskq_core.broker.operations.new_tasks import HELD, Admitted, EnqueueCode, NewTask
from taskq_core.broker.operations.operation import Operation
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
from taskq_core.execution.propagation import carry
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.limits import HEADER, Limits
from taskq_core.tasks.middleware import MiddlewareStack
from taskq_core.tasks.plan import Headers, Plan
from taskq_core.tasks.task import Task
from taskq_core.tasks.uniqueness import digest as digest_of
from taskq_core.telemetry import Carrier, ClientMetrics, ProducerSpan, Tracing, fit, type_name, wrap
from taskq_core.warnings import PayloadSizeWarning, warn_caller
from taskq_core.wire import Keys, QueueKeys
from taskq_core.wire.ids import new_task_id

R = TypeVar("R")

PAYLOAD_WARNS = 1 << 20
"""Bytes of payload from which a warning is given: 1 MiB."""
PAYLOAD_MAX = 16 << 20
"""Most bytes of payload: 16 MiB."""
REGISTER_EVERY_S = 10.0
"""Seconds after which a client notes a queue again as known, in case another process removed it."""


class Prepared(Generic[R]):
    """A task ready to be sent."""

    __slots__ = ("handle", "queue", "span", "task")

    def __init__(self, queue: QueueKeys, task: NewTask, handle: TaskHandle[R], span: ProducerSpan) -> None:
        self.queue = queue
        self.task = task
        self.handle = handle
        self.span = span

    def settle(self, code: str, answer: Admitted | None = None, holder: str = "") -> EnqueueError | None:
        """Return the error that an enqueue code stands for, or None.

        Args:
            code: The code.
            answer: That of its call, if not its own.
            holder: Id of the task that holds its lock, "" if that is not known.
        """
        if code == EnqueueCode.STORED:
            return None
        if code in HELD:
            if holder:
                self.handle.mark_existing(holder)
            return None
        return refusal(code, self.handle.name, self.handle.queue, self.handle.id, answer, holder)

    def settle_alone(self, answer: Admitted) -> EnqueueError | None:
        """Return the error that the answer to a call with this task alone stands for, or None."""
        if answer.codes == EnqueueCode.STORED:
            return None
        ((code, holder),) = answer.each()
        return self.settle(code, answer, holder)

    def failure(self, cause: BrokerError) -> EnqueueError:
        """Return the error for a send that failed."""
        facts = (self.handle.name, self.handle.queue, self.handle.id, str(cause))
        error: EnqueueError
        if isinstance(cause, BrokerReplicationError):
            error = NotReplicatedError(*facts, cause.wanted, cause.confirmed)
        else:
            error = EnqueueUnknownError(*facts) if cause.may_have_happened else EnqueueError(*facts)
        error.__cause__ = cause
        return error


def failures(sent: Sequence[Prepared[Any]], cause: BrokerError) -> list[EnqueueError]:
    """Return the error of each task of a call that failed. What was refused in it was not stored in any case."""
    answer = cause.answer if isinstance(cause, BrokerReplicationError) else None
    if isinstance(answer, str):
        answer = Admitted(answer)
    if not isinstance(answer, Admitted):
        return [prepared.failure(cause) for prepared in sent]
    codes = zip(sent, answer.each(), strict=True)
    return [prepared.settle(code, answer, holder) or prepared.failure(cause) for prepared, (code, holder) in codes]


def _handle(task: BaseTask[R], plan: Plan, task_id: str, source: Any) -> TaskHandle[R]:
    return TaskHandle(
        source,
        id=task_id,
        queue=plan.queue.name,
        name=task.name,
        is_kept=plan.is_kept,
        result_type=task.result_type,
        first_state=plan.first_state,
    )


def _digest(name: str, payload: bytes) -> str:
    return hashlib.blake2b(name.encode() + b"\0" + payload, digest_size=8).hexdigest()


def refusal(
    code: str, name: str, queue: str, task_id: str, answer: Admitted | None = None, holder: str = ""
) -> EnqueueError:
    """Return the error of a task that was not stored: its lock or its id is taken, or the queue is full."""
    if code == EnqueueCode.FULL and answer is not None:
        return QueueFullError(name, queue, task_id, answer.pending, answer.limit)
    if code == EnqueueCode.DUPLICATE:
        return DuplicateTaskError(name, queue, task_id, existing_id=holder)
    return TaskIdConflictError(name, queue, task_id)


def task_of(call: Signature[Any]) -> BaseTask[Any]:
    """Return the task of a call.

    Raises:
        TypeError: It is no call, as a task without `s()`.
    """
    try:
        return call.task
    except AttributeError:
        kind = type(call).__name__
        raise TypeError(f"what is enqueued is a call, as task.s(...) makes it, got {kind}") from None


class Preparer:
    """Turns calls into messages.

    Args:
        keys: Key names.
        tracing: Opens producer spans.
        envelope: Write payloads with their trace inside, for peers without headers.
        middleware: Looks at calls before they come here. Clients ask it: some of it must be awaited.
        carry: Returns what a task carries to its run from where it is enqueued.
        app: The queue application; tasks of another are refused. None: they are not.
    """

    def __init__(
        self,
        keys: Keys,
        tracing: Tracing,
        *,
        envelope: bool,
        middleware: MiddlewareStack | None = None,
        carry: Callable[[], Mapping[str, str]] | None = None,
        app: object = None,
    ) -> None:
        self.keys = keys
        self._app = app
        self.middleware = MiddlewareStack() if middleware is None else middleware
        self.metrics = ClientMetrics(server=tracing.server)
        self.tracing = tracing
        """Opens spans."""
        self._envelope = envelope
        self.carried: Callable[[], Mapping[str, str]] = carry or dict
        """Returns the headers of what tasks carry that are enqueued here and now."""
        self._registered: dict[str, float] = {}

    def plan(self, task: BaseTask[Any]) -> Plan:
        """Return what is equal for all calls of a task.

        Raises:
            ConfigurationError: The task belongs to another queue application.
        """
        return task.plan(self.keys, self._app)

    def prepare(
        self, call: Signature[R], source: Any, *, task_id: str | None = None, links: Sequence[Any] = ()
    ) -> Prepared[R]:
        """Return a task ready to be sent, with a producer span of its own.

        Args:
            call: The call.
            source: What its handle asks.
            task_id: Counts where the task sets none.
            links: What else it comes from, by `Tracing.links`.

        Raises:
            TaskArgumentsError, PayloadTooLargeError: The call does not fit.
            ConfigurationError: Its task belongs to another queue application.
            TypeError: It is no call.
        """
        task = task_of(call)
        plan = task.plan(self.keys, self._app)
        payload = self._payload(call)
        task_id = plan.task_id or task_id or new_task_id()
        span = self.tracing.start_producer(plan.queue.name, task.name, task_id, body_size=len(payload), links=links)
        try:
            headers, limit = self.headers(plan, span.carrier(), self.carried()), ""
            if plan.limits is not None:
                headers, limit = _limited(headers, plan.limits, call)
            new = self._new_task(task, plan, task_id, payload, headers, limit)
        except BaseException as error:
            span.end(error)
            raise
        return Prepared(plan.queue, new, _handle(task, plan, task_id, source), span)

    def prepare_for_batch(
        self,
        call: Signature[Any],
        plan: Plan,
        headers: "Callable[[Preparer, Plan, str, str, int], Headers]",
        new_id: Callable[[], str],
    ) -> NewTask:
        """Return a task to be sent with others.

        Args:
            call: The call.
            plan: Its task's plan.
            headers: Returns its headers, given this, the plan, the task's name, its id and the bytes of its payload.
            new_id: Returns an id for a task that sets none.
        """
        payload = self._payload(call)
        task_id = plan.task_id or new_id()
        its_headers, limit = headers(self, plan, call.task.name, task_id, len(payload)), ""
        if plan.limits is not None:
            its_headers, limit = _limited(its_headers, plan.limits, call)
        return self._new_task(call.task, plan, task_id, payload, its_headers, limit)

    def headers(
        self, plan: Plan, carrier: Carrier, carried: Mapping[str, str], more: Mapping[str, str] | None = None
    ) -> Headers:
        """Return the headers of a task: its own, what it carries, the trace, and more of taskq's own."""
        if not carrier and not carried and not more:
            return plan.headers  # encoded once for all calls
        texts = dict(plan.headers.texts)
        if carried:
            carry(texts, carried)
        if more:
            texts |= more
        left_out = fit(texts, carrier) if carrier else 0
        if left_out:
            self.metrics.baggage_cut(plan.queue.name, left_out)
        return Headers(texts)

    def note_sent(self, prepared: Prepared[Any], error: EnqueueError | None, started: float) -> None:
        """Close the span and count the task; `started` is when it was sent, by the monotonic clock."""
        prepared.span.end(error)
        self.metrics.sent(
            prepared.handle.queue,
            prepared.handle.name,
            duration_s=time.monotonic() - started,
            error_type=None if error is None else type_name(error),
        )

    def _payload(self, call: Signature[Any]) -> bytes:
        payload = call.task.encode(call.args, call.kwargs)
        if len(payload) >= PAYLOAD_WARNS:
            _check_size(call.task.name, len(payload))
        return payload

    def _new_task(
        self, task: BaseTask[Any], plan: Plan, task_id: str, payload: bytes, headers: Headers, limit: str
    ) -> NewTask:
        name = task.name
        unique_key = ""
        if plan.unique is not None:
            unique_key = plan.queue.lock(name, digest_of(payload, plan.unique.args))
        elif plan.unique_s:
            unique_key = plan.queue.unique(name, payload)
        digest = "" if plan.confirm is None else _digest(name, payload)
        if self._envelope:
            payload = wrap(payload, headers.texts, task.codec.parameters if isinstance(task, Task) else ())
        message = plan.template.encode(task_id, payload, headers.encoded, unique_key)
        new = NewTask(task_id, message, plan.start_at_s, plan.start_in_ms, unique_key, plan.unique_s, plan.group, limit)
        if plan.marks:
            new.marks = plan.marks
        if plan.unique_rule:
            new.unique_rule = plan.unique_rule
        if plan.confirm is not None:
            new.confirm = plan.confirm
            new.digest = digest
        return new

    def handle(self, task: BaseTask[R], task_id: str, source: Any) -> TaskHandle[R]:
        """Return the handle of a task."""
        return _handle(task, self.plan(task), task_id, source)

    def unregistered(self, queue: QueueKeys) -> Operation[int] | None:
        """Return the operation that notes a queue as known, if that was not done lately."""
        now = time.monotonic()
        if now - self._registered.get(queue.name, -math.inf) < REGISTER_EVERY_S:
            return None
        return new_tasks.register_queue(self.keys.queues, (queue.name,))

    def forget_registered(self) -> None:
        """Forget which queues were registered: they may not be in the store that is used from now on."""
        self._registered.clear()

    def note_registered(self, queue: QueueKeys) -> None:
        """Note that a queue was registered just now."""
        self._registered[queue.name] = time.monotonic()


def _limited(headers: Headers, limits: Limits, call: Signature[Any]) -> tuple[Headers, str]:
    """Return the headers of a call with its limits among them, and the limits."""
    limit = limits.text(call.arguments if limits.need_arguments else {})
    return Headers({**headers.texts, HEADER: limit}), limit


def _check_size(name: str, size: int) -> None:
    if size > PAYLOAD_MAX:
        raise PayloadTooLargeError(name, size, PAYLOAD_MAX)
    warn_caller(
        f"the payload of task {name!r} is {size} bytes, which Redis keeps in memory; "
        "store the data elsewhere and pass its address",
        PayloadSizeWarning,
    )
