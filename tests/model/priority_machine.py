"""A state machine for priorities: tasks of a higher band start first, and tasks of the same band in their order.

It does not include tasks that a worker returns, which always start next, and tasks that wait for a minute.
"""

from typing import Any, ClassVar, Self, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskq_core.broker.operations import actions, new_tasks, runs, services
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.scripts import Script
from taskq_core.broker.sync import SyncRunner
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import Keys, build_message, encode_message, priority_mark
from tests.clock import at_time

T = TypeVar("T")

NOW_NS = 2_000_073_480_000_000_000
LATER_NS = NOW_NS + 2_000_000_000
ARCHIVE = ArchiveLimits(max_tasks=100, kept_s=86_400)
bands = st.sampled_from((0, 0, 1, 5, 9))


class PriorityMachine(RuleBasedStateMachine):
    """One queue and one worker. `on` returns the machine for a store."""

    runner: ClassVar[SyncRunner]
    client: ClassVar[Any]
    mutants: ClassVar[dict[str, Script]]

    @classmethod
    def on(cls, runner: SyncRunner, client: Any, mutants: dict[str, Script] | None = None) -> type[Self]:
        """Return the machine for a store. It sends the scripts in `mutants` instead of those with the same name."""
        return type("Priorities", (cls,), {"runner": runner, "client": client, "mutants": mutants or {}})

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.queue = Keys().queue("default")
        self.receipt = ReceiptSlot("lane")
        self.serial = 0
        self.bands: dict[str, tuple[int, int]] = {}
        """For each task: its band, and the band of its retries."""
        self.waiting: list[tuple[int, str]] = []
        """Negative band and id of the pending tasks, in the expected order."""
        self.running: list[tuple[str, int]] = []
        self.failed: list[str] = []

    def execute(self, operation: Operation[T]) -> T:
        if operation.script is not None:
            operation.script = self.mutants.get(operation.script.name, operation.script)
        return self.runner.run(operation)

    def wait(self, task_id: str, band: int) -> None:
        self.waiting.append((-band, task_id))
        self.waiting.sort(key=lambda each: each[0])

    def message(self, task_id: str) -> bytes:
        return encode_message(build_message(type="t", id=task_id, queue="default", retry=9))

    @rule(drawn=st.lists(st.tuples(bands, bands), min_size=1, max_size=4))
    def enqueue(self, drawn: list[tuple[int, int]]) -> None:
        new = []
        for band, of_retries in drawn:
            self.serial += 1
            task_id = f"t{self.serial}"
            self.bands[task_id] = (band, of_retries)
            new.append(NewTask(task_id, self.message(task_id), marks=priority_mark(band, of_retries)))
            self.wait(task_id, band)
        assert self.execute(at_time(NOW_NS, new_tasks.enqueue(self.queue, new, self.receipt))) == "1" * len(new)

    @rule(limit=st.integers(1, 3))
    def dequeue(self, limit: int) -> None:
        self.serial += 1
        operation = at_time(NOW_NS, runs.dequeue(self.queue, owner="w", call=self.serial, limit=limit, lease_s=600))
        taken = [task_id for task_id, _ in self.execute(operation).tasks]
        assert taken == [task_id for _, task_id in self.waiting[:limit]]
        del self.waiting[:limit]
        self.running += [(task_id, self.serial) for task_id in taken]

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 5), outcome=st.sampled_from((Outcome.DONE, Outcome.RETRY, Outcome.RETRY)))
    def settle(self, pick: int, outcome: Outcome) -> None:
        task_id, run = self.running.pop(pick % len(self.running))
        end = Settlement(task_id, outcome, run, self.message(task_id), delay_ms=1)
        assert self.execute(at_time(NOW_NS, runs.settle(self.queue, [end], owner="w", archive=ARCHIVE))) == "1"
        if outcome is Outcome.RETRY:
            self.failed.append(task_id)

    @rule()
    def forward(self) -> None:
        """Forward failed tasks into the band of their retries. Tasks with the same due time are ordered by id."""
        self.execute(at_time(LATER_NS, services.forward(self.queue, owner="w", leader_ms=60_000)))
        for task_id in sorted(self.failed, key=str.encode):
            self.wait(task_id, self.bands[task_id][1])
        self.failed.clear()

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 9))
    def delete(self, pick: int) -> None:
        _, task_id = self.waiting.pop(pick % len(self.waiting))
        assert self.execute(at_time(NOW_NS, actions.act(self.queue, Action.DELETE, [task_id]))) == ["ok"]

    @invariant()
    def pending_tasks_have_the_expected_order(self) -> None:
        found = [each.decode() for each in reversed(self.client.lrange(self.queue.pending, 0, -1))]
        assert found == [task_id for _, task_id in self.waiting]
