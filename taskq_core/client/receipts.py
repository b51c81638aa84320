"""Receipt slots, by which Redis recognizes a repeated request. Concurrent callers use different slots.

For each slot, Redis stores the number and the answer of the last request. A caller returns its slot after it received
the answer. After a failed request it drops the slot, because that request may still reach Redis and overwrite the
answer of the slot's next request.
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
"""Return a slot whose request was answered, so that other callers can take it."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free.clear)  # parent and child must not use the same slots
