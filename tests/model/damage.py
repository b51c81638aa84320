"""Rules of damage: delete, retype or change a key, and check that the passes of the reconciler repair it.

The content of the damaged key may be lost. Other tasks must not change. A task whose message still exists must be in
one list or set afterwards, or in quarantine if the message is unreadable.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from taskq_core.broker.operations import actions, aggregation, schedules, services
from taskq_core.broker.operations.operation import Operation
from taskq_core.repair.reconcile import ReconcileReport, reconcile, run
from tests.model.base_machine import GRACE_S, LEADER_S, QUEUES, STATES, BaseMachine, ids
from tests.model.world import Value, read, read_queues, text

GARBLED = b"\xff not a message"
GHOST = "ghost"
HOW = ("delete", "retype", "drop", "add", "twice", "change")
FIELDS = ("msg", "state", "group", "taskq_owner", "taskq_copied")
_CLOCKED = {"probe", "repair_tasks", "relist", "adopt", "collect_groups"}
_NOT_DAMAGED = ("quarantine", "rcpt")
"""Keys that the rules do not damage: no operation reads the quarantine, and receipts expire after two minutes."""


class DamageRules(BaseMachine):
    """Rules that damage a key and repair it."""

    @rule(
        number=st.integers(0, 60),
        how=st.sampled_from(HOW),
        other=ids,
        state=st.sampled_from((*STATES, "odd", "")),
        field=st.integers(0, len(FIELDS) - 1),
    )
    def damage(self, number: int, how: str, other: str, state: str, field: int) -> None:
        keys = self.keys_of_queues()
        if keys:
            self.damage_key(keys[number % len(keys)], how, other, state, field)

    def keys_of_queues(self) -> list[str]:
        """Return all keys of the queues without the keys in `_NOT_DAMAGED`."""
        queues = [self.keys.queue(name) for name in QUEUES]
        prefixes = tuple(prefix for each in queues for prefix in (each.prefix, each.own_prefix))
        private = tuple(each.own_prefix + kind for each in queues for kind in _NOT_DAMAGED)
        return sorted(each for each in read(self.client) if each.startswith(prefixes) and not each.startswith(private))

    def damage_key(self, key: str, how: str, other: str = "", state: str = "", field: int = 0) -> None:
        """Damage a key, repair the queue and check the result."""
        value = read(self.client)[key]
        name = next(each for each in QUEUES if f"{{{each}}}" in key)
        queue, before = self.keys.queue(name), self.model.queues[name]
        touched = self.touched(name, key, value) | self.change(key, value, how, other, state, field)

        self.repair(name)
        self.repair(name)
        self.use_what_heals_by_itself(name, key)

        report = self.repair(name)
        assert report.is_complete
        assert not report.findings, (key, how, report)
        found = read_queues(self.client, QUEUES)
        after = found[name]
        for task_id, task in before.tasks.items():
            if task_id not in touched:
                assert after.tasks.get(task_id) == task, (task_id, task, after.tasks.get(task_id))
            elif key != queue.task(task_id) or self.has_a_message(how, field):
                assert task_id in {*after.tasks, *after.quarantine}, f"{task_id} is lost: {how} {key}"
        self.model.queues = found
        if key.startswith(queue.call("")):
            self.calls.clear()

    def has_a_message(self, how: str, field: int) -> bool:
        """Whether the damaged task still has a message."""
        return how in {"add", "change"} or (how == "drop" and FIELDS[field] != "msg")

    def touched(self, name: str, key: str, value: Value) -> set[str]:
        """Return the ids of tasks that a key contains, or the id of the task whose hash it is."""
        queue = self.keys.queue(name)
        if key.startswith(queue.task_prefix):
            return {key.removeprefix(queue.task_prefix)}
        if key in {queue.groups, queue.aggregation_sets}:
            return {task_id for task_id, task in self.model.queues[name].tasks.items() if task.state == "aggregating"}
        return set(value.ids) if value.kind in {"list", "zset"} else set()

    def change(self, key: str, value: Value, how: str, other: str, state: str, field: int) -> set[str]:
        """Damage a key. Return the ids of other tasks that this affects."""
        client, kind = self.client, value.kind
        member = value.value[0] if kind in {"list", "set", "zset"} else b""
        added = GHOST if how == "add" else other or GHOST
        if how == "retype":
            client.delete(key)
            client.hset(key, "strange", 1) if kind == "string" else client.set(key, "strange")
        elif how == "delete" or kind == "string":
            client.delete(key)
        elif kind == "hash":
            changes = {"add": {"msg": GARBLED}, "twice": {"msg": b""}, "change": {"state": state}}
            client.hset(key, mapping=changes[how]) if how in changes else client.hdel(key, FIELDS[field])
        elif how == "drop":
            {"list": client.lpop, "set": client.spop, "zset": client.zpopmin}[kind](key)
        elif how == "twice" and kind == "list":
            client.lpush(key, member)
        elif kind == "set":
            client.sadd(key, GHOST)
        else:
            client.lpush(key, added) if kind == "list" else client.zadd(key, {added: 1})
            return {added}
        return set()

    def send(self, operation: Operation[Any]) -> Any:
        if operation.name in _CLOCKED:
            operation.args, operation.deadline_at = [str(self.model.now_ns), *operation.args[1:]], None
        return self.execute(operation)

    def repair(self, name: str) -> ReconcileReport:
        """Run a pass of the reconciler without a pause between its checks. Delete the keys that it set aside."""
        keys = self.keys.queue(name)
        report = run(reconcile(keys, repair=True, recheck_s=0), self.send)
        for each in read(self.client):
            if each.startswith(f"{keys.own_prefix}strange:"):
                self.client.delete(each)
        return report

    def use_what_heals_by_itself(self, name: str, key: str) -> None:
        """Execute the operations that repair a key by using it, because no pass of the reconciler repairs it."""
        queue, stored = self.keys.queue(name), read(self.client)
        if key == queue.paused:
            self.send(actions.resume(queue))  # any value pauses the queue until it is resumed
        elif key.startswith((f"{queue.processed}:", f"{queue.failed}:")) and key in stored:
            if stored[key].kind != "string":
                self.client.delete(key)  # the next increment creates it again
        elif key.startswith(queue.call("")):
            self.client.delete(key)  # the next dequeue of the worker overwrites it
        elif key.startswith(queue.leader("")):
            service = key.removeprefix(queue.leader(""))
            self.send(services.lead(queue.leader(service), owner="w", leader_ms=LEADER_S * 1000))
        elif key.startswith(queue.tick("")):
            self.send(schedules.adopt(queue, [key.removeprefix(queue.tick(""))]))
        names = {text(each) for each in stored[queue.groups].value} if queue.groups in stored else set()
        for group in names - {each for each in names if queue.group(each) in stored}:
            assert (
                self.send(
                    aggregation.collect_groups(queue, [aggregation.GroupCheck(group, "s0", 30, GRACE_S)], limit=1)
                )
                == "0"
            )
        for each in self.client.zrange(queue.aggregation_sets, 0, -1):
            if text(each) not in stored:
                self.client.zrem(queue.aggregation_sets, each)  # as a reclaim does after its deadline
        self.send(services.notify(queue))
