"""The base of all rules: it executes operations in Redis (the store), and compares the store with the model."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.scripts import Script
from taskq_core.broker.sync import SyncRunner
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import Keys, QueueKeys, build_message, encode_message
from tests.model.action_model import ActionModel
from tests.model.world import Queue, age, read_queues

T = TypeVar("T")

START_S = 2_000_073_480
"""Two minutes before midnight UTC, so that runs cross midnight. In the future, so that daily counters do not expire."""
QUEUES = ("default", "other")
IDS = ("a", "b", "c", "d", "e", "f")
GROUPS = ("g", "h")
LOCKS = ("x", "y")
RULES = ("fd", "sr", "we", "fm", "wr")
ENTRIES = ("e1", "e2")
LEASE_S = 30
GRACE_S = 10
LEADER_S = 20
ARCHIVE = ArchiveLimits(max_tasks=3, kept_s=90)
RECEIPT_S = 120
STATES = ("pending", "scheduled", "retry", "archived", "completed", "aggregating", "active")

queues = st.sampled_from(("default", "default", "default", "other"))
"""Mostly the same queue, so that operations affect the same tasks."""
workers = st.integers(0, 2)
numbers = st.integers(0, 20)
ids = st.sampled_from(IDS)
picks = st.lists(numbers, min_size=1, max_size=3)
starts = st.sampled_from(("", "", "", "past", "soon", "later"))
groups = st.sampled_from(("", "", "", *GROUPS))
locks = st.sampled_from(("", "", *LOCKS, *LOCKS, *(f"{lock}:{rule}" for lock in LOCKS for rule in RULES)))
"""Names of unique locks. Some have a rule after the colon: states that hold the lock, and action on a conflict."""
delays = st.sampled_from((1, 9_999, 10_000, 20_001))
outcomes = st.sampled_from(tuple(Outcome))
RUN_REQUESTS = ("extend", "write_result", "quarantine", "settle_and_dequeue", *Outcome)
"""Requests of a worker about a task that it runs."""
rarely = st.sampled_from((False, False, False, False, True))
pauses = st.sampled_from((0, 0, 10, 40))
"""Seconds that pass before a service runs."""


class BaseMachine(RuleBasedStateMachine):
    """Two queues and three workers, in the store and in the model. `on` returns the machine for a store."""

    runner: ClassVar[SyncRunner]
    client: ClassVar[Any]
    counts: ClassVar[dict[str, int]]
    mutants: ClassVar[dict[str, Script]]

    @classmethod
    def on(cls, runner: SyncRunner, client: Any, mutants: dict[str, Script] | None = None) -> type[Self]:
        """Return the machine for a store.

        Args:
            runner: Sends operations to the store.
            client: A redis-py client of the store.
            mutants: Scripts that replace those with the same name.

        Returns:
            A class. Its `counts` contain how often each operation was executed.
        """
        return type("Machine", (cls,), {"runner": runner, "client": client, "mutants": mutants or {}, "counts": {}})

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.keys = Keys()
        self.model = ActionModel(QUEUES, START_S, ARCHIVE)
        self.serial = 0
        self.receipt = ReceiptSlot("lane")
        self.tokens = ["w0", "w1", "w2"]
        self.leases: set[tuple[str, str, int, str]] = set()
        """Queue, worker, run and task of every lease since the start."""
        self.last_enqueue: tuple[Operation[str], str, int] | None = None
        self.calls: dict[tuple[str, str], tuple[int, list[str], int]] = {}
        self.combined: dict[tuple[str, str], int] = {}

    def execute(self, operation: Operation[T]) -> T:
        self.counts[operation.name] = self.counts.get(operation.name, 0) + 1
        if operation.script is not None:
            operation.script = self.mutants.get(operation.script.name, operation.script)
        return self.runner.run(operation)

    def next(self) -> int:
        self.serial += 1
        return self.serial

    def keys_and_queue(self, name: str) -> tuple[QueueKeys, Queue]:
        return self.keys.queue(name), self.model.queues[name]

    def choose_ids(self, name: str, picks: Sequence[int], state: str = "") -> list[str]:
        """Return ids without duplicates, mostly of existing tasks (in this state, if given)."""
        existing = sorted(each for each, task in self.model.queues[name].tasks.items() if state in {"", task.state})
        found = [existing[pick % len(existing)] if existing and pick % 5 else IDS[pick % len(IDS)] for pick in picks]
        return list(dict.fromkeys(found))

    def pick(self, name: str, task_id: str) -> int:
        """Return the number for which `choose_ids` returns this task."""
        existing = sorted(self.model.queues[name].tasks)
        return next(
            n for n in range(1, 5 * len(existing) + 6) if n % 5 and n % len(existing) == existing.index(task_id)
        )

    def message(self, name: str, task_id: str, **fields: Any) -> bytes:
        fields = {"retry": 3, "payload": b"%d" % self.next(), **fields}
        return encode_message(build_message(type="t", id=task_id, queue=name, **fields))

    def new_task(self, name: str, task_id: str, start: str, group: str, lock: str) -> NewTask:
        lock, _, unique_rule = lock.partition(":")
        key = self.keys.queue(name).unique("t", lock.encode()) if lock else ""
        ttl_s = 10 + 30 * (self.serial % 2) if lock else 0
        return NewTask(
            task_id,
            self.message(name, task_id, unique_key=key, group_key=group),
            start_at_s={"past": self.model.now_s, "later": self.model.now_s + 30}.get(start),
            start_in_ms=10_000 if start == "soon" else None,
            unique_key=key,
            unique_s=0 if unique_rule and self.serial % 3 else ttl_s,
            group=group,
            unique_rule=unique_rule,
        )

    @invariant()
    def the_store_equals_the_model(self) -> None:
        found = read_queues(self.client, QUEUES)
        for name, queue in self.model.queues.items():
            assert found[name] == queue, difference(found[name], queue)
            assert queue.has_token or not queue.pending or queue.is_paused, f"no wake token for {queue.pending}"

    def advance(self, seconds: int) -> None:
        if seconds:
            age(self.client, seconds)
            self.model.age(seconds)

    def forget_receipts(self, name: str) -> None:
        """Forget calls that cannot be repeated, because the receipts in the store were deleted."""
        self.last_enqueue = None
        self.calls = {key: call for key, call in self.calls.items() if key[0] != name}
        self.combined = {key: at_s for key, at_s in self.combined.items() if key[0] != name}


def difference(found: Queue, expected: Queue) -> str:
    """Return the differences between the store and the model as text."""
    lines = []
    for name in Queue.__slots__:
        one, other = getattr(found, name), getattr(expected, name)
        if one != other and isinstance(one, dict):
            differing = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
            lines += [f"{name}[{key}]\n  store: {one.get(key)}\n  model: {other.get(key)}" for key in differing]
        elif one != other:
            lines.append(f"{name}\n  store: {one}\n  model: {other}")
    return "\n".join(lines)
