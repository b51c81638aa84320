"""Move rows from an outbox table to Redis: claim rows (no other sender then moves them), send and delete them."""

import logging
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from taskq_core.broker.operations import diagnosis, new_tasks, outbox, workflows
from taskq_core.broker.operations.new_tasks import HELD, Codes, NewTask, StoreCode
from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX, Confirmation, Operation
from taskq_core.client.bulk import LINKED_MAX
from taskq_core.client.outbox.table import OutboxRow, OutboxTable
from taskq_core.client.preparer import failure
from taskq_core.client.sender import Sender, give_back_slot, take_slot
from taskq_core.errors import (
    BrokerError,
    BrokerUnavailableError,
    DuplicateTaskError,
    TaskIdConflictError,
    WireFormatError,
)
from taskq_core.telemetry import ProducerSpan, type_name
from taskq_core.telemetry.propagation import TRACEPARENT, sender_in
from taskq_core.wire import (
    EXPIRES,
    PRIORITY,
    QueueKeys,
    decode_message,
    expiry_mark,
    priority_mark,
    read_expiry,
    read_priority,
)
from taskq_core.wire.tokens import new_token

logger = logging.getLogger("taskq.outbox")

CLAIM_S = 60.0
"""Seconds for which a claim of rows is valid, by the database's clock."""
SEND_S = 30.0
"""Seconds after the start of a claim during which Redis accepts the claimed rows, by Redis's clock."""
CLAIM_MAX = BATCH_MAX
"""Maximum number of rows that one claim takes."""
CLAIM_BYTES = 4 * BATCH_BYTES
"""Total size of messages in bytes. A claim that has reached this size takes no further row."""
PUT_OFF_S = 5.0
"""Seconds until a row is sent again after Redis refused it because its queue was full."""
_IN_REDIS = frozenset((StoreCode.STORED, StoreCode.STORED_BEFORE, *HELD))
"""Codes of rows whose task, or the existing task in its place, is in Redis."""
_REFUSALS = {
    StoreCode.DUPLICATE: type_name(DuplicateTaskError("", "", "")),
    StoreCode.ID_CONFLICT: type_name(TaskIdConflictError("", "", "")),
}
_WAITS = "waits"
_TRACEPARENT = re.compile(rb"traceparent\x12\x37(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})")
"""The header of a trace in an encoded message: its name, the protobuf tag and length of the value, and the value."""
_CONTROLS = re.compile(f"{EXPIRES}|{PRIORITY}".encode())
T = TypeVar("T")


class Delivered(Struct):
    """Outcome of one call of `Delivery.deliver`.

    Attributes:
        claimed: Number of claimed rows.
        stored: Receipts of rows whose tasks are in Redis, stored by this delivery or before.
        refused: `StoreCode` by receipt of rows whose id or unique lock was taken. Their tasks are dropped, with a
            warning in the log.
        existing: By receipt, the id of the existing task that holds the unique lock of a row's task, whether the row
            was refused or the existing task runs in its place.
        failure: The last error of Redis, None if there was none.
    """

    claimed: int
    stored: list[str]
    refused: dict[str, StoreCode]
    existing: dict[str, str] = field(default_factory=dict)
    failure: BrokerError | None = None


class Delivery:
    """Moves rows to Redis. Several deliveries may run at the same time, in any processes."""

    def __init__(self, sender: Sender) -> None:
        self._keys = sender.preparer.keys
        self._sender = sender

    def _run(self, operation: Operation[T], patience_s: float = math.inf) -> T:
        source = self._sender.preparer.source
        return source.runner.run(operation, patience_s=min(patience_s, source.timeout_s))

    def deliver(
        self, table: OutboxTable, receipts: Sequence[str] | None = None, *, patience_s: float = math.inf
    ) -> Delivered:
        """Claim rows and move them to Redis: the given rows, or any waiting rows. A later call retries failed rows.

        Args:
            table: The table.
            receipts: The rows. None: any rows.
            patience_s: Maximum seconds to wait for each answer of Redis before rows are sent. The request that has the
                rows may take as long as an enqueue. If it is not answered, the rows wait until their claim ends.

        Raises:
            BrokerUnavailableError: Redis did not return its time, so nothing was claimed.
        """
        began_s = self._run(diagnosis.read_time(), patience_s)
        claim = new_token()
        rows = table.claim(claim, most=CLAIM_MAX, most_bytes=CLAIM_BYTES, seconds=CLAIM_S, receipts=receipts)
        delivered = Delivered(len(rows), [], {})
        ends_ms = int((began_s + SEND_S) * 1000)
        left: list[str] = []
        put_off: list[str] = []
        is_away = False
        most = LINKED_MAX if self._sender.preparer.tracing.is_active else BATCH_MAX
        for queue, batch in _batches(rows, most):
            if is_away:
                left += [row.receipt for row in batch]
                continue
            try:
                codes = self._send(queue, batch, ends_ms, patience_s)
            except BrokerError as error:
                delivered.failure = error
                is_away = isinstance(error, BrokerUnavailableError)
                if error.may_have_happened:
                    pass  # keep the claim of the rows, because Redis may still execute the request
                elif is_away:
                    left += [row.receipt for row in batch]
                else:
                    # Redis refused rows of one queue. Put these rows off, so that the relay sends rows of other queues
                    # first.
                    put_off += [row.receipt for row in batch]
            else:
                put_off += self._record_outcomes(batch, codes, delivered)
        self._finish(table, claim, rows, delivered)
        if left:
            table.release(claim, left, seconds=0.0)
        if put_off:
            table.release(claim, put_off, seconds=PUT_OFF_S)
        return delivered

    def _send(self, queue: str, batch: Sequence[OutboxRow], ends_ms: int, patience_s: float) -> Codes:
        """Send a batch, record its span `send`, and count its tasks."""
        started = time.monotonic()
        span = self._start_span(queue, batch)
        try:
            codes = self._store(queue, batch, ends_ms, patience_s)
        except BaseException as error:
            shown = error
            if isinstance(error, BrokerError):
                shown = failure(batch[0].name, queue, batch[0].task.task_id, error)
                self._count(queue, batch, [type_name(shown)] * len(batch), started)
            span.end(shown, count=_batch_count(batch))
            raise
        self._count(queue, batch, [_error_type(code) for code in codes], started)
        span.end(count=_batch_count(batch))
        return codes

    def _start_span(self, queue: str, batch: Sequence[OutboxRow]) -> ProducerSpan:
        tracing = self._sender.preparer.tracing
        created = [sender_in(each) for row in batch for each in _created(row)] if tracing.is_active else []
        if len(batch) > 1:
            return tracing.start_sending(queue, created)
        return tracing.start_sending(queue, created, batch[0].name, batch[0].task.task_id)

    def _count(self, queue: str, batch: Sequence[OutboxRow], errors: Sequence[str | None], started: float) -> None:
        """Count the tasks of a batch by name and error. Tasks that wait for a later delivery are not counted yet."""
        duration_s: float | None = time.monotonic() - started
        for (name, error_type), count in Counter(zip((row.name for row in batch), errors, strict=True)).items():
            if error_type != _WAITS and not batch[0].is_workflow:
                metrics = self._sender.preparer.metrics
                metrics.sent(queue, name, count, duration_s=duration_s, error_type=error_type)
                duration_s = None  # record the duration once for each script call

    def _store(self, queue: str, batch: Sequence[OutboxRow], ends_ms: int, patience_s: float) -> Codes:
        try:
            self._run(new_tasks.register_queue(self._keys.queues, (queue,)), patience_s)
        except BrokerError as error:
            error.may_have_happened = False  # only the queue's name was sent, and no row
            raise
        keys = self._keys.queue(queue)
        slot = take_slot()
        if batch[0].is_workflow:
            (row,) = batch
            task = row.task
            deliver_workflow = workflows.deliver_workflow(
                keys, row.receipt, task.task_id, task.message, slot, claim_ends_ms=ends_ms, confirm=task.confirm
            )
            codes = Codes(self._run(deliver_workflow))
        else:
            rows = [(row.receipt, _due(row, keys)) for row in batch]
            most = self._sender.max_pending(queue)
            codes = self._run(outbox.deliver(keys, rows, slot, claim_ends_ms=ends_ms, max_pending=most))
        give_back_slot(slot)
        return codes

    def _record_outcomes(self, batch: Sequence[OutboxRow], codes: Codes, delivered: Delivered) -> list[str]:
        """Record the outcomes of rows in `delivered`. Return the receipts of rows whose queue is full."""
        put_off = []
        for row, (code, holder) in zip(batch, codes.each(), strict=True):
            if code in _IN_REDIS:
                delivered.stored.append(row.receipt)
                if code in HELD:
                    delivered.existing[row.receipt] = holder
            elif code == StoreCode.FULL:
                put_off.append(row.receipt)
            elif code != StoreCode.TOO_LATE:  # TOO_LATE: another sender has claimed the row, so it stays
                is_locked = code == StoreCode.DUPLICATE
                delivered.refused[row.receipt] = StoreCode.DUPLICATE if is_locked else StoreCode.ID_CONFLICT
                if holder:
                    delivered.existing[row.receipt] = holder
                taken = "its unique lock" if is_locked else "its id"
                logger.warning(
                    "task %s from the outbox was dropped: another task has %s",
                    row.name,
                    taken,
                    extra={"queue": row.queue, "task_id": row.task.task_id},
                )
        return put_off

    def _finish(self, table: OutboxTable, claim: str, rows: Sequence[OutboxRow], delivered: Delivered) -> None:
        """Delete the rows with a final outcome, then their receipts in Redis."""
        over = {*delivered.stored, *delivered.refused}
        if not over:
            return
        if table.delete(claim, [row.receipt for row in rows if row.receipt in over]) < len(over):
            # Another sender has claimed some of the rows, and still needs their receipts. Receipts expire after 30
            # days.
            return
        stored = set(delivered.stored)
        by_queue: dict[str, list[str]] = {}
        for row in rows:
            if row.receipt in stored:
                by_queue.setdefault(row.queue, []).append(row.receipt)
        try:
            for queue, receipts in by_queue.items():
                forget = outbox.forget_deliveries(self._keys.queue(queue), receipts)
                self._run(forget)
        except BrokerError as error:
            logger.info("receipts of %d outbox tasks were not deleted and expire in 30 days: %s", len(stored), error)


def _due(row: OutboxRow, queue: QueueKeys) -> NewTask:
    """Return the task of a row. Its delay and its relative expiry are reduced by the time that the row has waited."""
    task = row.task
    # If the key prefix was changed, or another application has written the row, the row's key is no lock of this queue.
    if task.unique_key and not queue.is_lock(task.unique_key):
        logger.warning(
            "task %s from the outbox is stored without its unique lock, because %r is not a lock key of its queue",
            row.name,
            task.unique_key,
            extra={"queue": row.queue, "task_id": task.task_id},
        )
        task = replace(task, unique_key="")
    if _CONTROLS.search(task.message):
        task = replace(task, marks=_marks(row))
    if task.start_in_ms is None:
        return task
    left_ms = task.start_in_ms - int(row.age_s * 1000)
    return replace(task, start_in_ms=left_ms if left_ms > 0 else None)


def _marks(row: OutboxRow) -> str:
    """Return the priority and expiry of a row's task for the Lua scripts.

    Read them from the headers in the task's message.
    """
    task = row.task
    message = decode_message(task.message)
    marks = priority_mark(*read_priority(message.headers))
    expiry = read_expiry(message.headers)
    if expiry is None:
        return marks
    later_s = 0.0 if task.start_in_ms is None else task.start_in_ms / 1000
    waited_s = 0.0 if task.start_at_s is not None else max(0.0, row.age_s - later_s)
    return marks + expiry_mark(expiry, timeout_s=0 if message.deadline else message.timeout, waited_s=waited_s)


def _error_type(code: str) -> str | None:
    """Return the type of the error of a row for metrics, None if the task is in Redis."""
    return None if code in _IN_REDIS else _REFUSALS.get(StoreCode(code), _WAITS)


def _created(row: OutboxRow) -> Iterable[Mapping[str, str]]:
    """Return the headers of a row's task, or the traces of the steps in a part of a workflow."""
    if row.is_workflow:
        found = dict.fromkeys(_TRACEPARENT.findall(row.task.message))
        return [{TRACEPARENT: each.decode()} for each in islice(found, LINKED_MAX)]
    try:
        return [decode_message(row.task.message).headers]
    except WireFormatError:
        return []


def _batch_count(batch: Sequence[OutboxRow]) -> int:
    """Return the number of tasks for the span of a batch. As OpenTelemetry's conventions say, 0 for a single task."""
    return len(batch) if len(batch) > 1 else 0


def _batches(rows: Sequence[OutboxRow], most: int) -> Iterator[tuple[str, list[OutboxRow]]]:
    """Yield batches of at most `most` rows, each for one script call.

    A batch has consecutive rows of one queue with the same confirmation by replicas.

    A batch has a bounded size. Each part of a workflow is a separate batch.
    """
    alike: dict[tuple[str, Confirmation | None, str], list[OutboxRow]] = {}
    for row in rows:
        alone = row.receipt if row.is_workflow else ""
        alike.setdefault((row.queue, row.task.confirm, alone), []).append(row)
    for (queue, _, _), waiting in alike.items():
        batch: list[OutboxRow] = []
        size = 0
        for row in waiting:
            batch.append(row)
            size += len(row.task.message)
            if len(batch) >= most or size >= BATCH_BYTES:
                yield queue, batch
                batch, size = [], 0
        if batch:
            yield queue, batch
