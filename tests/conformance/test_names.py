"""Test unusual names that Go programs may store, and the dates in key names."""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

from taskq_core.broker.operations import actions, new_tasks, outbox, runs, services, views
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import Recovery, Verdict
from taskq_core.wire import Keys, TaskState
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.rows import rows

SECOND = 1_000_000_000

QUEUES = ["a}b", "{x}", "x y", "очередь 🚀", "line\nfeed", "q:1", "%s\\", "q" * 300, "*?[a]"]
IDS = [
    "a}b",
    "{x}",
    " x ",
    "ид 🚀",
    "line\nfeed\r\n",
    "12:3:x",
    "",
    "%d\\%1",
    "x" * 5000,
    "nul\x00byte",
    "bad \udcff\udc80",
    "-1",
]


def live(broker: Broker, queue_name: str, task_id: str) -> None:
    """Lead one task through every state and back out."""
    queue, run = broker.keys.queue(queue_name), broker.run
    code = run(at_time(NOW_NS, new_tasks.enqueue(queue, [NewTask(task_id, b"m", start_in_ms=1)], ReceiptSlot("t"))))
    assert code == "1"
    now_ns = NOW_NS + SECOND
    assert run(at_time(now_ns, services.forward(queue, owner="w1", leader_ms=9000))).moved == 1
    assert broker.pending(queue) == [task_id]
    for _ in range(2):  # the second is a repeat
        taken = run(at_time(now_ns, runs.dequeue(queue, owner="w1", call=1, limit=9, lease_s=30)))
        assert taken.tasks == [(task_id, b"m")]
    assert run(at_time(now_ns, runs.extend_leases(queue, [(task_id, 1)], owner="w1", lease_s=30))).owned == [True]
    assert run(runs.write_fields(queue, task_id, {runs.RESULT_FIELD: b"r"}, owner="w1", run=1)) is True
    late_ns = now_ns + 60 * SECOND
    listed = run(at_time(late_ns, services.list_expired(queue, grace_s=30))).tasks
    assert [task.task_id for task in listed] == [task_id]
    assert run(at_time(late_ns, services.recover(queue, [Recovery(listed[0], Verdict.RETRY, b"m")], grace_s=30))) == "1"
    late_ns += SECOND
    assert run(at_time(late_ns, services.forward(queue, owner="w1", leader_ms=9000))).moved == 1
    assert run(at_time(late_ns, runs.dequeue(queue, owner="w2", call=1, limit=9, lease_s=30))).tasks == [
        (task_id, b"m")
    ]
    end = Settlement(task_id, Outcome.COMPLETE, 1, b"m", seconds=5)
    assert run(at_time(late_ns, runs.settle(queue, [end], owner="w2"))) == "1"
    found = run(views.read_task(queue, task_id))
    assert found is not None
    assert (found.state, found.result) == (TaskState.COMPLETED, b"r")
    assert run(at_time(late_ns + 5 * SECOND, services.clean(queue))) == (1, 0)
    code = run(at_time(NOW_NS, new_tasks.enqueue(queue, [NewTask(task_id, b"\xff")], ReceiptSlot("u"))))
    assert code == "1"
    assert run(at_time(now_ns, runs.dequeue(queue, owner="w3", call=1, limit=9, lease_s=30))).tasks == [
        (task_id, b"\xff")
    ]
    assert run(at_time(now_ns, runs.quarantine(queue, task_id, owner="w3", run=1))) is True
    assert broker.raw.zcard(queue.quarantine) == 1
    left = {key for key in broker.dump() if b"}:t:" in key.replace(queue_name.encode(), b"")}
    assert left == set()


@rows("queue_name", QUEUES, ids=ascii)
def test_a_queue_may_have_any_name(broker: Broker, queue_name: str) -> None:
    live(broker, queue_name, "id-1")


@rows("task_id", IDS, ids=lambda task_id: ascii(task_id)[:20])
def test_a_task_may_have_any_id(broker: Broker, task_id: str) -> None:
    live(broker, "default", task_id)


def test_presence_shows_running_tasks_with_any_id(broker: Broker) -> None:
    workers = dict.fromkeys(IDS, b"info")

    broker.run(services.beat("s:{h}", "w:{h}", ttl_s=9, server_info=b"i", workers=workers))

    assert set(broker.raw.hkeys("w:{h}")) == {task_id.encode("utf-8", "surrogateescape") for task_id in IDS}


def test_a_task_with_any_id_can_be_changed_and_moved(broker: Broker) -> None:
    """The task is moved to a queue with any name and back."""
    queue, run = broker.queue, broker.run
    broker.enqueue(*IDS)
    assert run(at_time(NOW_NS, actions.act(queue, actions.Action.ARCHIVE, IDS))) == [actions.OK] * len(IDS)
    assert run(at_time(NOW_NS, actions.act(queue, actions.Action.RUN, IDS))) == [actions.OK] * len(IDS)
    scan = run(views.scan_tasks(queue, TaskState.PENDING, views.ScanPlace(), count=99))
    assert scan.ids == IDS[::-1]
    name = QUEUES[3]
    _, tasks = run(at_time(NOW_NS, actions.copy_out(queue, IDS, token="a", target=name)))
    target, slot = broker.keys.queue(name), ReceiptSlot("a")
    copies = [(task.receipt, NewTask(task.task_id, b"m")) for task in tasks]

    codes = run(at_time(NOW_NS, outbox.deliver(target, copies, slot, claim_ends_ms=(NOW_S + 9) * 1000)))
    _, ended = run(at_time(NOW_NS, actions.copy_end(queue, token="a", target=name, copied=tasks, back=[])))

    assert codes == "1" * len(IDS)
    assert ended == len(IDS)
    assert broker.pending(target) == IDS
    assert run(at_time(NOW_NS, actions.act(target, actions.Action.DELETE, IDS))) == [actions.OK] * len(IDS)
    assert not broker.raw.exists(target.pending)


@rows("queue_name", QUEUES, ids=ascii)
def test_a_queue_with_any_name_can_be_removed(broker: Broker, queue_name: str) -> None:
    queue = broker.keys.queue(queue_name)
    broker.enqueue("a", "b", queue=queue)
    broker.enqueue("other")

    assert broker.run(actions.close_queue(queue, force=True)).is_closed
    assert broker.run(actions.discard(queue)) == (2, True)
    for own in (False, True):
        cursor: str | None = "0"
        while True:
            assert cursor is not None
            cursor = broker.run(actions.purge(queue, cursor, own=own))
            if cursor == "0":
                break

    tag = f"{{{queue_name}}}:".encode()
    assert [key for key in broker.dump() if tag in key] == []
    assert broker.pending() == ["other"]


def test_two_prefixes_share_no_key(broker: Broker) -> None:
    broker.enqueue("a")
    before = broker.dump()
    other = Keys("other").queue("default")

    broker.at(NOW_NS, new_tasks.enqueue(other, [NewTask("a", b"m")], ReceiptSlot("lane")))
    broker.at(NOW_NS, runs.dequeue(other, owner="w1", call=1, limit=1, lease_s=30))
    broker.at(NOW_NS, runs.settle(other, [Settlement("a", Outcome.DONE, run=1)], owner="w1"))

    after = broker.dump()
    assert {key: after[key] for key in before} == before
    assert all(key.startswith(b"other:") for key in after.keys() - before.keys())


class TestDates:
    """The day in a counter's key is the UTC day, counted in Lua."""

    def test_dates_are_correct_for_every_day_of_four_centuries(self, broker: Broker) -> None:
        text = (files("taskq_core.broker") / "lua" / "_date.lua").read_text(encoding="utf-8")
        script = f"""{text}
            local out = {{}}
            for i, day in ipairs(ARGV) do out[i] = utc_date(tonumber(day) * 86400 + 86399) end
            return out"""
        first, days = datetime(1970, 1, 1, tzinfo=UTC), 400 * 366
        wanted = [(first + timedelta(days=day)).date().isoformat() for day in range(days)]

        found: list[bytes] = []
        for start in range(0, days, 5000):
            numbers = range(start, min(days, start + 5000))
            found += broker.raw.eval(script, 1, "{x}", *numbers)

        assert [each.decode() for each in found] == wanted


def test_without_an_override_the_clock_of_redis_is_used(broker: Broker) -> None:
    broker.run(
        new_tasks.enqueue(broker.queue, [NewTask("a", b"m"), NewTask("b", b"m", start_in_ms=5000)], ReceiptSlot("t"))
    )
    seconds, micros = broker.raw.time()
    now_ns = seconds * SECOND + micros * 1000

    since = int(broker.fields("a")["pending_since"])
    assert 0 <= now_ns - since < 60 * SECOND
    assert since % 1000 == 0
    start_s = broker.raw.zscore(broker.queue.scheduled, "b")
    assert start_s >= since // 1_000_000 / 1000 + 5  # delays are in milliseconds
    assert start_s < since / SECOND + 6.001
    taken = broker.run(runs.dequeue(broker.queue, owner="w1", call=1, limit=1, lease_s=30))
    assert taken.lease_expiry_s == taken.now_ns // SECOND + 30
