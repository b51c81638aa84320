"""A state machine for a workflow over two queues. Its steps end in random ways and order.

The dispatchers, which forward steps and ends of steps between the queues, may be interrupted or late. In the model, the
state of a step depends only on how its predecessors ended. It is compared with the store whenever nothing is left to
forward. The number of starts of each step is always checked.
"""

import time
from typing import Any, ClassVar, Self, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from taskq_core import TaskQ, Workflow
from taskq_core.broker.operations import dispatch as dispatching
from taskq_core.broker.operations import new_tasks, runs, services
from taskq_core.broker.operations.dispatch import DueSteps
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.scripts import Script
from taskq_core.broker.sync import SyncRunner
from taskq_core.handles.workflow_records import StepState, WorkflowState
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import Keys, QueueKeys
from taskq_core.workflow.dispatch import Sweep, dispatch
from tests.clock import at_time

T = TypeVar("T")

QUEUES = ("default", "other")
ARCHIVE = ArchiveLimits(max_tasks=100, kept_s=86_400)
LEASE_S = 600
RETRY_DELAY_NS = 5_000_000_000
"""Added to the forwarder's clock, so that all retries are due."""
ENDS = (Outcome.COMPLETE, Outcome.COMPLETE, Outcome.ARCHIVE, Outcome.DONE, Outcome.RETRY, Outcome.REQUEUE)
"""DONE deletes a step without storing a result, so the step counts as failed."""
EMPTY = ("wf-out", "wf-notes", "wf-steps", "wf-running", "wf-open")

nodes = st.lists(
    st.tuples(st.sampled_from(QUEUES), st.sets(st.integers(0, 5), max_size=3), st.booleans()), min_size=2, max_size=6
)
"""For each step: its queue, the numbers of its predecessors, and whether its successors run after its failure."""


class WorkflowMachine(RuleBasedStateMachine):
    """One workflow. `on` returns the machine for a store."""

    runner: ClassVar[SyncRunner]
    client: ClassVar[Any]
    app: ClassVar[TaskQ]
    mutants: ClassVar[dict[str, Script]]

    @classmethod
    def on(cls, runner: SyncRunner, client: Any, app: TaskQ, mutants: dict[str, Script] | None = None) -> type[Self]:
        """Return the machine for a store. It sends the scripts in `mutants` instead of those with the same name."""
        return type("Workflows", (cls,), {"runner": runner, "client": client, "app": app, "mutants": mutants or {}})

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.keys = Keys()
        self.serial = 0
        self.parents: dict[str, set[str]] = {}
        self.continued: set[str] = set()
        """Steps whose failure does not stop their successors."""
        self.ended: dict[str, bool] = {}
        """For each ended step: whether it succeeded."""
        self.started: set[str] = set()
        """Steps that were started. They stay started if a predecessor is retried."""
        self.running: dict[str, tuple[str, int, bytes]] = {}
        """For each running task: its queue, run and message."""
        self.starts: dict[str, int] = {}
        self.may_start: dict[str, int] = {}
        self.stale: list[tuple[str, DueSteps]] = []
        self.settled: list[tuple[str, Settlement]] = []

    def execute(self, operation: Operation[T]) -> T:
        if operation.script is not None:
            operation.script = self.mutants.get(operation.script.name, operation.script)
        return self.runner.run(operation)

    def queue(self, name: str) -> QueueKeys:
        return self.keys.queue(name)

    @initialize(drawn=nodes)
    def begin(self, drawn: list[tuple[str, set[int], bool]]) -> None:
        workflow = Workflow("w", queue="default")
        for number, (queue, before, continues) in enumerate(drawn):
            name = f"n{number}"
            parents = {f"n{each % number}" for each in before} if number else set()
            workflow.step(
                name,
                self.app.remote("step", queue=queue).si(),
                after=dict.fromkeys(sorted(parents)),
                on_failure="continue" if continues else "stop",
            )
            self.parents[name] = parents
            if continues:
                self.continued.add(name)
            self.starts[name], self.may_start[name] = 0, 1
        self.handle = workflow.delay()
        self.update_started()

    def update_started(self) -> None:
        self.started |= {each for each in self.parents if self.expected(each) is StepState.STARTED}

    def name_of(self, task_id: str) -> str:
        return task_id.removeprefix(f"{self.handle.id}.")

    # --- rules --------------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(QUEUES), limit=st.integers(1, 3))
    def dequeue(self, name: str, limit: int) -> None:
        self.serial += 1
        queue = self.queue(name)
        soon_ns = time.time_ns() + RETRY_DELAY_NS
        self.execute(at_time(soon_ns, services.forward(queue, owner="w", leader_ms=60_000)))
        found = self.execute(runs.dequeue(queue, owner="w", call=self.serial, limit=limit, lease_s=LEASE_S)).tasks
        for task_id, message in found:
            step = self.name_of(task_id)
            self.running[task_id] = (name, self.serial, message)
            self.starts[step] += 1
            assert self.starts[step] <= self.may_start[step], f"{step} was started {self.starts[step]} times"
            assert step not in self.ended, f"{step} was started again after its end"
            assert self.expected(step) is StepState.STARTED, (
                f"{step} was started, but its expected state is {self.expected(step)}"
            )

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 5), outcome=st.sampled_from(ENDS))
    def settle(self, pick: int, outcome: Outcome) -> None:
        task_id = sorted(self.running)[pick % len(self.running)]
        name, run, message = self.running.pop(task_id)
        end = Settlement(task_id, outcome, run, message, seconds=86_400, delay_ms=0, result=b"1")
        step = self.name_of(task_id)
        if outcome in (Outcome.RETRY, Outcome.REQUEUE):
            self.may_start[step] += 1
        else:
            self.ended[step] = outcome is Outcome.COMPLETE
            self.update_started()
        assert self.execute(runs.settle(self.queue(name), [end], owner="w", archive=ARCHIVE)) in ("1", "3")
        self.settled.append((name, end))

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=6))
    def run_and_settle(self, ends: list[Outcome]) -> None:
        """Run all steps that can run, and end some of them."""
        for name in QUEUES:
            self.dequeue(name, 3)
        for outcome in ends:
            if self.running:
                self.settle(0, outcome)
        self.dispatch_all()

    @precondition(lambda self: self.settled)
    @rule(pick=st.integers(0, 5))
    def settle_again(self, pick: int) -> None:
        """Repeat a settlement, as after a lost response, or as a worker that has lost its task."""
        name, end = self.settled[pick % len(self.settled)]
        if end.task_id not in self.running:
            assert self.execute(runs.settle(self.queue(name), [end], owner="w", archive=ARCHIVE)) == "0"

    @rule(name=st.sampled_from(QUEUES), most=st.integers(0, 6), keep_for_later=st.booleans())
    def dispatch_some(self, name: str, most: int, keep_for_later: bool) -> None:
        """Run a dispatcher that dies after `most` requests. Another one may use the data that it read much later."""
        due = self.read_due(name)
        if keep_for_later:
            self.stale = [(name, due), *self.stale][:4]
        self.dispatch(name, due, most)

    @precondition(lambda self: self.stale)
    @rule(pick=st.integers(0, 3), most=st.integers(1, 6))
    def dispatch_stale(self, pick: int, most: int) -> None:
        name, due = self.stale[pick % len(self.stale)]
        self.dispatch(name, due, most)

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3))
    def dispatch_twice(self, ends: list[Outcome]) -> None:
        """Run two dispatchers that have read the same ends of steps in the other queue."""
        self.dequeue("other", 3)
        for outcome in ends:
            if self.running:
                self.settle(0, outcome)
        due = self.read_due("other")
        for _ in range(2):
            self.dispatch("other", due, 1000)
        self.dispatch_all()

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3))
    def die_before_recording(self, ends: list[Outcome]) -> None:
        """Run a dispatcher that dies after it stored steps in the other queue. They run before the next dispatcher."""
        self.dispatch("default", self.read_due("default"), 3)  # read them, register the queue, store them there
        self.dequeue("other", 3)
        for outcome in ends:
            if self.running:
                self.settle(0, outcome)
        self.dispatch_all()

    def read_due(self, name: str) -> DueSteps:
        return self.execute(dispatching.read_due(self.queue(name), owner="", leader_ms=1000))

    def dispatch(self, name: str, due: DueSteps, most: int) -> None:
        self.run_plan(
            dispatch(
                self.keys, self.queue(name), due, lambda other: new_tasks.register_queue("asynq:queues", [other.name])
            ),
            most,
        )

    def run_plan(self, plan: Any, most: int) -> None:
        answer = None
        for _ in range(most):
            try:
                operation = plan.send(answer)
            except StopIteration:
                return
            answer = self.execute(operation)

    @rule()
    def dispatch_all(self) -> None:
        """Dispatch until nothing is left, and compare the workflow with the model."""
        for _ in range(20):
            for name in QUEUES:
                self.dispatch(name, self.read_due(name), 1000)
                self.run_plan(Sweep().check(self.queue(name), self.read_due(name)), 1000)
            if not any(self.undelivered(name) for name in QUEUES):
                break
        else:
            raise AssertionError(f"these are never dispatched: {[self.undelivered(name) for name in QUEUES]}")
        graph = self.handle.graph()
        assert {each.name: each.state for each in graph.steps} == {each: self.expected(each) for each in self.parents}
        assert graph.info.state is self.expected_state()
        existing = {
            self.name_of(key.decode().rpartition(":t:")[2])
            for name in QUEUES
            for key in self.client.scan_iter(f"{self.queue(name).task_prefix}*")
            if self.client.hget(key, "state") in (b"pending", b"active", b"retry")
        }
        assert existing == {each for each in self.parents if self.expected(each) is StepState.STARTED}

    def undelivered(self, name: str) -> list[Any]:
        own = self.queue(name).own_prefix
        return [*self.client.zrange(own + "wf-out", 0, -1), *self.client.hkeys(own + "wf-notes")]

    @rule()
    def retry(self) -> None:
        """Retry the failed steps, after which the steps that were skipped because of them can run."""
        self.dispatch_all()
        failed = [each for each, has_succeeded in self.ended.items() if not has_succeeded]
        if self.expected_state() is WorkflowState.SUCCEEDED:
            failed = []  # a successful workflow does not retry tolerated failures
        found = self.handle.retry()
        assert found == len(failed), f"{found} steps were retried, but {failed} had failed"
        for step in failed:
            del self.ended[step]
            self.may_start[step] += 1
        self.dispatch_all()

    # --- the model ----------------------------------------------------------------------------------------------------

    def expected(self, step: str) -> StepState:
        if step in self.ended:
            return StepState.SUCCEEDED if self.ended[step] else StepState.FAILED
        if step in self.started:
            return StepState.STARTED
        states = {each: self.expected(each) for each in self.parents[step]}
        if any(state in (StepState.WAITING, StepState.STARTED) for state in states.values()):
            return StepState.WAITING
        if any(state is not StepState.SUCCEEDED and each not in self.continued for each, state in states.items()):
            return StepState.SKIPPED
        return StepState.STARTED

    def expected_state(self) -> WorkflowState:
        states = {each: self.expected(each) for each in self.parents}
        if any(state in (StepState.WAITING, StepState.STARTED) for state in states.values()):
            return WorkflowState.RUNNING
        has_successor = {each for parents in self.parents.values() for each in parents}
        bad = [each for each, state in states.items() if state is StepState.FAILED]
        is_failed = any(each not in self.continued or each not in has_successor for each in bad)
        return WorkflowState.FAILED if is_failed else WorkflowState.SUCCEEDED

    def teardown(self) -> None:
        """Run all steps to their ends, and check that nothing is left to dispatch."""
        if not self.parents:
            return
        for _ in range(3 * len(self.parents)):
            for name in QUEUES:
                self.dequeue(name, 3)
            while self.running:
                self.settle(0, Outcome.COMPLETE)
            self.dispatch_all()
        assert self.expected_state() is not WorkflowState.RUNNING
        for name in QUEUES:
            own = self.queue(name).own_prefix
            found = {each: self.client.exists(own + each) for each in EMPTY}
            assert not any(found.values()), f"left over in {name}: {found}"
