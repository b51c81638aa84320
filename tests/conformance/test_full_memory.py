"""Test that Redis over `maxmemory` refuses new tasks completely and finishes existing ones (R5)."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskq_core.broker.operations import actions, aggregation, new_tasks, outbox, runs, services, views
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.aggregation import GroupCheck
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot, StoreCode
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.operations.services import Recovery, Verdict
from taskq_core.errors import BrokerFullError
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker

LATER = NOW_NS + 60_000_000_000


@pytest.fixture
def full(one_server: Broker) -> Iterator[Broker]:
    """A server that is over its memory limit, with tasks in all states but archived."""
    broker = one_server
    broker.enqueue(*(f"run-{number}" for number in range(8)), "retried", "ended")
    broker.dequeue()
    broker.settle(Outcome.RETRY, "retried", delay_ms=1)
    broker.settle(Outcome.COMPLETE, "ended", seconds=1)
    broker.enqueue("due", start_at_s=NOW_S + 1)
    broker.enqueue("p1", "p2")
    broker.enqueue("m1", "m2", group="g", now_ns=NOW_NS - 100_000_000_000)
    assert broker.store.server is not None
    broker.store.server.command("CONFIG", "SET", "maxmemory", "1")
    yield broker
    broker.store.server.command("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize(
    "tasks",
    [
        [NewTask("n1", b"m"), NewTask("n2", b"m")],
        [NewTask("n1", b"m"), NewTask("n2", b"m", start_at_s=NOW_S + 9)],
        [NewTask("n1", b"m", unique_key="asynq:{default}:unique:t:x", unique_s=9)],
        [NewTask("n1", b"m", group="g")],
    ],
    ids=["plain", "scheduled", "unique", "grouped"],
)
def test_a_full_redis_refuses_an_enqueue_completely(full: Broker, tasks: list[NewTask]) -> None:
    before = full.dump()

    with pytest.raises(BrokerFullError, match=r"is over its memory limit \(maxmemory\) and accepts no new tasks"):
        full.at(NOW_NS, new_tasks.enqueue(full.queue, tasks, ReceiptSlot("t")))

    assert full.dump() == before


def act(action: Action, *ids: str, start: str = "") -> Callable[[Broker], Any]:
    return lambda full: full.at(NOW_NS, actions.act(full.queue, action, ids, start=start))


def write(field: str) -> Callable[[Broker], Any]:
    return lambda full: full.run(runs.write_fields(full.queue, "run-1", {field: b"x" * 100}, owner="w1", run=1))


def settle(outcome: Outcome) -> Callable[[Broker], Any]:
    return lambda full: full.settle(outcome, "run-0", "run-1", "run-2", result=b"r")


ALLOWED: dict[str, tuple[Callable[[Broker], Any], Any]] = {
    **{f"settle as {each.name.lower()}": (settle(each), "111") for each in Outcome},
    "store progress": (write(runs.PROGRESS_FIELD), True),
    "store a result": (write(runs.RESULT_FIELD), True),
    "extend a lease": (
        lambda full: full.at(NOW_NS, runs.extend_leases(full.queue, [("run-1", 1)], owner="w1", lease_s=90)).owned,
        [True],
    ),
    "mark a start": (lambda full: full.run(runs.mark_starts(full.queue, [("run-1", 1)], owner="w1")), [True]),
    "quarantine": (lambda full: full.at(NOW_NS, runs.quarantine(full.queue, "run-1", owner="w1", run=1)), True),
    "forward": (lambda full: full.at(LATER, services.forward(full.queue, owner="w1", leader_ms=1000)).moved, 2),
    "clean": (lambda full: full.at(LATER, services.clean(full.queue)), (1, 0)),
    "lead": (
        lambda full: full.run(services.lead(full.queue.leader("recoverer"), owner="w1", leader_ms=1000)),
        True,
    ),
    "show a worker": (
        lambda full: full.run(services.beat("s:{x}", "w:{x}", ttl_s=9, server_info=b"i", workers={"x": b"i"})),
        None,
    ),
    "list a worker": (lambda full: full.run(services.index_presence("{x}", "s", expiry_s=NOW_S)), 1),
    "revoke": (lambda full: full.run(actions.revoke(full.queue, "p1")), actions.OK),
    "run": (act(Action.RUN, "due"), [actions.OK]),
    "archive": (act(Action.ARCHIVE, "p1"), [actions.OK]),
    "put off": (act(Action.WAIT, "p1", start="+9"), [actions.OK]),
    "delete": (act(Action.DELETE, "p2", "retried"), [actions.OK] * 2),
    "pause": (lambda full: full.at(NOW_NS, actions.pause(full.queue)), True),
    "count": (lambda full: full.run(views.count_tasks(full.queue)).sizes["pending"], 2),
    "read and wait for the end": (
        lambda full: full.run(views.read_task(full.queue, "run-1", publish_end=True)).state,
        "active",
    ),
}
"""Calls that a full Redis carries out, and their answers."""


@pytest.mark.parametrize(("call", "answer"), ALLOWED.values(), ids=ALLOWED)
def test_a_full_redis_finishes_and_frees_what_it_has(full: Broker, call: Callable[[Broker], Any], answer: Any) -> None:
    assert call(full) == answer


def test_a_full_redis_hands_out_tasks(full: Broker) -> None:
    assert full.dequeue("w2", limit=1) == ["p1"]
    assert full.dequeue("w2", limit=1) == ["p1"], "a repeat too"
    assert full.dequeue("w2", limit=1, call=2) == ["p2"]
    assert full.dequeue("w2", limit=1, call=3) == []


def test_a_full_redis_cancels_a_dequeue(full: Broker) -> None:
    """This includes a request that has not arrived yet: the cancellation is stored."""
    assert full.dequeue("w2", limit=0, call=5) == []

    assert full.dequeue("w2", limit=1, call=5) == []
    assert full.dequeue("w2", limit=1, call=6) == ["p1"]


def test_a_full_redis_settles_and_hands_out_tasks_in_one_call(full: Broker) -> None:
    asked = at_time(NOW_NS, runs.dequeue(full.queue, owner="w1", call=2, limit=1, lease_s=30))

    taken = full.run(runs.settle_and_dequeue([(each, 1) for each in [f"run-{number}" for number in range(8)]], asked))

    assert taken is not None
    assert taken.tasks == [("p1", b"p1")]


def test_a_full_redis_combines_groups(full: Broker) -> None:
    """Combining frees memory, because one task replaces two."""
    queue = full.queue
    assert full.at(NOW_NS, aggregation.collect_groups(queue, [GroupCheck("g", "s", 9, 60, max_size=1)], limit=1)) == "1"
    assert full.at(NOW_NS, aggregation.collect_groups(queue, [GroupCheck("g", "s2", 9, 60)], limit=1)) == "1"

    assert full.at(NOW_NS, aggregation.combine(queue, "g", "s", 1, NewTask("one", b"m" * 100))) is StoreCode.STORED
    assert full.at(LATER, aggregation.reclaim(queue, "aggregator", owner="w1", leader_ms=1000)).sets == 1

    assert full.pending() == ["p1", "p2", "one"]
    assert full.raw.zrange(queue.group("g"), 0, -1) == [b"m2"]


def test_a_full_redis_quarantines_unreadable_members(full: Broker) -> None:
    full.at(NOW_NS, aggregation.collect_groups(full.queue, [GroupCheck("g", "s", 9, 60)], limit=1))

    assert full.at(NOW_NS, aggregation.expel(full.queue, "g", "s", ["m1"])) == 1


def test_a_full_redis_recovers_tasks_of_dead_workers(full: Broker) -> None:
    listed = full.at(LATER, services.list_expired(full.queue, grace_s=30)).tasks
    verdicts = [*Verdict][:4]

    moved = full.at(
        LATER,
        services.recover(
            full.queue,
            [Recovery(task, verdict, b"m" * 100) for task, verdict in zip(listed, verdicts, strict=False)],
            grace_s=30,
        ),
    )

    assert moved == "1111"


def test_a_full_redis_removes_a_queue(full: Broker) -> None:
    other = full.keys.queue("other")
    assert full.raw.rename(full.queue.pending, other.pending)

    assert full.run(actions.close_queue(other, force=True)).is_closed
    assert full.run(actions.discard(other))[1] is True
    assert full.run(actions.purge(other, "0", own=True)) is not None
    assert not full.raw.exists(other.pending)


def test_a_full_redis_returns_a_task_that_cannot_be_moved(full: Broker) -> None:
    queue, other = full.queue, full.keys.queue("other")
    _, tasks = full.at(NOW_NS, actions.copy_out(queue, ["due"], token="a", target="other"))
    row = ("a:due", NewTask("due", b"m"))

    with pytest.raises(BrokerFullError):
        full.at(NOW_NS, outbox.deliver(other, [row], ReceiptSlot("a"), claim_ends_ms=LATER // 1_000_000))
    assert full.at(NOW_NS, actions.copy_end(queue, token="a", target="other", copied=[], back=tasks))[1] == 1

    assert full.raw.zscore(queue.scheduled, "due") == NOW_S + 1
    assert not full.raw.exists(other.task("due"))


def test_enqueues_are_accepted_again_when_memory_is_free(full: Broker) -> None:
    lane = ReceiptSlot("t")
    with pytest.raises(BrokerFullError):
        full.at(NOW_NS, new_tasks.enqueue(full.queue, [NewTask("n", b"m")], lane))
    full.raw.config_set("maxmemory", "0")

    assert full.at(NOW_NS, new_tasks.enqueue(full.queue, [NewTask("n", b"m")], lane)) == "1"
