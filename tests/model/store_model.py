"""A model of the queue without Redis: the expected effects of storing, running and settling tasks.

Each method corresponds to one operation. It changes the records of `world` and returns the response that the store must
give.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.errors import WireFormatError
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import TaskMessage, decode_message
from tests.model.world import STEP_S, Queue, Task

NS = 1_000_000_000


def tens(seconds: int) -> int:
    """Round a time to live up to whole tens of seconds, as `world` does."""
    return -(-max(1, seconds) // STEP_S) * STEP_S


def lock_named_by(task: Task) -> str:
    """Return the unique lock of a task from its hash or, for a grouped task that Go enqueued, from its message."""
    return task.lock or names_in(task.message)["unique_key"]


def names_in(message: bytes) -> dict[str, str]:
    """Return the unique lock and the group in a message; "" for both if the message is unreadable."""
    try:
        read = decode_message(message)
    except WireFormatError:
        read = TaskMessage()
    return {"unique_key": read.unique_key, "group_key": read.group_key}


def _stored_rule(new: NewTask) -> str:
    """Return the rule of a unique lock in the format of the task's hash."""
    return f"{new.unique_rule[0]}{new.unique_s}" if new.unique_rule else ""


class StoreModel:
    """The expected content of the queues.

    Attributes:
        now_s: The time in Unix seconds; `now_ns` adds a constant fraction of a second.
        queues: The queues by name.
        archive: Limits of the archive.
    """

    PART_NS = 456_789

    def __init__(self, names: Iterable[str], now_s: int, archive: ArchiveLimits) -> None:
        self.now_s = now_s
        self.queues = {name: Queue() for name in names}
        self.archive = archive
        self._fresh: set[str] = set()  # ids that the current call stores as pending, which the script does at its end

    @property
    def now_ns(self) -> int:
        return self.now_s * NS + self.PART_NS

    def due(self, delay_ms: int) -> int:
        """Return the time after a delay, rounded up to whole seconds."""
        return -(-(self.now_s * 1000 + delay_ms) // 1000)

    def age(self, seconds: int) -> None:
        """Let time pass."""
        self.now_s += seconds
        for queue in self.queues.values():
            for kept in (queue.locks, queue.leaders):
                for key, (holder, ttl_s) in list(kept.items()):
                    if ttl_s < 0:
                        continue
                    kept[key] = (holder, ttl_s - seconds)
                    if ttl_s <= seconds:
                        del kept[key]

    # --- helpers of several operations --------------------------------------------------------------------------------

    def listed(self, queue: Queue, state: str) -> list[str]:
        """Return the ids in the sorted set of a state, in its order."""
        ids = [each for each, task in queue.tasks.items() if task.state == state and task.is_listed]
        return sorted(ids, key=lambda each: (queue.tasks[each].score or 0, each.encode()))

    def members(self, queue: Queue, group: str, set_id: str = "") -> list[str]:
        """Return the ids in a group, or in one of its aggregation sets, in their order."""
        ids = [
            each
            for each, task in queue.tasks.items()
            if task.state == "aggregating" and task.group == group and task.in_set == set_id
            if not task.removed
        ]
        return sorted(ids, key=lambda each: (queue.tasks[each].score or 0, each.encode()))

    # --- unique locks -------------------------------------------------------------------------------------------------

    @staticmethod
    def covers(rule: str, state: str) -> bool:
        """Whether a task with this rule holds its lock in a state."""
        ends = {"s": {"active", "completed", "archived"}, "f": {"completed", "archived"}}
        return state not in ends.get(rule[:1], ())

    def is_taken(self, queue: Queue, lock: str) -> bool:
        """Whether a task holds a lock, and its rule allows this in its state."""
        task = queue.tasks.get(queue.locks.get(lock, ("", 0))[0])
        return (
            task is not None
            and ((task.copied != "" and task.state == "archived") or self.covers(task.rule, task.state))
            and (task.lock or lock) == lock
        )

    def update_lock(self, queue: Queue, task_id: str, rule: str, lock: str, state: str) -> None:
        """Release or take the lock of a task with a rule, after the task changed to a state."""
        if not rule or not lock:
            return
        if not self.covers(rule, state):
            self.release(queue, lock, task_id)
        elif rule[1] == "0":
            queue.locks.setdefault(lock, (task_id, -1))

    def renew(self, queue: Queue, task_id: str, seconds: int) -> None:
        """Extend the lock of a running task to at least this time."""
        task = queue.tasks[task_id]
        holder, ttl_s = queue.locks.get(task.lock, (task_id, 0))
        if task.lock and holder == task_id and 0 <= ttl_s < seconds:
            is_endless = task.lock not in queue.locks and task.rule[1:2] == "0"
            queue.locks[task.lock] = (task_id, -1 if is_endless else tens(seconds))

    def release(self, queue: Queue, lock: str, task_id: str) -> None:
        if lock and queue.locks.get(lock, ("", 0))[0] == task_id:
            del queue.locks[lock]

    def delete(self, queue: Queue, task_id: str, lock: str | None = None) -> None:
        """Delete a task, and its lock if the task holds it."""
        task = queue.tasks.pop(task_id)
        if task_id in queue.pending:
            queue.pending.remove(task_id)
        self.release(queue, lock_named_by(task) if lock is None else lock, task_id)

    def count(self, queue: Queue, name: str, number: int) -> None:
        if number:
            for key in (name, f"{name}:{datetime.fromtimestamp(self.now_s, UTC).date()}"):
                queue.counters[key] = queue.counters.get(key, 0) + number

    def trim(self, queue: Queue) -> int:
        ids = self.listed(queue, "archived")
        old = [each for each in ids if (queue.tasks[each].score or 0) <= self.now_s - self.archive.kept_s]
        gone = ids[: max(len(old), len(ids) - self.archive.max_tasks)]
        for task_id in gone:
            self.delete(queue, task_id, queue.tasks[task_id].lock)
        return len(gone)

    def lead(self, queue: Queue, service: str, owner: str, leader_s: int) -> bool:
        if queue.leaders.get(service, (owner, 0))[0] != owner:
            return False
        queue.leaders[service] = (owner, tens(leader_s))
        return True

    def resign(self, queue: Queue, service: str, owner: str) -> bool:
        return queue.leaders.get(service, ("", 0))[0] == owner and bool(queue.leaders.pop(service))

    # --- storing ------------------------------------------------------------------------------------------------------

    def store(self, queue: Queue, new: NewTask) -> str:
        start_s = 0
        if new.start_at_s is not None:
            start_s = new.start_at_s
        elif new.start_in_ms is not None and new.start_in_ms > 0:
            start_s = self.due(new.start_in_ms)
        is_ahead = start_s > self.now_s
        if new.unique_key and self.is_taken(queue, new.unique_key):
            return self._resolve_conflict(queue, new, start_s)
        if new.task_id in queue.tasks:
            return "0"
        task = Task(new.message, "pending", lock=new.unique_key, rule=_stored_rule(new))
        if is_ahead:
            task = replace(task, state="scheduled", score=start_s, later_group=new.group)
        elif new.group:
            task = replace(task, state="aggregating", score=self.now_s, group=new.group)
        else:
            task.pending_since = str(self.now_ns)
            queue.pending.append(new.task_id)
            queue.has_token = True
            self._fresh.add(new.task_id)
        queue.tasks[new.task_id] = task
        if new.unique_key:
            queue.locks[new.unique_key] = (new.task_id, self._ttl_s(new, start_s))
        return "1"

    def _ttl_s(self, new: NewTask, start_s: int) -> int:
        """Return the time to live of a new lock, -1 without expiry."""
        if new.unique_rule and not new.unique_s:
            return -1
        return tens(new.unique_s + max(0, start_s - self.now_s))

    def _resolve_conflict(self, queue: Queue, new: NewTask, start_s: int) -> str:
        """Apply the new task's rule for a conflict to the task that holds the lock."""
        holder = queue.locks[new.unique_key][0]
        task, conflict = queue.tasks[holder], new.unique_rule[1:2]
        has_start = new.start_at_s is not None or new.start_in_ms is not None
        if conflict == "e":
            return "x"
        if conflict not in {"r", "m"}:
            return "d"
        if task.state == "aggregating":
            if task.in_set or task.removed or conflict != "r" or has_start or new.group != task.group:
                return "d"
        elif task.state in {"scheduled", "retry"}:
            if task.removed:
                return "d"
            if conflict == "m" or has_start:
                task.score = max(start_s, self.now_s)
        elif task.state != "pending":
            return "d"
        elif start_s > self.now_s:
            if holder not in queue.pending or holder in self._fresh:
                return "d"
            queue.pending.remove(holder)
            task.state, task.score, task.pending_since = "scheduled", start_s, ""
        if conflict == "r":
            assert len(holder) < 128
            task.message = new.message + b"\x1a" + bytes([len(holder)]) + holder.encode()
            task.rule, task.lock = _stored_rule(new), new.unique_key
        queue.locks[new.unique_key] = (holder, self._ttl_s(new, start_s))
        return "u"

    def enqueue(self, queue: Queue, tasks: Sequence[NewTask]) -> str:
        self._fresh.clear()
        return "".join(self.store(queue, each) for each in tasks)

    # --- running ------------------------------------------------------------------------------------------------------

    def dequeue(self, queue: Queue, owner: str, limit: int, lease_s: int) -> list[str]:
        if queue.is_paused or not queue.pending:
            return []
        taken, queue.pending = queue.pending[:limit], queue.pending[limit:]
        for task_id in taken:
            task = queue.tasks[task_id]
            task.state, task.owner, task.score, task.pending_since = "active", owner, self.now_s + lease_s, ""
            if self.covers(task.rule, "active"):
                self.renew(queue, task_id, 2 * lease_s)
            else:
                self.release(queue, task.lock, task_id)
        queue.has_token = queue.has_token or bool(queue.pending)
        return taken

    def is_run_by(self, queue: Queue, task_id: str, owner: str) -> bool:
        task = queue.tasks.get(task_id)
        return task is not None and task.state == "active" and task.owner == owner

    def extend(self, queue: Queue, ids: Sequence[str], owners: Sequence[str], lease_s: int) -> list[bool]:
        owned = [self.is_run_by(queue, each, owner) for each, owner in zip(ids, owners, strict=True)]
        for task_id, is_owned in zip(ids, owned, strict=True):
            if is_owned:
                queue.tasks[task_id].score = self.now_s + lease_s
                if self.covers(queue.tasks[task_id].rule, "active"):
                    self.renew(queue, task_id, 2 * lease_s)
        return owned

    def write_result(self, queue: Queue, task_id: str, result: bytes, owner: str) -> bool:
        if not self.is_run_by(queue, task_id, owner):
            return False
        queue.tasks[task_id].result = result
        return True

    def quarantine(self, queue: Queue, task_id: str, owner: str) -> bool:
        if not self.is_run_by(queue, task_id, owner):
            return False
        self.move_to_quarantine(queue, task_id)
        return True

    def move_to_quarantine(self, queue: Queue, task_id: str) -> None:
        """Move an unreadable task to the quarantine and release its lock."""
        task = queue.tasks.pop(task_id)
        self.release(queue, task.lock, task_id)
        queue.quarantine[task_id] = (self.now_s, task.message)

    def settle(self, queue: Queue, ends: Sequence[Settlement], owner: str) -> str:
        codes = ["0"] * len(ends)
        processed = failed = archived = 0
        for position in reversed(range(len(ends))):
            end = ends[position]
            if not self.is_run_by(queue, end.task_id, f"{owner}.{end.run}"):
                continue
            codes[position] = "1"
            task = queue.tasks[end.task_id]
            task.owner = ""
            if end.outcome is Outcome.DONE:
                self.delete(queue, end.task_id, end.unique_key)
            elif end.outcome is Outcome.REQUEUE:
                task.state, task.score = "pending", None
                queue.pending.insert(0, end.task_id)
                queue.has_token = True
                self.update_lock(queue, end.task_id, task.rule, end.unique_key, "pending")
            else:
                task.message = end.message
                if end.outcome is Outcome.COMPLETE:
                    task.state, task.score = "completed", self.now_s + end.seconds
                    task.result = end.result or task.result
                    if not task.rule:
                        self.release(queue, end.unique_key, end.task_id)
                elif end.outcome is Outcome.ARCHIVE:
                    task.state, task.score = "archived", self.now_s
                    archived += 1
                elif end.outcome is Outcome.WAIT:
                    task.state, task.score = "scheduled", -(-end.delay_ms // 1000)
                else:
                    task.state, task.score = "retry", self.due(end.delay_ms)
                self.update_lock(queue, end.task_id, task.rule, end.unique_key, task.state)
            processed += end.outcome not in {Outcome.REQUEUE, Outcome.RETRY_UNCOUNTED, Outcome.WAIT}
            failed += end.outcome in {Outcome.RETRY, Outcome.ARCHIVE}
        if archived:
            self.trim(queue)
        self.count(queue, "processed", processed)
        self.count(queue, "failed", failed)
        return "".join(codes)
