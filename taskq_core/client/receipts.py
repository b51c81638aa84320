"""Receipt slots, by which Redis recognizes a repeated enqueue. Concurrent callers use different slots."""

import os
import weakref
from collections import deque

from taskq_core.broker.operations.new_tasks import ReceiptSlot
from taskq_core.wire.ids import new_token


class ReceiptSlots:
    """Receipt slots that no call uses at the moment. Safe to share between threads.

    A slot whose call may still reach Redis is not returned here, because the late call would overwrite the receipt of
    the next one. A forked child starts without slots: if two processes counted calls on one slot, each would mistake
    the other's receipt for its own.
    """

    def __init__(self) -> None:
        self._free: deque[ReceiptSlot] = deque()
        _all_receipts.add(self)

    def take(self) -> ReceiptSlot:
        """Return a slot for exclusive use until `give_back`."""
        try:
            return self._free.pop()
        except IndexError:
            return ReceiptSlot(new_token())

    def give_back(self, slot: ReceiptSlot) -> None:
        """Return a slot whose call was answered, for other callers."""
        self._free.append(slot)

    def forget(self) -> None:
        """Drop all slots."""
        self._free = deque()


_all_receipts: "weakref.WeakSet[ReceiptSlots]" = weakref.WeakSet()


def _forget_receipts() -> None:
    for slots in list(_all_receipts):
        slots.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_receipts)
