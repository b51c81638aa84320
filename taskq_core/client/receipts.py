"""Receipt slots, by which Redis recognizes a repeated enqueue. Concurrent callers use different slots.

A slot is given back when its call was answered. A slot whose call may still reach Redis is dropped, because the late
call would overwrite the receipt of the slot's next call.
"""

import os
from collections import deque

from taskq_core.broker.operations.new_tasks import ReceiptSlot
from taskq_core.wire.ids import new_token

_free: deque[ReceiptSlot] = deque()


def take() -> ReceiptSlot:
    """Return a slot for exclusive use until `give_back`."""
    try:
        return _free.pop()
    except IndexError:
        return ReceiptSlot(new_token())


give_back = _free.append
"""Return a slot whose call was answered, for other callers."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free.clear)  # parent and child must not use the same slots
