"""Workflows over two queues, whose steps end in any way and order, carried by carriers that are cut off and late.

What has to become of each step follows from how the steps before it ended, and from nothing else: that is the model.
It is compared whenever all that stands on its way between the queues has been carried; how often each step may be
handed out, always.
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
RETRIED_NS = 5_000_000_000
"""By how much the forwarder is ahead, so that what is to be tried again is due."""
ENDS = (Outcome.COMPLETE, Outcome.COMPLETE, Outcome.ARCHIVE, Outcome.DONE, Outcome.RETRY, Outcome.REQUEUE)
"""A step that is dropped (done, without a result) has failed."""
EMPTY = ("wf-out", "wf-notes", "wf-steps", "wf-running", "wf-open")

nodes = st.lists(
    st.tuples(st.sampled_from(QUEUES), st.sets(st.integers(0, 5), max_size=3), st.booleans()), min_size=2, max_size=6
)
"""Of each step its queue, what it comes after, and whether what comes after it runs though it has failed."""


class FlowMachine(RuleBasedStateMachine):
    """One workflow. Made usable by `on`."""

    runner: ClassVar[SyncRunner]
    client: ClassVar[Any]
    app: ClassVar[TaskQ]
    mutants: ClassVar[dict[str, Script]]

    @classmethod
    def on(cls, runner: SyncRunner, client: Any, app: TaskQ, mutants: dict[str, Script] | None = None) -> type[Self]:
        """The machine that works on a store, with scripts sent in place of those of the same name."""
        return type("Flowing", (cls,), {"runner": runner, "client": client, "app": app, "mutants": mutants or {}})

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.keys = Keys()
        self.serial = 0
        self.parents: dict[str, set[str]] = {}
        self.excused: set[str] = set()
        """Steps whose failure does not stop what comes after."""
        self.ended: dict[str, bool] = {}
        """Steps that have ended: whether they succeeded."""
        self.begun: set[str] = set()
        """Steps that were started, whatever becomes of those before them."""
        self.running: dict[str, tuple[str, int, bytes]] = {}
        """Task ids that were handed out: the queue and the message."""
        self.starts: dict[str, int] = {}
        self.may_start: dict[str, int] = {}
        self.old: list[tuple[str, DueSteps]] = []
        self.over: list[tuple[str, Settlement]] = []

    def ask(self, operation: Operation[T]) -> T:
        if operation.script is not None:
            operation.script = self.mutants.get(operation.script.name, operation.script)
        return self.runner.run(operation)

    def queue(self, name: str) -> QueueKeys:
        return self.keys.queue(name)

    @initialize(drawn=nodes)
    def begin(self, drawn: list[tuple[str, set[int], bool]]) -> None:
        workflow = Workflow("w", queue="default")
        for number, (queue, before, goes_on) in enumerate(drawn):
            name = f"n{number}"
            parents = {f"n{each % number}" for each in before} if number else set()
            workflow.step(
                name,
                self.app.remote("step", queue=queue).si(),
                after=dict.fromkeys(sorted(parents)),
                on_failure="continue" if goes_on else "stop",
            )
            self.parents[name] = parents
            if goes_on:
                self.excused.add(name)
            self.starts[name], self.may_start[name] = 0, 1
        self.handle = workflow.delay()
        self.note_begun()

    def note_begun(self) -> None:
        self.begun |= {each for each in self.parents if self.expected(each) is StepState.STARTED}

    def name_of(self, task_id: str) -> str:
        return task_id.removeprefix(f"{self.handle.id}.")

    # --- what is done -------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(QUEUES), limit=st.integers(1, 3))
    def dequeue(self, name: str, limit: int) -> None:
        self.serial += 1
        queue = self.queue(name)
        soon_ns = time.time_ns() + RETRIED_NS
        self.ask(at_time(soon_ns, services.forward(queue, owner="w", leader_ms=60_000)))
        found = self.ask(runs.dequeue(queue, owner="w", call=self.serial, limit=limit, lease_s=LEASE_S)).tasks
        for task_id, message in found:
            step = self.name_of(task_id)
            self.running[task_id] = (name, self.serial, message)
            self.starts[step] += 1
            assert self.starts[step] <= self.may_start[step], f"{step} was started {self.starts[step]} times"
            assert step not in self.ended, f"{step} has ended and was started again"
            assert self.expected(step) is StepState.STARTED, f"{step} was started and is {self.expected(step)}"

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
            self.note_begun()
        assert self.ask(runs.settle(self.queue(name), [end], owner="w", archive=ARCHIVE)) in ("1", "3")
        self.over.append((name, end))

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=6))
    def go_on(self, ends: list[Outcome]) -> None:
        """All that can run does, and ends one way or another."""
        for name in QUEUES:
            self.dequeue(name, 3)
        for outcome in ends:
            if self.running:
                self.settle(0, outcome)
        self.carry_all()

    @precondition(lambda self: self.over)
    @rule(pick=st.integers(0, 5))
    def settle_again(self, pick: int) -> None:
        """An answer was lost, or a worker comes back that had lost its task."""
        name, end = self.over[pick % len(self.over)]
        if end.task_id not in self.running:
            assert self.ask(runs.settle(self.queue(name), [end], owner="w", archive=ARCHIVE)) == "0"

    @rule(name=st.sampled_from(QUEUES), most=st.integers(0, 6), is_kept=st.booleans())
    def carry_some(self, name: str, most: int, is_kept: bool) -> None:
        """A carrier that dies after so many steps of its way; what it had read, another may act on much later."""
        due = self.look(name)
        if is_kept:
            self.old = [(name, due), *self.old][:4]
        self.dispatch(name, due, most)

    @precondition(lambda self: self.old)
    @rule(pick=st.integers(0, 3), most=st.integers(1, 6))
    def carry_what_was_read_long_ago(self, pick: int, most: int) -> None:
        name, due = self.old[pick % len(self.old)]
        self.dispatch(name, due, most)

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3))
    def tell_twice(self, ends: list[Outcome]) -> None:
        """Two carriers have read how the same steps ended in the other queue."""
        self.dequeue("other", 3)
        for outcome in ends:
            if self.running:
                self.settle(0, outcome)
        due = self.look("other")
        for _ in range(2):
            self.dispatch("other", due, 1000)
        self.carry_all()

    @rule(ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3))
    def die_before_it_is_noted(self, ends: list[Outcome]) -> None:
        """A carrier dies when it has stored steps in the other queue; they have run when the next one looks."""
        self.dispatch("default", self.look("default"), 3)  # read them, note the queue, store them there
        self.dequeue("other", 3)
        for outcome in ends:
            if self.running:
                self.settle(0, outcome)
        self.carry_all()

    def look(self, name: str) -> DueSteps:
        return self.ask(dispatching.read_due(self.queue(name), owner="", leader_ms=1000))

    def dispatch(self, name: str, due: DueSteps, most: int) -> None:
        self.drive(
            dispatch(
                self.keys, self.queue(name), due, lambda other: new_tasks.register_queue("asynq:queues", [other.name])
            ),
            most,
        )

    def drive(self, way: Any, most: int) -> None:
        answer = None
        for _ in range(most):
            try:
                operation = way.send(answer)
            except StopIteration:
                return
            answer = self.ask(operation)

    @rule()
    def carry_all(self) -> None:
        """Now all that was told has arrived, and the workflow stands as the model says."""
        for _ in range(20):
            for name in QUEUES:
                self.dispatch(name, self.look(name), 1000)
                self.drive(Sweep().look(self.queue(name), self.look(name)), 1000)
            if not any(self.left(name) for name in QUEUES):
                break
        else:
            raise AssertionError(f"this is never carried: {[self.left(name) for name in QUEUES]}")
        graph = self.handle.graph()
        assert {each.name: each.state for each in graph.steps} == {each: self.expected(each) for each in self.parents}
        assert graph.info.state is self.expected_state()
        there = {
            self.name_of(key.decode().rpartition(":t:")[2])
            for name in QUEUES
            for key in self.client.scan_iter(f"{self.queue(name).task_prefix}*")
            if self.client.hget(key, "state") in (b"pending", b"active", b"retry")
        }
        assert there == {each for each in self.parents if self.expected(each) is StepState.STARTED}

    def left(self, name: str) -> list[Any]:
        own = self.queue(name).own_prefix
        return [*self.client.zrange(own + "wf-out", 0, -1), *self.client.hkeys(own + "wf-notes")]

    @rule()
    def retry(self) -> None:
        """What failed runs again, and then what was skipped for its sake."""
        self.carry_all()
        failed = [each for each, is_well in self.ended.items() if not is_well]
        if self.expected_state() is WorkflowState.SUCCEEDED:
            failed = []  # a failure that was none of the whole is left alone once all is over
        found = self.handle.retry()
        assert found == len(failed), f"{found} were run again, and {failed} had failed"
        for step in failed:
            del self.ended[step]
            self.may_start[step] += 1
        self.carry_all()

    # --- what has to be so --------------------------------------------------------------------------------------------

    def expected(self, step: str) -> StepState:
        if step in self.ended:
            return StepState.SUCCEEDED if self.ended[step] else StepState.FAILED
        if step in self.begun:
            return StepState.STARTED
        states = {each: self.expected(each) for each in self.parents[step]}
        if any(state in (StepState.WAITING, StepState.STARTED) for state in states.values()):
            return StepState.WAITING
        if any(state is not StepState.SUCCEEDED and each not in self.excused for each, state in states.items()):
            return StepState.SKIPPED
        return StepState.STARTED

    def expected_state(self) -> WorkflowState:
        states = {each: self.expected(each) for each in self.parents}
        if any(state in (StepState.WAITING, StepState.STARTED) for state in states.values()):
            return WorkflowState.RUNNING
        followed = {each for parents in self.parents.values() for each in parents}
        bad = [each for each, state in states.items() if state is StepState.FAILED]
        is_failed = any(each not in self.excused or each not in followed for each in bad)
        return WorkflowState.FAILED if is_failed else WorkflowState.SUCCEEDED

    def teardown(self) -> None:
        """Everything comes to an end, and nothing is left on its way."""
        if not self.parents:
            return
        for _ in range(3 * len(self.parents)):
            for name in QUEUES:
                self.dequeue(name, 3)
            while self.running:
                self.settle(0, Outcome.COMPLETE)
            self.carry_all()
        assert self.expected_state() is not WorkflowState.RUNNING
        for name in QUEUES:
            own = self.queue(name).own_prefix
            found = {each: self.client.exists(own + each) for each in EMPTY}
            assert not any(found.values()), f"{name}: left over are {found}"
