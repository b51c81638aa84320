"""Find what stands in Redis and cannot have been left by any operation, and repair it.

Every change of a task is one script, ours and Go's alike, so a contradiction that one script sees is damage: a key that
somebody deleted or changed, or what another program left half done. A pass goes through the structures of a queue and
through its tasks, page by page, and lists those that look doubtful. Each of them is then looked at closely, by a script
that reads all there is to know, twice with some seconds between; what both find is told, and repaired in the script
that finds it the second time. So a task that is just on its way is neither lost nor doubled.

A key of another type than the layout says stops the queue, or a group, or an id. It is nobody's data that we know, so
it is renamed and kept as it is; what belongs in its place is then built again from the tasks.

The rules are a request plan without I/O; `run` and `arun` execute it.
"""

import asyncio
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from taskq_core.broker.operations import aggregation
from taskq_core.broker.operations import repair as repair_ops
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.repair import CheckedTask, Place, Probed, RepairedTask, Suspect
from taskq_core.broker.plans import arun_plan, run_plan
from taskq_core.errors import BrokerError, BrokerReplyError, WireFormatError
from taskq_core.repair.bloom_filter import BloomFilter
from taskq_core.wire import QueueKeys, TaskMessage, TaskState, decode_message

T = TypeVar("T")
Progress = Callable[[int, int], object]
"""Called with the tasks looked at so far and about how many there are."""

LOOK_AGAIN_S = 5.0
"""Seconds between the two close looks."""
FINDINGS_MAX = 1000
"""Most findings of one pass; a pass with more is not complete."""

_LISTS = ((TaskState.PENDING, "list"), (TaskState.ACTIVE, "list"))
_SETS = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.ARCHIVED, TaskState.COMPLETED)


class FindingKind(StrEnum):
    """What is wrong."""

    LISTED_WITHOUT_TASK = "listed_without_task"
    """An id is listed, and its task is gone. It is taken off the list."""
    TASK_WITHOUT_MESSAGE = "task_without_message"
    """A task has no message, so nothing can be done with it. It is deleted."""
    UNREADABLE = "unreadable"
    """A message cannot be decoded. The task is set aside with its bytes."""
    NOT_LISTED = "not_listed"
    """A task is in no structure, so nobody would ever take it. It is put where its state says."""
    LISTED_TWICE = "listed_twice"
    """A task is in two structures, or twice in one. It stays where it belongs."""
    WRONG_STATE = "wrong_state"
    """The state, or the group, is another than that of the structure the task is in. The structure counts."""
    ACTIVE_WITHOUT_LEASE = "active_without_lease"
    """A task is active and nobody would take it back if its worker were lost. It gets its lease again."""
    LEASE_WITHOUT_ACTIVE = "lease_without_active"
    """A task is leased and not on the list of active ones. It is put there."""
    LEASE_TOO_LONG = "lease_too_long"
    """A lease ends later than any worker's, so its task would never be taken back. It ends soon, or is taken away."""
    GROUP_NOT_LISTED = "group_not_listed"
    """A task waits in a group that is not among the names of groups. The name is put there."""
    SET_NOT_LISTED = "set_not_listed"
    """An aggregation set is not on the list of them, so nobody would give its members back. It is put there."""
    LOCK_WITHOUT_TASK = "lock_without_task"
    """A unique lock is held by a task that is gone, or has ended, so no other one is taken. It is freed."""
    TASK_WITHOUT_LOCK = "task_without_lock"
    """A task that is to be unique has lost its lock, so a second one would be taken. It gets it back."""
    WRONG_TYPE = "wrong_type"
    """A key is of another type than the layout says. What stands there is moved to a key of its own, as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One damage.

    Attributes:
        kind: What is wrong.
        task_id: Id of the task, "" where it is about a structure.
        detail: How it stands and where it belongs, as a sentence.
        repaired: Whether it was repaired.
    """

    kind: FindingKind
    task_id: str
    detail: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """What one pass over a queue found.

    Attributes:
        queue: Name of the queue.
        scanned: Tasks that were looked at.
        findings: What is wrong, at most about `FINDINGS_MAX`.
        is_complete: False if the pass ended early: there were more findings, the store failed after some of them, or a
            structure is of another type and stays where it is, so that no task can be judged.
    """

    queue: str
    scanned: int
    findings: Sequence[Finding]
    is_complete: bool

    @property
    def repaired(self) -> int:
        """Findings that were repaired."""
        return sum(finding.repaired for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Pause:
    """A step: wait."""

    seconds: float


RequestPlan = Generator[Operation[Any] | Pause, Any, T]


def reconcile(
    queue: QueueKeys, *, repair: bool, look_again_s: float | None = None, progress: Progress | None = None
) -> RequestPlan[ReconcileReport]:
    """Return the request plan of one pass over a queue.

    What a step fails with is thrown into the generator as its `BrokerError`. It ends the pass, with a report if there
    is something to tell, else with the error.

    Args:
        queue: Key names of the queue.
        repair: Whether to repair what is found.
        look_again_s: Seconds between the two looks, None for `LOOK_AGAIN_S`. Nothing waits if the first finds nothing.
        progress: Called after each page of tasks.
    """
    return _Pass(queue, repair, LOOK_AGAIN_S if look_again_s is None else look_again_s, progress).plan()


class _Pass:
    def __init__(self, queue: QueueKeys, repair: bool, look_again_s: float, progress: Progress | None) -> None:
        self._queue = queue
        self._repair = repair
        self._look_again_s = look_again_s
        self._progress = progress
        self._suspects: dict[str, Suspect] = {}
        self._found: dict[str, tuple[Suspect, RepairedTask]] = {}
        self._strange: dict[str, tuple[str, Finding]] = {}  # by key: the type it must have
        self._orphans: dict[str, None] = {}  # aggregation sets that are not listed
        self._unheld: dict[str, None] = {}  # unique locks that nobody may hold
        self._unlocked: dict[str, None] = {}  # hashes of tasks that have lost a unique lock
        self._findings: list[Finding] = []
        self._listed = 0
        self._scanned = 0
        self._seen = BloomFilter(0)

    @property
    def _is_full(self) -> bool:
        return len(self._found) >= FINDINGS_MAX

    def plan(self) -> RequestPlan[ReconcileReport]:
        try:
            return (yield from self._go_over())
        except BrokerError:
            if not self._findings:
                raise
            return self._report(is_complete=False)  # what was repaired is told, whatever comes after it

    def _go_over(self) -> RequestPlan[ReconcileReport]:
        probed: Probed = yield repair_ops.probe(self._queue)
        if probed.strange:
            probed = yield from self._restore_structures(probed)
            if probed.strange.keys() - self._harmless:
                return self._report(is_complete=False)
        self._seen = BloomFilter(probed.pending + probed.active)
        for part in (self._lists(), self._sets(), self._groups(), self._aggregation_sets(), self._tasks(probed.now_ns)):
            yield from part
            yield from self._look()
            if self._is_full:
                break
        is_full = self._is_full
        if self._found or self._orphans or self._unheld or self._unlocked or (self._strange and self._repair):
            yield Pause(self._look_again_s)
        yield from self._set_aside(probed.now_ns)
        yield from self._relist()  # before the close looks: then its members stand where they should
        yield from self._look_again()
        yield from self._relock()
        return self._report(is_complete=not is_full)

    def _report(self, *, is_complete: bool) -> ReconcileReport:
        return ReconcileReport(
            queue=self._queue.name, scanned=self._scanned, findings=tuple(self._findings), is_complete=is_complete
        )

    # --- keys of another type -----------------------------------------------------------------------------------------

    @property
    def _harmless(self) -> set[str]:
        """Structures that hold no ids: with another type there, tasks can be judged all the same."""
        return {self._queue.paused, self._queue.processed, self._queue.failed}

    def _restore_structures(self, probed: Probed) -> RequestPlan[Probed]:
        """Move structures of another type away, if this pass repairs, and look again."""
        moved: dict[str, str] = {}
        again = probed
        if self._repair:
            yield Pause(self._look_again_s)
            kinds = repair_ops.structures(self._queue)
            strange = {key: kinds[key] for key in probed.strange if key != self._queue.paused}  # any type pauses
            moved = yield repair_ops.set_aside(self._queue, strange, at_ns=probed.now_ns)
            again = yield repair_ops.probe(self._queue)
        for key, kind in {**{key: probed.strange[key] for key in moved}, **again.strange}.items():
            self._tell_strange(_strange("", f"{_shown(key)} is a {kind}"), moved.get(key))
        return again

    def _note_strange(self, key: str, kind: str, task_id: str, detail: str) -> None:
        if len(self._strange) < FINDINGS_MAX:
            self._strange[key] = (kind, _strange(task_id, detail))

    def _set_aside(self, began_ns: int) -> RequestPlan[None]:
        """Move what was found at the keys of tasks and groups away, if this pass repairs, and tell of it."""
        keys = list(self._strange) if self._repair else []
        moved: dict[str, str] = {}
        while keys:
            batch, keys = keys[: repair_ops.REPAIR_MAX], keys[repair_ops.REPAIR_MAX :]
            kinds = {key: self._strange[key][0] for key in batch}
            moved |= yield repair_ops.set_aside(self._queue, kinds, at_ns=began_ns)
        for key, (_, finding) in self._strange.items():
            self._tell_strange(finding, moved.get(key))

    def _tell_strange(self, finding: Finding, place: str | None) -> None:
        if place is not None:
            finding = replace(finding, detail=f"{finding.detail}: it is kept as {_shown(place)}", repaired=True)
        self._findings.append(finding)

    # --- aggregation sets that nobody knows of ------------------------------------------------------------------------

    def _relist(self) -> RequestPlan[None]:
        keys = list(self._orphans)
        while keys:
            batch, keys = keys[: repair_ops.REPAIR_MAX], keys[repair_ops.REPAIR_MAX :]
            missing = yield repair_ops.relist(self._queue, batch, repair=self._repair)
            for key in (key for key, is_missing in zip(batch, missing, strict=True) if is_missing):
                detail = f"{_shown(key)} is not among the aggregation sets"
                kind = FindingKind.SET_NOT_LISTED
                self._findings.append(Finding(kind=kind, task_id="", detail=detail, repaired=self._repair))

    # --- unique locks -------------------------------------------------------------------------------------------------

    def _relock(self) -> RequestPlan[None]:
        """Free locks and give them back; after the close looks, by which damaged tasks are gone or at home."""
        waiting = [*((key, True) for key in self._unheld), *((key, False) for key in self._unlocked)]
        while waiting:
            batch, waiting = waiting[: repair_ops.REPAIR_MAX], waiting[repair_ops.REPAIR_MAX :]
            locks = [key for key, is_lock in batch if is_lock]
            tasks = [key for key, is_lock in batch if not is_lock]
            wrong = yield repair_ops.relock(self._queue, locks, tasks, repair=self._repair)
            for (key, is_lock), other in zip(batch, wrong, strict=True):
                if not other:
                    continue
                task_id = other if is_lock else key.removeprefix(self._queue.task_prefix)
                end = f"{_shown(key)} is held by it, and it is gone or has ended: it is freed"
                if not is_lock:
                    end = f"nobody holds its lock {_shown(other)}: it gets it back"
                kind = FindingKind.LOCK_WITHOUT_TASK if is_lock else FindingKind.TASK_WITHOUT_LOCK
                self._findings.append(Finding(kind=kind, task_id=task_id, detail=end, repaired=self._repair))

    # --- what looks doubtful ------------------------------------------------------------------------------------------

    def _suspect(self, task_ids: Iterable[str], group: str = "") -> RequestPlan[None]:
        for task_id in task_ids:
            self._suspects.setdefault(task_id, Suspect(task_id, group=group))
        if len(self._suspects) >= repair_ops.REPAIR_MAX:
            yield from self._look()

    def _lists(self) -> RequestPlan[None]:
        for state, kind in _LISTS:
            last: str | None = None
            cursor = "0"
            while not self._is_full:
                page = yield repair_ops.check_listed(
                    self._queue,
                    self._queue.prefix + state.value,
                    kind,
                    state,
                    cursor=cursor,
                    count=repair_ops.CHECK_MAX,
                )
                ids = page.ids
                goes_on = last is None or last in ids
                if last in ids:  # what was added meanwhile has moved the rest along
                    ids = ids[ids.index(last) + 1 :]
                twice = [each for each in ids if self._seen.add(each)]
                yield from self._suspect([*page.doubtful, *(twice if goes_on else ())])
                if goes_on and ids:  # else so much was added that this page was read before: not all in it is twice
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
                self._note_strange(key, "zset", "", f"{_shown(key)} cannot be read as a set of tasks: {error}")
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
                if "}:" not in key.removeprefix(self._queue.prefix):  # else perhaps of another queue, as below
                    self._note_strange(key, "string", "", f"{_shown(key)} is no string")
            for key in page.sets:
                if "}:" not in key.removeprefix(self._queue.prefix) and len(self._orphans) < FINDINGS_MAX:
                    self._orphans[key] = None
            for found, keys in ((self._unheld, page.unheld), (self._unlocked, page.unlocked)):
                for key in keys:
                    is_certain = "}:" not in self._queue.name + key.removeprefix(self._queue.prefix)
                    if is_certain and len(found) < FINDINGS_MAX:
                        found[key] = None
            for task in page.tasks:
                self._scanned += 1
                suspect = self._judge(task, began_ns)
                if suspect is not None:
                    self._suspects[task.task_id] = suspect  # knows more than what a listing told
            yield from self._suspect(())
            if self._progress is not None:
                self._progress(self._scanned, max(self._scanned, self._listed))
            cursor = page.cursor
            if cursor == "0":
                return

    def _judge(self, task: CheckedTask, began_ns: int) -> Suspect | None:
        """Return the task as a suspect if it looks doubtful."""
        is_ours = "}:" not in task.task_id  # else perhaps a key of a queue that is named "<this one's name>}:t:..."
        if task.state is None:
            key = self._queue.task(task.task_id)
            if is_ours:
                self._note_strange(key, "hash", task.task_id, f"{_shown(key)} is no hash")
            return None
        message = TaskMessage()
        if task.message:
            try:
                message = decode_message(task.message)
            except WireFormatError:
                return Suspect(task.task_id, unreadable=task.message) if is_ours else None
        if not is_ours and message.queue != self._queue.name:
            return None
        if task.place is Place.LISTED:
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

    # --- the close looks ----------------------------------------------------------------------------------------------

    def _close_look(
        self, suspects: Iterable[Suspect], tell: Callable[[Suspect, RepairedTask], None]
    ) -> RequestPlan[None]:
        waiting = list(suspects)
        while waiting:
            batch, waiting = waiting[: repair_ops.REPAIR_MAX], waiting[repair_ops.REPAIR_MAX :]
            answers = list(zip(batch, (yield repair_ops.repair_tasks(self._queue, batch)), strict=True))
            for suspect, mended in answers:
                if mended.was_looked_at:
                    tell(suspect, mended)
            waiting[:0] = [suspect for suspect, mended in answers if not mended.was_looked_at]

    def _look(self) -> RequestPlan[None]:
        def note(suspect: Suspect, mended: RepairedTask) -> None:
            if mended.kind:
                self._found[suspect.task_id] = (suspect, mended)

        suspects, self._suspects = self._suspects, {}
        yield from self._close_look(suspects.values(), note)

    def _look_again(self) -> RequestPlan[None]:
        def tell(suspect: Suspect, mended: RepairedTask) -> None:
            if mended.diagnosis == found[suspect.task_id][1].diagnosis:
                self._findings.append(_finding(suspect.task_id, mended))

        found, self._found = self._found, {}
        again = [
            replace(suspect, diagnosis=mended.diagnosis if self._repair else "") for suspect, mended in found.values()
        ]
        yield from self._close_look(again, tell)


def _shown(key: str) -> str:
    """Return a key as it is shown in one line, whatever stands in it."""
    return key if key.isprintable() else ascii(key)


def _strange(task_id: str, detail: str) -> Finding:
    return Finding(kind=FindingKind.WRONG_TYPE, task_id=task_id, detail=detail, repaired=False)


def _finding(task_id: str, mended: RepairedTask) -> Finding:
    places = mended.places.replace(",", " and ") or "no structure"
    end = {"drop": "it is dropped", "quarantine": "it is set aside"}
    return Finding(
        kind=FindingKind(mended.kind),
        task_id=task_id,
        detail=f"state {mended.state!r}, in {places}: {end.get(mended.belongs, f'it belongs in {mended.belongs}')}",
        repaired=mended.repaired,
    )


# --- executing the plan -----------------------------------------------------------------------------------------------


def run(plan: RequestPlan[T], send: Callable[[Operation[Any]], Any]) -> T:
    """Execute a request plan from blocking code; `send` runs one operation."""

    def take(step: Operation[Any] | Pause) -> Any:
        return time.sleep(step.seconds) if isinstance(step, Pause) else send(step)

    return run_plan(plan, take)


async def arun(plan: RequestPlan[T], send: Callable[[Operation[Any]], Any], *, rest: float = 0.0) -> T:
    """Execute a request plan from a coroutine. As `run`.

    Args:
        plan: The request plan.
        send: Runs one operation; returns an awaitable.
        rest: How long to rest after each operation, as a multiple of the time it took.
    """
    loop = asyncio.get_running_loop()

    async def take(step: Operation[Any] | Pause) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        began = loop.time()
        try:
            answer = await send(step)
        except BrokerError:
            await asyncio.sleep(rest * (loop.time() - began))
            raise
        await asyncio.sleep(rest * (loop.time() - began))
        return answer

    return await arun_plan(plan, take)
