"""Rules: one key is deleted, changed to another type or changed in its content, and the next passes repair it.

What stands in a damaged key may be lost with it; everything else may not be: other tasks stay as they are, and a task
of which the message is left is found again, in one structure, or set aside with its bytes if they cannot be read.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from taskq_core.broker.operations import actions, aggregation, schedules, services
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import run_plan
from taskq_core.handles.moving import finish
from taskq_core.repair.reconcile import ReconcileReport, reconcile, run
from tests.model.asking import GRACE_S, LEADER_S, QUEUES, STATES, Asking, ids
from tests.model.world import Value, observe, read, text

GARBLED = b"\xff not a message"
GHOST = "ghost"
HOW = ("delete", "retype", "drop", "add", "twice", "change")
FIELDS = ("msg", "state", "group", "taskq_owner", "taskq_moving")
_CLOCKED = {"probe", "repair_tasks", "relist", "move_out", "move_in", "move_end", "adopt", "collect_groups"}
_KEPT_FOR_PEOPLE = ("quarantine", "rcpt")
"""What is set aside is read by no operation; a receipt lasts two minutes and is anybody's."""


class DamageRules(Asking):
    """Damage, and repair."""

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
        """All keys of the queues that can be damaged."""
        queues = [self.keys.queue(name) for name in QUEUES]
        prefixes = tuple(prefix for each in queues for prefix in (each.prefix, each.own_prefix))
        private = tuple(each.own_prefix + kind for each in queues for kind in _KEPT_FOR_PEOPLE)
        return sorted(each for each in read(self.client) if each.startswith(prefixes) and not each.startswith(private))

    def damage_key(self, key: str, how: str, other: str = "", state: str = "", field: int = 0) -> None:
        """Damage a key and check that it is repaired as it should be."""
        value = read(self.client)[key]
        name = next(each for each in QUEUES if f"{{{each}}}" in key)
        queue, before = self.keys.queue(name), self.model.queues[name]
        touched = self.touched(name, key, value) | self.change(key, value, how, other, state, field)

        self.repair(name)
        if key == queue.moving or any(before.tasks[each].moving for each in touched & before.tasks.keys()):
            touched |= {each for each, task in before.tasks.items() if task.moving}
            run_plan(finish(self.keys, queue), self.send)  # as a worker's reconciler does once they have rested
        self.repair(name)
        self.use_what_heals_by_itself(name, key)

        report = self.repair(name)
        assert report.is_complete
        assert not report.findings, (key, how, report)
        found = observe(self.client, QUEUES)
        after = found[name]
        for task_id, task in before.tasks.items():
            if task_id not in touched:
                assert after.tasks.get(task_id) == task, (task_id, task, after.tasks.get(task_id))
            elif task.moving and self.has_arrived(name, task_id, task.moving):
                continue  # where it arrived it may have run and gone
            elif key != queue.task(task_id) or self.has_a_message(how, field):
                elsewhere = [found[each].tasks for each in QUEUES if task.moving]
                assert task_id in {*after.tasks, *after.quarantine}.union(*elsewhere), f"{task_id} is lost: {how} {key}"
        self.model.queues = found
        if key.startswith(queue.call("")):
            self.calls.clear()

    def has_a_message(self, how: str, field: int) -> bool:
        """Whether a damaged task still has one."""
        return how in {"add", "change"} or (how == "drop" and FIELDS[field] != "msg")

    def has_arrived(self, name: str, task_id: str, moving: str) -> bool:
        other = next(each for each in QUEUES if each != name)
        return f"{moving.split(':')[0]}:{task_id}" in self.model.queues[other].receipts

    def touched(self, name: str, key: str, value: Value) -> set[str]:
        """Ids of tasks that stand in a key, or that it is."""
        queue = self.keys.queue(name)
        if key.startswith(queue.task_prefix):
            return {key.removeprefix(queue.task_prefix)}
        if key in {queue.groups, queue.aggregation_sets}:
            return {task_id for task_id, task in self.model.queues[name].tasks.items() if task.state == "aggregating"}
        return set(value.ids) if value.kind in {"list", "zset"} else set()

    def change(self, key: str, value: Value, how: str, other: str, state: str, field: int) -> set[str]:
        """Damage a key; return the ids of tasks that this touches besides."""
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
            operation.args = [str(self.model.now_ns), *operation.args[1:]]
        return self.ask(operation)

    def repair(self, name: str) -> ReconcileReport:
        """A pass of the reconciler, without the rest between its looks. What it set aside is then deleted."""
        keys = self.keys.queue(name)
        report = run(reconcile(keys, repair=True, look_again_s=0), self.send)
        for each in read(self.client):
            if each.startswith(f"{keys.own_prefix}strange:"):
                self.client.delete(each)
        return report

    def use_what_heals_by_itself(self, name: str, key: str) -> None:
        """What no pass repairs, because the next use of it does."""
        queue, stored = self.keys.queue(name), read(self.client)
        if key == queue.paused:
            self.send(actions.resume(queue))  # whatever stands there pauses, until somebody resumes
        elif key.startswith((f"{queue.processed}:", f"{queue.failed}:")) and key in stored:
            if stored[key].kind != "string":
                self.client.delete(key)  # the next count starts it again
        elif key.startswith(queue.call("")):
            self.client.delete(key)  # the next dequeue of its worker writes it over
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
