"""Repair the damage that the doctor found: plan the repairs, so that they can be shown, then make them in order.

First, missing queues are added to the list of queues. Then `taskq_core.repair.reconcile` runs on each queue with
damaged tasks until a pass finds nothing to repair. Last, interrupted removals are finished. A script makes
each change and checks first whether it is still needed, so workers may run at the same time, and a second repair does
no harm. Unknown data is never deleted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from taskq_core.app import TaskQ
from taskq_core.broker.operations import actions, new_tasks
from taskq_core.doctor.facts import Facts
from taskq_core.doctor.keys import KeyKind
from taskq_core.errors import BrokerAuthenticationError, BrokerFullError, BrokerReplyError
from taskq_core.repair.reconcile import FindingKind, reconcile, run
from taskq_core.wire import QueueKeys

PASSES_MAX = 5
"""Maximum number of passes over a queue. Passes are repeated as long as they find damage to repair."""
REMOVAL_CUT_OFF = "removal_cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One repair of a damaged task, key or queue, planned or finished.

    Attributes:
        queue: Name of the queue, or "".
        kind: The problem: a `FindingKind`, a `KeyKind`, or "removal_cut_off".
        subject: The task or key, "" for the queue itself.
        detail: The problem and its repair, as a sentence.
        is_done: True once it is repaired.
    """

    queue: str
    kind: str
    subject: str
    detail: str
    is_done: bool = False


def plan(facts: Facts) -> list[Repair]:
    """Return the repairs that `Repairer` would make, in order: at most about 1000 damaged tasks of each queue."""
    repairs = [
        Repair(queue=each.queue, kind=each.kind, subject=each.key, detail=each.detail)
        for each in (facts.census.damage if facts.census is not None else ())
        if each.kind is KeyKind.UNREGISTERED_QUEUE
    ]
    for wrong in facts.wrong_types:
        if wrong.queue and not wrong.key.endswith(":paused"):
            detail = f"the key is a {wrong.found}: it is renamed, and its content is rebuilt from the tasks"
            repairs.append(Repair(queue=wrong.queue, kind=FindingKind.WRONG_TYPE, subject=wrong.key, detail=detail))
    for queue in facts.queues:
        if queue.damage is not None:
            repairs += [
                Repair(queue=queue.name, kind=each.kind, subject=each.task_id, detail=each.detail)
                for each in queue.damage.findings
            ]
        if queue.is_half_removed:
            detail = "the remaining tasks of the queue are deleted"
            repairs.append(Repair(queue=queue.name, kind=REMOVAL_CUT_OFF, subject="", detail=detail))
    return repairs


def for_a_person(facts: Facts) -> list[Repair]:
    """Return the problems that cannot be repaired automatically, because a person must decide. Each has advice."""
    left: list[Repair] = []

    def leave(queue: str, kind: str, subject: str, detail: str) -> None:
        left.append(Repair(queue=queue, kind=kind, subject=subject, detail=detail))

    for queue in facts.queues:
        for task_id, size in queue.quarantined_sizes.items():
            detail = f"the task cannot be read, its message has {size:,} bytes: find its producer, then delete it"
            leave(queue.name, "quarantined", task_id, detail)
        if queue.name_problem:
            leave(queue.name, "unusable_name", "", f"{queue.name_problem}: {facts.advice_on_name(queue.name)}")
    for wrong in facts.wrong_types:
        if wrong.key.endswith(":paused"):
            detail = f"the key is a {wrong.found} and pauses the queue: resume the queue to delete the key"
            leave(wrong.queue, FindingKind.WRONG_TYPE, wrong.key, detail)
    if facts.census is not None:
        for each in facts.census.damage:
            if each.kind is not KeyKind.UNREGISTERED_QUEUE:
                leave(each.queue, each.kind, each.key, f"{each.detail}: {each.advice}")
        for name, keys in sorted(facts.census.moved_aside.items()):
            for key in keys:
                detail = "a repair renamed this key: find the program that wrote it, then delete the key"
                leave(name, "moved_aside", key, detail)
    return left


class Repairer:
    """Makes the planned repairs, in blocking code.

    Args:
        app: The queue application whose Redis is repaired.
        facts: The facts from which the plan was made.
        recheck_s: Seconds between the two checks of a suspect task; None for the default of `reconcile`.
        progress: Called with the number of finished queues and the number of all damaged queues.

    Attributes:
        repairs: Finished and failed repairs, also if `work` raised an error.
    """

    def __init__(
        self,
        app: TaskQ,
        facts: Facts,
        *,
        recheck_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._runner = app.runtime.runner
        self._keys = app.runtime.keys
        self._facts = facts
        self._recheck_s = recheck_s
        self._progress = progress or (lambda done, total: None)
        self.repairs: list[Repair] = []

    def work(self) -> list[Repair]:
        """Make the planned repairs, and return `repairs`.

        Raises:
            BrokerUnavailableError: The connection was lost. Earlier repairs stay.
        """
        for each in self._facts.census.damage if self._facts.census is not None else ():
            if each.kind is KeyKind.UNREGISTERED_QUEUE:
                self._try(each.queue, each.kind, self._register)
        queues = self._damaged_queues()
        for number, name in enumerate(queues):
            self._progress(number, len(queues))
            self._try(name, "reconcile", self._reconcile)
        for queue in self._facts.queues:
            if queue.is_half_removed:
                self._try(queue.name, REMOVAL_CUT_OFF, self._finish_removal)
        self._progress(len(queues), len(queues))
        return self.repairs

    def _try(self, name: str, kind: str, act: Callable[[QueueKeys], None]) -> None:
        """Run one repair of a queue. If Redis refuses it, record the error and go on with other queues."""
        try:
            act(self._keys.queue(name))
        except (BrokerAuthenticationError, BrokerFullError, BrokerReplyError) as error:
            self.repairs.append(Repair(queue=name, kind=kind, subject="", detail=str(error)))

    def _register(self, queue: QueueKeys) -> None:
        if self._runner.run(new_tasks.register_queue(self._keys.queues, (queue.name,))):
            kind, detail = KeyKind.UNREGISTERED_QUEUE, "its name was added to the list of queues"
            self.repairs.append(
                Repair(queue=queue.name, kind=kind, subject=self._keys.queues, detail=detail, is_done=True)
            )

    def _damaged_queues(self) -> list[str]:
        damaged = {each.queue for each in self._facts.wrong_types if each.queue}
        damaged |= {each.name for each in self._facts.queues if each.damage is not None and each.damage.findings}
        return sorted(damaged)

    def _reconcile(self, queue: QueueKeys) -> None:
        passes, is_last = 0, False
        while not is_last:
            report = run(reconcile(queue, repair=True, recheck_s=self._recheck_s), self._runner.run)
            passes += report.is_complete
            is_last = not report.repaired or passes == PASSES_MAX
            self.repairs += [
                Repair(
                    queue=queue.name, kind=each.kind, subject=each.task_id, detail=each.detail, is_done=each.repaired
                )
                for each in report.findings
                # If `paused` has the wrong type, only the operator can decide what to do, so no repair is reported.
                if each.repaired or (is_last and not each.detail.startswith(f"{queue.paused} is a"))
            ]

    def _finish_removal(self, queue: QueueKeys) -> None:
        deleted, is_empty = 0, False
        while not is_empty:
            some, is_empty = self._runner.run(actions.discard(queue))
            deleted += some
        detail = f"{deleted} tasks were deleted"
        self.repairs.append(Repair(queue=queue.name, kind=REMOVAL_CUT_OFF, subject="", detail=detail, is_done=True))
