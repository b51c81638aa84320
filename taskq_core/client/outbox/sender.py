"""Enqueue through an outbox: write rows, and move them to Redis after their commit.

After the commit, the client tries once to move the rows to Redis. This is only a shortcut: the client gives up if Redis
does not answer within `PATIENCE_S`, raises no error, and does not try again while its circuit breaker is open. The
relay of a worker moves the rows that are left. A handle counts as sent only when Redis has the task.
"""

import logging
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from taskq_core.broker.operations.new_tasks import NAMES_HOLDER, Codes, StoreCode
from taskq_core.client.bulk import Batch, BulkResult
from taskq_core.client.circuit import Circuit
from taskq_core.client.outbox.delivery import Delivered, Delivery
from taskq_core.client.outbox.table import Outbox, OutboxRow, OutboxTable
from taskq_core.client.preparer import Prepared, refusal
from taskq_core.errors import BrokerError, CircuitOpenError
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.tasks.observer import Observer
from taskq_core.wire.tokens import new_token

logger = logging.getLogger("taskq.outbox")

PATIENCE_S = 0.1
"""Maximum seconds that a caller waits after the commit for a Redis that does not answer."""


class OutboxSender:
    """Enqueues prepared tasks through an outbox. Safe to share between threads.

    Args:
        outbox: Writes rows.
        delivery: Moves rows to Redis.
        circuit: Decides whether to try the move. It is separate from the circuit breaker of direct enqueues, because it
            opens after a single failure.
        observer: Is notified of tasks after their commit, if there is one.
    """

    def __init__(
        self,
        outbox: Outbox,
        delivery: Delivery,
        *,
        circuit: Circuit,
        observer: Observer | None,
    ) -> None:
        self._observer = observer
        self._outbox = outbox
        self._delivery = delivery
        self.circuit = circuit

    # --- one task -----------------------------------------------------------------------------------------------------

    def send(self, prepared: Prepared[Any]) -> None:
        """Write the row of a task.

        Raises errors of the database. Outside of a transaction, also raises the refusal of the task by Redis.
        """
        with self._writing(prepared) as (rows, committed):
            self._outbox.write(rows, committed, prepared.handle.mark_rolled_back)

    async def asend(self, prepared: Prepared[Any]) -> None:
        """Write the row of a task. Like `send`, for coroutines."""
        with self._writing(prepared) as (rows, committed):
            await self._outbox.awrite(rows, committed, prepared.handle.mark_rolled_back)

    @contextmanager
    def _writing(self, prepared: Prepared[Any]) -> Iterator[tuple[list[OutboxRow], Callable[[OutboxTable], None]]]:
        """Yield the row of a task, and the function to call after its commit. At the end, close the task's span.

        The span has only created the task. The delivery has the span of the send, and counts the task.
        """
        handle = prepared.handle
        handle.mark_deferred()
        row = OutboxRow(receipt=new_token(), queue=handle.queue, name=handle.name, task=prepared.task)

        def committed(table: OutboxTable) -> None:
            delivered = self._attempt(table, [row.receipt])
            holder = delivered.existing.get(row.receipt, "")
            if row.receipt in delivered.refused:
                code = delivered.refused[row.receipt]
                handle.mark_sent(refusal(code, handle.name, handle.queue, handle.id, holder=holder))
            else:
                if holder:
                    handle.mark_existing(holder)
                handle.mark_sent(is_late=row.receipt not in delivered.stored)
                if self._observer is not None and self._observer.wants_enqueued():
                    self._observer.notify_enqueued((handle,))

        try:
            yield [row], committed
        except BaseException as error:
            prepared.span.end(error)
            raise
        prepared.span.end_as_created(handle.queue)
        if handle.send_error is not None:  # without a transaction, the task was refused during the write
            raise handle.send_error

    # --- many ---------------------------------------------------------------------------------------------------------

    def send_many(self, batches: Iterable[Batch], result: BulkResult) -> None:
        """Write the rows of batches. In an open transaction write all rows together, otherwise batch by batch."""
        is_deferred = self._outbox.in_transaction()
        for part in [list(batches)] if is_deferred else ([batch] for batch in batches):
            rows, committed = self._begin_many(part, result, is_deferred)
            self._outbox.write(rows, committed, result.mark_rolled_back)

    async def asend_many(self, batches: AsyncIterable[Batch], result: BulkResult) -> None:
        """Write the rows of batches. Like `send_many`, for coroutines."""
        is_deferred = await self._outbox.ain_transaction()
        if is_deferred:
            await self._asend_part([batch async for batch in batches], result, is_deferred)
            return
        async for batch in batches:
            await self._asend_part([batch], result, is_deferred)

    async def _asend_part(self, part: Sequence[Batch], result: BulkResult, is_deferred: bool) -> None:
        rows, committed = self._begin_many(part, result, is_deferred)
        await self._outbox.awrite(rows, committed, result.mark_rolled_back)

    def _begin_many(
        self, batches: Sequence[Batch], result: BulkResult, is_deferred: bool
    ) -> tuple[list[OutboxRow], Callable[[OutboxTable], None]]:
        by_batch = [
            [
                OutboxRow(receipt=new_token(), queue=batch.queue.name, name=source.name, task=task)
                for source, task in zip(batch.sources, batch.tasks, strict=True)
            ]
            for batch in batches
        ]
        rows = [row for each in by_batch for row in each]

        def committed(table: OutboxTable) -> None:
            handles = result.begin() if is_deferred else ()  # `begin` also empties `result`, which is filled below
            delivered = self._attempt(table, [row.receipt for row in rows])
            over = {*delivered.stored, *delivered.refused}
            late = [row.task.task_id for row in rows if row.receipt not in over]
            first = len(result)
            for batch, its_rows in zip(batches, by_batch, strict=True):
                codes = Codes("".join([_code(row.receipt, delivered) for row in its_rows]))
                rows_and_codes = zip(its_rows, codes, strict=True)
                codes.holders = tuple(
                    delivered.existing.get(row.receipt, "") for row, code in rows_and_codes if code in NAMES_HOLDER
                )
                result.add(batch, codes)
            result.settle(handles, None, late)
            if self._observer is not None and self._observer.wants_enqueued():
                self._observer.notify_enqueued(result[first:])

        if is_deferred:
            result.defer(batches)
        return rows, committed

    # --- workflows ----------------------------------------------------------------------------------------------------

    def send_workflow(self, rows: Sequence[OutboxRow], handle: WorkflowHandle) -> None:
        """Write the rows of a workflow."""
        handle.mark_deferred()
        self._outbox.write(rows, self._committed(rows, handle), handle.mark_rolled_back)

    async def asend_workflow(self, rows: Sequence[OutboxRow], handle: WorkflowHandle) -> None:
        """Write the rows of a workflow. Like `send_workflow`, for coroutines."""
        handle.mark_deferred()
        await self._outbox.awrite(rows, self._committed(rows, handle), handle.mark_rolled_back)

    def _committed(self, rows: Sequence[OutboxRow], handle: WorkflowHandle) -> Callable[[OutboxTable], None]:
        receipts = [row.receipt for row in rows]

        def committed(table: OutboxTable) -> None:
            handle.mark_sent(is_late=not set(receipts) <= set(self._attempt(table, receipts).stored))

        return committed

    # --- after the commit ---------------------------------------------------------------------------------------------

    def _attempt(self, table: OutboxTable, receipts: Sequence[str]) -> Delivered:
        """Try once to move rows to Redis. Raise no error, because the relay of a worker moves the rows that fail."""
        whole = Delivered(0, [], {})
        waiting = list(receipts)
        try:
            while waiting:
                with self.circuit.call():
                    delivered = self._delivery.deliver(table, waiting, patience_s=PATIENCE_S)
                    whole.stored += delivered.stored
                    whole.refused |= delivered.refused
                    whole.existing |= delivered.existing
                    if delivered.failure is not None:
                        raise delivered.failure
                over = {*delivered.stored, *delivered.refused}
                left = [each for each in waiting if each not in over]
                if len(left) == len(waiting):
                    break
                waiting = left
        except CircuitOpenError:
            pass  # the circuit breaker has already logged the failure
        except BrokerError as error:
            whole.failure = error
        except Exception:  # the database failed after the commit; a worker's relay moves the rows later
            logger.exception("tasks wait in the outbox of database %r", table.name)
        if whole.failure is not None:
            count = "1 task waits" if len(waiting) == 1 else f"{len(waiting)} tasks wait"
            logger.warning("%s in the outbox of database %r: %s", count, table.name, whole.failure)
        return whole


def _code(receipt: str, delivered: Delivered) -> str:
    """Return the outcome of a row as a `StoreCode`."""
    if receipt in delivered.refused:
        return delivered.refused[receipt]
    return StoreCode.EXISTING if receipt in delivered.existing else StoreCode.STORED
