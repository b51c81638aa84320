"""Warn of workflows that nothing advances: all steps are remote tasks, and no taskq worker serves the home queue.

Go's workers run the steps of such a workflow, but start no step after another. A client looks for a worker at most once
a minute for each home queue, so that this costs one command then and nothing otherwise.
"""

import time

from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.services import has_worker
from taskq_core.tasks.remote import RemoteTask
from taskq_core.warnings import WorkflowUnservedWarning, warn_caller
from taskq_core.workflow.sending import Outgoing, first_call

LOOK_EVERY_S = 60.0
"""Seconds between two looks of one client for a worker that serves a home queue."""


class WorkerCheck:
    """Decides when a client looks for a worker, and warns."""

    def __init__(self) -> None:
        self._look_at: dict[str, float] = {}  # monotonic second of the next look, by home queue

    def operation(self, outgoing: Outgoing) -> Operation[bool] | None:
        """Return the operation that looks for a worker, None if the workflow needs no look now."""
        home, now = outgoing.home, time.monotonic()
        if self._look_at.get(home.name, now) > now:
            return None
        calls = [first_call(node) for node in outgoing.graph.nodes]
        if not all(call is not None and isinstance(call.task, RemoteTask) for call in calls):
            return None
        self._look_at[home.name] = now + LOOK_EVERY_S
        return has_worker(home)

    def warn(self, outgoing: Outgoing, has_worker: bool) -> None:
        """Warn the caller unless there is a worker."""
        if not has_worker:
            warn_caller(
                f"no taskq worker serves queue {outgoing.home.name!r}, the home of this workflow: after a step that Go "
                "runs, nothing starts the next one. Let a taskq worker serve this queue, or choose a home that one "
                'serves with at_home("...")',
                WorkflowUnservedWarning,
            )
