"""A state machine for tasks with limits: operations in random order, and checks of what limits guarantee.

The limits are not implemented a second time. The checks read from the store which tasks hold permits and tokens and
which wait, and derive from the states of the tasks which ones should.

The tasks have concurrency limits, sequences and a rate limit, alone and combined. The clock is stopped; only
`let_time_pass` and `lose_leases` move it.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskq_core.broker.operations import actions, limits, new_tasks, runs, services
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import Recovery, Verdict
from taskq_core.broker.scripts import Script
from taskq_core.broker.sync import SyncRunner
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import Keys, build_message, encode_message
from tests.clock import at_time

T = TypeVar("T")

START_NS = 2_000_073_480_000_000_000
MS = 1_000_000
PLACES = {"c:t": 2, "c:k": 1}
TOKENS, PERIOD_MS, BURST = 2, 1000, 2
FAR = 253_402_300_799
LEASE_S, GRACE_S = 30, 10
ARCHIVE = ArchiveLimits(max_tasks=100, kept_s=86_400)
SHAPES = ("c", "kc", "s", "S", "sc", "r", "cr", "skcr")
"""Limits of a task. c: concurrency, k: concurrency per key, s: blocking sequence, S: skipping sequence, r: rate."""

_READ = """
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'zset' then
    found[#found + 1] = { key, redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') }
  elseif kind == 'hash' then
    found[#found + 1] = { key, redis.call('HGETALL', key) }
  elseif kind == 'list' then
    found[#found + 1] = { key, redis.call('LRANGE', key, 0, -1) }
  end
end
return found
"""


@dataclass(slots=True)
class Task:
    """A task and the effects of the operations on it.

    Attributes:
        slots: Its limits, in the order in which it takes their places.
        position: Its position in its sequence, by the order of enqueues.
        ignores_limits: Whether an inspector ordered it to run without its limits.
        has_no_order: Whether it may start before earlier tasks, because it was scheduled, changed or ended.
    """

    slots: list[str]
    cost: int
    position: int
    ignores_limits: bool = False
    has_run: bool = False
    has_no_order: bool = False


@dataclass(slots=True)
class StoredState:
    """The content of the store.

    Attributes:
        tasks: Fields of the hash of each task.
        holders, waiting: Tasks that hold a permit of a limit, and tasks that wait for one, by slot.
        held: Tokens that are reserved for pending tasks, by slot.
        scheduled, pending: The scheduled set and the pending list.
        due, checks: Slots of rate limits that are to be checked later.
    """

    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    holders: dict[str, dict[str, float]] = field(default_factory=dict)
    waiting: dict[str, dict[str, float]] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    scheduled: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)


class LimitMachine(RuleBasedStateMachine):
    """One queue and two workers. `on` returns the machine for a store."""

    runner: ClassVar[SyncRunner]
    client: ClassVar[Any]
    mutants: ClassVar[dict[str, Script]]

    @classmethod
    def on(cls, runner: SyncRunner, client: Any, mutants: dict[str, Script] | None = None) -> type[Self]:
        """Return the machine for a store. It sends the scripts in `mutants` instead of those with the same name."""
        return type("Limits", (cls,), {"runner": runner, "client": client, "mutants": mutants or {}})

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.queue = Keys().queue("default")
        self.now_ns = START_NS
        self.serial = 0
        self.receipt = ReceiptSlot("lane")
        self.tasks: dict[str, Task] = {}
        self.starts: list[tuple[int, int]] = []
        """When each task with a rate was handed out (ms), and its cost."""

    def execute(self, operation: Operation[T]) -> T:
        if operation.script is not None:
            operation.script = self.mutants.get(operation.script.name, operation.script)
        return self.runner.run(operation)

    def next(self) -> int:
        self.serial += 1
        return self.serial

    def message(self, task_id: str) -> bytes:
        return encode_message(build_message(type="t", id=task_id, queue="default", retry=3))

    # --- rules --------------------------------------------------------------------------------------------------------

    @rule(
        shape=st.sampled_from(SHAPES),
        key=st.sampled_from("xy"),
        cost=st.sampled_from((1, 1, 2)),
        delay_ms=st.sampled_from((None, None, None, 2000)),
    )
    def enqueue(self, shape: str, key: str, cost: int, delay_ms: int | None) -> None:
        lines = {
            "s": f"s block 1 t:{key}",
            "S": f"s skip 1 u:{key}",
            "k": f"c {PLACES['c:k']} 1 k:{key}",
            "c": f"c {PLACES['c:t']} 1 t:",
            "r": f"r b/{TOKENS}/{PERIOD_MS}/{BURST} {cost} t:",
        }
        slots = {"s": f"s:t:{key}", "S": f"s:u:{key}", "k": f"c:k:{key}", "c": "c:t:", "r": "r:t:"}
        number = self.next()
        task_id = f"t{number}"
        new = NewTask(
            task_id,
            self.message(task_id),
            start_in_ms=delay_ms,
            limit="\n".join(lines[each] for each in shape),
        )
        assert self.execute(at_time(self.now_ns, new_tasks.enqueue(self.queue, [new], self.receipt))) == "1"
        self.tasks[task_id] = Task([slots[each] for each in shape], cost, number, has_no_order=delay_ms is not None)

    @rule(worker=st.sampled_from("ab"), limit=st.integers(1, 4))
    def dequeue(self, worker: str, limit: int) -> None:
        before = self.read_state()
        operation = at_time(
            self.now_ns, runs.dequeue(self.queue, owner=worker, call=self.next(), limit=limit, lease_s=LEASE_S)
        )
        for task_id, _ in self.execute(operation).tasks:
            task = self.tasks[task_id]
            if (
                not task.ignores_limits
                and not task.has_run
                and not task.has_no_order
                and task.slots[0].startswith("s:")
            ):
                for other_id, other in self.tasks.items():
                    if other.slots[0] == task.slots[0] and other.position < task.position and not other.has_no_order:
                        state = before.tasks.get(other_id, {}).get("state")
                        is_over = state in (None, "completed") or (state == "archived" and "u" in task.slots[0])
                        assert is_over, f"{task_id} started before the earlier {other_id} ({state})"
            if task.slots == ["r:t:"] and not (task.ignores_limits or task.has_run or task.has_no_order):
                for other_id, other in self.tasks.items():
                    if (
                        other.slots == task.slots
                        and other.position < task.position
                        and not (other.has_run or other.has_no_order)
                    ):
                        waits = "taskq_line" in before.tasks.get(other_id, {})
                        assert not waits, f"{task_id} started before {other_id}, which waits in front of it"
            task.has_run = True
            if "r:t:" in task.slots and not task.ignores_limits:
                self.starts.append((self.now_ns // MS, task.cost))

    @rule(pick=st.integers(0, 9), outcome=st.sampled_from(tuple(Outcome)), delay_ms=st.sampled_from((1, 3000)))
    def settle(self, pick: int, outcome: Outcome, delay_ms: int) -> None:
        running = [
            (each, *fields["taskq_owner"].partition(":")[0].split("."))
            for each, fields in sorted(self.read_state().tasks.items())
            if fields["state"] == "active"
        ]
        if not running:
            return
        task_id, owner, run = running[pick % len(running)]
        end = Settlement(task_id, outcome, int(run), self.message(task_id), seconds=20, delay_ms=delay_ms)
        assert self.execute(at_time(self.now_ns, runs.settle(self.queue, [end], owner=owner, archive=ARCHIVE))) == "1"
        if outcome in (Outcome.DONE, Outcome.COMPLETE, Outcome.ARCHIVE):
            self.tasks[task_id].ignores_limits = False
        if outcome not in (Outcome.REQUEUE, Outcome.RETRY, Outcome.RETRY_UNCOUNTED, Outcome.WAIT):
            self.tasks[task_id].has_no_order = True  # if it runs again, it joins the sequence again

    @rule(verdict=st.sampled_from((Verdict.RETRY, Verdict.ARCHIVE)))
    def lose_leases(self, verdict: Verdict) -> None:
        """All leases expire and the tasks are recovered."""
        self.now_ns += 45_000 * MS
        found = self.execute(at_time(self.now_ns, services.list_expired(self.queue, grace_s=GRACE_S))).tasks
        if found:
            back = [Recovery(each, verdict, self.message(each.task_id), 1) for each in found]
            codes = self.execute(
                at_time(self.now_ns, services.recover(self.queue, back, grace_s=GRACE_S, archive=ARCHIVE))
            )
            assert codes == "1" * len(back)
            for each in found:
                self.tasks[each.task_id].has_no_order |= verdict is Verdict.ARCHIVE
                self.tasks[each.task_id].ignores_limits = False

    @rule(ms=st.sampled_from((1, 200, 500, 1100, 4000)), is_admitted=st.booleans())
    def let_time_pass(self, ms: int, is_admitted: bool) -> None:
        self.now_ns += ms * MS
        self.execute(at_time(self.now_ns, services.forward(self.queue, owner="w", leader_ms=60_000)))
        if is_admitted:
            self.execute(at_time(self.now_ns, limits.admit(self.queue, owner="w", leader_ms=60_000)))

    @precondition(lambda self: self.tasks)
    @rule(
        pick=st.integers(0, 99),
        action=st.sampled_from((Action.DELETE, Action.ARCHIVE, Action.RUN, Action.WAIT)),
    )
    def act(self, pick: int, action: Action) -> None:
        """An inspector deletes, archives, runs or postpones a task."""
        existing = sorted(self.read_state().tasks)
        if not existing:
            return
        task_id = existing[pick % len(existing)]
        extra: dict[str, Any] = {"start": "+3000"} if action is Action.WAIT else {}
        answer = self.execute(at_time(self.now_ns, actions.act(self.queue, action, [task_id], **extra)))
        if answer == ["ok"]:
            task = self.tasks[task_id]
            task.has_no_order = True
            task.ignores_limits = action is Action.RUN

    # --- invariants ---------------------------------------------------------------------------------------------------

    def read_state(self) -> StoredState:
        found = StoredState()
        text = bytes.decode
        for pattern in ("taskq:*", "asynq:*"):
            for raw, value in self.client.eval(_READ, 0, pattern):
                key, words = text(raw), [text(each) for each in value]
                pairs = dict(zip(words[::2], words[1::2], strict=False))
                if key.startswith(self.queue.task_prefix):
                    found.tasks[key.removeprefix(self.queue.task_prefix)] = pairs
                elif key.startswith(self.queue.limits_prefix):
                    self._sort(found, key.removeprefix(self.queue.limits_prefix), pairs)
                elif key == self.queue.pending:
                    found.pending = words
                elif key == self.queue.scheduled:
                    found.scheduled = {member: float(score) for member, score in pairs.items()}
        return found

    def _sort(self, found: StoredState, kind: str, pairs: dict[str, str]) -> None:
        if kind.startswith("r:"):
            found.held[kind] = float(pairs.get("held", 0))
            return
        numbers = {member: float(score) for member, score in pairs.items()} if kind != "wake" else {}
        if kind.startswith("h:"):
            found.holders[kind[2:]] = numbers
        elif kind.startswith("w:"):
            found.waiting[kind[2:]] = numbers
        elif kind == "due":
            found.due = numbers
        elif kind == "check":
            found.checks = numbers

    @invariant()
    def holders_and_waiting_tasks_match_the_tasks(self) -> None:
        stored = self.read_state()
        expected: dict[str, set[str]] = {}
        tokens: dict[str, float] = {}
        waiting: dict[str, set[str]] = {}
        for task_id, fields in stored.tasks.items():
            task = self.tasks[task_id]
            state, permit = fields["state"], fields.get("taskq_permit", "0")
            held = int(permit.rstrip("!"))
            for stage, slot in enumerate(task.slots[:held]):
                if not slot.startswith("r:"):
                    expected.setdefault(slot, set()).add(task_id)
                elif state == "pending" and task_id in stored.holders.get(slot, {}):
                    expected.setdefault(slot, set()).add(task_id)
                    tokens[slot] = tokens.get(slot, 0) + task.cost
                assert stage == 0 or state not in ("retry", "archived", "completed"), f"{task_id} {state} holds {slot}"
            if state in ("active", "pending") and not task.ignores_limits:
                assert held == len(task.slots), f"{task_id} is {state} and holds {permit} of {task.slots}"
            if "taskq_line" in fields:
                waiting.setdefault(fields["taskq_line"], set()).add(task_id)
                assert state == "scheduled" and stored.scheduled[task_id] == FAR, f"{task_id} waits and is {state}"  # noqa: PT018
        assert {slot: set(ids) for slot, ids in stored.holders.items()} == expected
        assert {slot: set(ids) for slot, ids in stored.waiting.items()} == waiting
        assert {slot: held for slot, held in stored.held.items() if held} == tokens

        for slot, ids in stored.holders.items():
            most = PLACES.get(slot[:3], 1)
            assert slot.startswith("r:") or len(ids) <= most, f"{len(ids)} hold a permit of {slot}"
        for slot in waiting:
            if slot.startswith("r:"):
                assert slot in stored.due or slot in stored.checks, (
                    f"no check is planned for the tasks that wait for {slot}"
                )
            else:
                most = PLACES.get(slot[:3], 1)
                assert len(stored.holders.get(slot, {})) == most, f"tasks wait for {slot} although a permit is free"

    @invariant()
    def no_period_has_more_starts_than_the_rate(self) -> None:
        level, last = float(BURST), 0
        for at, cost in self.starts:
            level = min(float(BURST), level + (at - last) * TOKENS / PERIOD_MS) - cost
            last = at
            assert level > -1e-6, f"{-level} tokens too many were used at {at}"

    def teardown(self) -> None:
        """Run all tasks to their ends, and check that the store is empty then."""
        for _ in range(400):
            stored = self.read_state()
            archived = [each for each, fields in stored.tasks.items() if fields["state"] in ("archived", "completed")]
            if archived:
                self.execute(at_time(self.now_ns, actions.act(self.queue, Action.DELETE, archived)))
            if len(archived) == len(stored.tasks):
                break
            self.dequeue("a", 4)
            for _ in range(8):
                self.settle(0, Outcome.DONE, 1)
            self.let_time_pass(1100, is_admitted=True)
        stored = self.read_state()
        assert not stored.tasks, f"these never ended: {stored.tasks}"
        assert (stored.holders, stored.waiting, stored.scheduled) == ({}, {}, {})
