"""Rules of clients and workers, also of workers that lost their leases."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskq_core.broker.operations import actions, new_tasks, views
from taskq_core.broker.operations import runs as run_ops
from taskq_core.broker.operations.runs import Outcome, Settlement
from tests.clock import at_time
from tests.model.base_machine import (
    ARCHIVE,
    LEASE_S,
    RECEIPT_S,
    RUN_REQUESTS,
    BaseMachine,
    delays,
    groups,
    ids,
    locks,
    numbers,
    outcomes,
    picks,
    queues,
    starts,
    workers,
)
from tests.model.store_model import lock_named_by, names_in


class WorkerRules(BaseMachine):
    """Rules that enqueue, run and settle tasks, also with outdated leases and repeated requests."""

    @rule(name=queues, new=st.lists(st.tuples(ids, starts, groups, locks), min_size=1, max_size=4))
    def enqueue(self, name: str, new: list[tuple[str, str, str, str]]) -> None:
        keys, queue = self.keys_and_queue(name)
        tasks = [self.new_task(name, *each) for each in new]
        operation = at_time(self.model.now_ns, new_tasks.enqueue(keys, tasks, self.receipt))
        codes = self.execute(operation)
        assert codes == self.model.enqueue(queue, tasks)
        self.last_enqueue = (operation, codes, self.model.now_s)

    @precondition(lambda self: self.last_enqueue and self.last_enqueue[2] > self.model.now_s - RECEIPT_S)
    @rule()
    def repeat_the_enqueue(self) -> None:
        assert self.last_enqueue is not None
        operation, codes, _ = self.last_enqueue
        assert self.execute(operation) == codes

    @rule(name=queues, pick=numbers)
    def wait_for_the_end(self, name: str, pick: int) -> None:
        keys, queue = self.keys_and_queue(name)
        (task_id,) = self.choose_ids(name, [pick])
        found = self.execute(views.read_task(keys, task_id, publish_end=True))
        assert (found and found.state) == self.model.wait_for_end(queue, task_id)

    @rule(name=queues, pick=numbers)
    def revoke(self, name: str, pick: int) -> None:
        keys, queue = self.keys_and_queue(name)
        (task_id,) = self.choose_ids(name, [pick])
        found = self.execute(actions.revoke(keys, task_id))
        assert found == self.model.revoke(queue, task_id)

    # --- workers ------------------------------------------------------------------------------------------------------

    @rule(name=queues, worker=workers, limit=st.integers(1, 3), was_woken=st.booleans())
    def dequeue(self, name: str, worker: int, limit: int, was_woken: bool) -> None:
        keys, queue = self.keys_and_queue(name)
        owner, call = self.tokens[worker], self.next()
        if was_woken:
            queue.has_token = False
            self.client.delete(keys.wake)
        operation = at_time(
            self.model.now_ns, run_ops.dequeue(keys, owner=owner, call=call, limit=limit, lease_s=LEASE_S)
        )
        taken = self.execute(operation).tasks
        expected = self.model.dequeue(queue, f"{owner}.{call}", limit, LEASE_S)
        assert taken == [(each, queue.tasks[each].message) for each in expected]
        self.leases |= {(name, owner, call, each) for each in expected}
        if expected:
            self.calls[name, owner] = (call, expected, self.model.now_s)

    @rule(name=queues, worker=workers)
    def repeat_the_dequeue(self, name: str, worker: int) -> None:
        keys, queue = self.keys_and_queue(name)
        owner = self.tokens[worker]
        call, ids, at_s = self.calls.get((name, owner), (0, [], 0))
        if at_s + LEASE_S <= self.model.now_s:
            return
        operation = at_time(self.model.now_ns, run_ops.dequeue(keys, owner=owner, call=call, limit=3, lease_s=LEASE_S))
        still = [each for each in ids if self.model.is_run_by(queue, each, f"{owner}.{call}")]
        assert [each for each, _ in self.execute(operation).tasks] == still

    @rule(name=queues, worker=workers)
    def call_a_dequeue_off_that_comes_late(self, name: str, worker: int) -> None:
        """A dequeue that was cancelled, or that arrives after a later one, returns no tasks."""
        keys, _ = self.keys_and_queue(name)
        owner, earlier, call = self.tokens[worker], self.next(), self.next()
        for number, limit in ((call, 0), (call, 3), (earlier, 3)):
            operation = at_time(
                self.model.now_ns, run_ops.dequeue(keys, owner=owner, call=number, limit=limit, lease_s=LEASE_S)
            )
            assert self.execute(operation).tasks == []
        self.calls[name, owner] = (call, [], self.model.now_s)

    def run_by(self, name: str, worker: int) -> list[str]:
        queue = self.model.queues[name]
        return [each for each, task in queue.tasks.items() if task.owner.startswith(f"{self.tokens[worker]}.")]

    def run_of(self, name: str, task_id: str) -> int:
        """Return the number of a task's current run, 0 if the task does not run."""
        task = self.model.queues[name].tasks.get(task_id)
        return int(task.owner.rpartition(".")[2]) if task is not None and task.owner else 0

    def running(self, name: str) -> list[str]:
        return [each for each, task in self.model.queues[name].tasks.items() if task.state == "active"]

    def settlement(self, name: str, task_id: str, run: int, outcome: Outcome, delay_ms: int) -> Settlement:
        task = self.model.queues[name].tasks.get(task_id)
        lock = lock_named_by(task) if task else ""
        group = names_in(task.message)["group_key"] if task else ""
        is_wait = outcome is Outcome.WAIT
        return Settlement(
            task_id,
            outcome,
            run,
            self.message(name, task_id, retried=1, unique_key=lock, group_key=group),
            seconds=20,
            delay_ms=delay_ms + self.model.now_s * 1000 * is_wait,
            unique_key=lock,
            result=b"result" if outcome is Outcome.COMPLETE and delay_ms > 1 else b"",
            is_young=delay_ms > 1,
            record=b"0 z:sleep" if is_wait else b"",
        )

    @precondition(lambda self: self.leases)
    @rule(name=queues, worker=workers, ends=st.lists(st.tuples(numbers, outcomes, delays), min_size=1, max_size=3))
    def settle(self, name: str, worker: int, ends: list[tuple[int, Outcome, int]]) -> None:
        keys, queue = self.keys_and_queue(name)
        held = self.run_by(name, worker)
        if not held:
            return
        settlements = []
        for number, outcome, delay_ms in ends:
            task_id = held[number % len(held)]
            settlements.append(self.settlement(name, task_id, self.run_of(name, task_id), outcome, delay_ms))
        operation = at_time(
            self.model.now_ns, run_ops.settle(keys, settlements, owner=self.tokens[worker], archive=ARCHIVE)
        )
        assert self.execute(operation) == self.model.settle(queue, settlements, self.tokens[worker])

    @precondition(lambda self: self.leases)
    @rule(name=queues, worker=workers, count=st.integers(1, 3), limit=st.integers(1, 3))
    def settle_and_dequeue(self, name: str, worker: int, count: int, limit: int) -> None:
        """The combined operation has the same effect as the two operations, or none."""
        keys, queue = self.keys_and_queue(name)
        owner, call = self.tokens[worker], self.next()
        done = self.run_by(name, worker)[-count:]
        if not done:
            return
        asked = at_time(self.model.now_ns, run_ops.dequeue(keys, owner=owner, call=call, limit=limit, lease_s=LEASE_S))
        ends = [Settlement(each, Outcome.DONE, self.run_of(name, each)) for each in done]
        answer = self.execute(run_ops.settle_and_dequeue([(end.task_id, end.run) for end in ends], asked))
        if answer is None:
            return
        self.counts["settled and dequeued"] = self.counts.get("settled and dequeued", 0) + 1
        for each in done:
            task = queue.tasks[each]
            plain = (lock_named_by(task), task.result, task.publishes_end)
            assert plain == ("", None, False), "the task needs more than a deletion"
        assert self.model.settle(queue, ends, owner) == "1" * len(done)
        expected = self.model.dequeue(queue, f"{owner}.{call}", limit, LEASE_S)
        assert answer.tasks == [(each, queue.tasks[each].message) for each in expected]
        self.leases |= {(name, owner, call, each) for each in expected}
        if expected:
            self.calls[name, owner] = (call, expected, self.model.now_s)

    @rule(
        name=queues,
        worker=workers,
        new=st.sets(ids, min_size=2, max_size=5),
        limit=st.integers(1, 3),
        is_lost=st.booleans(),
    )
    def take_turns(self, name: str, worker: int, new: set[str], limit: int, is_lost: bool) -> None:
        """Run plain tasks, which only need to be deleted at their end. Most tasks of other rules need more.

        If the response is lost, the worker repeats its request for tasks.
        """
        self.enqueue(name, [(each, "", "", "") for each in sorted(new)])
        self.dequeue(name, worker, limit, was_woken=False)
        self.settle_and_dequeue(name, worker, limit, limit)
        if is_lost:
            self.repeat_the_dequeue(name, worker)

    @rule(name=queues, worker=workers, new=st.sets(ids, min_size=1, max_size=3))
    def take_a_turn_with_what_another_has_now(self, name: str, worker: int, new: set[str]) -> None:
        """A worker settles plain tasks that it returned to the queue, and that another worker now runs."""
        self.enqueue(name, [(each, "", "", "") for each in sorted(new)])
        self.dequeue(name, worker, 3, was_woken=False)
        held = self.run_by(name, worker)
        runs = {each: self.run_of(name, each) for each in held}
        if held:
            self.settle(name, worker, [(number, Outcome.REQUEUE, 1) for number in range(len(held))])
        self.dequeue(name, (worker + 1) % 3, 3, was_woken=False)
        lost = [each for each in held if each in self.running(name)]
        if lost:
            keys, _ = self.keys_and_queue(name)
            owner, now_ns = self.tokens[worker], self.model.now_ns
            asked = at_time(now_ns, run_ops.dequeue(keys, owner=owner, call=self.next(), limit=1, lease_s=LEASE_S))
            assert self.execute(run_ops.settle_and_dequeue([(each, runs[each]) for each in lost[-1:]], asked)) is None

    @precondition(lambda self: self.calls and self.leases)
    @rule(name=queues, worker=workers, earlier=st.booleans())
    def settle_and_dequeue_late(self, name: str, worker: int, earlier: bool) -> None:
        """The operation has no effect with the number of the last call or of an earlier one."""
        keys, _ = self.keys_and_queue(name)
        owner = self.tokens[worker]
        call, _, at_s = self.calls.get((name, owner), (0, [], 0))
        held = self.run_by(name, worker)
        if not held or at_s + LEASE_S <= self.model.now_s:
            return
        number = call - 1 if earlier else call
        asked = at_time(self.model.now_ns, run_ops.dequeue(keys, owner=owner, call=number, limit=1, lease_s=LEASE_S))
        assert (
            self.execute(run_ops.settle_and_dequeue([(each, self.run_of(name, each)) for each in held[-1:]], asked))
            is None
        )

    @precondition(lambda self: self.leases)
    @rule(name=queues, worker=workers, picked=picks)
    def extend(self, name: str, worker: int, picked: list[int]) -> None:
        keys, queue = self.keys_and_queue(name)
        task_ids = self.choose_ids(name, picked, "active")
        owner = self.tokens[worker]
        runs = [(each, self.run_of(name, each)) for each in task_ids]
        operation = at_time(self.model.now_ns, run_ops.extend_leases(keys, runs, owner=owner, lease_s=LEASE_S))
        owners = [f"{owner}.{run}" for _, run in runs]
        assert self.execute(operation).owned == self.model.extend(queue, task_ids, owners, LEASE_S)

    @rule(name=queues, worker=workers, limit=st.integers(1, 3))
    def run_long(self, name: str, worker: int, limit: int) -> None:
        """A worker runs tasks for so long that it extends their leases and locks."""
        self.dequeue(name, worker, limit, was_woken=False)
        self.advance(20)
        if self.leases:
            self.extend(name, worker, [0, 1, 2])

    @precondition(lambda self: self.leases)
    @rule(name=queues, worker=workers, pick=numbers)
    def write_result(self, name: str, worker: int, pick: int) -> None:
        keys, queue = self.keys_and_queue(name)
        (task_id,) = self.choose_ids(name, [pick], "active")
        result = b"%d" % self.next()
        owner = self.tokens[worker]
        run = self.run_of(name, task_id)
        answer = self.execute(run_ops.write_fields(keys, task_id, {run_ops.RESULT_FIELD: result}, owner=owner, run=run))
        assert answer == self.model.write_result(queue, task_id, result, f"{owner}.{run}")

    @precondition(lambda self: self.leases)
    @rule(name=queues, worker=workers, pick=numbers)
    def quarantine(self, name: str, worker: int, pick: int) -> None:
        keys, queue = self.keys_and_queue(name)
        (task_id,) = self.choose_ids(name, [pick], "active")
        owner = self.tokens[worker]
        run = self.run_of(name, task_id)
        answer = self.execute(at_time(self.model.now_ns, run_ops.quarantine(keys, task_id, owner=owner, run=run)))
        assert answer == self.model.quarantine(queue, task_id, f"{owner}.{run}")

    @rule(worker=workers)
    def crash(self, worker: int) -> None:
        self.tokens[worker] = f"w{worker}-{self.next()}"

    @precondition(lambda self: self.leases)
    @rule(number=numbers, kind=st.sampled_from(RUN_REQUESTS))
    def act_with_an_old_lease(self, number: int, kind: str) -> None:
        """A request of an ended run is refused, also if its worker runs the task again. The model does not change."""
        old = [
            (name, owner, run, task_id)
            for name, owner, run, task_id in sorted(self.leases)
            if not self.model.is_run_by(self.model.queues[name], task_id, f"{owner}.{run}")
        ]
        taken = [each for each in old if each[3] in self.running(each[0])]
        old = taken if taken and number % 4 else old
        if not old:
            return
        name, owner, run, task_id = old[number % len(old)]
        keys, now_ns = self.keys.queue(name), self.model.now_ns
        if kind == "extend":
            assert self.execute(
                at_time(now_ns, run_ops.extend_leases(keys, [(task_id, run)], owner=owner, lease_s=LEASE_S))
            ).owned == [False]
        elif kind == "write_result":
            assert not self.execute(
                run_ops.write_fields(keys, task_id, {run_ops.RESULT_FIELD: b"of a zombie"}, owner=owner, run=run)
            )
        elif kind == "settle_and_dequeue":
            asked = at_time(now_ns, run_ops.dequeue(keys, owner=owner, call=self.next(), limit=1, lease_s=LEASE_S))
            assert self.execute(run_ops.settle_and_dequeue([(task_id, run)], asked)) is None
        elif kind == "quarantine":
            assert not self.execute(at_time(now_ns, run_ops.quarantine(keys, task_id, owner=owner, run=run)))
        else:
            end = self.settlement(name, task_id, run, Outcome(kind), 1)
            assert self.execute(at_time(now_ns, run_ops.settle(keys, [end], owner=owner, archive=ARCHIVE))) == "0"
