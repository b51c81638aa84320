"""The expected effects of services: forwarder, recoverer, janitor, scheduler and aggregator."""

from collections.abc import Sequence

from msgspec.structs import replace

from taskq_core.broker.operations.aggregation import GroupCheck
from taskq_core.broker.operations.new_tasks import NewTask, StoreCode
from taskq_core.broker.operations.schedules import Tick
from taskq_core.broker.operations.services import Recovery, Verdict
from tests.model.store_model import StoreModel, lock_named_by
from tests.model.world import Queue


class ServiceModel(StoreModel):
    """Adds forwarding, recovery, cleaning, periodic entries and aggregation to the model."""

    def forward(self, queue: Queue, owner: str, leader_s: int, limit: int) -> tuple[bool, int]:
        """Return whether the worker is the leader, and how many tasks it moved."""
        if not self.lead(queue, "forwarder", owner, leader_s):
            return False, 0
        due = [*self.listed(queue, "scheduled"), *self.listed(queue, "retry")]
        due = [each for each in due if (queue.tasks[each].score or 0) <= self.now_s][:limit]
        for task_id in due:
            task = queue.tasks[task_id]
            group = task.group or (task.later_group if task.state == "scheduled" else "")
            if group:
                task.state, task.score, task.group, task.later_group = "aggregating", self.now_s, group, ""
            else:
                task.state, task.score, task.pending_since = "pending", None, str(self.now_ns)
                queue.pending.append(task_id)
                queue.has_token = True
        return True, len(due)

    def expired(self, queue: Queue, grace_s: int) -> list[tuple[str, str, bytes]]:
        """Return id, lease and message of each task whose lease has expired."""
        ids = [each for each in self.listed(queue, "active") if (queue.tasks[each].score or 0) <= self.now_s - grace_s]
        return [(each, str(queue.tasks[each].score), queue.tasks[each].message) for each in ids]

    def recover(self, queue: Queue, recoveries: Sequence[Recovery], grace_s: int) -> str:
        codes, failed, archived = "", 0, 0
        for each in recoveries:
            task_id = each.task.task_id
            now_expired = {found[0]: found for found in self.expired(queue, grace_s)}
            if now_expired.get(task_id) != (task_id, each.task.lease_expiry, each.task.message):
                codes += "0"
                continue
            codes += "1"
            task = queue.tasks[task_id]
            task.owner = ""
            failed += each.verdict in {Verdict.RETRY, Verdict.ARCHIVE}
            if each.verdict is Verdict.DROP:
                self.delete(queue, task_id, task.lock)
            elif each.verdict is Verdict.QUARANTINE:
                self.move_to_quarantine(queue, task_id)
            else:
                task.message = each.message
                if each.verdict is Verdict.ARCHIVE:
                    task.state, task.score = "archived", self.now_s
                    archived += 1
                else:
                    task.state, task.score = "retry", self.due(each.delay_ms)
                self.update_lock(queue, task_id, task.rule, task.lock, task.state)
        if archived:
            self.trim(queue)
        self.count(queue, "processed", failed)
        self.count(queue, "failed", failed)
        return codes

    def clean(self, queue: Queue, limit: int) -> tuple[int, int]:
        ids = [each for each in self.listed(queue, "completed") if (queue.tasks[each].score or 0) <= self.now_s][:limit]
        for task_id in ids:
            self.delete(queue, task_id, queue.tasks[task_id].lock)
        return len(ids), self.trim(queue)

    # --- periodic entries ---------------------------------------------------------------------------------------------

    def adopt(self, queue: Queue, entries: Sequence[str]) -> list[str]:
        return [queue.marks.setdefault(entry, f"{self.now_s}:") for entry in entries]

    def tick(self, queue: Queue, ticks: Sequence[Tick]) -> str:
        codes = ""
        self._fresh.clear()
        for each in ticks:
            mark = queue.marks.get(each.entry)
            if mark is None or mark.split(":")[0] != str(each.before_s):
                codes += "s"
                continue
            if each.at_s > self.now_s:
                codes += "e"
                continue
            code = "-" if each.task is None else self.store(queue, each.task)
            enqueued = str(each.at_s) if code == "1" else mark.split(":")[1]
            queue.marks[each.entry] = f"{each.at_s}:{enqueued}"
            codes += code
        return codes

    # --- aggregation --------------------------------------------------------------------------------------------------

    def collect_groups(self, queue: Queue, checks: Sequence[GroupCheck], limit: int) -> str:
        codes = ""
        for check in checks:
            ids = self.members(queue, check.group)
            if check.set_id in queue.sets:
                codes += "1"
                limit -= 1
            elif not ids:
                codes += "0"
            elif limit <= 0:
                codes += "2"
            elif not self._is_due(queue, ids, check):
                codes += "0"
            else:
                codes += "1"
                limit -= 1
                for task_id in ids[: check.max_size or None]:
                    queue.tasks[task_id].in_set = check.set_id
                queue.sets[check.set_id] = (check.group, self.now_s + check.timeout_s)
        return codes

    def _is_due(self, queue: Queue, ids: Sequence[str], check: GroupCheck) -> bool:
        scores = [queue.tasks[each].score or 0 for each in ids]
        return (
            0 < check.max_size <= len(ids)
            or (check.max_delay_s > 0 and scores[0] <= self.now_s - check.max_delay_s)
            or scores[-1] <= self.now_s - check.grace_s
        )

    def read_members(self, queue: Queue, group: str, set_id: str) -> list[tuple[str, bytes]] | None:
        if queue.sets.get(set_id, ("", 0))[0] != group:
            return None
        return [(each, queue.tasks[each].message) for each in self.members(queue, group, set_id)]

    def combine(self, queue: Queue, group: str, set_id: str, size: int, task: NewTask | None) -> StoreCode:
        ids = self.members(queue, group, set_id)
        if set_id not in queue.sets or queue.sets[set_id][1] <= self.now_s or size != len(ids):
            return StoreCode.GONE
        if task is not None:
            self._fresh.clear()
            code = self.store(queue, replace(task, unique_rule=f"{task.unique_rule[:1]}d" if task.unique_rule else ""))
            if code != "1":
                return StoreCode(code)
        del queue.sets[set_id]
        for task_id in ids:
            self.delete(queue, task_id, lock_named_by(queue.tasks[task_id]))
        return StoreCode.STORED

    def reclaim(self, queue: Queue, owner: str, leader_s: int) -> tuple[bool, int]:
        """Return whether the worker is the leader, and how many sets it returned to their groups."""
        if not self.lead(queue, "aggregator", owner, leader_s):
            return False, 0
        late = [set_id for set_id, (_, until_s) in queue.sets.items() if until_s <= self.now_s]
        for set_id in late:
            for task_id in self.members(queue, queue.sets.pop(set_id)[0], set_id):
                queue.tasks[task_id].in_set = ""
        return True, len(late)

    def give_back(self, queue: Queue, set_id: str) -> None:
        if set_id in queue.sets:
            queue.sets[set_id] = (queue.sets[set_id][0], 0)

    def expel(self, queue: Queue, set_id: str, ids: Sequence[str]) -> int:
        count = 0
        for task_id in ids:
            task = queue.tasks.get(task_id)
            if task is not None and task.in_set == set_id:
                self.move_to_quarantine(queue, task_id)
                count += 1
        if set_id in queue.sets and not any(task.in_set == set_id for task in queue.tasks.values()):
            del queue.sets[set_id]
        return count
