"""Test the scripts of durable tasks: signals, ends of sub-tasks, late requests and deletions at any time."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from taskq_core.broker.operations import actions, runs, services, steps, workflows
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.new_tasks import ReceiptSlot
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import CancelOutcome, Recovery, Verdict
from taskq_core.broker.operations.steps import LoadedSteps, Refusal
from taskq_core.settings import ArchiveLimits
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

DAY_S = 86_400
KEPT_S = 90 * DAY_S
LATER_S = NOW_S + 7 * DAY_S


class Life:
    """One durable task `t`, driven by hand."""

    def __init__(self, broker: Broker, **options: Any) -> None:
        self.broker, self.queue, self.raw = broker, broker.queue, broker.raw
        self.now_ns = NOW_NS
        self.calls = 0
        broker.enqueue("t", **options)

    def run(self, operation: Operation[Any]) -> Any:
        return self.broker.run(operation)

    def start(self) -> None:
        """Let the worker take the next task, and read the record of its steps."""
        self.calls += 1
        assert self.broker.dequeue(call=self.calls, limit=1, now_ns=self.now_ns) == ["t"]

    def load(self, run: int | None = None) -> Any:
        return self.run(at_time(self.now_ns, steps.load_steps(self.queue, "t", owner="w1", run=run or self.calls)))

    def begin(self) -> dict[str, bytes]:
        self.start()
        loaded = self.load()
        assert isinstance(loaded, LoadedSteps)
        return loaded.record

    def store(self, field: str, value: bytes, *, run: int | None = None, **more: Any) -> Any:
        return self.run(steps.store_step(self.queue, "t", field, value, owner="w1", run=run or self.calls, **more))

    def wait(self, what: str, until_s: int = LATER_S, *, run: int | None = None, emitted: int = 0) -> str:
        end = Settlement(
            "t", Outcome.WAIT, run or self.calls, b"t", delay_ms=until_s * 1000, record=f"{emitted} {what}".encode()
        )
        return str(self.run(at_time(self.now_ns, runs.settle(self.queue, [end], owner="w1"))))

    def signal(self, name: str = "go", value: bytes = b"1", signal_id: str = "s1") -> str:
        sent = steps.signal(self.queue, "t", name, value, signal_id=signal_id)
        return str(self.run(at_time(self.now_ns, sent)))

    def answer(self, name: str, number: int, value: bytes = b'["",1,""]', signal_id: str = "s1") -> str:
        sent = steps.signal(self.queue, "t", name, value, question=number, signal_id=signal_id)
        return str(self.run(at_time(self.now_ns, sent)))

    def emit(self, call: int, *values: bytes) -> Any:
        emitted = [("", each) for each in values]
        operation = steps.emit(self.queue, "t", steps.Output(emitted, call, 1), owner="w1", run=self.calls)
        return self.run(at_time(self.now_ns, operation))

    def emitted(self) -> list[bytes]:
        return [each.data for each in self.run(steps.read_stream(self.queue, "t")).values]

    @property
    def record(self) -> dict[str, bytes]:
        return dict(self.run(steps.read_steps(self.queue, "t")))

    @property
    def state(self) -> str:
        return self.broker.fields("t")["state"].decode()

    def forward(self) -> None:
        self.now_ns = LATER_S * 10**9
        self.run(at_time(self.now_ns, services.forward(self.queue, owner="w1", leader_ms=1000)))

    def start_children(self, workflow_id: str) -> None:
        """Store a workflow of one sub-task, `child`, that `t` waits for under the name `call`."""
        self.store("c:call", f"1 {workflow_id}".encode())
        entries: Sequence[tuple[str, str, Any]] = [
            ("", "state", "building"),
            ("", "queue", self.queue.name),
            ("", "prefix", self.queue.prefix),
            ("", "kept_s", 600),
            ("", "open", 1),
            ("", "s0", "w"),
            ("", "p0", 0),
            ("", "m0", b"child t - default\nH5:childT0:"),
            ("", "parent", "call\nt"),
        ]
        made = workflows.create_workflow(self.queue, workflow_id, entries, ReceiptSlot("c"), roots=[0])
        assert self.run(at_time(self.now_ns, made))

    def end_child(self) -> None:
        self.calls += 1
        taken = self.broker.dequeue("w2", call=self.calls, now_ns=self.now_ns)
        assert "child" in taken, taken
        end = Settlement("child", Outcome.DONE, self.calls, b"child")
        assert self.run(at_time(self.now_ns, runs.settle(self.queue, [end], owner="w2"))) == "1"


@pytest.fixture
def life(broker: Broker) -> Life:
    return Life(broker)


# --- waits and what ends them -----------------------------------------------------------------------------------------


@rows("signalled_first", [True, False])
@rows("wait", ["r:go#1", "o:go#1 | ok#1 | #1", "o:ok#2 | go#1 | #3"])
def test_a_signal_may_arrive_before_or_after_the_wait(broker: Broker, wait: str, signalled_first: bool) -> None:
    life = Life(broker)
    life.begin()
    life.raw.delete(life.queue.wake)
    todo: list[Callable[[], object]] = [lambda: life.wait(wait), life.signal]

    for each in reversed(todo) if signalled_first else todo:
        assert each() in ("1", "ok")

    assert (life.state, life.broker.pending()) == ("pending", ["t"])
    assert life.raw.zcard(life.queue.scheduled) == 0
    assert life.raw.llen(life.queue.wake) == 1, "a waiting worker is woken"
    record = life.begin()
    assert record["r:go#1"].endswith(b" 1")
    assert record["by"] == b"r:go#1", "the run links to the sender"
    assert "waiting" not in record


def test_a_signal_that_arrives_before_the_timeout_of_several_is_stored_wins(life: Life) -> None:
    several = "o:ok#1 | go#1 | #1"
    life.begin()
    life.wait(several)
    life.forward()
    life.begin()
    life.signal()
    assert life.store(several, b"5 ") == b""
    assert several not in life.record
    life.wait(several, 1)
    assert life.state == "pending"
    life.begin()
    for choice in (b"6 go#1", b"7 "):
        assert life.store(several, choice) == b"6 go#1"


def test_a_repeated_signal_counts_once(life: Life) -> None:
    assert [life.signal(), life.signal(), life.signal(signal_id="s2")] == ["ok"] * 3

    record = life.begin()

    assert [field for field in record if field.startswith("r:")] == ["r:go#1", "r:go#2"]


@rows("state", ["pending", "retry", "archived", "completed", "missing", "active"])
def test_a_signal_to_a_task_in_another_state_is_stored(broker: Broker, state: str) -> None:
    """It changes no state, and the next run gets it."""
    life = Life(broker)
    outcomes = {"retry": Outcome.RETRY, "archived": Outcome.ARCHIVE, "completed": Outcome.COMPLETE}
    if state not in ("pending",):
        life.start()
    if state in outcomes:
        life.broker.settle(outcomes[state], "t", seconds=60)
    elif state == "missing":
        life.broker.settle(Outcome.DONE, "t")
    before = life.broker.dump()

    answer = life.signal()

    assert answer == ("ok" if state in ("pending", "retry", "active") else state)
    if answer == "ok":
        assert (life.state, life.record["n:go"]) == (state, b"1")
    else:
        assert life.broker.dump() == before


def test_the_number_of_stored_signals_is_limited(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SIGNALS_MAX", 2)
    monkeypatch.setattr(steps, "SIGNALS_BYTES", 10)

    assert life.signal(value=b"x" * 10, signal_id="a") == "ok"
    before = life.broker.dump()
    assert life.signal(signal_id="b") == "full"
    assert life.broker.dump() == before
    assert life.signal(value=b"x" * 10, signal_id="a") == "ok", "a repeat"


def test_a_signalled_task_waits_for_its_limit(broker: Broker) -> None:
    life = Life(broker, limit="c 1 1 x:")
    life.begin()
    life.wait("r:go#1")
    broker.enqueue("other", limit="c 1 1 x:")
    assert broker.dequeue("w2", call=1) == ["other"]
    life.signal()
    life.calls += 1
    assert broker.dequeue(call=life.calls) == []
    assert life.state == "scheduled", "it waits in the line now"

    life.signal(signal_id="s2")
    assert life.state == "scheduled"
    broker.settle(Outcome.DONE, "other", owner="w2")

    assert life.begin()["n:go"] == b"2"


@pytest.mark.parametrize("way", ["signal", "time"])
def test_a_run_after_a_wait_takes_no_tokens_of_the_rate_but_another_attempt_does(broker: Broker, way: str) -> None:
    life = Life(broker, limit="r b/1/2592000000/2 1 x:")
    life.begin()
    life.wait("r:go#1")
    broker.enqueue("other", limit="r b/1/2592000000/2 1 x:")
    assert broker.dequeue("w2", call=1) == ["other"], "the last token"
    broker.enqueue("third", limit="r b/1/2592000000/2 1 x:")
    assert broker.fields("third")["state"] == b"scheduled"
    if way == "signal":
        life.signal()
    else:
        life.forward()
    life.begin()
    retry = Settlement("t", Outcome.RETRY, life.calls, b"t", delay_ms=1000)
    life.run(at_time(life.now_ns, runs.settle(life.queue, [retry], owner="w1")))
    life.now_ns += 5 * 10**9
    life.run(at_time(life.now_ns, services.forward(life.queue, owner="w1", leader_ms=1000)))
    assert life.state == "scheduled", "the next attempt waits for a token"
    assert "taskq_paid" not in broker.fields("t")


def test_a_waiting_task_releases_its_permit(broker: Broker) -> None:
    life = Life(broker, limit="c 1 1 x:")
    broker.enqueue("other", limit="c 1 1 x:")
    life.begin()
    life.wait("z:sleep")

    assert broker.dequeue("w2", call=1) == ["other"]


def test_a_resumed_task_keeps_its_priority(broker: Broker) -> None:
    life = Life(broker)
    life.raw.hset(life.queue.task("t"), "taskq_priority", "5:5")
    life.begin()
    life.wait("r:go#1")
    broker.enqueue("a", "b")

    life.signal()

    assert broker.pending()[0] == "t"


def test_a_wait_ends_at_its_time_or_when_a_user_runs_the_task(life: Life) -> None:
    life.begin()
    life.wait("z:sleep")
    life.forward()
    assert life.begin()["u:z:sleep"] == b"%d %d" % (LATER_S * 1000, NOW_NS // 10**6)

    life.wait("r:go#1", LATER_S + 100)
    assert life.run(at_time(life.now_ns, actions.act(life.queue, Action.RUN, ["t"]))) == ["ok"]
    ended = b"%d %d" % (LATER_S * 1000, LATER_S * 1000)
    assert life.begin()["u:r:go#1"] == ended, "the wait is over"


def test_a_signal_that_arrives_before_the_timeout_is_stored_wins(life: Life) -> None:
    life.begin()
    life.signal()

    assert life.store("r:go#1", b"5 ", missed="go").endswith(b" 1")
    assert life.record["n:go"] == b"1"


@rows("wish", [CancelOutcome.ARCHIVE, CancelOutcome.DISCARD])
def test_a_task_that_was_cancelled_while_it_ran_does_not_wait(broker: Broker, wish: CancelOutcome) -> None:
    life = Life(broker)
    life.begin()
    assert life.run(services.ask_cancel(life.queue, "asynq:cancel", "t", wish))[0] is not None
    assert life.run(services.read_cancel(life.queue, "t")) is CancelOutcome.STEPS

    assert life.wait("r:go#1") == "1"

    assert life.state == "pending"
    assert life.begin()["cancel"].endswith(b" " + wish.value.encode())
    assert life.wait("y:mail#1") == "1"
    assert life.state == "scheduled", "a step of the compensation waits for its next attempt"


@rows("state", ["scheduled", "retry", "pending"])
def test_a_cancelled_task_whose_steps_have_begun_runs_once_more(broker: Broker, state: str) -> None:
    life = Life(broker)
    assert life.run(steps.cancel_steps(life.queue, "t", wish="archive")) is False, "it has not begun"
    life.signal("other")
    assert life.run(steps.cancel_steps(life.queue, "t", wish="archive")) is False, "it only has a signal"
    life.begin()
    assert life.run(steps.cancel_steps(life.queue, "t", wish="archive")) is False, "it runs"
    if state == "scheduled":
        life.wait("z:nap")
    else:
        again = Settlement("t", Outcome.RETRY if state == "retry" else Outcome.REQUEUE, life.calls, b"t", delay_ms=9000)
        assert life.run(at_time(life.now_ns, runs.settle(life.queue, [again], owner="w1"))) == "1"
    life.raw.delete(life.queue.wake)

    for wish in ("discard", "archive"):
        assert life.run(at_time(life.now_ns, steps.cancel_steps(life.queue, "t", wish=wish))) is True
        assert life.run(steps.cancel_steps(life.queue, "t", wish=wish, generation="5")) is False, "a later task"

    assert (life.state, life.broker.pending()) == ("pending", ["t"])
    assert life.raw.llen(life.queue.wake) == (state != "pending"), "a worker is woken"
    record = life.begin()
    assert record["cancel"] == b"%d discard" % (NOW_NS // 10**6), "the first request decides"
    if state == "scheduled":
        assert record["u:z:nap"].startswith(b"%d " % (LATER_S * 1000)), "the sleep is not over"
    assert life.broker.settle(Outcome.ARCHIVE, "t", owner="w1") == "1"
    assert life.run(steps.cancel_steps(life.queue, "t", wish="archive")) is False, "it has ended"


def test_what_happens_after_a_cancellation_is_stored_with_a_later_time(life: Life) -> None:
    life.begin()
    life.start_children("wf1")
    life.wait("c:call")
    assert life.run(at_time(life.now_ns, steps.cancel_steps(life.queue, "t", wish="archive"))) is True
    life.signal("late")
    life.end_child()
    life.now_ns -= 5 * 10**9  # Redis's clock goes back
    life.signal("later", signal_id="s2")

    later_ms = b"%d" % (NOW_NS // 10**6 + 1)
    assert [life.record[field].partition(b" ")[0] for field in ("r:late#1", "e:call", "r:later#1")] == [later_ms] * 3


def test_a_question_of_a_cancelled_task_is_closed(life: Life) -> None:
    life.begin()
    life.store("q:pay#1", b"1 0 {}")
    life.wait("v:pay#1")
    assert len(life.run(steps.list_questions(life.queue, limit=9))) == 1
    assert life.run(steps.cancel_steps(life.queue, "t", wish="archive")) is True

    assert life.run(steps.list_questions(life.queue, limit=9)) == []
    assert life.answer("pay#1", 1) == "answered"


def test_a_pending_retry_takes_precedence_over_a_wait(broker: Broker) -> None:
    life = Life(broker)
    life.begin()
    assert life.run(services.ask_cancel(life.queue, "asynq:cancel", "t", CancelOutcome.RETRY))[0] is not None

    assert [services.SETTLE_CANCELS[life.wait("r:go#1")] for _ in range(2)] == [CancelOutcome.RETRY] * 2

    assert (life.state, life.raw.zcard(life.queue.scheduled)) == ("active", 0)
    assert "waiting" not in life.record
    assert life.broker.settle(Outcome.ARCHIVE, "t", owner="w1") == "1"
    assert life.state == "archived"


@rows("ended_first", [True, False])
def test_sub_tasks_may_end_before_or_after_the_wait(broker: Broker, ended_first: bool) -> None:
    life = Life(broker)
    life.begin()
    first = life.calls
    life.start_children("wf1")
    if ended_first:
        life.end_child()
    assert life.wait("c:call", run=first) == "1"
    if not ended_first:
        assert life.state == "scheduled"
        life.end_child()

    assert life.state == "pending"
    assert "e:call" in life.begin()


@rows("lost", ["workflow", "call", "call of ended sub-tasks"])
def test_a_task_does_not_wait_for_sub_tasks_that_a_failover_has_lost(broker: Broker, lost: str) -> None:
    """The new primary gets only the wait. The next run begins the call again."""
    life = Life(broker)
    life.begin()
    first = life.calls
    if lost == "workflow":
        life.store("c:call", b"1 wf1")
    else:
        life.start_children("wf1")
        life.raw.hdel(life.queue.steps_of("t"), "c:call")
    if lost == "call of ended sub-tasks":
        life.end_child()

    assert life.wait("c:call", run=first) == "1"
    assert life.state == "pending"

    if lost == "call of ended sub-tasks":
        life.begin()
        life.store("c:call", b"1 wf1")
        assert life.wait("c:call") == "1"
        assert life.state == "pending"
        assert "e:call" in life.begin()


def test_the_end_of_sub_tasks_does_not_reach_a_later_task_with_the_same_id(life: Life) -> None:
    life.begin()
    life.start_children("wf1")
    life.broker.settle(Outcome.DONE, "t", owner="w1")
    life.broker.runs["t"] = 1
    assert life.broker.enqueue("t") == "1"
    life.calls += 1
    assert set(life.broker.dequeue(call=life.calls)) == {"t", "child"}
    life.load()
    life.store("c:call", b"1 wf2")

    end = Settlement("child", Outcome.DONE, life.calls, b"child")
    assert life.run(at_time(NOW_NS, runs.settle(life.queue, [end], owner="w1"))) == "1"

    assert "e:call" not in life.record


# --- the record -------------------------------------------------------------------------------------------------------


def test_a_stored_step_is_never_replaced(life: Life) -> None:
    life.begin()

    assert life.store("s:a", b"1 1 1") == b"1 1 1"
    assert life.store("s:a", b"2 2 2") == b"1 1 1"


@rows("moment", ["waiting", "recovered", "next run", "ended"])
def test_a_late_request_of_an_earlier_run_changes_nothing(broker: Broker, moment: str) -> None:
    life = Life(broker)
    life.begin()
    life.emit(1, b"1")
    if moment == "recovered":
        life.now_ns = (NOW_S + 100) * 10**9
        expired = life.run(at_time(life.now_ns, services.list_expired(life.queue, grace_s=30))).tasks
        taken = [Recovery(expired[0], Verdict.RETRY, b"t", 1)]
        assert life.run(at_time(life.now_ns, services.recover(life.queue, taken, grace_s=30))) == "1"
    elif moment == "ended":
        life.broker.settle(Outcome.COMPLETE, "t", seconds=60)
    else:
        life.wait("r:go#1")
    if moment == "next run":
        life.signal()
        life.begin()
    before = life.broker.dump()

    assert life.load(run=1) == Refusal(is_lost=False)
    assert life.store("s:late", b"1 1 1", run=1) == Refusal(is_lost=False)
    assert life.store("r:go#9", b"1 ", run=1, missed="go") == Refusal(is_lost=False)
    output = steps.Output([("", b"2")], 2, 1)
    late = steps.emit(life.queue, "t", output, owner="w1", run=1)
    assert life.run(at_time(life.now_ns, late)) == Refusal(is_lost=False)
    for field in ("s:late", steps.POSITION):
        assert life.store(field, b"1 1 1", run=1, output=output) == Refusal(is_lost=False)
    assert life.wait("z:late", run=1) == "0"
    assert life.broker.dump() == before


def test_a_repeated_and_a_late_batch_of_values_are_appended_once(life: Life) -> None:
    life.begin()

    for call, values in ((1, (b"1", b"2")), (1, (b"1", b"2")), (2, (b"3",)), (1, (b"1", b"2"))):
        assert life.emit(call, *values) is None

    assert life.emitted() == [b"1", b"2", b"3"]


def test_the_output_of_a_step_is_stored_with_its_result_once(life: Life) -> None:
    life.begin()
    output = steps.Output([("a", b"2"), ("a", b"3")], 2, 1)
    life.emit(1, b"1")

    for _ in range(2):
        assert life.store("s:a", b"1 1 1", output=output) == b"1 1 1"
    life.emit(1, b"1")
    life.emit(3, b"4")

    assert life.emitted() == [b"1", b"2", b"3", b"4"]


def test_a_position_is_replaced_but_not_by_a_late_request(life: Life) -> None:
    life.begin()
    for call, value in ((2, b"1 1 [2]"), (3, b"1 1 [3]"), (3, b"1 1 [3]"), (2, b"1 1 [2]")):
        output = steps.Output([("", b"%d" % call)], call, 1)
        assert life.store(steps.POSITION, value, output=output) == b""

    assert life.record[steps.POSITION] == b"1 1 [3]"
    assert life.emitted() == [b"2", b"3"]


@rows(
    "outcome", [Outcome.RETRY, Outcome.RETRY_UNCOUNTED, Outcome.ARCHIVE, Outcome.REQUEUE, Outcome.COMPLETE, "recover"]
)
def test_a_position_is_kept_until_its_task_has_succeeded(broker: Broker, outcome: Outcome | str) -> None:
    life = Life(broker)
    life.begin()
    life.store(steps.POSITION, b"1 1 [1]", output=steps.Output([], 1, 1))
    if outcome == "recover":
        life.now_ns = (NOW_S + 100) * 10**9
        expired = life.run(at_time(life.now_ns, services.list_expired(life.queue, grace_s=30))).tasks
        taken = [Recovery(expired[0], Verdict.RETRY, b"t", 1)]
        assert life.run(at_time(life.now_ns, services.recover(life.queue, taken, grace_s=30))) == "1"
    else:
        life.broker.settle(outcome, "t", seconds=60)

    assert life.record.get(steps.POSITION) == (None if outcome is Outcome.COMPLETE else b"1 1 [1]")
    assert life.run(steps.forget_step(life.queue, "t", "iterate")) is (outcome is not Outcome.COMPLETE)
    assert steps.POSITION not in life.record


def test_a_late_signal_is_refused_by_its_deadline(life: Life) -> None:
    sent = at_time(life.now_ns, steps.signal(life.queue, "t", "go", b"1", signal_id="s1"))
    sent.args = [*sent.args[:-3], NOW_NS // 10**6 - 1, 0, 0]
    before = life.broker.dump()

    with pytest.raises(Exception, match="whose deadline by its clock has passed"):
        life.run(sent)

    assert life.broker.dump() == before


def test_an_answer_reaches_its_question_before_or_after_the_wait_and_only_once(life: Life) -> None:
    life.begin()
    asked = b"%d 0 {}" % NOW_S
    assert life.store("q:pay#1", asked) == b"1 " + asked
    assert life.store("q:pay#1", b"0 0 {}") == b"1 " + asked, "a repeat changes nothing"
    assert life.store("q:pay#2", asked) == b"2 " + asked
    listed = life.run(steps.list_questions(life.queue, limit=9))
    assert [(each.task_id, each.name, each.asked, each.ends, each.mark) for each in listed] == [
        ("t", name, number + asked, b"-", life.record["of"].decode())
        for name, number in (("pay#1", b"1 "), ("pay#2", b"2 "))
    ]
    assert life.answer("pay#2", 1) == "answered", "the number of another question"
    assert life.answer("pay#2", 2) == "ok"
    assert life.answer("pay#2", 2, signal_id="other") == "answered"
    assert life.answer("pay#2", 2) == "ok", "a repeat of the request"
    assert [each.name for each in life.run(steps.list_questions(life.queue, limit=9))] == ["pay#1"]
    life.wait("v:pay#1")
    assert life.state == "scheduled"
    assert life.signal("pay", signal_id="s2") == "asks"
    assert life.answer("pay#1", 1, b'["ann",true,"00-trace"]', signal_id="s3") == "ok"
    assert (life.state, life.record["by"]) == ("pending", b"v:pay#1")
    life.start()
    assert life.load().sender == "00-trace"
    assert not life.raw.exists(life.queue.questions)


def test_members_of_deleted_tasks_are_removed_from_the_open_questions(broker: Broker) -> None:
    life = Life(broker)
    for number in range(20):
        life.raw.zadd(life.queue.questions, {f"pay#1\ngone{number}": number})
    life.begin()
    for number in range(40):
        life.store(f"q:pay#{number}", b"%d 0 {}" % (NOW_S + number))
    assert life.raw.zcard(life.queue.questions) < 45
    assert len(life.run(steps.list_questions(life.queue, limit=100))) == 40


def test_runs_after_a_wait_belong_to_the_same_attempt_and_others_to_the_next(life: Life) -> None:
    life.start()
    attempts = [life.load().attempt, life.load().attempt]  # a repeat
    life.wait("r:go#1", emitted=3)
    life.signal()
    record = life.begin()
    attempts.append(life.load().attempt)
    assert record["x"] == b"3"

    life.broker.runs["t"] = life.calls
    life.broker.settle(Outcome.REQUEUE, "t")
    life.start()
    attempts.append(life.load().attempt)

    assert attempts == [1, 1, 1, 2]
    assert "x" not in life.record, "this run repeats all values"


def test_a_later_task_with_the_same_id_finds_nothing(life: Life) -> None:
    life.begin()
    life.store("s:a", b"1 1 1")
    life.emit(1, b"1")
    life.broker.settle(Outcome.DONE, "t")
    assert not life.raw.exists(life.queue.steps_of("t"))
    assert 0 < life.raw.ttl(life.queue.stream_of("t")) <= 60, "readers still get the end of the stream"
    assert life.emitted() == [b"1"]

    life.raw.hset(life.queue.steps_of("t"), "s:a", b"1 1 1")  # as if Go's tools had deleted the task
    life.broker.enqueue("t")
    assert (life.record, life.emitted()) == ({}, [])
    assert life.run(steps.forget_step(life.queue, "t", "a")) is False
    life.start()
    assert life.store("s:b", b"1 1 1") == Refusal(is_lost=True), "its record was not read"
    assert "s:a" not in life.load().record


@rows("damage", ["deleted", "another task", "another type"])
def test_a_lost_record_is_reported_and_stops_no_other_task(broker: Broker, damage: str) -> None:
    life = Life(broker)
    life.begin()
    record = life.queue.steps_of("t")
    life.raw.delete(record)
    if damage == "another task":
        life.raw.hset(record, "of", "1")
    elif damage == "another type":
        life.raw.set(record, "x")
    life.broker.enqueue("n")
    life.broker.dequeue("w1", call=1 + life.calls)
    before = life.broker.dump()

    if damage != "another type":
        assert life.load() == life.store("s:a", b"1 1 1") == Refusal(is_lost=True)
        assert life.signal() == "lost"
        assert life.record == {}
        assert life.broker.dump() == before
    ends = [
        Settlement("t", Outcome.WAIT, 1, b"t", delay_ms=LATER_S * 1000, record=b"0 z:sleep"),
        Settlement("n", Outcome.COMPLETE, 2, b"n", seconds=60),
    ]

    assert life.run(at_time(NOW_NS, runs.settle(life.queue, ends, owner="w1"))) == "11"
    assert (life.state, life.broker.fields("n")["state"]) == ("scheduled", b"completed")


def test_a_record_is_kept_for_longer_than_its_task_waits(life: Life) -> None:
    """Neither a signal nor another start shortens the expiry of the record."""
    year_s = 365 * DAY_S
    life.begin()
    life.wait("z:sleep", NOW_S + year_s)

    life.signal()
    assert life.raw.ttl(life.queue.steps_of("t")) > year_s + KEPT_S - 60
    life.run(at_time(NOW_NS, actions.act(life.queue, Action.WAIT, ["t"], start=f"={NOW_S + 2 * year_s}")))
    assert life.raw.ttl(life.queue.steps_of("t")) > 2 * year_s + KEPT_S - 60
    life.run(at_time(NOW_NS, actions.change_task(life.queue, "t", start=f"={NOW_S + 3 * year_s}")))

    assert life.raw.ttl(life.queue.steps_of("t")) > 3 * year_s + KEPT_S - 60


@rows("way", ["settle", "act", "recover"])
def test_a_record_is_kept_as_long_as_its_archived_task(broker: Broker, way: str) -> None:
    life = Life(broker)
    life.begin()
    life.emit(1, b"1")
    archive = ArchiveLimits(kept_s=DAY_S)
    if way == "settle":
        end = Settlement("t", Outcome.ARCHIVE, life.calls, b"t")
        life.run(at_time(NOW_NS, runs.settle(life.queue, [end], owner="w1", archive=archive)))
    elif way == "act":
        life.wait("z:sleep")
        life.run(at_time(NOW_NS, actions.act(life.queue, Action.ARCHIVE, ["t"], archive=archive)))
    else:
        later_ns = (NOW_S + 100) * 10**9
        expired = life.run(at_time(later_ns, services.list_expired(life.queue, grace_s=30))).tasks
        taken = [Recovery(expired[0], Verdict.ARCHIVE, b"t", 1)]
        life.run(at_time(later_ns, services.recover(life.queue, taken, grace_s=30, archive=archive)))
    keys = (life.queue.steps_of("t"), life.queue.stream_of("t"))

    assert (life.state, [life.raw.ttl(key) for key in keys]) == ("archived", [DAY_S] * 2)
    life.run(at_time(NOW_NS, actions.act(life.queue, Action.RUN, ["t"])))
    assert [life.raw.ttl(key) for key in keys] == [KEPT_S] * 2


def test_a_dequeue_that_drops_a_cancelled_sub_task_deletes_its_record(life: Life) -> None:
    life.begin()
    life.start_children("wf1")
    life.raw.hset(life.queue.steps_of("child"), "of", "1")
    life.raw.hset(f"{life.queue.own_prefix}wf:wf1", "state", "cancelled")

    assert life.broker.dequeue("w2", call=9) == []
    assert not life.raw.exists(life.queue.steps_of("child"), life.queue.task("child"))


@rows("way", ["act", "revoke", "clean", "trim"])
def test_a_record_is_deleted_with_its_task(broker: Broker, way: str) -> None:
    life = Life(broker)
    life.begin()
    life.emit(1, b"1")
    if way in ("act", "revoke"):
        life.wait("z:sleep")
    elif way == "clean":
        life.broker.settle(Outcome.COMPLETE, "t", seconds=60)
    else:
        life.broker.settle(Outcome.ARCHIVE, "t")
    assert life.raw.exists(life.queue.steps_of("t"), life.queue.stream_of("t")) == 2
    ways: dict[str, Callable[[], Operation[Any]]] = {
        "act": lambda: at_time(NOW_NS, actions.act(life.queue, Action.DELETE, ["t"])),
        "revoke": lambda: actions.revoke(life.queue, "t"),
        "clean": lambda: at_time((NOW_S + 60) * 10**9, services.clean(life.queue)),
        "trim": lambda: at_time((NOW_S + KEPT_S) * 10**9, services.clean(life.queue)),
    }

    life.run(ways[way]())

    assert life.raw.exists(life.queue.task("t"), life.queue.steps_of("t"), life.queue.stream_of("t")) == 0


def test_a_task_with_stored_steps_stays_in_its_queue(life: Life) -> None:
    life.signal()
    before = life.broker.dump()

    _, (task,) = life.run(at_time(NOW_NS, actions.copy_out(life.queue, ["t"], token="1", target="other")))

    assert task.answer == "steps"
    assert life.broker.dump() == before


@rows("conflict", ["r", "m"])
def test_an_enqueue_with_the_same_lock_does_not_change_a_task_with_steps(broker: Broker, conflict: str) -> None:
    """Its results belong to its arguments, and its start is the end of its wait."""
    lock = broker.queue.unique("t", b"")
    life = Life(broker, unique_key=lock, unique_s=0, unique_rule="wd")
    life.begin()
    life.wait("r:go#1")
    before = broker.dump()

    code = broker.enqueue("v", unique_key=lock, unique_s=0, unique_rule=f"w{conflict}", start_at_s=NOW_S + 5)

    assert code[0] == "d"
    after = broker.dump()
    assert {key: value for key, value in after.items() if b"rcpt" not in key} == {
        key: value for key, value in before.items() if b"rcpt" not in key
    }


def test_a_started_task_continues_over_maxmemory(one_server: Broker) -> None:
    life = Life(one_server)
    life.begin()
    assert one_server.store.server is not None
    one_server.store.server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        assert life.store("s:a", b"1 1 1", output=steps.Output([("a", b"1")], 1, 1)) == b"1 1 1"
        assert life.emit(2, b"1") is None
        assert life.wait("r:go#1") == "1"
        assert life.signal() == "ok"
        assert life.begin()["s:a"] == b"1 1 1"
        assert life.signal("go", b"2", "s2") == "ok"
        assert life.store("r:go#3", b"1 ", missed="go") == b"1 "
    finally:
        one_server.store.server.command("CONFIG", "SET", "maxmemory", "0")
