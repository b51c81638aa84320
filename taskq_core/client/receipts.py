"""Receipt lanes: what lets a repeated enqueue be recognised, for any number of callers at once."""

import os
import weakref
from collections import deque

from taskq_core.broker.operations.new_tasks import ReceiptLane
from taskq_core.wire.ids import new_token


class Lanes:
    """Receipt lanes that no call uses just now. Safe to share between threads.

    A lane whose call may still be carried out by Redis is not given back: the late call would overwrite the receipt of
    the next. A forked child starts with none, since two processes counting calls on one lane would each take the
    other's receipt for its own.
    """

    def __init__(self) -> None:
        self._free: deque[ReceiptLane] = deque()
        _all_lanes.add(self)

    def take(self) -> ReceiptLane:
        """Return a lane that nobody else uses until it is given back."""
        try:
            return self._free.pop()
        except IndexError:
            return ReceiptLane(new_token())

    def give_back(self, lane: ReceiptLane) -> None:
        """Let others use a lane whose call was answered."""
        self._free.append(lane)

    def forget(self) -> None:
        """Begin with none."""
        self._free = deque()


_all_lanes: "weakref.WeakSet[Lanes]" = weakref.WeakSet()


def _forget_lanes() -> None:
    for lanes in list(_all_lanes):
        lanes.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lanes)
