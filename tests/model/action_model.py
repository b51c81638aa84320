"""The expected effects of inspector actions on tasks and queues, and of moving tasks to another queue."""

from collections.abc import Sequence

from taskq_core.broker.operations.actions import OK, Action, Closed, Departure
from tests.model.service_model import ServiceModel
from tests.model.store_model import lock_named_by, tens
from tests.model.world import Queue, Task

_REFUSED = {
    Action.RUN: {"active", "pending"},
    Action.ARCHIVE: {"active", "archived"},
    Action.CANCEL: {"active", "archived", "completed"},
    Action.DELETE: {"active"},
    Action.WAIT: {"active"},
}
_RECEIPT_S = 2_592_000


class ActionModel(ServiceModel):
    """Adds revocation, the inspector's actions, the removal of a queue, and moves between queues."""

    def _withdraw(self, queue: Queue, task_id: str) -> bool:
        task = queue.tasks[task_id]
        if not task.is_listed:
            return False
        if task.state == "pending":
            queue.pending.remove(task_id)
        return True

    def act(
        self, queue: Queue, action: Action, ids: Sequence[str], *, state: str | None = None, start_in_ms: int = 0
    ) -> list[str]:
        answers = [self._act(queue, action, task_id, state, start_in_ms) for task_id in ids]
        if action in {Action.ARCHIVE, Action.CANCEL} and OK in answers:
            self.trim(queue)
        if action is Action.RUN and OK in answers:
            queue.has_token = True
        return answers

    def _act(self, queue: Queue, action: Action, task_id: str, wanted: str | None, start_in_ms: int) -> str:
        task = queue.tasks.get(task_id)
        if task is None:
            return ""
        if task.moving:
            return "moving"
        if task.state in _REFUSED[action] or (wanted is not None and task.state != wanted):
            return task.state
        if not self._withdraw(queue, task_id):
            return "lost"
        if action is Action.WAIT and task.state in {"scheduled", "retry"}:
            task.score = self.due(start_in_ms)
            task.leave_group()
        elif action is Action.WAIT:
            task.state = "retry" if task.state == "archived" else "scheduled"
            task.score, task.pending_since = self.due(start_in_ms), ""
            task.leave_group()
            self.update_lock(queue, task_id, task.rule, task.lock, task.state)
        elif action is Action.RUN:
            task.state, task.score, task.pending_since = "pending", None, ""
            task.leave_group()
            queue.pending.append(task_id)
            self.update_lock(queue, task_id, task.rule, task.lock, task.state)
        elif action in {Action.ARCHIVE, Action.CANCEL}:
            if action is Action.CANCEL:
                task.message += b"\x3a\x10context canceled"  # error_msg, field 7: the last value in a message counts
            task.state, task.score = "archived", self.now_s
            task.leave_group()
            self.update_lock(queue, task_id, task.rule, task.lock, task.state)
        else:
            self.delete(queue, task_id, lock_named_by(task) if task.state == "aggregating" else task.lock)
        return OK

    def revoke(self, queue: Queue, task_id: str) -> str:
        task = queue.tasks.get(task_id)
        if task is None:
            return ""
        if task.moving:
            return "moving"
        if task.state in {"active", "completed", "archived"}:
            return task.state
        if not self._withdraw(queue, task_id):
            return "lost"
        self.delete(queue, task_id, lock_named_by(task) if task.state == "aggregating" else task.lock)
        return OK

    def rewrite(self, queue: Queue, task_id: str, old: bytes, new: bytes, old_lock: str, new_lock: str) -> str:
        task = queue.tasks.get(task_id)
        if task is None:
            return ""
        if task.message == new != old:
            return OK
        if task.moving:
            return "moving"
        if task.state in {"active", "completed"} or (task.state == "aggregating" and not task.is_listed):
            return task.state
        if task.message != old:
            return "changed"
        if new_lock and new_lock != old_lock:
            holder, ttl_s = queue.locks.get(old_lock, ("", 0))
            if holder == task_id:
                if queue.locks.get(new_lock, (task_id, 0))[0] != task_id and self.is_taken(queue, new_lock):
                    return "duplicate"
                del queue.locks[old_lock]
                queue.locks[new_lock] = (task_id, ttl_s)
            task.lock = new_lock
        task.message = new
        return OK

    def wait_for_end(self, queue: Queue, task_id: str) -> str | None:
        """Request an event at the end of a task; return its state."""
        task = queue.tasks.get(task_id)
        if task is not None and task.state not in {"completed", "archived"}:
            task.publishes_end = True
        return None if task is None else task.state

    def pause(self, queue: Queue) -> bool:
        was_paused, queue.is_paused = queue.is_paused, True
        return not was_paused

    def resume(self, queue: Queue) -> bool:
        was_paused, queue.is_paused = queue.is_paused, False
        return was_paused

    # --- removing a queue ---------------------------------------------------------------------------------------------

    def remove(self, queue: Queue, *, force: bool) -> Closed:
        """Close a queue and, if that is allowed, delete its content."""
        tasks = queue.tasks
        active = sum(task.state == "active" for task in tasks.values())
        completed = len(self.listed(queue, "completed"))
        total = len(tasks) - active + len(queue.quarantine)
        is_closed = active == 0 and (force or total == completed)
        if is_closed:
            for task_id in list(tasks):
                self.delete(queue, task_id, lock_named_by(tasks[task_id]))
            queue.sets.clear()
            queue.quarantine.clear()
        return Closed(active, total - completed, total, is_closed, is_interrupted=False)

    # --- moving to another queue --------------------------------------------------------------------------------------

    def move_out(
        self, queue: Queue, ids: Sequence[str], *, token: str, target: str, state: str | None = None
    ) -> list[str]:
        return [self._set_out(queue, task_id, token, target, state) for task_id in ids]

    def _set_out(self, queue: Queue, task_id: str, token: str, target: str, wanted: str | None) -> str:
        task = queue.tasks.get(task_id)
        if task is None:
            return ""
        if task.moving:
            first, _, score, to = task.moving.split(":")
            if target and target != to:
                return "moving"
            task.moving = f"{first}:{token}:{score}:{to}"
            return OK
        if not target:
            return ""
        if task.state == "active" or (wanted is not None and task.state != wanted):
            return task.state
        score = "" if task.score is None else str(task.score)
        if not self._withdraw(queue, task_id):
            return "lost"
        task.moving, task.score = f"{token}:{token}:{score}:{target}", None
        return OK

    def move_in(self, queue: Queue, tasks: Sequence[tuple[Departure, str]], *, until_s: int) -> str | None:
        if self.now_s > until_s:
            return None
        codes = ""
        for departure, lock in tasks:
            task_id, receipt = departure.task_id, f"{departure.move}:{departure.task_id}"
            if receipt in queue.receipts:
                code = "1"
            elif f"x{receipt}" in queue.receipts or task_id in queue.tasks:
                code = "0"
            elif lock and self.is_taken(queue, lock):
                code = "d"
            else:
                code = "1"
                self._arrive(queue, departure, lock)
                queue.receipts[receipt] = self.now_s + _RECEIPT_S
            if code != "1":
                queue.receipts[f"x{receipt}"] = self.now_s + _RECEIPT_S
            codes += code
        queue.receipts = {name: until for name, until in queue.receipts.items() if until > self.now_s}
        return codes

    def _arrive(self, queue: Queue, departure: Departure, lock: str) -> None:
        words = {name: value.decode() for name, value in departure.fields.items() if name not in {b"msg", b"result"}}
        task = Task(
            departure.fields[b"msg"],
            words[b"state"],
            pending_since=words.get(b"pending_since", ""),
            lock=words.get(b"unique_key", ""),
            rule=words.get(b"taskq_unique", ""),
            group=words.get(b"group", ""),
            later_group=words.get(b"taskq_group", ""),
            result=departure.fields.get(b"result"),
            cursor=words.get(b"taskq_cursor", ""),
        )
        queue.tasks[departure.task_id] = task
        if task.state == "pending":
            queue.pending.append(departure.task_id)
            queue.has_token = True
        else:
            task.score = int(departure.score or self.now_s)
        if lock and departure.lock_ms:
            left_s = -1 if departure.lock_ms < 0 else tens(-(-departure.lock_ms // 1000))
            queue.locks[lock] = (departure.task_id, left_s)

    def move_end(self, queue: Queue, *, token: str, gone: Sequence[Departure], back: Sequence[Departure]) -> int:
        ended = 0
        for departure in (*gone, *back):
            task_id = departure.task_id
            task = queue.tasks.get(task_id)
            if task is None or not task.moving.startswith(f"{departure.move}:{token}:"):
                continue
            ended += 1
            if departure in gone:
                self.delete(queue, task_id)
                continue
            score = task.moving.split(":")[2]
            task.moving = ""
            if task.state == "pending":
                queue.pending.append(task_id)
                queue.has_token = True
            else:
                task.score = int(score or self.now_s)
        return ended
