"""Compare the changes and replies of taskq's inspector with those of Go Asynq's inspector.

As in `test_states`, each scenario loads the state before, takes our inspector's plan at the scenario's clock and
compares with the state after, byte for byte.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from taskq_core.broker.operations import actions, new_tasks, runs, services, views
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import (
    ConfigurationError,
    QueueNotEmptyError,
    QueueNotFoundError,
    QueueStateError,
    TaskNotFoundError,
    TaskQError,
    TaskStateError,
)
from taskq_core.inspector import bulk, change, presence, reading, removal, schedules, search
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import TaskState, build_message, decode_message, encode_message
from tests.clock import at_time
from tests.conformance.stores import NOW_NS, NOW_S, Broker
from tests.conformance.test_states import by_name, check_expiry, compare, expected, load, of, theirs
from tests.rows import rows

T = TypeVar("T")

_LOCKS_FREED = "the unique locks that the deleted tasks hold are freed, where Go keeps them until they expire"
_HASHES_GO = "what the archive has no room for is deleted whole, where Go leaves the hash behind"
_GROUP_LEFT = (
    "the hash of a task that has left its group does not name it, where Go's forwarder would put it back unlisted"
)
_NOTHING_LEFT = "completed tasks, groups, counters, pause and locks go too, where Go leaves them behind"

DIFFERENCES = {
    "archive_task_trim": _HASHES_GO,
    "archive_all_scheduled_trim": _HASHES_GO,
    "run_task_id-group-1": _GROUP_LEFT,
    "run_task_id-group-3": _GROUP_LEFT,
    "run_all_aggregating": _GROUP_LEFT,
    "archive_task_id-group-1": _GROUP_LEFT,
    "archive_task_id-group-3": _GROUP_LEFT,
    "archive_all_aggregating": _GROUP_LEFT,
    "delete_task_unique_id-group-1": _LOCKS_FREED,
    "delete_all_pending": _LOCKS_FREED,
    "delete_all_aggregating": _LOCKS_FREED,
    "update_payload_id-pending-1": "any task that waits can be changed, where Go changes scheduled ones only",
    "update_payload_id-retry": "any task that waits can be changed, where Go changes scheduled ones only",
    "update_payload_unique": "the unique lock follows the payload, where Go keeps that of the old one",
    "pause_unknown_queue": "refused, where Go pauses a queue that nobody has enqueued to",
    "remove_queue_empty": _NOTHING_LEFT,
    "remove_queue_force_empty": _NOTHING_LEFT,
    "remove_queue_completed_only": _NOTHING_LEFT,
    "remove_queue_group_only": "refused: tasks that wait in a group would be lost, where Go leaves them behind",
    "remove_queue_force_archived": _NOTHING_LEFT,
    "remove_queue_force_retry": _NOTHING_LEFT,
    "remove_queue_force_completed_only": _NOTHING_LEFT,
    "remove_queue_force_group_only": _NOTHING_LEFT,
    "remove_queue_force_all_but_active": _NOTHING_LEFT,
}
"""Where the state afterwards is another one on purpose, and why."""

ANSWERS_DIFFER = {
    "groups_unknown_queue": "raises an error for an unknown queue, where Go finds no groups",
    "pause_unknown_queue": DIFFERENCES["pause_unknown_queue"],
    "remove_queue_group_only": DIFFERENCES["remove_queue_group_only"],
    "update_payload_id-pending-1": DIFFERENCES["update_payload_id-pending-1"],
    "update_payload_id-retry": DIFFERENCES["update_payload_id-retry"],
}
"""Scenarios with an intentionally different result, and the reasons."""

REPLAYED = (
    "run_task",
    "archive_task",
    "delete_task",
    "update_payload",
    "run_all",
    "archive_all",
    "delete_all",
    "pause",
    "unpause",
    "remove_queue",
)
READ = ("list_servers", "list_scheduler_entries", "list_scheduler_events", "queue_history", "queues", "groups")


def run_plan(broker: Broker, plan: RequestPlan[T], now_ns: int) -> T:
    """Take an inspector's plan with another clock than Redis's."""
    try:
        operation = next(plan)
        while True:
            if operation.script is not None and operation.args and operation.args[0] == "":
                operation.args, operation.deadline_at = [str(now_ns), *operation.args[1:]], None
            try:
                answer = now_ns / 1e9 if operation.name == "read_time" else broker.run(operation)
            except TaskQError as error:
                operation = plan.throw(error)
            else:
                operation = plan.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # what the plan returns


def app_of(broker: Broker, archive: ArchiveLimits = ArchiveLimits()) -> Any:  # noqa: B008 - it is immutable
    """Return what request plans need of an application."""
    settings = SimpleNamespace(archive=SimpleNamespace(limits=lambda queue: archive))
    runtime = SimpleNamespace(keys=broker.keys, settings=settings, endpoint=broker.store.endpoint)
    return SimpleNamespace(runtime=runtime)


def plan_of(broker: Broker, scenario: dict[str, Any]) -> RequestPlan[Any]:
    """Return what our inspector does for one of Go's operations."""
    keys, given = broker.keys, scenario["given"]["parameters"]
    queue = given.get("queue", "")
    app = app_of(broker)
    state, group = TaskState(given["state"]) if "state" in given else TaskState.PENDING, given.get("group")
    known: dict[str, Callable[[], RequestPlan[Any]]] = {
        "run_task": lambda: change.run_task(app, queue, given["id"]),
        "archive_task": lambda: change.archive_task(app, queue, given["id"]),
        "delete_task": lambda: change.delete_task(app, queue, given["id"]),
        "update_payload": lambda: change.update_payload(
            keys, queue, given["id"], bytes.fromhex(given["payload"] or "")
        ),
        "run_all": lambda: bulk.run_all(app, queue, state, group=group),
        "archive_all": lambda: bulk.archive_all(app, queue, state, group=group),
        "delete_all": lambda: bulk.delete_all(app, queue, state, group=group),
        "pause": lambda: change.pause(keys, queue),
        "unpause": lambda: change.resume(keys, queue),
        "remove_queue": lambda: removal.remove_queue(keys, queue, force=given["force"], progress=None),
        "queues": lambda: ask(views.list_queues(keys.queues)),
        "groups": lambda: reading.groups(keys, queue),
        "queue_history": lambda: reading.history(keys, queue, given["days"]),
        "list_servers": lambda: presence.servers(keys),
        "list_scheduler_entries": lambda: schedules.scheduler_entries(keys),
        "list_scheduler_events": lambda: schedules.scheduler_events(
            keys, given["entry_id"], page=given["page"], page_size=given["page_size"]
        ),
    }
    return known[scenario["given"]["operation"]]()


def refusal_of(scenario: dict[str, Any]) -> type[TaskQError] | tuple[type[TaskQError], ...] | None:
    """Return the taskq error that corresponds to Go's error."""
    returns = scenario["returns"]
    if returns["error"] is None:
        return None
    kinds = {
        "task_not_found": TaskNotFoundError,
        "queue_not_found": QueueNotFoundError,
        "queue_not_empty": QueueNotEmptyError,
    }
    return kinds.get(returns["error_kind"], (TaskStateError, QueueStateError, QueueNotFoundError, ConfigurationError))


def test_every_listed_name_is_a_scenario() -> None:
    names = {each.id for each in of(*REPLAYED, *READ)}

    assert names >= DIFFERENCES.keys() | ANSWERS_DIFFER.keys()


@rows("scenario", of(*REPLAYED))
def test_inspector_changes_equal_those_of_gos_inspector(one_server: Broker, scenario: dict[str, Any]) -> None:
    began = time.monotonic()
    load(one_server, scenario["before"])
    before = theirs(one_server)
    refusal = refusal_of(scenario)
    answer, refused = None, None

    try:
        answer = run_plan(one_server, plan_of(one_server, scenario), scenario["now_ns"])
    except TaskQError as error:
        refused = error

    wrong = compare(theirs(one_server), expected(scenario["after"]))
    wrong += check_expiry(one_server, scenario["after"], began=began)
    if scenario["name"] in DIFFERENCES:
        assert wrong, "no difference any more: take it off the list"
    else:
        assert not wrong, "\n".join(wrong)
    if refused is not None:
        assert theirs(one_server) == before
    is_gos = (refused is None) if refusal is None else isinstance(refused, refusal)
    assert is_gos != (scenario["name"] in ANSWERS_DIFFER), repr(refused)
    if isinstance(scenario["returns"]["value"], int) and refused is None:
        assert answer == scenario["returns"]["value"]


@rows("scenario", of("remove_queue"))
def test_a_removed_queue_leaves_no_keys(one_server: Broker, scenario: dict[str, Any]) -> None:
    """No key of the queue is left, and the queue is no longer listed."""
    load(one_server, scenario["before"])
    try:
        run_plan(one_server, plan_of(one_server, scenario), scenario["now_ns"])
    except TaskQError:
        return

    assert [key for key in one_server.dump() if b"{default}" in key] == []
    assert one_server.raw.smembers(one_server.keys.queues) == set()


def at(value: dict[str, int]) -> datetime | None:
    return (
        None
        if value["seconds"] < 0
        else datetime.fromtimestamp(value["seconds"], UTC).replace(microsecond=value["nanos"] // 1000)
    )


def described(operation: str, answer: Any) -> Any:
    """What our inspector answers, in the words of the scenario."""
    match operation:
        case "queues":
            return {"set": answer}
        case "groups":
            return {group.name: group.size for group in answer}
        case "queue_history":
            return [(str(each.day), each.processed, each.failed) for each in answer]
        case "list_servers":
            return [
                (each.id, each.host, each.pid, each.started_at, each.status, dict(each.queues), each.strict_priority,
                 each.concurrency, {task.task_id: (task.name, task.queue, task.started_at, task.deadline)
                                    for task in each.running})
                for each in answer
            ]  # fmt: skip
        case "list_scheduler_entries":
            return {
                each.id: (each.spec, each.name, each.payload, each.next_run_at, each.previous_run_at) for each in answer
            }
        case _:
            return [(each.task_id, each.enqueued_at) for each in answer]


def wanted(operation: str, value: Any) -> Any:
    match operation:
        case "queue_history":
            return [(each["date"], each["processed"], each["failed"]) for each in value]
        case "list_servers":
            return [
                (each["id"], each["host"], each["pid"], at(each["started"]), each["status"], each["queues"],
                 each["strict_priority"], each["concurrency"],
                 {task_id: (task["task_type"], task["queue"], at(task["started"]), at(task["deadline"]))
                  for task_id, task in each["workers_by_task_id"].items()})
                for each in value
            ]  # fmt: skip
        case "list_scheduler_entries":
            return {
                each["id"]: (
                    each["spec"],
                    each["task_type"],
                    bytes.fromhex(each["task_payload"] or ""),
                    at(each["next"]),
                    at(each["prev"]),
                )
                for each in value
            }
        case "list_scheduler_events":
            return [(each["task_id"], at(each["enqueue_time"])) for each in value]
        case _:
            return value


@rows("scenario", of(*READ))
def test_inspector_reads_equal_those_of_gos_inspector(one_server: Broker, scenario: dict[str, Any]) -> None:
    load(one_server, scenario["before"])
    operation, returns = scenario["given"]["operation"], scenario["returns"]

    if returns["error"] is not None or scenario["name"] in ANSWERS_DIFFER:
        with pytest.raises((QueueNotFoundError, ConfigurationError)):
            run_plan(one_server, plan_of(one_server, scenario), scenario["now_ns"])
        return
    answer = run_plan(one_server, plan_of(one_server, scenario), scenario["now_ns"])

    assert described(operation, answer) == wanted(operation, returns["value"])
    assert theirs(one_server) == expected(scenario["before"]), "a look changes nothing; Go's prunes what has expired"


def test_options_of_schedule_entries_are_formatted_as_in_go(one_server: Broker) -> None:
    """This covers all options, including the options that Go's parser drops."""
    scenario = by_name("scheduler_entries_list")
    load(one_server, scenario["before"])

    entries = run_plan(one_server, schedules.scheduler_entries(one_server.keys), scenario["now_ns"])

    assert [entry.options for entry in entries] == [
        ('Queue("low")', "MaxRetry(3)"),
        (),
        ('TaskID("x")', 'Group("g")', "Timeout(1m30s)", 'Header(["k","v"])', 'Queue("a)b")'),
    ]


# --- what Go does not have, on every store ----------------------------------------------------------------------------


def store_tasks(broker: Broker, count: int, *, unique: bool = False) -> list[str]:
    """Enqueue tasks with a message that can be read."""
    ids = [f"id-{number:03}" for number in range(count)]
    queue, lane = broker.queue, new_tasks.ReceiptSlot("fill")
    broker.run(new_tasks.register_queue(broker.keys.queues, ("default",)))
    for task_id in ids:
        lock = queue.unique("t", task_id.encode()) if unique else ""
        message = build_message(type="t", id=task_id, queue="default", payload=task_id.encode(), unique_key=lock)
        task = new_tasks.NewTask(task_id, encode_message(message), unique_key=lock, unique_s=600)
        broker.at(NOW_NS, new_tasks.enqueue(queue, [task], lane))
    return ids


@pytest.mark.parametrize("to", ["low", "other"])
def test_tasks_move_between_queues_of_any_slot(broker: Broker, to: str) -> None:
    """On a cluster, the two queues are on different nodes."""
    ids = store_tasks(broker, 5, unique=True)
    target = broker.keys.queue(to)

    moved = run_plan(
        broker,
        bulk.move_all(app_of(broker), "default", TaskState.PENDING, to),
        NOW_NS,
    )

    assert moved == 5
    assert (broker.pending(target), broker.pending()) == (ids, [])
    for task_id in ids:
        message = decode_message(broker.raw.hget(target.task(task_id), "msg"))
        assert (message.queue, message.unique_key) == (to, target.unique("t", task_id.encode()))
        assert broker.raw.get(message.unique_key) == task_id.encode()
    assert [key for key in broker.dump() if b"{default}" in key and b":rcpt:" not in key and b":wake" not in key] == []


def test_a_queue_is_removed_on_any_store(broker: Broker) -> None:
    """On a cluster, the keys are found on the node of the queue's slot."""
    store_tasks(broker, 5, unique=True)
    broker.enqueue("other", queue=broker.keys.queue("low"))

    plan = removal.remove_queue(broker.keys, "default", force=True, progress=None)

    assert run_plan(broker, plan, NOW_NS) == 5
    assert [key for key in broker.dump() if b"{default}" in key] == []
    assert broker.pending(broker.keys.queue("low")) == ["other"]


def test_a_move_is_not_continued_while_its_queue_is_removed(broker: Broker) -> None:
    """Otherwise its task would be deleted and moved at the same time."""
    store_tasks(broker, 1)
    queue = broker.queue
    broker.at(NOW_NS, actions.copy_out(queue, ["id-000"], token="a", target="low"))
    assert broker.run(actions.close_queue(queue, force=True)).is_closed
    before = broker.dump()

    _, (task,) = broker.at(NOW_NS, actions.copy_out(queue, ["id-000"], token="b", target="low"))

    assert task.answer == "lost"
    assert broker.dump() == before
    assert broker.run(actions.discard(queue)) == (1, True)


def test_a_page_cursor_works_after_its_task_was_deleted(broker: Broker) -> None:
    """Tasks with equal times are ordered by the bytes of their ids."""
    names = sorted([b"a", b"b", b"b\x00", b"b\xff", b"ba", b"c", b"\xc3\xa9"])
    broker.raw.zadd(broker.queue.archived, dict.fromkeys(names, NOW_S))

    for index, gone in enumerate(names):
        broker.raw.zrem(broker.queue.archived, gone)
        place = views.ScanPlace(0, str(NOW_S), gone.decode("utf-8", "surrogateescape"))
        scan = broker.run(views.scan_tasks(broker.queue, TaskState.ARCHIVED, place, count=99, ids_only=True))
        broker.raw.zadd(broker.queue.archived, {gone: NOW_S})
        assert [each.encode("utf-8", "surrogateescape") for each in scan.ids] == names[index + 1 :]


@rows("size", [0, 1, 999, 1000, 1001, 2500])
def test_overlapping_pages_return_each_id_of_a_list_once(broker: Broker, size: int) -> None:
    """The next task to run comes first."""
    ids = [f"{number}" for number in range(size)]
    for start in range(0, size, 500):
        broker.raw.lpush(broker.queue.pending, *ids[start : start + 500])

    found = run_plan(broker, search.all_ids(broker.queue, TaskState.PENDING, None), NOW_NS)

    assert found == ids


def test_the_slot_of_a_queue_equals_the_slot_that_redis_computes(broker: Broker) -> None:
    """The nodes of the queue are those of the slot. Without a cluster, the list is empty."""
    is_cluster = broker.store.endpoint.is_cluster
    for name in ("default", "a}b", "x y", "q"):
        broker.run(new_tasks.register_queue(broker.keys.queues, (name,)))
        slot = presence.key_slot(broker.keys, name)
        nodes = run_plan(broker, presence.cluster_nodes(app_of(broker), name), NOW_NS)
        if is_cluster:
            assert slot == broker.raw.keyslot(broker.keys.queue(name).pending)
            node = broker.raw.get_node_from_key(broker.keys.queue(name).pending)
            assert nodes[0] == f"{node.host}:{node.port}"
        else:
            assert nodes == []


def test_the_information_of_the_server_is_read(broker: Broker) -> None:
    info = run_plan(broker, presence.redis_info(broker.keys), NOW_NS)

    assert str(info["redis_version"])[0].isdigit()


def test_every_operation_keeps_the_limits_of_the_archive(broker: Broker) -> None:
    """Settling, recovering, cleaning and the inspector use the same two limits."""
    queue, run, archive = broker.queue, broker.run, ArchiveLimits(max_tasks=2, kept_s=50)
    broker.enqueue("a", "b", "c", "d", "e")
    broker.dequeue()
    end = [runs.Settlement(task_id, runs.Outcome.ARCHIVE, 1, b"m") for task_id in ("a", "b", "c")]
    run(at_time(NOW_NS, runs.settle(queue, end, owner="w1", archive=archive)))
    assert broker.raw.zcard(queue.archived) == 2
    later = NOW_NS + 60 * 10**9
    lost = services.ExpiredTask("d", str(NOW_S + 30), b"d")
    run(
        at_time(
            later,
            services.recover(
                queue, [services.Recovery(lost, services.Verdict.ARCHIVE, b"m")], grace_s=30, archive=archive
            ),
        )
    )

    assert broker.raw.zrange(queue.archived, 0, -1) == [b"d"], "the others were too old"
    assert run(at_time(later + 51 * 10**9, services.clean(queue, archive=archive))) == (0, 1)
    assert broker.fields("d") == {}
