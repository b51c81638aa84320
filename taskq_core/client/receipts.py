"""Receipt slots: what lets a repeated enqueue be recognised, for any number of callers at once."""

import os
import weakref
from collections import deque

from taskq_core.broker.operations.new_tasks import ReceiptSlot
from taskq_core.wire.ids import new_token


class ReceiptSlots:
    """Receipt slots that no call uses just now. Safe to share between threads.

    A slot whose call may still be carried out by Redis is not given back: the late call would overwrite the receipt of
    the next. A forked child starts with none, since two processes counting calls on one slot would each take the
    other's receipt for its own.
    """

    def __init__(self) -> None:
        self._free: deque[ReceiptSlot] = deque()
        _all_receipts.add(self)

    def take(self) -> ReceiptSlot:
        """Return a slot that nobody else uses until it is given back."""
        try:
            return self._free.pop()
        except IndexError:
            return ReceiptSlot(new_token())

    def give_back(self, slot: ReceiptSlot) -> None:
        """Let others use a slot whose call was answered."""
        self._free.append(slot)

    def forget(self) -> None:
        """Begin with none."""
        self._free = deque()


_all_receipts: "weakref.WeakSet[ReceiptSlots]" = weakref.WeakSet()


def _forget_receipts() -> None:
    for slots in list(_all_receipts):
        slots.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_receipts)
