"""Bulk enqueue without input or output: gather calls into batches, and note what became of them.

A batch is what one script call stores: tasks of one queue, at most `BATCH_MAX` of about `BATCH_BYTES`, confirmed
together if they have to be. It has one span `send`, and each of its tasks a span `create` that the task carries; such a
batch has at most `LINKED_MAX` tasks.
Payloads are let go as soon as their batch was sent.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from taskq_core.broker.operations.new_tasks import HELD, Admitted, Codes, EnqueueCode, NewTask
from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX
from taskq_core.client.admission import Wait
from taskq_core.client.preparer import Preparer, refusal, task_of
from taskq_core.client.stored_ids import KeptTasks
from taskq_core.errors import BrokerError, BulkEnqueueError, EnqueueError
from taskq_core.handles.handle import TaskHandle
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.plan import Headers, Plan
from taskq_core.telemetry import BatchSpan, type_name
from taskq_core.wire import QueueKeys
from taskq_core.wire.ids import IdBlocks

LINKED_MAX = 128
"""Most tasks of a batch with a span each. The span of the batch links to them, and an SDK keeps 128 links."""


class Batch:
    """Tasks of one queue that go in one script call.

    Args:
        queue: The queue.
        span: Of the batch.
        blocks: What ids of its tasks are drawn from.
        number: The block of this batch.
    """

    __slots__ = (
        "_blocks",
        "_drawn",
        "_has_spans",
        "_headers",
        "_ids",
        "_number",
        "bytes",
        "queue",
        "sources",
        "span",
        "tasks",
    )

    def __init__(self, queue: QueueKeys, span: BatchSpan, blocks: IdBlocks, number: int) -> None:
        self.queue = queue
        self._blocks = blocks
        self._number = number
        self._ids: Iterator[str] | None = None
        self._drawn = 0
        self.span = span
        self._has_spans = span.has_spans
        self.tasks: list[NewTask] = []
        self.sources: list[BaseTask[Any]] = []
        self.bytes = 0
        self._headers: dict[tuple[Plan, tuple[tuple[str, str], ...]], Headers] = {}

    def new_id(self) -> str:
        """Return an id for the next of its tasks."""
        if self._ids is None:
            self._ids = iter(self._blocks.draw(self._number, BATCH_MAX))
        self._drawn += 1
        return next(self._ids)

    def keep(self, kept: KeptTasks) -> None:
        """Note that all of its tasks are stored."""
        first, count = self.sources[0], len(self.sources)
        if self._drawn == count and self.sources.count(first) == count:
            kept.add_block(first, self._blocks, self._number, count)
        else:
            kept.add(self.sources, [task.task_id for task in self.tasks])

    def headers(self, preparer: Preparer, plan: Plan, name: str, task_id: str, body_size: int) -> Headers:
        """Return the headers of one of its tasks; made once for those with one plan that carry the same."""
        carried = preparer.carried()
        if self._has_spans:
            return preparer.headers(plan, self.span.create(name, task_id, body_size), carried)
        key = (plan, tuple(carried.items()) if carried else ())
        headers = self._headers.get(key)
        if headers is None:
            headers = self._headers[key] = preparer.headers(plan, self.span.carrier(), carried)
        return headers

    @property
    def is_full(self) -> bool:
        """True if no further task should be added."""
        most = LINKED_MAX if self._has_spans else BATCH_MAX
        return len(self.tasks) >= most or self.bytes >= BATCH_BYTES

    def count(self) -> Iterable[tuple[str, int]]:
        """Return the names of its tasks, each with how often it occurs."""
        first = self.sources[0]
        if self.sources.count(first) == len(self.sources):
            return ((first.name, len(self.sources)),)
        return Counter(source.name for source in self.sources).items()

    def part(self, codes: str, *, is_full: bool) -> "Batch":
        """Return those of its tasks that found no room, or else the others."""
        part = Batch(self.queue, self.span, self._blocks, self._number)
        for source, task, code in zip(self.sources, self.tasks, codes, strict=True):
            if (code == EnqueueCode.FULL) == is_full:
                part.sources.append(source)
                part.tasks.append(task)
        return part


class BatchFiller:
    """Gathers calls into batches by queue."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer
        self._open: dict[object, Batch] = {}
        self._blocks = IdBlocks()
        self._numbers = itertools.count()

    def add(self, call: Signature[Any]) -> Batch | None:
        """Add a call and return its batch if that is full now."""
        preparer = self._preparer
        plan = preparer.plan(task_of(call))
        queue = plan.queue
        kind: object = queue.name if plan.confirm is None else (queue.name, plan.confirm)
        batch = self._open.get(kind)
        if batch is None:
            span = preparer.tracing.start_batch(queue.name)
            batch = self._open[kind] = Batch(queue, span, self._blocks, next(self._numbers))
        task = preparer.prepare_for_batch(call, plan, batch.headers, batch.new_id)
        batch.tasks.append(task)
        batch.sources.append(call.task)
        batch.bytes += len(task.message)
        return self._open.pop(kind) if batch.is_full else None

    def rest(self) -> list[Batch]:
        """Return the batches that are not full."""
        return [batch for batch in self._open.values() if batch.tasks]


def batches(preparer: Preparer, calls: Iterable[Signature[Any]]) -> Iterator[Batch]:
    """Gather calls into batches by queue, each full or, at the end, what is left."""
    filler = BatchFiller(preparer)
    for call in calls:
        batch = filler.add(call)
        if batch is not None:
            yield batch
    yield from filler.rest()


class BulkResult(Sequence[TaskHandle[Any]]):
    """What `enqueue_many` enqueued: a sequence of handles, made when asked for.

    Handles stand in the order of the calls within each queue. Inside a database transaction the sequence holds all
    tasks at once; after the commit it holds those that were enqueued. It takes next to no memory for calls of one task
    that set no id: their ids are drawn anew from what they were drawn from.

    Attributes:
        errors: One per task that was refused: its unique lock or its id was taken, or its queue was full.
        existing: Ids of tasks that were there before and stand for one of these (`Unique`), by the id that this one
            would have had. Their handles say `existing`.
    """

    def __init__(self, make_handle: Callable[[BaseTask[Any], str], TaskHandle[Any]]) -> None:
        self._make_handle = make_handle
        self._kept = KeptTasks()
        # While the transaction is open: handles given out, by position. None otherwise.
        self._early: dict[int, TaskHandle[Any]] | None = None
        self._there: set[int] = set()  # positions of tasks that were there before
        self.existing: dict[str, str] = {}
        self.errors: list[EnqueueError] = []

    @property
    def ids(self) -> Sequence[str]:
        """Ids of the tasks, in the order of the handles."""
        return self._kept

    def raise_errors(self) -> None:
        """Raise what was refused as an `ExceptionGroup`, if anything was."""
        if self.errors:
            raise ExceptionGroup(f"{len(self.errors)} tasks were not enqueued", self.errors)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> TaskHandle[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[TaskHandle[Any]]: ...
    def __getitem__(self, index: int | slice) -> TaskHandle[Any] | list[TaskHandle[Any]]:
        positions = range(len(self))[index]
        return self._handle(positions) if isinstance(positions, int) else [self._handle(each) for each in positions]

    def _handle(self, position: int) -> TaskHandle[Any]:
        if self._early is not None and position in self._early:
            return self._early[position]
        handle = self._make_handle(self._kept.source(position), self._kept[position])
        handle.existing = position in self._there
        if self._early is not None:
            handle.mark_deferred()
            self._early[position] = handle
        return handle

    def __repr__(self) -> str:
        return f"<{len(self)} tasks {'to be ' if self._early is not None else ''}enqueued, {len(self.errors)} refused>"

    # --- for clients --------------------------------------------------------------------------------------------------

    def add(self, batch: Batch, answer: Admitted) -> list[EnqueueError]:
        """Note what became of a batch that was sent, and return the errors of those that were refused."""
        errors: list[EnqueueError] = []
        if answer.codes.count(EnqueueCode.STORED) == len(batch.tasks):
            batch.keep(self._kept)
            return errors
        sources, ids = [], []
        for source, task, (code, holder) in zip(batch.sources, batch.tasks, answer.each(), strict=True):
            if code == EnqueueCode.STORED:
                sources.append(source)
                ids.append(task.task_id)
            elif code in HELD:
                self._there.add(len(self) + len(ids))
                sources.append(source)
                ids.append(holder)
                self.existing[task.task_id] = holder
            else:
                errors.append(refusal(code, source.name, batch.queue.name, task.task_id, answer, holder))
        self._kept.add(sources, ids)
        self.errors += errors
        return errors

    def failure(self, batch: Batch, cause: BrokerError) -> BulkEnqueueError:
        """Return the error for a batch that could not be sent."""
        ids = tuple(task.task_id for task in batch.tasks)
        error = BulkEnqueueError(len(self), ids, cause.may_have_happened)
        error.__cause__ = cause
        return error

    def defer(self, waiting: Iterable[Batch]) -> None:
        """Hold tasks that are sent when the surrounding transaction commits."""
        self._early = {}
        for batch in waiting:
            self.add(batch, Admitted(EnqueueCode.STORED.value * len(batch.tasks)))

    def begin(self) -> "EarlyHandles":
        """Forget the tasks held, which are sent now, and return the handles given out for them."""
        early = EarlyHandles(self._early or {}, self._kept)
        self._early, self._kept = None, KeptTasks()
        return early


def so_far(result: BulkResult) -> str:
    """Return the note on an error that cut a bulk enqueue short."""
    return f"{len(result)} tasks of this bulk enqueue were enqueued before"


class EarlyHandles:
    """Handles that were given out before their tasks were sent."""

    def __init__(self, handles: dict[int, TaskHandle[Any]], ids: Sequence[str]) -> None:
        self._handles = handles
        self._ids = ids

    def settle(self, result: BulkResult, failure: BaseException | None) -> None:
        """Tell each handle what became of its task; `failure` is why the sending stopped, if it did."""
        sent = set(result.ids)
        refused = {error.task_id: error for error in result.errors}
        for position, handle in self._handles.items():
            task_id = self._ids[position]
            if task_id in result.existing:
                handle.mark_existing(result.existing[task_id])
                handle.mark_sent()
            elif task_id in sent:
                handle.mark_sent()
            else:
                handle.mark_sent(refused.get(task_id) or failure)


class SentBatch:
    """What becomes of a batch that was sent; a full queue may take a part of it now and the rest later.

    Args:
        preparer: Counts its tasks.
        batch: The batch.
        result: Told of its tasks.

    Attributes:
        batch: What is still on its way.
    """

    def __init__(self, preparer: Preparer, batch: Batch, result: BulkResult) -> None:
        self._preparer = preparer
        self._result = result
        self.batch = batch
        self._size = len(batch.tasks)

    def settle(self, answer: Admitted, wait: Wait, duration_s: float) -> float | None:
        """Note an answer; return the seconds after which `batch` is to be sent again, or None if that was all."""
        pause_s = wait.pause_s() if EnqueueCode.FULL in answer.codes else None
        if pause_s is None:
            self._note(self.batch, answer, duration_s)
            self.batch.span.end(count=self._size)
            return None
        done = self.batch.part(answer.codes, is_full=False)
        if done.tasks:
            codes = answer.codes.replace(EnqueueCode.FULL, "")
            if isinstance(answer.codes, Codes):
                codes = Codes(codes, answer.codes.holders)
            self._note(done, Admitted(codes), duration_s)
            self.batch = self.batch.part(answer.codes, is_full=True)
        return pause_s

    def fail(self, cause: BrokerError, duration_s: float) -> BulkEnqueueError:
        """Note that what is still on its way could not be sent, and return the error."""
        error = self._result.failure(self.batch, cause)
        self.batch.span.end(error, count=self._size)
        self._count({(name, type_name(error)): count for name, count in self.batch.count()}, duration_s)
        return error

    def _note(self, batch: Batch, answer: Admitted, duration_s: float) -> None:
        errors = self._result.add(batch, answer)
        counts: dict[tuple[str, str | None], int]
        if errors:
            sent = (EnqueueCode.STORED, *HELD)
            stored = [each.name for each, code in zip(batch.sources, answer.codes, strict=True) if code in sent]
            counts = Counter([(name, None) for name in stored] + [(each.task, type_name(each)) for each in errors])
        else:
            counts = {(name, None): count for name, count in batch.count()}
        self._count(counts, duration_s)

    def _count(self, counts: Mapping[tuple[str, str | None], int], duration_s: float) -> None:
        duration: float | None = duration_s
        for (name, error_type), count in counts.items():
            self._preparer.metrics.sent(self.batch.queue.name, name, count, duration_s=duration, error_type=error_type)
            duration = None  # one call, recorded once
