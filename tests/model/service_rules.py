"""Rules: what services do, each from a reading of now or of long ago."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskq_core.broker.operations import aggregation, schedules, services
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.operations.services import Recovery, Verdict
from tests.clock import at_time
from tests.model.asking import (
    ARCHIVE,
    DEEDS,
    ENTRIES,
    GRACE_S,
    GROUPS,
    LEADER_S,
    RECEIPT_S,
    delays,
    groups,
    ids,
    locks,
    numbers,
    pauses,
    picks,
    queues,
    starts,
    workers,
)
from tests.model.store_model import names_in
from tests.model.worker_rules import WorkerRules
from tests.model.world import Queue


class ServiceRules(WorkerRules):
    """Take back, forward, clean, tick, aggregate."""

    def __init__(self) -> None:
        super().__init__()
        self.listings: list[tuple[str, services.ExpiredTask]] = []
        self.sets: list[tuple[str, str, str]] = []
        self.set_sizes: list[tuple[str, str, str, int]] = []

    def leader(self, queue: Queue, service: str, worker: int) -> str:
        """Mostly the worker that leads a service, if one does."""
        token = queue.leaders.get(service, ("", 0))[0]
        return token if token and worker else self.tokens[worker]

    @precondition(lambda self: self.leases)
    @rule(name=queues)
    def list_expired(self, name: str) -> None:
        keys, queue = self.here(name)
        found = self.ask(at_time(self.model.now_ns, services.list_expired(keys, grace_s=GRACE_S))).tasks
        assert [(each.task_id, each.lease_expiry, each.message) for each in found] == self.model.expired(queue, GRACE_S)
        self.listings = [*((name, each) for each in found), *self.listings][:10]

    @rule(
        name=queues,
        verdicts=st.lists(st.tuples(numbers, st.sampled_from(tuple(Verdict)), delays), min_size=1, max_size=3),
        is_fresh=st.booleans(),
        after_s=st.sampled_from((0, 40, 40)),
    )
    def recover(self, name: str, verdicts: list[tuple[int, Verdict, int]], is_fresh: bool, after_s: int) -> None:
        """On a listing of now or of long ago."""
        self.advance(after_s)
        if is_fresh:
            self.list_expired(name)
        listed = [task for queue, task in self.listings if queue == name]
        if not listed:
            return
        keys, queue = self.here(name)
        recoveries = []
        for number, verdict, delay_ms in verdicts:
            task = listed[number % len(listed)]
            recoveries.append(
                Recovery(task, verdict, self.message(name, task.task_id, **names_in(task.message)), delay_ms)
            )
        operation = at_time(self.model.now_ns, services.recover(keys, recoveries, grace_s=GRACE_S, archive=ARCHIVE))
        assert self.ask(operation) == self.model.recover(queue, recoveries, GRACE_S)

    @rule(
        name=queues,
        worker=workers,
        other=workers,
        limit=st.integers(1, 3),
        comes_back=st.none() | st.sampled_from(DEEDS),
    )
    def lose_leases(self, name: str, worker: int, other: int, limit: int, comes_back: str | None) -> None:
        """A worker is silent for too long; its tasks are taken back and given to another. It may come back."""
        self.dequeue(name, worker, limit, was_woken=False)
        self.recover(name, [(number, Verdict.RETRY, 1) for number in range(3)], is_fresh=True, after_s=40)
        self.forward(name, other, 100, after_s=10)
        self.dequeue(name, other, 3, was_woken=False)
        if comes_back:
            self.act_with_an_old_lease(limit, comes_back)

    @rule(
        name=queues,
        worker=workers,
        verdict=st.sampled_from(tuple(Verdict)),
        how=st.sampled_from(("extend", *Outcome)),
    )
    def recover_too_late(self, name: str, worker: int, verdict: Verdict, how: str) -> None:
        """Between the listing and the move of a recovery, the worker comes back."""
        self.dequeue(name, worker, 1, was_woken=False)
        self.advance(40)
        self.list_expired(name)
        if how == "extend":
            self.extend(name, worker, [1, 2, 3])
        else:
            self.settle(name, worker, [(0, Outcome(how), 1)])
        self.recover(name, [(0, verdict, 1), (1, verdict, 1)], is_fresh=False, after_s=0)

    @rule(name=queues, worker=workers, limit=st.sampled_from((1, 2, 100)), after_s=pauses)
    def forward(self, name: str, worker: int, limit: int, after_s: int) -> None:
        self.advance(after_s)
        keys, queue = self.here(name)
        owner = self.leader(queue, "forwarder", worker)
        operation = at_time(
            self.model.now_ns, services.forward(keys, owner=owner, leader_ms=LEADER_S * 1000, limit=limit)
        )
        answer = self.ask(operation)
        assert (answer.leads, answer.moved) == self.model.forward(queue, owner, LEADER_S, limit)
        assert answer.dropped == 0

    @rule(name=queues, limit=st.sampled_from((1, 100)), after_s=pauses)
    def clean(self, name: str, limit: int, after_s: int) -> None:
        self.advance(after_s)
        keys, queue = self.here(name)
        answer = self.ask(at_time(self.model.now_ns, services.clean(keys, limit=limit, archive=ARCHIVE)))
        assert answer == self.model.clean(queue, limit)

    @rule(name=queues, worker=workers, service=st.sampled_from(("forwarder", "aggregator")), takes=st.booleans())
    def lead_or_resign(self, name: str, worker: int, service: str, takes: bool) -> None:
        keys, queue = self.here(name)
        owner = self.tokens[worker]
        if takes:
            answer = self.ask(services.lead(keys.leader(service), owner=owner, leader_ms=LEADER_S * 1000))
            assert answer == self.model.lead(queue, service, owner, LEADER_S)
        else:
            assert self.ask(services.resign(keys.leader(service), owner=owner)) == self.model.resign(
                queue, service, owner
            )

    @rule(name=queues, entries=st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=2, unique=True))
    def adopt(self, name: str, entries: list[str]) -> None:
        keys, queue = self.here(name)
        marks = self.ask(at_time(self.model.now_ns, schedules.adopt(keys, entries))).marks
        found = [f"{each.at_s}:{'' if each.enqueued_s is None else each.enqueued_s}" for each in marks]
        assert found == self.model.adopt(queue, entries)

    @rule(
        name=queues,
        firings=st.lists(
            st.tuples(
                st.sampled_from(ENTRIES), st.sampled_from((0, 0, 0, 10)), st.sampled_from((0, 0, -10, 10)), ids, locks
            ),
            min_size=1,
            max_size=2,
        ),
        has_task=st.booleans(),
    )
    def tick(self, name: str, firings: list[tuple[str, int, int, str, str]], has_task: bool) -> None:
        keys, queue = self.here(name)
        ticks = []
        for entry, behind_s, ahead_s, task_id, lock in firings:
            mark_s = int(queue.marks.get(entry, f"{self.model.now_s}:").split(":")[0])
            task = self.new_task(name, task_id, "", "", lock) if has_task else None
            ticks.append(schedules.Tick(entry, mark_s - behind_s, self.model.now_s + ahead_s, task))
        answer = self.ask(at_time(self.model.now_ns, schedules.tick(keys, ticks, self.lane)))
        self.last_enqueue = None
        assert answer.codes == self.model.tick(queue, ticks)

    # --- aggregation --------------------------------------------------------------------------------------------------

    @rule(
        name=queues,
        limit=st.integers(1, 2),
        grace_s=st.sampled_from((0, 20)),
        most=st.sampled_from((0, 1, 2)),
        joins=st.lists(ids, max_size=4),
    )
    def collect_groups(self, name: str, limit: int, grace_s: int, most: int, joins: list[str]) -> None:
        """A moment after some tasks have joined a group, so that it holds more than are taken at once."""
        if joins:
            self.enqueue(name, [(task_id, "", GROUPS[0], "") for task_id in joins])
        keys, queue = self.here(name)
        checks = [aggregation.GroupCheck(group, f"s{self.next()}", 30, grace_s, 40, most) for group in GROUPS]
        codes = self.ask(at_time(self.model.now_ns, aggregation.collect_groups(keys, checks, limit=limit)))
        assert codes == self.model.collect_groups(queue, checks, limit)
        self.sets = [(name, each.group, each.set_id) for each in checks if each.set_id in queue.sets] + self.sets[:6]

    @precondition(lambda self: self.sets)
    @rule(number=numbers)
    def read_members(self, number: int) -> None:
        name, group, set_id = self.sets[number % len(self.sets)]
        keys, queue = self.here(name)
        found = self.ask(aggregation.read_members(keys, group, set_id, skip=0))
        assert found == self.model.read_members(queue, group, set_id)
        self.set_sizes = [(name, group, set_id, len(found or ())), *self.set_sizes[:6]]

    @rule(
        number=numbers,
        task_id=ids,
        start=starts,
        group=groups,
        lock=locks,
        drops=st.booleans(),
        fresh=st.none() | queues,
    )
    def combine(
        self, number: int, task_id: str, start: str, group: str, lock: str, drops: bool, fresh: str | None
    ) -> None:
        """A set that was read a moment or long ago."""
        if fresh:
            self.collect_groups(fresh, limit=1, grace_s=0, most=0, joins=[])
        if not self.sets:
            return
        if fresh or not self.set_sizes:
            self.read_members(0 if fresh else number)
        name, of, set_id, size = self.set_sizes[0 if fresh else number % len(self.set_sizes)]
        keys, queue = self.here(name)
        task = None if drops else self.new_task(name, task_id, start, group, lock)
        answer = self.ask(at_time(self.model.now_ns, aggregation.combine(keys, of, set_id, size, task)))
        if self.combined.get((name, set_id), 0) > self.model.now_s - RECEIPT_S:
            assert answer == "1"  # what the first call did
        else:
            assert answer == self.model.combine(queue, of, set_id, size, task)
            if answer == "1":
                self.combined[name, set_id] = self.model.now_s
        assert self.ask(aggregation.sweep(keys)) == (0, 0)

    @rule(name=queues, worker=workers, after_s=pauses)
    def reclaim(self, name: str, worker: int, after_s: int) -> None:
        self.advance(after_s)
        keys, queue = self.here(name)
        owner = self.leader(queue, "aggregator", worker)
        operation = at_time(
            self.model.now_ns, aggregation.reclaim(keys, "aggregator", owner=owner, leader_ms=LEADER_S * 1000)
        )
        answer = self.ask(operation)
        assert (answer.leads, answer.sets) == self.model.reclaim(queue, owner, LEADER_S)
        assert (answer.dropped, answer.put_off, answer.to_sweep) == (0, 0, 0)

    @precondition(lambda self: self.sets)
    @rule(number=numbers, picked=picks, gives_back=st.booleans())
    def expel_or_give_back(self, number: int, picked: list[int], gives_back: bool) -> None:
        name, group, set_id = self.sets[number % len(self.sets)]
        keys, queue = self.here(name)
        self.read_members(number)
        if gives_back:
            self.ask(aggregation.give_back(keys, group, set_id))
            self.model.give_back(queue, set_id)
        else:
            task_ids = self.some(name, picked, "aggregating")
            count = self.ask(at_time(self.model.now_ns, aggregation.expel(keys, group, set_id, task_ids)))
            assert count == self.model.expel(queue, set_id, task_ids)
