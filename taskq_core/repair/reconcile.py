"""Find damaged tasks in a queue, and repair them.

taskq and Go change a task in one atomic script, so records that contradict each other are damage. `FindingKind` lists
the kinds of damage and their causes.

A pass reads the structures and tasks of a queue, page by page, and collects suspects. A script then reads everything
about each suspect, twice, some seconds apart. Damage that both script calls find is reported, and the second call
repairs it. So a task that is just being changed is neither lost nor duplicated. A key of a wrong type is renamed and
kept; its content is rebuilt from the tasks.

A pass is a request plan, which `run` and `arun` execute.
"""

import asyncio
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from taskq_core.broker.operations import aggregation, dispatch
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.repair import REPAIR_MAX, CheckedTask, Place, Probed, RepairedTask, Suspect
from taskq_core.broker.plans import arun_plan, run_plan
from taskq_core.errors import BrokerError, BrokerReplyError, WireFormatError
from taskq_core.repair.bloom_filter import BloomFilter
from taskq_core.wire import QueueKeys, TaskMessage, TaskState, decode_message

T = TypeVar("T")
Progress = Callable[[int, int], object]
"""Called with the number of checked tasks and the approximate number of all tasks."""

RECHECK_S = 5.0
"""Seconds between the two checks of a task that looks damaged."""
FINDINGS_MAX = 1000
"""Maximum number of findings of one pass. A pass that finds more ends early and is not complete."""

_LISTS = (TaskState.PENDING, TaskState.ACTIVE)
_SETS = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.ARCHIVED, TaskState.COMPLETED)


class FindingKind(StrEnum):
    """Kinds of damage, with their causes and repairs. The documentation page "repair damage" has the same table."""

    LISTED_WITHOUT_TASK = "listed_without_task"
    """A listed id has no task. Cause: the task's key was evicted or deleted. Repair: remove the id from the list."""
    TASK_WITHOUT_MESSAGE = "task_without_message"
    """A task has no message. Cause: Go's `ResultWriter` wrote a result after the task was deleted. Repair: delete the
    task."""
    UNREADABLE = "unreadable"
    """A message cannot be decoded. Cause: another program wrote it. Repair: move the task unchanged to quarantine."""
    NOT_LISTED = "not_listed"
    """A task is in no list or set. Cause: Go trims its archive without deleting the tasks, or a list was evicted.
    Repair: add the task to the list or set of its state."""
    LISTED_TWICE = "listed_twice"
    """A task is in two lists or sets, or twice in one. Cause: the key of a task was evicted, and its id was enqueued
    again. Repair: keep the task only where it belongs."""
    WRONG_STATE = "wrong_state"
    """A task is in the list or set of another state or group than its own. Cause: the same as for `listed_twice`.
    Repair: correct the state or group of the task."""
    ACTIVE_WITHOUT_LEASE = "active_without_lease"
    """An active task has no lease. Cause: a Go release before 0.24, or the leases were evicted. Repair: add a lease."""
    LEASE_WITHOUT_ACTIVE = "lease_without_active"
    """A leased task is not in the list of active tasks. Cause: the list was evicted. Repair: add the task to it."""
    LEASE_TOO_LONG = "lease_too_long"
    """A lease ends later than any worker allows. Cause: the clock of a Go worker was ahead. Repair: shorten the
    lease."""
    INFINITE_TIME = "infinite_time"
    """The time of a task in its sorted set is infinite, so it is never due, or never deleted. Cause: another program
    wrote it. Repair: the task is due now, or is deleted after its retention."""
    GROUP_NOT_LISTED = "group_not_listed"
    """The group of a task is missing in the set of groups. Cause: the set was evicted. Repair: add the group."""
    SET_NOT_LISTED = "set_not_listed"
    """An aggregation set is missing in the list of sets, or its deadline is infinite. Cause: the list was evicted, or
    another program wrote the deadline. Repair: add the set, with the current time as its deadline."""
    LOCK_WITHOUT_TASK = "lock_without_task"
    """A unique lock belongs to a task that was deleted or ended. Cause: Go does not release taskq's locks, or the task
    was evicted. Repair: release the lock."""
    TASK_WITHOUT_LOCK = "task_without_lock"
    """The lock of a unique task is missing. Cause: the lock was evicted. Repair: restore the lock."""
    STEPS_WITHOUT_TASK = "steps_without_task"
    """Steps of a task, or values that it emitted, are left without it. Cause: Go's tools deleted the task, or it
    was evicted. Repair: delete them."""
    STEP_NOT_LISTED = "step_not_listed"
    """A running workflow waits for a step whose end nobody would notice. Cause: the list of started steps was evicted
    or deleted. Repair: add the step to the list. The workflow then learns what became of its task."""
    WRONG_TYPE = "wrong_type"
    """A key has an unexpected type. Cause: another program uses the key. Repair: move the unchanged value to another
    key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One damaged task or structure.

    Attributes:
        kind: The kind of damage.
        task_id: Id of the task, "" for a structure.
        detail: The damage and the correct place of the task, as a sentence.
        repaired: Whether it was repaired.
    """

    kind: FindingKind
    task_id: str
    detail: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """The findings of one pass over a queue.

    Attributes:
        queue: Name of the queue.
        scanned: Number of checked tasks.
        findings: The findings, at most about `FINDINGS_MAX`.
        is_complete: False if the pass ended early: there were more findings, Redis failed after some of them, or a
            structure has a wrong type and was not moved, so that no task can be checked.
    """

    queue: str
    scanned: int
    findings: Sequence[Finding]
    is_complete: bool

    @property
    def repaired(self) -> int:
        """Number of repaired findings."""
        return sum(finding.repaired for finding in self.findings)


class Pause(Struct, frozen=True):
    """An item of a pass's request plan: the caller must wait before the next operation."""

    seconds: float


RequestPlan = Generator[Operation[Any] | Pause, Any, T]


def reconcile(
    queue: QueueKeys, *, repair: bool, recheck_s: float | None = None, progress: Progress | None = None
) -> RequestPlan[ReconcileReport]:
    """Return the request plan of one pass over a queue.

    The caller throws the `BrokerError` of a failed request into the generator. The pass then ends. It returns a report
    if there are findings, and otherwise raises the error.

    Args:
        queue: Key names of the queue.
        repair: Whether to repair the damage.
        recheck_s: Seconds between the two checks, None for `RECHECK_S`. A pass without suspects does not wait.
        progress: Called after each page of tasks.
    """
    checks = _Pass(queue, repair, RECHECK_S if recheck_s is None else recheck_s, progress)
    try:
        return (yield from checks.plan())
    except BrokerError:
        if not checks.findings:
            raise
        return checks.report(is_complete=False)


class _Pass:
    def __init__(self, queue: QueueKeys, repair: bool, recheck_s: float, progress: Progress | None) -> None:
        self._queue = queue
        self._repair = repair
        self._recheck_s = recheck_s
        self._progress = progress
        self._suspects: dict[str, Suspect] = {}
        self._found: dict[str, tuple[Suspect, RepairedTask]] = {}
        self._strange: dict[str, tuple[str, Finding]] = {}  # expected type and finding, by key that has the wrong type
        self._orphans: dict[str, None] = {}  # aggregation sets that their index does not contain
        self._unheld: dict[str, None] = {}  # unique locks whose task ended, is missing, or names another lock
        self._unlocked: dict[str, None] = {}  # keys of tasks that have no unique lock but need one
        self._records: dict[str, None] = {}  # steps records and emitted values without a task
        self._unlisted: set[tuple[str, str]] = set()  # unlisted steps of running workflows: queue and step
        self._listed = 0
        self._scanned = 0
        self._seen = BloomFilter(0)
        self.findings: list[Finding] = []

    @property
    def _is_full(self) -> bool:
        return len(self._found) >= FINDINGS_MAX

    def plan(self) -> RequestPlan[ReconcileReport]:
        probed: Probed = yield repair_ops.probe(self._queue)
        if probed.strange:
            probed = yield from self._restore_structures(probed)
            # The keys in `harmless` contain no task ids, so tasks can be checked without them.
            harmless = {self._queue.paused, self._queue.processed, self._queue.failed}
            if probed.strange.keys() - harmless:
                return self.report(is_complete=False)
        self._seen = BloomFilter(probed.pending + probed.active)
        for part in (self._lists(), self._sets(), self._groups(), self._aggregation_sets(), self._tasks(probed.now_ns)):
            yield from part
            yield from self._check_suspects()
            if self._is_full:
                break
        is_full = self._is_full
        self._unlisted = yield from self._unlisted_steps()
        damaged = (self._found, self._orphans, self._unheld, self._unlocked, self._records, self._unlisted)
        if any(damaged) or (self._strange and self._repair):
            yield Pause(self._recheck_s)
        yield from self._set_aside(probed.now_ns)
        yield from self._relist()  # first, because `_recheck` treats a task in an unlisted set as damaged
        yield from self._recheck()
        # Check locks last: whether a task may hold its lock depends on its state, which `_recheck` may repair.
        yield from self._relock()
        yield from self._drop_records()
        yield from self._relist_steps()
        return self.report(is_complete=not is_full)

    def report(self, *, is_complete: bool) -> ReconcileReport:
        """Return the report with the findings so far."""
        return ReconcileReport(
            queue=self._queue.name, scanned=self._scanned, findings=tuple(self.findings), is_complete=is_complete
        )

    # --- collect suspects ---------------------------------------------------------------------------------------------

    def _suspect(self, task_ids: Iterable[str], group: str = "") -> RequestPlan[None]:
        for task_id in task_ids:
            self._suspects.setdefault(task_id, Suspect(task_id, group=group))
        if len(self._suspects) >= REPAIR_MAX:
            yield from self._check_suspects()

    def _lists(self) -> RequestPlan[None]:
        for state in _LISTS:
            last: str | None = None
            cursor = "0"
            while not self._is_full:
                key = self._queue.prefix + state.value
                page = yield repair_ops.check_listed(
                    self._queue, key, "list", state, cursor=cursor, count=repair_ops.CHECK_MAX
                )
                ids = page.ids
                overlaps = last is None or last in ids
                if last in ids:  # new tasks have shifted the list, so skip the ids that were on the last page
                    ids = ids[ids.index(last) + 1 :]
                twice = [each for each in ids if self._seen.add(each)]
                # If no id of the last page is on this page, many tasks were added, so a repeated id may be no damage.
                yield from self._suspect([*page.doubtful, *(twice if overlaps else ())])
                if overlaps and ids:
                    last = ids[-1]
                self._listed += len(ids)
                cursor = page.cursor
                if cursor == "0":
                    break

    def _pages(self, key: str, kind: str, state: TaskState, group: str = "") -> RequestPlan[None]:
        cursor = "0"
        while not self._is_full:
            try:
                page = yield repair_ops.check_listed(self._queue, key, kind, state, group=group, cursor=cursor)
            except BrokerReplyError as error:
                self._record_wrong_type(key, "zset", "", f"{_shown(key)} cannot be read as a set of tasks: {error}")
                return
            twice = [task_id for task_id in page.ids if self._seen.add(task_id)]
            yield from self._suspect([*page.doubtful, *twice], group)
            cursor = page.cursor
            if cursor == "0":
                return

    def _sets(self) -> RequestPlan[None]:
        yield from self._pages(self._queue.lease, "lease", TaskState.ACTIVE)
        for state in _SETS:
            yield from self._pages(self._queue.prefix + state.value, "zset", state)

    def _groups(self) -> RequestPlan[None]:
        cursor = 0
        while not self._is_full:
            cursor, names = yield aggregation.list_groups(self._queue, cursor)
            for name in names:
                yield from self._pages(self._queue.group(name), "zset", TaskState.AGGREGATING, name)
            if not cursor:
                return

    def _aggregation_sets(self) -> RequestPlan[None]:
        skip = 0
        while not self._is_full:
            keys = yield repair_ops.list_aggregation_sets(self._queue, skip=skip)
            for key in keys:
                if key.startswith(self._queue.group_prefix):
                    group = key.removeprefix(self._queue.group_prefix).rpartition(":")[0]
                    yield from self._pages(key, "members", TaskState.AGGREGATING, group)
            if not keys:
                return
            skip += len(keys)

    def _tasks(self, began_ns: int) -> RequestPlan[None]:
        cursor = "0"
        while not self._is_full:
            page = yield repair_ops.check_stored(self._queue, cursor=cursor)
            for key in page.locks:
                if self._is_ours(key):
                    self._record_wrong_type(key, "string", "", f"{_shown(key)} is not a string")
            for found, keys in (
                (self._orphans, page.sets),
                (self._unheld, page.unheld),
                (self._unlocked, page.unlocked),
                (self._records, page.records),
            ):
                for key in keys:
                    if self._is_ours(key) and len(found) < FINDINGS_MAX:
                        found[key] = None
            for task in page.tasks:
                self._scanned += 1
                suspect = self._decide(task, began_ns)
                if suspect is not None:
                    # The new suspect replaces a suspect with the same id from `_lists`, which has fewer facts.
                    self._suspects[task.task_id] = suspect
            yield from self._suspect(())
            if self._progress is not None:
                self._progress(self._scanned, max(self._scanned, self._listed))
            cursor = page.cursor
            if cursor == "0":
                return

    def _is_ours(self, key: str) -> bool:
        """Whether a key certainly belongs to this queue. A key with a second `}:` may belong to another queue."""
        rest = key.removeprefix(self._queue.prefix).removeprefix(self._queue.own_prefix)
        return "}:" not in self._queue.name + rest

    def _decide(self, task: CheckedTask, began_ns: int) -> Suspect | None:
        """Return the task as a suspect, which is checked again, or None if it looks undamaged."""
        is_ours = "}:" not in task.task_id  # otherwise the key may belong to a queue whose name contains "}:"
        if task.state is None:
            key = self._queue.task(task.task_id)
            if is_ours:
                self._record_wrong_type(key, "hash", task.task_id, f"{_shown(key)} is not a hash")
            return None
        message = TaskMessage()
        if task.message:
            try:
                message = decode_message(task.message)
            except WireFormatError:
                return Suspect(task.task_id, unreadable=task.message) if is_ours else None
        if task.place is Place.LISTED or (not is_ours and message.queue != self._queue.name):
            return None
        if task.place is Place.IN_A_LIST and (task.pending_since_ns > began_ns or task.task_id in self._seen):
            return None
        if task.state == TaskState.AGGREGATING and task.task_id in self._seen:
            return None
        return Suspect(
            task.task_id,
            group=message.group_key,
            archived_s=max(0, message.last_failed_at),
            kept_s=message.completed_at + max(0, message.retention) if message.completed_at > 0 else 0,
        )

    # --- check suspects -----------------------------------------------------------------------------------------------

    def _check(self, suspects: Iterable[Suspect]) -> RequestPlan[list[tuple[Suspect, RepairedTask]]]:
        checked: list[tuple[Suspect, RepairedTask]] = []
        waiting = list(suspects)
        while waiting:
            batch, waiting = waiting[:REPAIR_MAX], waiting[REPAIR_MAX:]
            answers = list(zip(batch, (yield repair_ops.repair_tasks(self._queue, batch)), strict=True))
            checked += [(suspect, task) for suspect, task in answers if task.was_looked_at]
            waiting[:0] = [suspect for suspect, task in answers if not task.was_looked_at]
        return checked

    def _check_suspects(self) -> RequestPlan[None]:
        suspects, self._suspects = self._suspects, {}
        checked = yield from self._check(suspects.values())
        self._found |= {suspect.task_id: (suspect, task) for suspect, task in checked if task.kind}

    def _recheck(self) -> RequestPlan[None]:
        found, self._found = self._found, {}
        again = [replace(suspect, diagnosis=task.diagnosis if self._repair else "") for suspect, task in found.values()]
        for suspect, task in (yield from self._check(again)):
            if task.diagnosis == found[suspect.task_id][1].diagnosis:
                places = task.places.replace(",", " and ") or "no structure"
                end = {"drop": "the id is dropped", "quarantine": "the task is moved to quarantine"}
                belongs = end.get(task.belongs, f"the task belongs in {task.belongs}")
                detail = f"state {task.state!r}, in {places}: {belongs}"
                self._add(FindingKind(task.kind), suspect.task_id, detail, repaired=task.repaired)

    def _add(self, kind: FindingKind, task_id: str, detail: str, *, repaired: bool) -> None:
        self.findings.append(Finding(kind=kind, task_id=task_id, detail=detail, repaired=repaired))

    # --- keys of a wrong type -----------------------------------------------------------------------------------------

    def _restore_structures(self, probed: Probed) -> RequestPlan[Probed]:
        """If this pass repairs damage, move structures of a wrong type to other keys. Then check their types again."""
        moved: dict[str, str] = {}
        again = probed
        if self._repair:
            yield Pause(self._recheck_s)
            kinds = repair_ops.structures(self._queue)
            # Keep `paused`: workers only test whether the key exists, so the queue is paused by a key of any type.
            strange = {key: kinds[key] for key in probed.strange if key != self._queue.paused}
            moved = yield repair_ops.set_aside(self._queue, strange, at_ns=probed.now_ns)
            again = yield repair_ops.probe(self._queue)
        for key, kind in {**{key: probed.strange[key] for key in moved}, **again.strange}.items():
            self._add_strange("", f"{_shown(key)} is a {kind}", moved.get(key))
        return again

    def _record_wrong_type(self, key: str, kind: str, task_id: str, detail: str) -> None:
        if len(self._strange) < FINDINGS_MAX:
            finding = Finding(kind=FindingKind.WRONG_TYPE, task_id=task_id, detail=detail, repaired=False)
            self._strange[key] = (kind, finding)

    def _set_aside(self, began_ns: int) -> RequestPlan[None]:
        """If this pass repairs damage, rename keys of tasks, groups and locks that have a wrong type."""
        moved: dict[str, str] = {}
        for batch in _batches(list(self._strange) if self._repair else ()):
            kinds = {key: self._strange[key][0] for key in batch}
            moved |= yield repair_ops.set_aside(self._queue, kinds, at_ns=began_ns)
        for key, (_, finding) in self._strange.items():
            self._add_strange(finding.task_id, finding.detail, moved.get(key))

    def _add_strange(self, task_id: str, detail: str, place: str | None) -> None:
        if place is not None:
            detail = f"{detail}: its value is kept as {_shown(place)}"
        self._add(FindingKind.WRONG_TYPE, task_id, detail, repaired=place is not None)

    # --- aggregation sets and locks -----------------------------------------------------------------------------------

    def _relist(self) -> RequestPlan[None]:
        for batch in _batches(list(self._orphans)):
            missing = yield repair_ops.relist(self._queue, batch, repair=self._repair)
            for key in (key for key, is_missing in zip(batch, missing, strict=True) if is_missing):
                detail = f"{_shown(key)} has no deadline in the list of aggregation sets"
                self._add(FindingKind.SET_NOT_LISTED, "", detail, repaired=self._repair)

    def _relock(self) -> RequestPlan[None]:
        for locks in _batches(list(self._unheld)):
            holders = yield repair_ops.relock(self._queue, locks, (), repair=self._repair)
            for key, holder in zip(locks, holders, strict=True):
                if holder:
                    detail = f"the task holds lock {_shown(key)}, and was deleted or has ended: the lock is released"
                    self._add(FindingKind.LOCK_WITHOUT_TASK, holder, detail, repaired=self._repair)
        for tasks in _batches(list(self._unlocked)):
            lost = yield repair_ops.relock(self._queue, (), tasks, repair=self._repair)
            for key, lock in zip(tasks, lost, strict=True):
                if lock:
                    task_id = key.removeprefix(self._queue.task_prefix)
                    detail = f"no task holds lock {_shown(lock)} of this task: the task gets it back"
                    self._add(FindingKind.TASK_WITHOUT_LOCK, task_id, detail, repaired=self._repair)

    # --- steps --------------------------------------------------------------------------------------------------------

    def _drop_records(self) -> RequestPlan[None]:
        for keys in _batches(list(self._records)):
            unowned = yield repair_ops.drop_records(self._queue, keys, repair=self._repair)
            for key in (key for key, is_unowned in zip(keys, unowned, strict=True) if is_unowned):
                task_id = key.removeprefix(self._queue.own_prefix).partition(":")[2]
                detail = f"{_shown(key)} belongs to no task: it is deleted"
                self._add(FindingKind.STEPS_WITHOUT_TASK, task_id, detail, repaired=self._repair)

    def _unlisted_steps(self) -> RequestPlan[set[tuple[str, str]]]:
        """Return the steps of this queue's running workflows that are not listed as started: queue and step."""
        found: set[tuple[str, str]] = set()
        skip, is_last = 0, False
        while not is_last and len(found) < FINDINGS_MAX:
            read, steps = yield dispatch.check_workflows(self._queue, skip=skip)
            skip += read
            is_last = read < dispatch.CHECKED_WORKFLOWS
            found |= yield from self._check_steps(steps, repair=False)
        return found

    def _check_steps(self, steps: Iterable[tuple[str, str]], *, repair: bool) -> RequestPlan[set[tuple[str, str]]]:
        by_queue: dict[str, list[str]] = {}
        for name, step in steps:
            by_queue.setdefault(name, []).append(step)
        found: set[tuple[str, str]] = set()
        prefix = self._queue.prefix.removesuffix(f":{{{self._queue.name}}}:")
        for name, named in by_queue.items():
            for batch in _batches(named):
                missing = yield dispatch.relist_steps(QueueKeys(prefix, name), batch, repair=repair)
                found |= {(name, step) for step, is_missing in zip(batch, missing, strict=True) if is_missing}
        return found

    def _relist_steps(self) -> RequestPlan[None]:
        if not self._unlisted:
            return
        still = self._unlisted & (yield from self._unlisted_steps())
        if self._repair:
            still = yield from self._check_steps(sorted(still), repair=True)
        for name, step in sorted(still):
            _, _, task_id, workflow = step.split(" ", 3)
            detail = (
                f"workflow {workflow.rpartition(':')[2]} waits for it in queue {name!r}, and its end is not noticed"
            )
            self._add(FindingKind.STEP_NOT_LISTED, task_id, detail, repaired=self._repair)


def _batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), REPAIR_MAX):
        yield keys[start : start + REPAIR_MAX]


def _shown(key: str) -> str:
    """Return a key as one printable line."""
    return key if key.isprintable() else ascii(key)


def run(plan: RequestPlan[T], send: Callable[[Operation[Any]], Any]) -> T:
    """Run a pass in blocking code. `send` runs one operation."""

    def take(step: Operation[Any] | Pause) -> Any:
        return time.sleep(step.seconds) if isinstance(step, Pause) else send(step)

    return run_plan(plan, take)


async def arun(plan: RequestPlan[T], send: Callable[[Operation[Any]], Any], *, rest: float = 0.0) -> T:
    """Run a pass in a coroutine, as `run` does in blocking code.

    Args:
        plan: The requests.
        send: Runs one operation; returns an awaitable.
        rest: Length of the pause after each operation, as a multiple of the operation's duration.
    """
    loop = asyncio.get_running_loop()

    async def take(step: Operation[Any] | Pause) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        began = loop.time()
        try:
            return await send(step)
        finally:
            await asyncio.sleep(rest * (loop.time() - began))

    return await arun_plan(plan, take)
