"""Tasks with limits, done to in any order, beside what limits promise.

Not beside a copy of the scripts: what is held and who waits is read from the store, and has to follow from what became
of each task.

Places, sequences and a rate, alone and together; time stands still but for `let_time_pass`.
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
"""Limits of a task: c places for all, k for a key, s a sequence that blocks, S one that skips, r a rate."""

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
    """What became of a task, as far as answers tell.

    Attributes:
        slots: Its limits, in the order in which their places are taken.
        turn: Its place in its sequence, by when it joined it.
        passes: Whether somebody let it run all the same.
    """

    slots: list[str]
    cost: int
    turn: int
    passes: bool = False
    has_run: bool = False
    is_moved: bool = False


@dataclass(slots=True)
class Seen:
    """What the store holds."""

    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    holders: dict[str, dict[str, float]] = field(default_factory=dict)
    lines: dict[str, dict[str, float]] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    scheduled: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)


class LimitMachine(RuleBasedStateMachine):
    """One queue and two workers. Made usable by `on`."""

    runner: ClassVar[SyncRunner]
    client: ClassVar[Any]
    mutants: ClassVar[dict[str, Script]]

    @classmethod
    def on(cls, runner: SyncRunner, client: Any, mutants: dict[str, Script] | None = None) -> type[Self]:
        """The machine that works on a store, with scripts sent in place of those of the same name."""
        return type("Limited", (cls,), {"runner": runner, "client": client, "mutants": mutants or {}})

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.queue = Keys().queue("default")
        self.now_ns = START_NS
        self.serial = 0
        self.lane = ReceiptSlot("lane")
        self.tasks: dict[str, Task] = {}
        self.starts: list[tuple[int, int]] = []
        """When each task with a rate was handed out (ms), and its cost."""

    def ask(self, operation: Operation[T]) -> T:
        if operation.script is not None:
            operation.script = self.mutants.get(operation.script.name, operation.script)
        return self.runner.run(operation)

    def next(self) -> int:
        self.serial += 1
        return self.serial

    def message(self, task_id: str) -> bytes:
        return encode_message(build_message(type="t", id=task_id, queue="default", retry=3))

    # --- what is done -------------------------------------------------------------------------------------------------

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
        assert self.ask(at_time(self.now_ns, new_tasks.enqueue(self.queue, [new], self.lane))) == "1"
        self.tasks[task_id] = Task([slots[each] for each in shape], cost, number, is_moved=delay_ms is not None)

    @rule(worker=st.sampled_from("ab"), limit=st.integers(1, 4))
    def dequeue(self, worker: str, limit: int) -> None:
        before = self.seen()
        operation = at_time(
            self.now_ns, runs.dequeue(self.queue, owner=worker, call=self.next(), limit=limit, lease_s=LEASE_S)
        )
        for task_id, _ in self.ask(operation).tasks:
            task = self.tasks[task_id]
            if not task.passes and not task.has_run and not task.is_moved and task.slots[0].startswith("s:"):
                for other_id, other in self.tasks.items():
                    if other.slots[0] == task.slots[0] and other.turn < task.turn and not other.is_moved:
                        state = before.tasks.get(other_id, {}).get("state")
                        is_over = state in (None, "completed") or (state == "archived" and "u" in task.slots[0])
                        assert is_over, f"{task_id} started before {other_id} ({state}), which is before it"
            if task.slots == ["r:t:"] and not (task.passes or task.has_run or task.is_moved):
                for other_id, other in self.tasks.items():
                    if other.slots == task.slots and other.turn < task.turn and not (other.has_run or other.is_moved):
                        waits = "taskq_line" in before.tasks.get(other_id, {})
                        assert not waits, f"{task_id} started before {other_id}, which waits ahead of it"
            task.has_run = True
            if "r:t:" in task.slots and not task.passes:
                self.starts.append((self.now_ns // MS, task.cost))

    @rule(pick=st.integers(0, 9), outcome=st.sampled_from(tuple(Outcome)), delay_ms=st.sampled_from((1, 3000)))
    def settle(self, pick: int, outcome: Outcome, delay_ms: int) -> None:
        running = [
            (each, *fields["taskq_owner"].partition(":")[0].split("."))
            for each, fields in sorted(self.seen().tasks.items())
            if fields["state"] == "active"
        ]
        if not running:
            return
        task_id, owner, run = running[pick % len(running)]
        end = Settlement(task_id, outcome, int(run), self.message(task_id), seconds=20, delay_ms=delay_ms)
        assert self.ask(at_time(self.now_ns, runs.settle(self.queue, [end], owner=owner, archive=ARCHIVE))) == "1"
        if outcome in (Outcome.DONE, Outcome.COMPLETE, Outcome.ARCHIVE):
            self.tasks[task_id].passes = False
        if outcome not in (Outcome.REQUEUE, Outcome.RETRY, Outcome.RETRY_UNCOUNTED, Outcome.WAIT):
            self.tasks[task_id].is_moved = True  # run again, it joins anew

    @rule(verdict=st.sampled_from((Verdict.RETRY, Verdict.ARCHIVE)))
    def lose_leases(self, verdict: Verdict) -> None:
        """Workers are silent for too long."""
        self.now_ns += 45_000 * MS
        found = self.ask(at_time(self.now_ns, services.list_expired(self.queue, grace_s=GRACE_S))).tasks
        if found:
            back = [Recovery(each, verdict, self.message(each.task_id), 1) for each in found]
            codes = self.ask(at_time(self.now_ns, services.recover(self.queue, back, grace_s=GRACE_S, archive=ARCHIVE)))
            assert codes == "1" * len(back)
            for each in found:
                self.tasks[each.task_id].is_moved |= verdict is Verdict.ARCHIVE
                self.tasks[each.task_id].passes = False

    @rule(ms=st.sampled_from((1, 200, 500, 1100, 4000)), is_admitted=st.booleans())
    def let_time_pass(self, ms: int, is_admitted: bool) -> None:
        self.now_ns += ms * MS
        self.ask(at_time(self.now_ns, services.forward(self.queue, owner="w", leader_ms=60_000)))
        if is_admitted:
            self.ask(at_time(self.now_ns, limits.admit(self.queue, owner="w", leader_ms=60_000)))

    @precondition(lambda self: self.tasks)
    @rule(
        pick=st.integers(0, 99),
        action=st.sampled_from((Action.DELETE, Action.ARCHIVE, Action.RUN, Action.WAIT)),
    )
    def act(self, pick: int, action: Action) -> None:
        """People delete, archive, let run, put off."""
        there = sorted(self.seen().tasks)
        if not there:
            return
        task_id = there[pick % len(there)]
        extra: dict[str, Any] = {"start": "+3000"} if action is Action.WAIT else {}
        answer = self.ask(at_time(self.now_ns, actions.act(self.queue, action, [task_id], **extra)))
        if answer == ["ok"]:
            task = self.tasks[task_id]
            task.is_moved = True
            task.passes = action is Action.RUN

    # --- what has to be so --------------------------------------------------------------------------------------------

    def seen(self) -> Seen:
        found = Seen()
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

    def _sort(self, found: Seen, kind: str, pairs: dict[str, str]) -> None:
        if kind.startswith("r:"):
            found.held[kind] = float(pairs.get("held", 0))
            return
        numbers = {member: float(score) for member, score in pairs.items()} if kind != "wake" else {}
        if kind.startswith("h:"):
            found.holders[kind[2:]] = numbers
        elif kind.startswith("w:"):
            found.lines[kind[2:]] = numbers
        elif kind == "due":
            found.due = numbers
        elif kind == "check":
            found.checks = numbers

    @invariant()
    def what_is_held_follows_from_the_tasks(self) -> None:
        seen = self.seen()
        expected: dict[str, set[str]] = {}
        tokens: dict[str, float] = {}
        waiting: dict[str, set[str]] = {}
        for task_id, fields in seen.tasks.items():
            task = self.tasks[task_id]
            state, permit = fields["state"], fields.get("taskq_permit", "0")
            held = int(permit.rstrip("!"))
            for stage, slot in enumerate(task.slots[:held]):
                if not slot.startswith("r:"):
                    expected.setdefault(slot, set()).add(task_id)
                elif state == "pending" and task_id in seen.holders.get(slot, {}):
                    expected.setdefault(slot, set()).add(task_id)
                    tokens[slot] = tokens.get(slot, 0) + task.cost
                assert stage == 0 or state not in ("retry", "archived", "completed"), f"{task_id} {state} holds {slot}"
            if state in ("active", "pending") and not task.passes:
                assert held == len(task.slots), f"{task_id} is {state} with {permit} of {task.slots}"
            if "taskq_line" in fields:
                waiting.setdefault(fields["taskq_line"], set()).add(task_id)
                assert state == "scheduled" and seen.scheduled[task_id] == FAR, f"{task_id} waits and is {state}"  # noqa: PT018
        assert {slot: set(ids) for slot, ids in seen.holders.items()} == expected
        assert {slot: set(ids) for slot, ids in seen.lines.items()} == waiting
        assert {slot: held for slot, held in seen.held.items() if held} == tokens

        for slot, ids in seen.holders.items():
            most = PLACES.get(slot[:3], 1)
            assert slot.startswith("r:") or len(ids) <= most, f"{len(ids)} hold a place of {slot}"
        for slot in waiting:
            if slot.startswith("r:"):
                assert slot in seen.due or slot in seen.checks, f"nobody looks after those who wait for {slot}"
            else:
                most = PLACES.get(slot[:3], 1)
                assert len(seen.holders.get(slot, {})) == most, f"some wait for {slot}, of which a place is free"

    @invariant()
    def no_span_has_more_starts_than_the_rate(self) -> None:
        level, last = float(BURST), 0
        for at, cost in self.starts:
            level = min(float(BURST), level + (at - last) * TOKENS / PERIOD_MS) - cost
            last = at
            assert level > -1e-6, f"{-level} too many at {at}"

    def teardown(self) -> None:
        """Everything comes to an end, and nothing is left."""
        for _ in range(400):
            seen = self.seen()
            archived = [each for each, fields in seen.tasks.items() if fields["state"] in ("archived", "completed")]
            if archived:
                self.ask(at_time(self.now_ns, actions.act(self.queue, Action.DELETE, archived)))
            if len(archived) == len(seen.tasks):
                break
            self.dequeue("a", 4)
            for _ in range(8):
                self.settle(0, Outcome.DONE, 1)
            self.let_time_pass(1100, is_admitted=True)
        seen = self.seen()
        assert not seen.tasks, f"these never ended: {seen.tasks}"
        assert (seen.holders, seen.lines, seen.scheduled) == ({}, {}, {})
