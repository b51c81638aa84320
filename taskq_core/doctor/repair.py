"""Repair the problems that the doctor found: plan the repairs, so that they can be shown, then make them in order.

First, keys of a wrong type are moved aside, queues are registered again, and single keys are corrected. Then
`taskq_core.repair.reconcile` runs on each queue with damaged tasks until a pass finds nothing to repair. Last,
interrupted moves and removals are finished. A script makes each change and checks first whether it is still needed, so
workers may run at the same time, and a second repair does no harm. Unknown data is never deleted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from taskq_core.app import TaskQ
from taskq_core.broker.operations import actions, new_tasks, services, upkeep
from taskq_core.broker.operations.actions import MOVE_S
from taskq_core.broker.operations.upkeep import TEND_MAX
from taskq_core.broker.plans import run_plan
from taskq_core.client.moving import finish
from taskq_core.clock import SYSTEM_CLOCK, Clock
from taskq_core.doctor.facts import Facts, QueueFacts
from taskq_core.doctor.keys import KeyDamage, KeyKind, absent_beside
from taskq_core.doctor.reading import count_moving
from taskq_core.errors import BrokerAuthenticationError, BrokerFullError, BrokerReplyError, ConfigurationError
from taskq_core.repair.reconcile import LOOK_AGAIN_S, FindingKind, reconcile, run
from taskq_core.wire import QueueKeys, validate_queue_name

PASSES_MAX = 5
"""Passes over a queue that looked at all of it and still found something to repair, after which it is left."""
MOVE_CUT_OFF = "move_cut_off"
REMOVAL_CUT_OFF = "removal_cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One thing that is to be repaired, or was.

    Attributes:
        queue: Name of the queue, "" where it is about none.
        kind: What is wrong: a `FindingKind`, a `KeyKind`, "move_cut_off" or "removal_cut_off".
        subject: The task or key it is about, "" where it is about the queue.
        detail: How it stands and what is done about it, as a sentence.
        is_done: Whether it was repaired.
    """

    queue: str
    kind: str
    subject: str
    detail: str
    is_done: bool = False


def plan(facts: Facts) -> list[Repair]:
    """Return what `Repairer` would do about the facts, in its order. Damaged tasks: about 1000 of a queue at most."""
    repairs = [] if facts.census is None else [_of_key(damage) for damage in facts.census.damage]
    for wrong in facts.wrong_types:
        if wrong.queue and not wrong.key.endswith(":paused"):
            detail = f"it is a {wrong.found}: it is moved aside, and what belongs there built again from the tasks"
            repairs.append(Repair(queue=wrong.queue, kind=FindingKind.WRONG_TYPE, subject=wrong.key, detail=detail))
    for queue in facts.queues:
        if queue.damage is not None:
            repairs += [
                Repair(queue=queue.name, kind=each.kind, subject=each.task_id, detail=each.detail)
                for each in queue.damage.findings
            ]
            if queue.damage.moving:
                repairs.append(_cut_off(queue.name, MOVE_CUT_OFF, f"{queue.damage.moving} tasks: they are carried on"))
        if queue.is_half_removed:
            repairs.append(_cut_off(queue.name, REMOVAL_CUT_OFF, "what is left of its tasks is deleted"))
    return repairs


def for_a_person(facts: Facts) -> list[Repair]:
    """Return what cannot be repaired without knowing what it is; each says what to do."""
    left = []
    for queue in facts.queues:
        left += list(_quarantined(queue))
        try:
            validate_queue_name(queue.name)
        except ConfigurationError as error:
            left.append(Repair(queue=queue.name, kind="unusable_name", subject="", detail=str(error)))
    left += [
        Repair(
            queue=wrong.queue,
            kind=FindingKind.WRONG_TYPE,
            subject=wrong.key,
            detail=f"it is a {wrong.found} and pauses the queue, whatever it is: resume the queue to delete it",
        )
        for wrong in facts.wrong_types
        if wrong.key.endswith(":paused")
    ]
    if facts.census is not None:
        detail = "it was moved aside as it is: look at what it is and who wrote it, then delete it"
        left += [
            Repair(queue=name, kind="moved_aside", subject=key, detail=detail)
            for name, keys in sorted(facts.census.kept.items())
            for key in keys
        ]
    return left


def _quarantined(queue: QueueFacts) -> Iterator[Repair]:
    for task_id in queue.quarantined_ids:
        detail = "it cannot be read and was set aside byte for byte: look at who enqueues there, then delete it"
        yield Repair(queue=queue.name, kind="quarantined", subject=task_id, detail=detail)


def _of_key(damage: KeyDamage, *, is_done: bool = False) -> Repair:
    return Repair(queue=damage.queue, kind=damage.kind, subject=damage.key, detail=damage.detail, is_done=is_done)


def _cut_off(queue: str, kind: str, detail: str) -> Repair:
    return Repair(queue=queue, kind=kind, subject="", detail=detail)


class Repairer:
    """Carries out a plan, in blocking code.

    Args:
        app: The queue application whose broker is repaired.
        facts: What was found, from which the plan was made.
        clock: The clock of this machine.
        look_again_s: Seconds between two looks at the same thing; None for those of `reconcile`.
        progress: Called with the number of queues gone over and in all.

    Attributes:
        repairs: What was done and what could not be, also when `work` was ended by an error.
    """

    def __init__(
        self,
        app: TaskQ,
        facts: Facts,
        *,
        clock: Clock = SYSTEM_CLOCK,
        look_again_s: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._runner = app.runtime.runner
        self._keys = app.runtime.keys
        self._facts = facts
        self._clock = clock
        self._look_again_s = LOOK_AGAIN_S if look_again_s is None else look_again_s
        self._progress = progress or (lambda done, total: None)
        self.repairs: list[Repair] = []

    def work(self) -> list[Repair]:
        """Repair what is planned, and return `repairs`.

        Raises:
            BrokerUnavailableError: The broker was lost; what was repaired until then is repaired.
        """
        damage = [] if self._facts.census is None else self._facts.census.damage
        if damage:
            self._wait()
        self._tend(damage)
        queues = self._damaged_queues()
        for number, name in enumerate(queues):
            self._progress(number, len(queues))
            self._try(name, "reconcile", self._reconcile)
        for queue in self._facts.queues:
            if queue.damage is not None and queue.damage.moving:
                self._try(queue.name, MOVE_CUT_OFF, self._finish_moves)
            if queue.is_half_removed:
                self._try(queue.name, REMOVAL_CUT_OFF, self._finish_removal)
        self._progress(len(queues), len(queues))
        return self.repairs

    def _try(self, name: str, kind: str, act: Callable[[QueueKeys], None]) -> None:
        """Do something for a queue; that it is refused keeps nothing from the other queues."""
        try:
            act(self._keys.queue(name))
        except (BrokerAuthenticationError, BrokerFullError, BrokerReplyError) as error:
            self.repairs.append(Repair(queue=name, kind=kind, subject="", detail=str(error)))

    # --- single keys --------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Let some time pass since the first look, so that what was on its way then has arrived."""
        assert self._facts.census is not None
        time.sleep(max(0.0, self._facts.census.read_at + self._look_again_s - self._clock.monotonic()))

    def _tend(self, damage: Sequence[KeyDamage]) -> None:
        by_slot = groupby(sorted(damage, key=_slot), key=_slot)  # those of no queue come first
        for _, group in by_slot:
            self._tend_some(list(group))

    def _tend_some(self, damage: Sequence[KeyDamage]) -> None:
        scripted = [each for each in damage if each.remedy is not None]
        for start in range(0, len(scripted), TEND_MAX):
            batch = scripted[start : start + TEND_MAX]
            step = upkeep.tend(absent_beside(batch[0], self._keys), [each.remedy for each in batch if each.remedy])
            self._note(batch, partial(self._runner.run, step))
        for each in damage:
            if each.remedy is None:
                self._note((each,), partial(self._tend_one, each))

    def _tend_one(self, damage: KeyDamage) -> list[bool]:
        if damage.kind is KeyKind.UNREGISTERED_QUEUE:
            return [self._runner.run(new_tasks.register_queue(self._keys.queues, (damage.queue,))) == 1]
        if damage.kind is KeyKind.EXPIRING:
            return [self._runner.run(upkeep.persist(damage.key)) == 1]
        assert damage.kind is KeyKind.STALE_PRESENCE
        shown = damage.key.replace(self._keys.workers, self._keys.servers, 1)
        if self._runner.run(upkeep.is_there(shown)):
            return [False]
        return [self._runner.run(services.unindex_presence(damage.index, damage.key)) == 1]

    def _note(self, damage: Sequence[KeyDamage], tend: Callable[[], Sequence[bool]]) -> None:
        try:
            done = tend()
        except (BrokerAuthenticationError, BrokerFullError, BrokerReplyError) as error:
            self.repairs += [replace(_of_key(each), detail=str(error)) for each in damage]
            return
        # What does not stand as it was found any more has come right by itself.
        self.repairs += [_of_key(each, is_done=True) for each, was_done in zip(damage, done, strict=True) if was_done]

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _damaged_queues(self) -> list[str]:
        damaged = {each.queue for each in self._facts.wrong_types if each.queue}
        damaged |= {each.name for each in self._facts.queues if each.damage is not None and each.damage.findings}
        return sorted(damaged)

    def _reconcile(self, queue: QueueKeys) -> None:
        passes = 0
        while passes < PASSES_MAX:
            report = run(reconcile(queue, repair=True, look_again_s=self._look_again_s), self._runner.run)
            passes += report.is_complete
            is_last = not report.repaired or passes == PASSES_MAX
            self.repairs += [
                Repair(
                    queue=queue.name,
                    kind=each.kind,
                    subject=each.task_id,
                    detail=each.detail,
                    is_done=each.repaired,
                )
                for each in report.findings
                if each.repaired or (is_last and not each.detail.startswith(f"{queue.paused} is a"))  # a person's
            ]
            if is_last:
                return

    def _finish_moves(self, queue: QueueKeys) -> None:
        moved = run_plan(finish(self._keys, queue, idle_s=MOVE_S), self._runner.run)
        left = run_plan(count_moving(queue), self._runner.run)
        detail = f"{moved} tasks have arrived at their other queue, those not wanted there are back"
        if left:
            detail += f"; of {left} it is not known any more where they go"
        self.repairs.append(Repair(queue=queue.name, kind=MOVE_CUT_OFF, subject="", detail=detail, is_done=not left))

    def _finish_removal(self, queue: QueueKeys) -> None:
        deleted, is_empty = 0, False
        while not is_empty:
            some, is_empty = self._runner.run(actions.discard(queue))
            deleted += some
        detail = f"{deleted} tasks were deleted"
        self.repairs.append(Repair(queue=queue.name, kind=REMOVAL_CUT_OFF, subject="", detail=detail, is_done=True))


def _slot(damage: KeyDamage) -> tuple[str, str]:
    return (damage.queue, "" if damage.queue else damage.key)
