"""One durable task in the store and in a small model: steps, waits, signals, sub-tasks and output in any order.

Its worker crashes, is stopped, and sends requests of earlier runs. Its id is used again after it was deleted. After
every rule the store has the state, record and output of the model, so no wake-up, signal or result is lost.
"""

from typing import Any, ClassVar, Self, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskq_core.broker.operations import actions, new_tasks, runs, services, steps, workflows
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import CancelOutcome, Recovery, Verdict
from taskq_core.broker.operations.steps import LoadedSteps, Refusal
from taskq_core.broker.scripts import Script
from taskq_core.broker.sync import SyncRunner
from taskq_core.wire import Keys
from tests.clock import at_time

T = TypeVar("T")

START_S = 2_000_000_000
LEASE_S, GRACE_S = 30, 30
NAMES = ("go", "ok")
DAY_S = 86_400

names = st.sampled_from(NAMES)
questions = st.sampled_from([f"{name}#{k}" for name in NAMES for k in (1, 2)])


class DurableMachine(RuleBasedStateMachine):
    """The task `t` in a store and in the model. `on` returns the machine for a store."""

    runner: ClassVar[SyncRunner]
    client: ClassVar[Any]
    mutants: ClassVar[dict[str, Script]]

    @classmethod
    def on(cls, runner: SyncRunner, client: Any, mutants: dict[str, Script] | None = None) -> type[Self]:
        """Return the machine for a store. It sends the scripts in `mutants` instead of those with the same name."""
        return type("Durable", (cls,), {"runner": runner, "client": client, "mutants": mutants or {}})

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.queue = Keys().queue("default")
        self.now_s, self.call, self.serial = START_S, 0, 0
        self.state, self.until_s = "", 0
        self.record: dict[str, bytes] = {}
        self.ids: list[str] = []
        self.old_runs: list[int] = []
        self.output: list[tuple[int, bytes]] = []
        self.emits = 0
        self.is_retried = False
        self.children: list[tuple[str, int]] = []

    def ask(self, operation: Operation[T], *, timed: bool = True) -> T:
        if operation.script is not None:
            operation.script = self.mutants.get(operation.script.name, operation.script)
        return self.runner.run(at_time(self.now_s * 10**9, operation) if timed else operation)

    def next(self) -> int:
        self.serial += 1
        return self.serial

    @property
    def attempt(self) -> int:
        return int(self.record["try"].partition(b" ")[0])

    def forget(self) -> None:
        """Reset the model after the task was deleted."""
        self.state, self.record, self.ids, self.output = "", {}, [], []

    # --- the task and its runs ----------------------------------------------------------------------------------------

    @precondition(lambda self: not self.state)
    @rule()
    def enqueue(self) -> None:
        assert self.ask(new_tasks.enqueue(self.queue, [NewTask("t", b"t")], ReceiptSlot(f"r{self.next()}"))) == "1"
        self.state = "pending"

    @rule(ends=st.booleans())
    def run_what_is_pending(self, ends: bool) -> None:
        """Run all pending tasks. The task starts and reads its record, twice as after a lost response.

        Args:
            ends: End sub-tasks at once, or leave them running.
        """
        self.call += 1
        dequeue = runs.dequeue(self.queue, owner="w", call=self.call, limit=100, lease_s=LEASE_S)
        for task_id, _ in self.ask(dequeue).tasks:
            if task_id == "t":
                self._start()
            else:
                self.children.append((task_id, self.call))
        while ends and self.children:
            self.end_a_sub_task()

    @precondition(lambda self: self.children)
    @rule()
    def end_a_sub_task(self) -> None:
        task_id, run = self.children.pop()
        end = Settlement(task_id, Outcome.DONE, run, b"child")
        assert self.ask(runs.settle(self.queue, [end], owner="w")) == "1"
        self._end_child(task_id)

    def _start(self) -> None:
        assert self.state == "pending"
        self.state, self.emits, self.is_retried = "active", 0, False
        count, _, before = self.record.get("try", b"0 ").decode().partition(" ")
        if before != "w":
            count = str(int(count) + 1)
            self.record.pop("x", None)
            self.record.pop("by", None)
        self.record["try"] = f"{count} w.{self.call}".encode()
        if waiting := self.record.pop("waiting", b"").decode().partition(" ")[2]:
            self.record[f"u:{waiting}"] = b"%d %b" % (self.now_s * 1000, self._since(waiting))
        for _ in range(2):
            loaded = self.ask(steps.load_steps(self.queue, "t", owner="w", run=self.call))
            assert isinstance(loaded, LoadedSteps)
            assert compared(loaded.record) == self.record

    def _since(self, wait: str) -> bytes:
        """Return the start of a wait (Unix ms): now, unless it has begun before."""
        return self.record.get(f"u:{wait}", b" %d" % (self.now_s * 1000)).rpartition(b" ")[2]

    def _end_child(self, task_id: str) -> None:
        begun = b"1 " + task_id.removeprefix("child-").encode()
        name = next((field[2:] for field, value in self.record.items() if field[:2] == "c:" and value == begun), "")
        if not name:
            return  # the task of the sub-task was deleted
        self.record[f"e:{name}"] = b"%d" % self._event_ms()
        self._wake(f"c:{name}")

    def _event_ms(self) -> int:
        """Return the time of a signal or of the end of sub-tasks. It is after the request to cancel the task."""
        cancelled_ms = int(self.record.get("cancel", b"-1 ").partition(b" ")[0])
        return max(self.now_s * 1000, cancelled_ms + 1)

    def _wake(self, wait: str) -> None:
        waiting = self.record.get("waiting", b"").decode().partition(" ")[2]
        is_one_of = waiting[:2] == "o:" and wait[2:] in waiting[2:].split(" | ")
        if self.state == "scheduled" and (waiting == wait or is_one_of):
            self.state = "pending"
            del self.record["waiting"]
            self.record["by"] = wait.encode()

    def settle(self, outcome: Outcome, **more: Any) -> None:
        end = Settlement("t", outcome, self.call_of_run, b"t", **more)
        assert self.ask(runs.settle(self.queue, [end], owner="w")) == "1"
        self.old_runs.append(self.call_of_run)

    @property
    def call_of_run(self) -> int:
        return int(self.record["try"].rpartition(b".")[2])

    @precondition(lambda self: self.state == "active")
    @rule(how=st.sampled_from(("done", "failed", "stopped", "lost")))
    def end_the_run(self, how: str) -> None:
        if how == "lost":
            self.now_s += LEASE_S + GRACE_S + 1
            expired = self.ask(services.list_expired(self.queue, grace_s=GRACE_S)).tasks
            taken = [Recovery(each, Verdict.RETRY, b"t", 1) for each in expired if each.task_id == "t"]
            assert self.ask(services.recover(self.queue, taken, grace_s=GRACE_S)) == "1"
            self.old_runs.append(self.call_of_run)
            self.state, self.until_s = "retry", self.now_s + 1
        elif how == "done":
            self.settle(Outcome.DONE)
            self.forget()
        elif how == "failed":
            self.settle(Outcome.RETRY, delay_ms=1000)
            self.state, self.until_s = "retry", self.now_s + 1
        else:
            self.settle(Outcome.REQUEUE)
            self.state = "pending"

    @rule(seconds=st.sampled_from((0, 1, 5, 60)))
    def let_time_pass(self, seconds: int) -> None:
        if self.state == "active":
            seconds = min(seconds, 1)
        self.now_s += seconds
        self.ask(services.forward(self.queue, owner="f", leader_ms=1000))
        if self.state in ("scheduled", "retry") and self.until_s <= self.now_s:
            self.state = "pending"

    # --- rules of the running task ------------------------------------------------------------------------------------

    @precondition(lambda self: self.state == "active")
    @rule(kind=st.sampled_from("sssk"), name=names)
    def store_a_result(self, kind: str, name: str) -> None:
        """Store the result of a step with a value that it emitted, or the result of sub-tasks."""
        value = b"1 1 %d" % self.next()
        expected = self.record.setdefault(f"{kind}:{name}", value)
        output = None
        if kind == "s":
            self.emits += 1
            self.output.append((self.attempt, value))
            self.record["emitted"] = f"w.{self.call_of_run} {self.emits}".encode()
            output = steps.Output([(name, value)], self.emits, self.attempt)
        for _ in range(2):
            step = steps.store_step(
                self.queue, "t", f"{kind}:{name}", value, owner="w", run=self.call_of_run, output=output
            )
            assert self.ask(step, timed=False) == expected

    @precondition(lambda self: self.state == "active")
    @rule(name=names)
    def count_a_failure(self, name: str) -> None:
        count = b"%d 1" % (self.failures(name) + 1)
        self.record[f"a:{name}"] = count
        for _ in range(2):
            step = steps.store_step(self.queue, "t", f"a:{name}", count, owner="w", run=self.call_of_run)
            assert self.ask(step, timed=False) == count

    def failures(self, name: str) -> int:
        return int(self.record.get(f"a:{name}", b"0").partition(b" ")[0])

    @precondition(lambda self: self.state == "active")
    @rule(name=names)
    def stop_waiting_for_a_signal(self, name: str) -> None:
        number = int(self.record.get(f"n:{name}", 0)) + 1
        self.record |= {f"r:{name}#{number}": b"5 ", f"n:{name}": b"%d" % number}
        for _ in range(2):
            miss = steps.store_step(
                self.queue, "t", f"r:{name}#{number}", b"5 ", owner="w", run=self.call_of_run, missed=name
            )
            assert self.ask(miss, timed=False) == b"5 "

    @precondition(lambda self: self.state == "active")
    @rule(one=names, other=names, number=st.integers(1, 2), has_time=st.booleans())
    def choose_between_signals(self, one: str, other: str, number: int, has_time: bool) -> None:
        """Store which of two signals the task has received, or that it stopped waiting for both."""
        wait = f"o:{one}#{number} | {other}#{number} | #1"
        arrived = [each for each in (f"{one}#{number}", f"{other}#{number}") if f"r:{each}" in self.record]
        choice = b"5 %b" % (arrived[0].encode() if arrived and has_time else b"")
        expected = self.record.get(wait, b"" if arrived and not has_time else choice)
        for _ in range(2):
            step = steps.store_step(self.queue, "t", wait, choice, owner="w", run=self.call_of_run)
            assert self.ask(step, timed=False) == expected
        if expected:
            self.record[wait] = expected

    @precondition(lambda self: self.state == "active")
    @rule(name=names, arrives_first=st.booleans(), ahead=st.integers(0, 1))
    def wait_for_the_first_of_two_signals(self, name: str, arrives_first: bool, ahead: int) -> None:
        if arrives_first:
            self.signal(name, again=False)
        self.wait("o", name, ahead, 5000)
        if not arrives_first:
            for each in NAMES:
                self.signal(each, again=False)

    @precondition(lambda self: self.state == "active")
    @rule(key=questions)
    def ask_a_question(self, key: str) -> None:
        asked, field = b"%d 0 {}" % self.next(), f"q:{key}"
        if field not in self.record:
            number = b"%d" % (int(self.record.get("questions", 0)) + 1)
            self.record |= {field: number + b" " + asked, "questions": number}
        for _ in range(2):
            step = steps.store_step(self.queue, "t", field, asked, owner="w", run=self.call_of_run)
            assert self.ask(step, timed=False) == self.record[field]

    @precondition(lambda self: self.state == "active")
    @rule(key=questions)
    def stop_waiting_for_an_answer(self, key: str) -> None:
        if f"q:{key}" not in self.record:
            return
        expected = self.record.setdefault(f"v:{key}", b"5 ")
        for _ in range(2):
            miss = steps.store_step(self.queue, "t", f"v:{key}", b"5 ", owner="w", run=self.call_of_run)
            assert self.ask(miss, timed=False) == expected

    @precondition(lambda self: self.state == "active")
    @rule(name=names)
    def start_sub_tasks(self, name: str) -> None:
        """Enqueue one sub-task, and once more after a crash."""
        begun = b"1 wf%d" % self.next()
        begun = self.record.setdefault(f"c:{name}", begun)
        store = steps.store_step(self.queue, "t", f"c:{name}", begun, owner="w", run=self.call_of_run)
        assert self.ask(store, timed=False) == begun
        workflow_id = begun.decode().partition(" ")[2]
        child = f"child-{workflow_id}"
        entries: list[tuple[str, str, Any]] = [
            ("", "state", "building"),
            ("", "queue", self.queue.name),
            ("", "prefix", self.queue.prefix),
            ("", "kept_s", 600),
            ("", "open", 1),
            ("", "s0", "w"),
            ("", "p0", 0),
            ("", "m0", f"{child} t - default\nH5:childT0:".encode()),
            ("", "parent", f"{name}\nt"),
        ]
        made = workflows.create_workflow(self.queue, workflow_id, entries, ReceiptSlot(f"c{self.next()}"), roots=[0])
        assert self.ask(made)

    @precondition(lambda self: self.state == "active")
    @rule(
        kind=st.sampled_from("zyrrroccvv"),
        name=names,
        ahead=st.integers(0, 1),
        seconds=st.sampled_from((0, 1, 50, 5000)),
    )
    def wait(self, kind: str, name: str, ahead: int, seconds: int) -> None:
        """Wait for at most this number of seconds; 0 without a limit."""
        number = max(1, int(self.record.get(f"n:{name}", 0)) + ahead)
        retry = f"y:{name}#{self.failures(name)}"
        one, other = f"{name}#{number}", f"{'ok' if name == 'go' else 'go'}#{number}"
        wait = {
            "z": f"z:{name}",
            "y": retry,
            "r": f"r:{one}",
            "o": f"o:{one} | {other} | #1",
            "c": f"c:{name}",
            "v": f"v:{name}#1",
        }[kind]
        if kind == "c" and f"c:{name}" not in self.record:
            return
        until_ms, emitted = 1000 * (self.now_s + seconds) if seconds else 0, self.next()
        attempt, ends, since = self.attempt, b"%d" % until_ms if seconds else b"-", self._since(wait)
        record = f"{emitted} {wait}".encode()
        if self.is_retried:
            end = Settlement("t", Outcome.WAIT, self.call_of_run, b"t", delay_ms=until_ms, record=record)
            assert self.ask(runs.settle(self.queue, [end], owner="w")) == "r"
            self.end_the_run("failed")
            return
        self.settle(Outcome.WAIT, delay_ms=until_ms, record=record)
        self.record.pop("by", None)
        self.record |= {"x": b"%d" % emitted, "try": b"%d w" % attempt}
        self.record |= {"waiting": ends + b" " + wait.encode(), f"u:{wait}": ends + b" " + since}
        self.state, self.until_s = "scheduled", self.now_s + (seconds or DAY_S)
        if "cancel" in self.record and kind != "y":
            self._wake(wait)
        elif kind == "o":
            for each in (one, other):
                if f"r:{each}" in self.record:
                    self._wake(f"r:{each}")
        elif (f"e:{name}" if kind == "c" else wait) in self.record:
            self._wake(wait)

    @precondition(lambda self: self.state == "active")
    @rule(back=st.integers(0, 1))
    def emit(self, back: int) -> None:
        """Send two batches of output, and one of them again, as a repeat or as a late request."""
        value = b"%d" % self.next()
        self.output += [(self.attempt, value)] * 2
        self.emits += 2
        for call in (self.emits - 1, self.emits, self.emits - back):
            batch = steps.Output([("", value)], call, self.attempt)
            emitted = steps.emit(self.queue, "t", batch, owner="w", run=self.call_of_run)
            assert self.ask(emitted) is None
        self.record["emitted"] = f"w.{self.call_of_run} {self.emits}".encode()

    @precondition(lambda self: self.old_runs)
    @rule(pick=st.integers(0, 3), kind=st.sampled_from(("load", "step", "miss", "emit", "wait")))
    def a_request_of_an_earlier_run_arrives(self, pick: int, kind: str) -> None:
        run = self.old_runs[-1 - pick % len(self.old_runs)]
        if kind == "load":
            assert self.ask(steps.load_steps(self.queue, "t", owner="w", run=run)) == Refusal(is_lost=False)
        elif kind == "emit":
            late = steps.emit(self.queue, "t", steps.Output([("", b"late")], 99, 9), owner="w", run=run)
            assert self.ask(late) == Refusal(is_lost=False)
        elif kind == "wait":
            end = Settlement("t", Outcome.WAIT, run, b"t", delay_ms=1, record=b"0 z:late")
            assert self.ask(runs.settle(self.queue, [end], owner="w")) == "0"
        else:
            missed = "go" if kind == "miss" else ""
            late_step = steps.store_step(self.queue, "t", "s:late", b"1 1 1", owner="w", run=run, missed=missed)
            assert self.ask(late_step, timed=False) == Refusal(is_lost=False)

    # --- rules of clients and inspectors ------------------------------------------------------------------------------

    @rule(name=names, again=st.booleans())
    def signal(self, name: str, again: bool) -> None:
        is_repeat = again and bool(self.ids)
        signal_id = self.ids[-1] if is_repeat else f"i{self.next()}"
        value = b"%d" % self.next()
        answer = self.ask(steps.signal(self.queue, "t", name, value, signal_id=signal_id))
        asks = self.record.get("waiting", b"").partition(b" v:")[2].startswith(f"{name}#".encode())
        if asks and not is_repeat:
            assert answer == "asks"
            return
        assert answer == ("ok" if self.state else "missing")
        if not self.state or is_repeat:
            return
        self.ids.append(signal_id)
        number = int(self.record.get(f"n:{name}", 0)) + 1
        self.record |= {f"r:{name}#{number}": b"%d %b" % (self._event_ms(), value), f"n:{name}": b"%d" % number}
        self.record[f"i:{signal_id}"] = b"1"
        for field, more in (("signals", 1), ("signal_bytes", len(value))):
            self.record[field] = b"%d" % (int(self.record.get(field, 0)) + more)
        self._wake(f"r:{name}#{number}")

    @rule(key=questions, ahead=st.sampled_from((0, 0, 1)), again=st.booleans())
    def answer(self, key: str, ahead: int, again: bool) -> None:
        """Answer a question: with its number or another one, as another answer or as a repeat of a request."""
        number = int(self.record.get(f"q:{key}", b"1").partition(b" ")[0]) + ahead
        is_repeat = again and bool(self.ids)
        signal_id = self.ids[-1] if is_repeat else f"i{self.next()}"
        value = steps.encode_answer("ann", b"%d" % self.next(), "")
        outcome = self.ask(steps.signal(self.queue, "t", key, value, question=number, signal_id=signal_id))
        if not self.state or is_repeat:
            assert outcome == ("ok" if self.state else "missing")
        elif ahead or f"q:{key}" not in self.record or f"v:{key}" in self.record or "cancel" in self.record:
            assert outcome == "answered"
        else:
            assert outcome == "ok"
            self.ids.append(signal_id)
            self.record |= {f"v:{key}": b"%d %b" % (self.now_s * 1000, value), f"i:{signal_id}": b"1"}
            for field, more in (("signals", 1), ("signal_bytes", len(value))):
                self.record[field] = b"%d" % (int(self.record.get(field, 0)) + more)
            self._wake(f"v:{key}")

    @precondition(lambda self: self.state == "active")
    @rule(name=names, answers_first=st.booleans())
    def wait_for_an_answer(self, name: str, answers_first: bool) -> None:
        self.ask_a_question(f"{name}#1")
        if answers_first:
            self.answer(f"{name}#1", 0, again=False)
        self.wait("v", name, 0, 5000)
        if not answers_first:
            self.signal(name, again=False)
            self.answer(f"{name}#1", 0, again=False)

    @precondition(lambda self: self.state == "active")
    @rule(name=names, arrives_first=st.booleans())
    def wait_for_a_signal_that_arrives(self, name: str, arrives_first: bool) -> None:
        if arrives_first:
            self.signal(name, again=False)
        self.wait("r", name, 0 if arrives_first else 1, 5000)
        if not arrives_first:
            self.signal(name, again=False)

    @precondition(lambda self: self.state == "active")
    @rule(name=names, ends_first=st.booleans())
    def wait_for_sub_tasks(self, name: str, ends_first: bool) -> None:
        self.start_sub_tasks(name)
        if ends_first:
            self.run_what_is_pending(ends=True)
        self.wait("c", name, 0, 5000)

    @precondition(lambda self: self.state == "active")
    @rule(name=names)
    def reuse_the_id_while_sub_tasks_run(self, name: str) -> None:
        """Enqueue a new task with the same id while the sub-tasks of the earlier task still run."""
        self.start_sub_tasks(name)
        self.run_what_is_pending(ends=False)
        self.end_the_run("done")
        self.enqueue()
        self.run_what_is_pending(ends=False)
        self.start_sub_tasks(name)

    @precondition(lambda self: self.state in ("scheduled", "retry"))
    @rule()
    def run_now(self) -> None:
        assert self.ask(actions.act(self.queue, Action.RUN, ["t"])) == ["ok"]
        self.state = "pending"

    @precondition(lambda self: self.state in ("scheduled", "retry", "pending"))
    @rule(by_client=st.booleans())
    def delete(self, by_client: bool) -> None:
        if by_client:
            assert self.ask(actions.revoke(self.queue, "t"), timed=False) == "ok"
        else:
            assert self.ask(actions.act(self.queue, Action.DELETE, ["t"])) == ["ok"]
        assert not self.client.exists(self.queue.steps_of("t"), self.queue.stream_of("t")) or not self.record
        self.forget()

    @precondition(lambda self: self.state == "active")
    @rule(wish=st.sampled_from((CancelOutcome.ARCHIVE, CancelOutcome.DISCARD, CancelOutcome.RETRY)))
    def cancel(self, wish: CancelOutcome) -> None:
        """Cancel the run. The worker does not get the message, as at the moment before it settles a wait."""
        self.ask(services.ask_cancel(self.queue, "asynq:cancel", "t", wish))
        self.is_retried = wish is CancelOutcome.RETRY
        if not self.is_retried:
            self.record.setdefault("cancel", f"{self.now_s * 1000} {wish.value}".encode())

    @rule(wish=st.sampled_from(("archive", "discard")))
    def cancel_steps(self, wish: str) -> None:
        """Cancel the task, which runs once more if its steps have begun."""
        has_begun = self.state not in ("", "active") and "try" in self.record
        assert self.ask(steps.cancel_steps(self.queue, "t", wish=wish)) is has_begun
        if has_begun:
            self.record.setdefault("cancel", f"{self.now_s * 1000} {wish}".encode())
            if self.state == "scheduled":
                self.record.pop("waiting", None)
            self.state = "pending"

    @rule()
    def flush_scripts(self) -> None:
        self.client.script_flush()

    # --- comparison with the store ------------------------------------------------------------------------------------

    @invariant()
    def the_store_equals_the_model(self) -> None:
        fields = self.client.hgetall(self.queue.task("t"))
        assert fields.get(b"state", b"").decode() == self.state
        assert self.client.lrange(self.queue.pending, 0, -1).count(b"t") == (self.state == "pending")
        for state in ("scheduled", "retry"):
            expected = self.until_s if self.state == state else None
            assert self.client.zscore(self.queue.prefix + state, "t") == expected
        assert self.state != "pending" or self.client.llen(self.queue.wake), "no worker is woken"
        assert compared(self.ask(steps.read_steps(self.queue, "t"), timed=False)) == self.record
        if self.state:
            page = self.ask(steps.read_stream(self.queue, "t"), timed=False)
            assert [(each.gap, each.attempt, each.data) for each in page.values] == [(0, *each) for each in self.output]
        listed = {each.name for each in self.ask(steps.list_questions(self.queue, limit=9), timed=False)}
        asked = {field[2:] for field in self.record if field.startswith("q:")}
        is_open = "cancel" not in self.record
        assert listed == {each for each in asked if is_open and f"v:{each}" not in self.record}


def compared(record: dict[str, bytes]) -> dict[str, bytes]:
    """Return the fields of a record without those that depend on the time: the mark of its task, and a value's id."""
    return {field: value for field, value in record.items() if field not in ("of", "values")}
