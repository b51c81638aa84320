"""Deliver what waited in an outbox: each row once, also when a sender died or slept."""

from collections.abc import Sequence
from enum import StrEnum

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.new_tasks import Codes, NewTask, ReceiptSlot, read_codes
from taskq_core.broker.operations.operation import Argument, Operation, command, script, time_argument
from taskq_core.wire import QueueKeys

DELIVERED_KEPT_S = 2_592_000
"""Seconds after which a receipt is dropped if it was not given back: 30 days."""


class DeliveryCode(StrEnum):
    """What became of one row of an outbox."""

    STORED = "1"
    STORED_BEFORE = "s"
    ID_CONFLICT = "0"
    DUPLICATE = "d"
    FULL = "f"
    EXISTING = "x"
    CHANGED = "u"
    TOO_LATE = "l"


def deliver(
    queue: QueueKeys,
    rows: Sequence[tuple[str, NewTask]],
    slot: ReceiptSlot,
    *,
    claim_ends_ms: int,
    max_pending: int | None = None,
    now_ns: int | None = None,
) -> Operation[Codes]:
    """Store tasks of one queue, given with the receipts of their rows; at most `BATCH_MAX` of about `BATCH_BYTES`.

    All have the same `confirm`. Nothing is stored once Redis's clock has reached `claim_ends_ms` (Unix ms, at most 110
    s ahead), and no task as pending beyond `max_pending`. Reads as one `DeliveryCode` character per row. Refused whole
    when Redis is over its memory limit.
    """
    keys = (queue.pending, queue.scheduled, queue.wake, queue.delivered, queue.groups, queue.receipt(slot.token))
    slot.call += 1
    args: list[Argument] = [time_argument(now_ns), claim_ends_ms, DELIVERED_KEPT_S, queue.prefix]
    args += ("" if max_pending is None else max_pending, slot.call)
    for receipt, task in rows:
        args += (receipt, *task.arguments(queue))
    tasks = [task for _, task in rows]
    confirm = tasks[0].confirm if tasks else None
    return script("deliver", keys, args, read_codes, tasks=tasks, confirm=confirm)


def forget_deliveries(queue: QueueKeys, receipts: Sequence[str]) -> Operation[int]:
    """Give back the receipts of rows that are gone."""
    return command("forget_deliveries", ("ZREM", queue.delivered, *receipts), replies.integer)
