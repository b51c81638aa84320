"""Bulk enqueues: collect calls into batches, and collect the outcomes. This module does no I/O.

One script call stores a batch: at most `BATCH_MAX` tasks of one queue, of about `BATCH_BYTES` in total, that need the
same confirmation by replicas. A batch has a span `send`. If each task also has a span `create`, the batch has at most
`LINKED_MAX` tasks. The payloads of a batch are removed from memory after it was sent.
"""

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

from taskq_core.broker.operations.new_tasks import HELD, Codes, NewTask, StoreCode
from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX
from taskq_core.client.preparer import PAYLOAD_WARNS, Preparer, check_size, limit_of, new_task_id, not_a_call, refusal
from taskq_core.errors import BrokerError, BulkEnqueueError, EnqueueError
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.plan import Plan
from taskq_core.telemetry import BatchSpan, type_name
from taskq_core.wire import QueueKeys

T = TypeVar("T")

LINKED_MAX = 128
"""Maximum number of tasks in a batch in which each task has a span. The span of the batch links to each of these spans,
and an OpenTelemetry SDK stores at most 128 links by default."""


class Batch:
    """Tasks of one queue that are sent in one script call."""

    __slots__ = ("_has_spans", "_headers", "bytes", "queue", "sources", "span", "tasks")

    def __init__(self, queue: QueueKeys, span: BatchSpan) -> None:
        self.queue = queue
        self.span = span
        self._has_spans = span.has_spans
        self.tasks: list[NewTask] = []
        self.sources: list[BaseTask[Any]] = []
        self.bytes = 0
        self._headers: dict[tuple[Plan, str, tuple[tuple[str, str], ...]], bytes] = {}

    def headers(self, preparer: Preparer, plan: Plan, name: str, task_id: str, body_size: int, limit: str) -> bytes:
        """Return the encoded headers of one task. They are encoded once for all tasks with the same headers."""
        propagated = preparer.propagated()
        if self._has_spans:
            return preparer.headers(plan, self.span.create(name, task_id, body_size), propagated, limit=limit)
        key = (plan, limit, tuple(propagated.items()) if propagated else ())
        headers = self._headers.get(key)
        if headers is None:
            headers = self._headers[key] = preparer.headers(plan, self.span.trace_headers(), propagated, limit=limit)
        return headers

    @property
    def is_full(self) -> bool:
        """True if the batch has reached its maximum number of tasks or bytes."""
        most = LINKED_MAX if self._has_spans else BATCH_MAX
        return len(self.tasks) >= most or self.bytes >= BATCH_BYTES

    def count(self, errors: Sequence[BaseException | None] = ()) -> Mapping[tuple[str, str | None], int]:
        """Return the number of tasks by task name and error type. Without `errors`, no task has failed."""
        first = self.sources[0]
        if not errors and self.sources.count(first) == len(self.sources):
            return {(first.name, None): len(self.sources)}
        types = [None if error is None else type_name(error) for error in errors] or [None] * len(self.sources)
        return Counter(zip((source.name for source in self.sources), types, strict=True))

    def split(self, answer: Codes) -> tuple["Batch", "Batch", Codes]:
        """Split the batch after it was sent.

        Return tasks refused by a full queue, the other tasks, and the codes of the other tasks.
        """
        full, others = Batch(self.queue, self.span), Batch(self.queue, self.span)
        for source, task, code in zip(self.sources, self.tasks, answer, strict=True):
            part = full if code == StoreCode.FULL else others
            part.sources.append(source)
            part.tasks.append(task)
        codes = Codes(answer.replace(StoreCode.FULL, ""))
        codes.holders = answer.holders
        return full, others, codes


class BatchFiller:
    """Collects calls into one batch per queue. With `is_deferred`, the batches are sent later, at a commit."""

    def __init__(self, preparer: Preparer, *, is_deferred: bool = False) -> None:
        self._preparer = preparer
        self._is_deferred = is_deferred
        self._open: dict[object, Batch] = {}

    def add(self, call: Signature[Any]) -> Batch | None:
        """Add a call to the batch of its queue. Return the batch if it is now full."""
        if not isinstance(call, Signature):
            raise not_a_call(call)
        preparer = self._preparer
        plan = preparer.plan(call.task)
        queue = plan.queue
        kind: object = queue.name if plan.confirm is None else (queue.name, plan.confirm)
        batch = self._open.get(kind)
        if batch is None:
            span = preparer.tracing.start_batch(queue.name, is_deferred=self._is_deferred)
            batch = self._open[kind] = Batch(queue, span)
        name, task_id = call.task.name, plan.task_id or new_task_id()
        payload = call.task.encode(call.args, call.kwargs)
        if len(payload) >= PAYLOAD_WARNS:
            check_size(name, len(payload))
        limit = "" if plan.limits is None else limit_of(plan.limits, call)
        headers = batch.headers(preparer, plan, name, task_id, len(payload), limit)
        task = preparer.new_task(name, plan, task_id, payload, headers, limit)
        batch.tasks.append(task)
        batch.sources.append(call.task)
        batch.bytes += len(task.message)
        return self._open.pop(kind) if batch.is_full else None

    def rest(self) -> list[Batch]:
        """Return the batches that are not full."""
        return [batch for batch in self._open.values() if batch.tasks]


def batches(preparer: Preparer, calls: Iterable[Signature[Any]], *, is_deferred: bool = False) -> Iterator[Batch]:
    """Yield full batches of calls, one queue in each. At the end, yield the batches that are not full."""
    filler = BatchFiller(preparer, is_deferred=is_deferred)
    for call in calls:
        batch = filler.add(call)
        if batch is not None:
            yield batch
    yield from filler.rest()


def with_later(error: BulkEnqueueError, later: Sequence[tuple[Batch, BulkEnqueueError | None]]) -> BulkEnqueueError:
    """Return the error of a failed batch, with the tasks of batches that were sent after it.

    Args:
        error: The error of the first failed batch.
        later: Each later batch with its error, or None if the batch was stored.
    """
    ids = [task.task_id for batch, _ in later for task in batch.tasks]
    may_have_happened = any(each is None or each.may_have_happened for _, each in later)
    return BulkEnqueueError(error.enqueued, (*error.task_ids, *ids), error.may_have_happened or may_have_happened)


async def aiterate(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield the items of a plain or asynchronous iterable."""
    if isinstance(items, AsyncIterable):
        async for each in items:
            yield each
        return
    for each in items:
        yield each


class BulkResult(Sequence[TaskHandle[Any]]):
    """The tasks that `enqueue_many` enqueued: a sequence of handles, which are created on access.

    Handles of one queue are in the order of their calls. Inside a database transaction the sequence contains all tasks.
    After the commit it contains the tasks that were enqueued.

    Attributes:
        ids: Ids of the tasks, in the order of the handles.
        errors: One error for each refused task: its unique lock or its id was taken, or its queue was full.
        existing: Ids of existing tasks that held the unique lock (`Unique`) of a new task, by the id of the new task.
            The handle of such a new task refers to the existing task, and its `existing` is True.
    """

    def __init__(self, make_handle: Callable[[BaseTask[Any], str], TaskHandle[Any]]) -> None:
        self._make_handle = make_handle
        self._sources: list[BaseTask[Any]] = []
        self.ids: list[str] = []
        self._deferred: dict[int, TaskHandle[Any]] | None = None
        """Handles that the caller has accessed while the transaction is open, by position. None after the commit."""
        self._is_rolled_back = False
        self._late: frozenset[str] = frozenset()
        """Ids of tasks that wait in an outbox although the transaction has committed."""
        self._positions_of_existing: set[int] = set()
        self.existing: dict[str, str] = {}
        self.errors: list[EnqueueError] = []

    def raise_errors(self) -> None:
        """Raise an `ExceptionGroup` of `errors`, if there are any."""
        if self.errors:
            raise ExceptionGroup(f"{len(self.errors)} tasks were not enqueued", self.errors)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> TaskHandle[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[TaskHandle[Any]]: ...
    def __getitem__(self, index: int | slice) -> TaskHandle[Any] | list[TaskHandle[Any]]:
        positions = range(len(self))[index]
        return self._handle(positions) if isinstance(positions, int) else [self._handle(each) for each in positions]

    def _handle(self, position: int) -> TaskHandle[Any]:
        if self._deferred is not None and position in self._deferred:
            return self._deferred[position]
        handle = self._make_handle(self._sources[position], self.ids[position])
        handle.existing = position in self._positions_of_existing
        handle.is_late = handle.id in self._late
        if self._deferred is not None:
            handle.mark_deferred()
            if self._is_rolled_back:
                handle.mark_rolled_back()
            self._deferred[position] = handle
        return handle

    def __repr__(self) -> str:
        state = "enqueued" if self._deferred is None else "to be enqueued"
        if self._is_rolled_back:
            state = "rolled back"
        return f"<{len(self)} tasks {state}, {len(self.errors)} refused>"

    # --- for clients --------------------------------------------------------------------------------------------------

    def add(self, batch: Batch, answer: Codes) -> list[EnqueueError | None]:
        """Add the tasks of a batch that was sent. Return an error or None for each task, or [] if there is no error."""
        if answer.count(StoreCode.STORED) == len(batch.tasks):
            self._sources += batch.sources
            self.ids += [task.task_id for task in batch.tasks]
            return []
        errors: list[EnqueueError | None] = []
        for source, task, (code, holder) in zip(batch.sources, batch.tasks, answer.each(), strict=True):
            error = None
            if code in HELD:
                self._positions_of_existing.add(len(self))
                self.existing[task.task_id] = holder
            elif code != StoreCode.STORED:
                error = refusal(code, source.name, batch.queue.name, task.task_id, answer, holder)
                self.errors.append(error)
            if error is None:
                self._sources.append(source)
                self.ids.append(holder if code in HELD else task.task_id)
            errors.append(error)
        return errors if any(errors) else []

    def failure(self, batch: Batch, cause: BrokerError) -> BulkEnqueueError:
        """Return the error for a batch that could not be sent."""
        ids = tuple(task.task_id for task in batch.tasks)
        error = BulkEnqueueError(len(self), ids, cause.may_have_happened)
        error.__cause__ = cause
        return error

    def note_progress(self, error: Exception) -> None:
        """Add a note to an exception: how many tasks were enqueued before it."""
        if not isinstance(error, BulkEnqueueError):
            error.add_note(f"{len(self)} tasks of this bulk enqueue were enqueued before")

    def defer(self, waiting: Iterable[Batch]) -> None:
        """Add tasks that will be sent when the surrounding transaction commits."""
        self._deferred = {}
        for batch in waiting:
            self.add(batch, Codes(StoreCode.STORED * len(batch.tasks)))

    def begin(self) -> list[TaskHandle[Any]]:
        """Remove the deferred tasks, because they are sent now. Return the handles that were created for them."""
        handles = list((self._deferred or {}).values())
        self._deferred, self._sources, self.ids = None, [], []
        return handles

    def mark_rolled_back(self) -> None:
        """Record that the surrounding transaction was rolled back, so no task is ever sent."""
        self._is_rolled_back = True
        for handle in (self._deferred or {}).values():
            handle.mark_rolled_back()

    def settle(
        self,
        handles: Iterable[TaskHandle[Any]],
        failure: BaseException | None,
        late: Iterable[str] = (),
    ) -> None:
        """Mark the handles that `begin` returned as sent or failed.

        Args:
            handles: The handles.
            failure: The error that stopped the send, or None.
            late: Ids of tasks that still wait in the outbox.
        """
        self._late |= frozenset(late)
        sent = set(self.ids)
        refused = {error.task_id: error for error in self.errors}
        for handle in handles:
            if handle.id in self.existing:
                handle.mark_existing(self.existing[handle.id])
                handle.mark_sent()
            else:
                error = None if handle.id in sent else refused.get(handle.id) or failure
                handle.mark_sent(error, is_late=handle.id in self._late)
