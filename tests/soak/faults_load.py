"""A fault of heavy load: thousands of tasks that are due at the same time. For the number see `faults`."""

from collections.abc import Iterator

from tests.soak import program
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Stage

DUE_AT_ONCE = 2000
"""Number of tasks that are due at once. Redis could take more, but other faults run at the same time."""


def due_at_once(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """43: thousands of tasks are due in the same second."""
    call = program.aquick.using(run_after=fault.lasts_s / 2)
    stage.enqueue_together([call.s(stage.slot()) for _ in range(DUE_AT_ONCE)])
    yield fault.lasts_s
