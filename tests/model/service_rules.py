"""Rules of services. They act on data that was read just before or much earlier."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskq_core.broker.operations import aggregation, schedules, services
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.operations.services import Recovery, Verdict
from tests.clock import at_time
from tests.model.base_machine import (
    ARCHIVE,
    ENTRIES,
    GRACE_S,
    GROUPS,
    LEADER_S,
    RECEIPT_S,
    RUN_REQUESTS,
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
    """Rules that recover, forward, delete, fire and aggregate tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.listings: list[tuple[str, services.ExpiredTask]] = []
        self.sets: list[tuple[str, str, str]] = []
        self.set_sizes: list[tuple[str, str, str, int]] = []

    def leader(self, queue: Queue, service: str, worker: int) -> str:
        """Return the token of a worker, mostly of the leader of a service."""
        token = queue.leaders.get(service, ("", 0))[0]
        return token if token and worker else self.tokens[worker]

    @precondition(lambda self: self.leases)
    @rule(name=queues)
    def list_expired(self, name: str) -> None:
        keys, queue = self.keys_and_queue(name)
        found = self.execute(at_time(self.model.now_ns, services.list_expired(keys, grace_s=GRACE_S))).tasks
        assert [(each.task_id, each.lease_expiry, each.message) for each in found] == self.model.expired(queue, GRACE_S)
        self.listings = [*((name, each) for each in found), *self.listings][:10]

    @rule(
        name=queues,
        verdicts=st.lists(st.tuples(numbers, st.sampled_from(tuple(Verdict)), delays), min_size=1, max_size=3),
        is_fresh=st.booleans(),
        after_s=st.sampled_from((0, 40, 40)),
    )
    def recover(self, name: str, verdicts: list[tuple[int, Verdict, int]], is_fresh: bool, after_s: int) -> None:
        """Recover tasks that were listed just before or earlier."""
        self.advance(after_s)
        if is_fresh:
            self.list_expired(name)
        listed = [task for queue, task in self.listings if queue == name]
        if not listed:
            return
        keys, queue = self.keys_and_queue(name)
        recoveries = []
        for number, verdict, delay_ms in verdicts:
            task = listed[number % len(listed)]
            recoveries.append(
                Recovery(task, verdict, self.message(name, task.task_id, **names_in(task.message)), delay_ms)
            )
        operation = at_time(self.model.now_ns, services.recover(keys, recoveries, grace_s=GRACE_S, archive=ARCHIVE))
        assert self.execute(operation) == self.model.recover(queue, recoveries, GRACE_S)

    @rule(
        name=queues,
        worker=workers,
        other=workers,
        limit=st.integers(1, 3),
        comes_back=st.none() | st.sampled_from(RUN_REQUESTS),
    )
    def lose_leases(self, name: str, worker: int, other: int, limit: int, comes_back: str | None) -> None:
        """A worker loses its leases, and another worker gets its tasks. The first worker may then continue."""
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
        """A worker extends or settles its tasks between the two requests of a recovery."""
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
        keys, queue = self.keys_and_queue(name)
        owner = self.leader(queue, "forwarder", worker)
        operation = at_time(
            self.model.now_ns, services.forward(keys, owner=owner, leader_ms=LEADER_S * 1000, limit=limit)
        )
        answer = self.execute(operation)
        assert (answer.leads, answer.moved) == self.model.forward(queue, owner, LEADER_S, limit)
        assert answer.dropped == 0

    @rule(name=queues, limit=st.sampled_from((1, 100)), after_s=pauses)
    def clean(self, name: str, limit: int, after_s: int) -> None:
        self.advance(after_s)
        keys, queue = self.keys_and_queue(name)
        answer = self.execute(at_time(self.model.now_ns, services.clean(keys, limit=limit, archive=ARCHIVE)))
        assert answer == self.model.clean(queue, limit)

    @rule(name=queues, worker=workers, service=st.sampled_from(("forwarder", "aggregator")), takes=st.booleans())
    def lead_or_resign(self, name: str, worker: int, service: str, takes: bool) -> None:
        keys, queue = self.keys_and_queue(name)
        owner = self.tokens[worker]
        if takes:
            answer = self.execute(services.lead(keys.leader(service), owner=owner, leader_ms=LEADER_S * 1000))
            assert answer == self.model.lead(queue, service, owner, LEADER_S)
        else:
            assert self.execute(services.resign(keys.leader(service), owner=owner)) == self.model.resign(
                queue, service, owner
            )

    @rule(name=queues, entries=st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=2, unique=True))
    def adopt(self, name: str, entries: list[str]) -> None:
        keys, queue = self.keys_and_queue(name)
        marks = self.execute(at_time(self.model.now_ns, schedules.adopt(keys, entries))).marks
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
        keys, queue = self.keys_and_queue(name)
        ticks = []
        for entry, behind_s, ahead_s, task_id, lock in firings:
            mark_s = int(queue.marks.get(entry, f"{self.model.now_s}:").split(":")[0])
            task = self.new_task(name, task_id, "", "", lock) if has_task else None
            ticks.append(schedules.Tick(entry, mark_s - behind_s, self.model.now_s + ahead_s, task))
        answer = self.execute(at_time(self.model.now_ns, schedules.tick(keys, ticks, self.receipt)))
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
        """Collect groups, just after new tasks joined, so that a group may have more members than its maximum."""
        if joins:
            self.enqueue(name, [(task_id, "", GROUPS[0], "") for task_id in joins])
        keys, queue = self.keys_and_queue(name)
        checks = [aggregation.GroupCheck(group, f"s{self.next()}", 30, grace_s, 40, most) for group in GROUPS]
        codes = self.execute(at_time(self.model.now_ns, aggregation.collect_groups(keys, checks, limit=limit)))
        assert codes == self.model.collect_groups(queue, checks, limit)
        self.sets = [(name, each.group, each.set_id) for each in checks if each.set_id in queue.sets] + self.sets[:6]

    @precondition(lambda self: self.sets)
    @rule(number=numbers)
    def read_members(self, number: int) -> None:
        name, group, set_id = self.sets[number % len(self.sets)]
        keys, queue = self.keys_and_queue(name)
        found = self.execute(aggregation.read_members(keys, group, set_id, skip=0))
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
        """Combine the tasks of a set that was read just before or earlier."""
        if fresh:
            self.collect_groups(fresh, limit=1, grace_s=0, most=0, joins=[])
        if not self.sets:
            return
        if fresh or not self.set_sizes:
            self.read_members(0 if fresh else number)
        name, of, set_id, size = self.set_sizes[0 if fresh else number % len(self.set_sizes)]
        keys, queue = self.keys_and_queue(name)
        task = None if drops else self.new_task(name, task_id, start, group, lock)
        answer = self.execute(at_time(self.model.now_ns, aggregation.combine(keys, of, set_id, size, task)))
        if self.combined.get((name, set_id), 0) > self.model.now_s - RECEIPT_S:
            assert answer == "1"  # the receipt of the first call
        else:
            assert answer == self.model.combine(queue, of, set_id, size, task)
            if answer == "1":
                self.combined[name, set_id] = self.model.now_s
        assert self.execute(aggregation.sweep(keys)) == (0, 0)

    @rule(name=queues, worker=workers, after_s=pauses)
    def reclaim(self, name: str, worker: int, after_s: int) -> None:
        self.advance(after_s)
        keys, queue = self.keys_and_queue(name)
        owner = self.leader(queue, "aggregator", worker)
        operation = at_time(
            self.model.now_ns, aggregation.reclaim(keys, "aggregator", owner=owner, leader_ms=LEADER_S * 1000)
        )
        answer = self.execute(operation)
        assert (answer.leads, answer.sets) == self.model.reclaim(queue, owner, LEADER_S)
        assert (answer.dropped, answer.put_off, answer.to_sweep) == (0, 0, 0)

    @precondition(lambda self: self.sets)
    @rule(number=numbers, picked=picks, gives_back=st.booleans())
    def expel_or_give_back(self, number: int, picked: list[int], gives_back: bool) -> None:
        name, group, set_id = self.sets[number % len(self.sets)]
        keys, queue = self.keys_and_queue(name)
        self.read_members(number)
        if gives_back:
            self.execute(aggregation.give_back(keys, group, set_id))
            self.model.give_back(queue, set_id)
        else:
            task_ids = self.choose_ids(name, picked, "aggregating")
            count = self.execute(at_time(self.model.now_ns, aggregation.expel(keys, group, set_id, task_ids)))
            assert count == self.model.expel(queue, set_id, task_ids)
