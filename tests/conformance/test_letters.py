"""Test that archiving a task and storing its dead-letter note are atomic, and that one caller owns a note at a time."""

from taskq_core.broker.operations import dead_letters as letter_ops
from taskq_core.broker.operations import runs, services
from taskq_core.broker.operations.runs import Settlement
from taskq_core.broker.operations.services import Recovery, Verdict
from tests.conformance.stores import NOW_NS, NOW_S, Broker

MINUTE_NS = 60_000_000_000


def letters(broker: Broker) -> list[tuple[bytes, float]]:
    return broker.raw.zrange(broker.queue.letters, 0, -1, withscores=True)  # type: ignore[no-any-return]


def test_a_settlement_records_a_dead_letter_if_requested(broker: Broker) -> None:
    broker.enqueue("recorded", "quiet", "lost")
    broker.dequeue()
    ends = [
        Settlement("recorded", runs.Outcome.ARCHIVE, 1, b"m", is_dead_letter=True),
        Settlement("quiet", runs.Outcome.ARCHIVE, 1, b"m"),
    ]
    stale = Settlement("lost", runs.Outcome.ARCHIVE, 1, b"m", is_dead_letter=True)

    assert broker.at(NOW_NS, runs.settle(broker.queue, ends, owner="w1")) == "11"
    assert broker.at(NOW_NS, runs.settle(broker.queue, [stale], owner="another")) == "0"

    assert letters(broker) == [(b"recorded", NOW_S)]
    assert broker.raw.zcard(broker.queue.archived) == 2


def test_a_recovery_records_a_dead_letter(broker: Broker) -> None:
    broker.enqueue("recorded", "quiet")
    broker.dequeue(lease_s=1)
    later_ns = NOW_NS + MINUTE_NS
    listed = broker.at(later_ns, services.list_expired(broker.queue, grace_s=1, limit=9)).tasks
    verdicts = [Recovery(task, Verdict.ARCHIVE, b"m", is_dead_letter=task.task_id == "recorded") for task in listed]

    assert broker.at(later_ns, services.recover(broker.queue, verdicts, grace_s=1)) == "11"

    assert letters(broker) == [(b"recorded", NOW_S + 60)]


def test_a_dead_letter_is_handed_to_one_caller_until_its_deadline(broker: Broker) -> None:
    """A note that was taken and not finished is handed out again. A late caller changes nothing."""
    broker.raw.zadd(broker.queue.letters, {"a": NOW_S - 2, "b": NOW_S - 1, "later": NOW_S + 500})

    first = broker.at(NOW_NS, letter_ops.take_dead_letters(broker.queue, claim_s=60, limit=9))
    none = broker.at(NOW_NS, letter_ops.take_dead_letters(broker.queue, claim_s=60, limit=9))
    second = broker.at(NOW_NS + 2 * MINUTE_NS, letter_ops.take_dead_letters(broker.queue, claim_s=60, limit=1))

    assert (first.task_ids, none.task_ids, second.task_ids) == (["a", "b"], [], ["a"])
    assert not broker.at(NOW_NS, letter_ops.end_dead_letter(broker.queue, "a", until_s=first.until_s))
    assert broker.at(NOW_NS, letter_ops.end_dead_letter(broker.queue, "a", until_s=second.until_s))
    assert broker.at(NOW_NS, letter_ops.end_dead_letter(broker.queue, "b", until_s=first.until_s, again_in_s=30))
    assert not broker.at(NOW_NS, letter_ops.end_dead_letter(broker.queue, "gone", until_s="1"))
    assert letters(broker) == [(b"b", NOW_S + 30), (b"later", NOW_S + 500)]


def test_a_task_archived_again_has_a_new_dead_letter(broker: Broker) -> None:
    """Finishing the first note does not delete the second one."""
    broker.raw.zadd(broker.queue.letters, {"a": NOW_S})
    taken = broker.at(NOW_NS, letter_ops.take_dead_letters(broker.queue, claim_s=60, limit=9))
    broker.enqueue("a")
    broker.dequeue()
    ends = [Settlement("a", runs.Outcome.ARCHIVE, 1, b"m", is_dead_letter=True)]
    broker.at(NOW_NS + 1_000_000_000, runs.settle(broker.queue, ends, owner="w1"))

    assert not broker.at(NOW_NS, letter_ops.end_dead_letter(broker.queue, "a", until_s=taken.until_s))

    assert letters(broker) == [(b"a", NOW_S + 1)]
