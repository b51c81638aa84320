"""Warn if a workflow would stop after its first steps, because no taskq worker serves its home queue.

A workflow can stop in this way if all steps are remote tasks: Go workers run steps, but do not start the next steps. A
client checks for a worker at most once a minute for each home queue.
"""

import time

from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.services import has_worker
from taskq_core.tasks.remote import RemoteTask
from taskq_core.warnings import WorkflowUnservedWarning, warn_caller
from taskq_core.workflow.sending import Outgoing, first_call

LOOK_EVERY_S = 60.0
"""Seconds between two checks of one client whether a worker serves a home queue."""


class WorkerCheck:
    """Decides when a client checks whether a taskq worker serves a workflow's home queue, and warns if none does."""

    def __init__(self) -> None:
        self._look_at: dict[str, float] = {}  # monotonic time (s) of the next check, by home queue

    def operation(self, outgoing: Outgoing) -> Operation[bool] | None:
        """Return the operation that checks whether a worker serves the home queue, None if no check is due."""
        home, now = outgoing.home, time.monotonic()
        if self._look_at.get(home.name, now) > now:
            return None
        calls = [first_call(node) for node in outgoing.graph.nodes]
        if not all(call is not None and isinstance(call.task, RemoteTask) for call in calls):
            return None
        self._look_at[home.name] = now + LOOK_EVERY_S
        return has_worker(home)

    def warn(self, outgoing: Outgoing, has_worker: bool) -> None:
        """Warn the caller unless a worker serves the home queue."""
        if not has_worker:
            warn_caller(
                f"no taskq worker serves queue {outgoing.home.name!r}, the home queue of this workflow, and Go workers "
                "do not start the next step. Start a taskq worker for this queue, or choose a home queue that has one "
                'with at_home("...")',
                WorkflowUnservedWarning,
            )
