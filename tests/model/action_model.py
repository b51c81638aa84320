"""The expected effects of inspector actions on tasks and queues, and of moves to another queue."""

from collections.abc import Sequence

from taskq_core.broker.operations import actions, outbox
from taskq_core.broker.operations.actions import OK, Action, Closed, Original
from taskq_core.broker.operations.new_tasks import NewTask
from tests.model.service_model import ServiceModel
from tests.model.store_model import lock_named_by
from tests.model.world import Queue, Task

_REFUSED = {
    Action.RUN: {"active", "pending"},
    Action.ARCHIVE: {"active", "archived"},
    Action.CANCEL: {"active", "archived", "completed"},
    Action.DELETE: {"active"},
    Action.WAIT: {"active"},
}


def is_copied(task: Task) -> bool:
    """Whether the task is the archived original of a copy in another queue."""
    if not task.copied or task.state != "archived":
        return False
    return task.message.endswith(actions.copied_error(task.copied.split(":")[7])[2:])


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
        if task.state in _REFUSED[action] or (wanted is not None and task.state != wanted):
            return task.state
        if is_copied(task) and (
            action is not Action.DELETE or self.now_s <= int(task.copied.split(":")[3]) + 2 * actions.CLAIM_S
        ):
            return "copied"
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
        if is_copied(task):
            return "copied"
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

    def copy_out(
        self, queue: Queue, ids: Sequence[str], *, token: str, target: str, state: str | None = None
    ) -> list[str]:
        return [self._copy_out(queue, task_id, token, target, state) for task_id in ids]

    def _copy_out(self, queue: Queue, task_id: str, token: str, target: str, wanted: str | None) -> str:
        task = queue.tasks.get(task_id)
        if task is None:
            return ""
        if wanted is not None and task.state != wanted:
            return task.state
        if is_copied(task):
            copy, caller, first, last, size, before, score, to = task.copied.split(":")
            if to != target or self.now_s > int(first) + actions.COPY_KEPT_S:
                return "copied"
            if not task.is_listed:
                return "lost"
            if caller != token:
                caller = token if self.now_s > int(last) + 2 * actions.CLAIM_S else ""
        else:
            if task.state in {"active", "completed"}:
                return task.state
            copy = caller = token
            first, size = str(self.now_s), str(len(task.message))
            before, score = task.state, "" if task.score is None else str(task.score)
            if not self._withdraw(queue, task_id):
                return "lost"
            task.message += actions.copied_error(target)
            if task.state != "archived":
                task.state, task.score = "archived", self.now_s
        task.copied = ":".join((copy, caller, first, str(self.now_s), size, before, score, target))
        return OK

    def deliver(self, queue: Queue, rows: Sequence[tuple[str, NewTask]], *, claim_ends_ms: int) -> str:
        if self.now_ns // 1_000_000 >= claim_ends_ms:
            return "l" * len(rows)
        self._fresh.clear()
        codes = ""
        for receipt, new in rows:
            code = "s" if receipt in queue.receipts else self.store(queue, new)
            if code in {"1", "s"}:
                queue.receipts[receipt] = self.now_s
            codes += code
        oldest_s = self.now_s - outbox.DELIVERED_KEPT_S
        queue.receipts = {name: at_s for name, at_s in queue.receipts.items() if at_s > oldest_s}
        return codes

    def copy_end(
        self, queue: Queue, *, token: str, target: str, copied: Sequence[Original], back: Sequence[Original]
    ) -> tuple[int, int]:
        ended = 0
        for original in (*copied, *back):
            task_id = original.task_id
            task = queue.tasks.get(task_id)
            if task is None or not is_copied(task) or not task.is_listed:
                continue
            copy, caller, _, _, size, before, score, _ = task.copied.split(":")
            if copy != original.copy or (original in back and caller != token):
                continue
            ended += 1
            if original in copied:
                self.delete(queue, task_id, lock_named_by(task) if before == "aggregating" else task.lock)
                continue
            task.message, task.state, task.copied, task.score = task.message[: int(size)], before, "", None
            if before == "pending":
                queue.pending.append(task_id)
                queue.has_token = True
            else:
                task.score = int(score or self.now_s)
            self.update_lock(queue, task_id, task.rule, task.lock, before)
        return self.now_s, ended
