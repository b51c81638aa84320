"""Faults that are load: much that is due at the same moment. Numbers as in `faults`."""

from collections.abc import Iterator

from tests.soak import program
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Stage

DUE_AT_ONCE = 2000
"""Tasks that get the same time to start. The queue is meant to take ten thousand; this leaves room for the others."""


def due_at_once(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """43: thousands of tasks are due in the same second."""
    call = program.aquick.using(run_after=fault.lasts_s / 2)
    stage.enqueue_together([call.s(stage.slot()) for _ in range(DUE_AT_ONCE)])
    yield fault.lasts_s
