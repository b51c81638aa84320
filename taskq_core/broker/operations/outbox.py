"""Deliver the rows of an outbox, or the copies of a move: each once, even if a sender dies or is suspended."""

from collections.abc import Sequence

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.new_tasks import Codes, NewTask, ReceiptSlot, read_codes
from taskq_core.broker.operations.operation import NOW, Argument, Operation, command, script
from taskq_core.wire import QueueKeys

DELIVERED_KEPT_S = 2_592_000
"""Seconds after which a receipt expires if `forget_deliveries` does not delete it: 30 days."""


def deliver(
    queue: QueueKeys,
    rows: Sequence[tuple[str, NewTask]],
    slot: ReceiptSlot,
    *,
    claim_ends_ms: int,
    max_pending: int | None = None,
) -> Operation[Codes]:
    """Store the tasks of outbox rows in one queue: at most `BATCH_MAX`, about `BATCH_BYTES` in total.

    Args:
        queue: Key names of the queue.
        rows: Receipt of each row, and its task. All tasks have the same `confirm`.
        slot: Numbers the calls.
        claim_ends_ms: End of the caller's claim on the rows, Unix ms by Redis's clock, at most 110 s ahead. Nothing is
            stored afterwards.
        max_pending: Maximum number of pending tasks. Further tasks are refused (`FULL`).

    The answer has one `StoreCode` character per row. If Redis is over its memory limit, it refuses all rows.
    """
    keys = (queue.pending, queue.scheduled, queue.wake, queue.delivered, queue.groups, queue.receipt(slot.token))
    slot.call += 1
    args: list[Argument] = [NOW, claim_ends_ms, DELIVERED_KEPT_S, queue.prefix]
    args += ("" if max_pending is None else max_pending, slot.call)
    for receipt, task in rows:
        args += (receipt, *task.arguments(queue))
    tasks = [task for _, task in rows]
    confirm = tasks[0].confirm if tasks else None
    return script("deliver", keys, args, read_codes, tasks=tasks, confirm=confirm)


def expire_deliveries(queue: QueueKeys, receipts: Sequence[str], *, at_s: int) -> Operation[int]:
    """Let the receipts of deliveries expire at a Unix second, instead of deleting them."""
    words: list[Argument] = ["ZADD", queue.delivered, "XX"]
    for receipt in receipts:
        words += (at_s - DELIVERED_KEPT_S, receipt)
    return command("expire_deliveries", words, replies.integer)


def forget_deliveries(queue: QueueKeys, receipts: Sequence[str]) -> Operation[int]:
    """Delete the receipts of deleted rows."""
    return command("forget_deliveries", ("ZREM", queue.delivered, *receipts), replies.integer)
