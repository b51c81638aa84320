"""Compare the state in Redis after each operation of taskq with that after Go Asynq's operation.

Each scenario loads the state before, runs our operation at the scenario's clock and compares with the state after, byte
for byte. Our own keys (`taskq:`) are left out. The hash of an active task gets the field `taskq_owner` first, as our
dequeue would have written it.
"""

import asyncio
import json
import os
import time
import uuid
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from taskq_core.app import TaskQ
from taskq_core.broker.operations import aggregation, new_tasks, runs, schedules, services, views
from taskq_core.broker.operations.aggregation import GroupCheck
from taskq_core.broker.operations.new_tasks import NewTask, StoreCode
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import Verdict
from taskq_core.client.bulk import BulkResult
from taskq_core.errors import ConfigurationError, DuplicateTaskError, TaskIdConflictError, WireFormatError
from taskq_core.wire import (
    OptionKind,
    TaskMessage,
    TaskState,
    archived_message,
    asynq_pb2,
    build_message,
    completed_message,
    decode_message,
    encode_message,
    parse_option,
    retried_message,
)
from taskq_core.worker import Worker, WorkerConfig
from tests.clock import at_time
from tests.conformance.stores import Broker, read_key
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.worker.conftest import until

SCENARIOS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "states.json").read_text(encoding="utf-8")
)
OWNER = "w1"

_REFUSED_WHOLE = "an id in active without a lease: refused whole, where Go has taken it off the list before it refuses"
_LOCK_NOT_LEAKED = "the lock is taken only when the id is free, where Go keeps a lock nobody holds"
_ONE_COUNTER = "only the counter that is full starts again, where Go starts both"
_LOCK_NAMED = "the hash names the lock of a grouped task, so that it is freed with it, where Go keeps it"
_GROUP_KEPT = "a field of ours names the group, so that our forwarder finds it, where Go runs the task alone"
_GROUP_NAMED = "the group is named again in the set of groups, where Go forgets it"
_TEN_THOUSAND = "10 000 archived tasks are kept, where Go keeps 9 999"

DIFFERENCES = {
    "enqueue_queue_already_registered_by_this_process": "the queue is noted again, where Go trusts what it did before",
    "enqueue_unique_id_conflict": _LOCK_NOT_LEAKED,
    "schedule_unique_id_conflict": _LOCK_NOT_LEAKED,
    "enqueue_unique_ttl_below_one_second": "the clients refuse it; the script holds the lock for a second",
    "group_add_unique": _LOCK_NAMED,
    "group_add_unique_id_conflict": _LOCK_NOT_LEAKED,
    "schedule_with_group": _GROUP_KEPT,
    "aggregation_check_name_without_members": "the name is taken off the set of groups, where Go keeps it",
    "aggregation_delete_unique_members": "the locks that the members hold are freed, where Go keeps them",
    "aggregation_reclaim": _GROUP_NAMED,
    "aggregation_reclaim_group_with_colon": _GROUP_NAMED,
    "aggregation_reclaim_two_sets": _GROUP_NAMED,
    "schedule_in_the_past": "pending at once, where Go waits for the next forwarding",
    "forward_group_from_retry": _GROUP_NAMED,
    "forward_scheduled_group_with_field": _GROUP_NAMED,
    "forward_missing_hash": "dropped, where Go writes a hash without a message",
    "dequeue_missing_hash": "dropped, where Go writes a hash without a message",
    "dequeue_missing_hash_then_next_queue": "dropped, where Go writes a hash without a message",
    "done_lease_missing": _REFUSED_WHOLE,
    "complete_lease_missing": _REFUSED_WHOLE,
    "archive_lease_missing": _REFUSED_WHOLE,
    "retry_lease_missing": _REFUSED_WHOLE,
    "requeue_lease_missing": _REFUSED_WHOLE,
    "done_hash_missing": "nobody owns a task without a hash: left to recovery, which drops it",
    "complete_hash_missing": "nobody owns a task without a hash: left to recovery, where Go writes a new one",
    "complete_already_in_set": "completed with the new time, where Go stops half-way",
    "done_total_near_max": "counts on to the largest int64, where Go starts again a little before",
    "archive_total_at_max": _ONE_COUNTER,
    "retry_total_at_max": _ONE_COUNTER,
    "archive_trim_by_size_9999": _TEN_THOUSAND,
    "archive_trim_by_size_10000": _TEN_THOUSAND,
    "archive_trim_by_size_10005": _TEN_THOUSAND,
    "retry_in_the_past": "due now, where Go writes a time that is over",
    "retry_invalid_utf8_error_text": "the text is cleaned and the task retried, where Go refuses and runs it twice",
    "result_missing_hash": "refused, where Go writes a hash with nothing but the result",
    "scheduler_entries_fraction_ttl": "times to live are whole seconds, where Go sends a fraction that Redis refuses",
    "server_state_fraction_ttl": "times to live are whole seconds, where Go sends a fraction that Redis refuses",
}
"""Where the state afterwards is another one on purpose, and why."""

NOT_REPLAYED = {
    "lease_expired_recover_real": "every time in it is that of a real clock; lease_expired_recover is the same pass",
}


# --- loading and dumping ----------------------------------------------------------------------------------------------


def raw(value: Any) -> bytes:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return str(value).encode()


def load(broker: Broker, dump: list[dict[str, Any]]) -> None:
    for entry in dump:
        key, value = entry["key"], entry["value"]
        match entry["type"]:
            case "string":
                broker.raw.set(key, raw(value))
            case "list":
                broker.raw.rpush(key, *map(raw, value))
            case "set":
                broker.raw.sadd(key, *map(raw, value))
            case "zset":
                broker.raw.zadd(key, {raw(member): score for member, score in value})
            case "hash":
                broker.raw.hset(key, mapping={name: raw(each) for name, each in value.items()})
        if "expire_at_s" in entry:
            broker.raw.expireat(key, entry["expire_at_s"])
        elif entry["ttl_s"] is not None:
            broker.raw.expire(key, entry["ttl_s"])
    own_active_tasks(broker, dump)


def own_active_tasks(broker: Broker, dump: list[dict[str, Any]]) -> None:
    for entry in dump:
        if entry["key"].endswith("}:lease"):
            prefix = entry["key"].removesuffix("lease") + "t:"
            for member, score in entry["value"]:
                if broker.raw.exists(prefix + member):
                    broker.raw.hset(prefix + member, "taskq_owner", f"{OWNER}.1:{score}")


def expected(dump: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for entry in dump:
        value = entry["value"]
        match entry["type"]:
            case "string":
                value = raw(value)
            case "list" | "set":
                value = [raw(each) for each in value]
            case "zset":
                value = [(raw(member), score) for member, score in value]
            case "hash":
                value = {name.encode(): raw(each) for name, each in value.items()}
        found[entry["key"]] = (entry["type"], value)
    return found


def theirs(broker: Broker) -> dict[str, Any]:
    """Return the content of Redis without taskq's own keys and its own task fields."""
    found = {key.decode(): value for key, value in broker.dump().items() if not key.startswith(b"taskq:")}
    for kind, value in found.values():
        if kind == "hash":
            value.pop(b"taskq_attempts", None)
            value.pop(b"taskq_generation", None)
        if kind == "hash" and value.get(b"state") == b"active":
            value.pop(b"taskq_owner", None)
            value.pop(b"taskq_started", None)
    return found


def clock(broker: Broker) -> float:
    """What time it is in the store (Unix s)."""
    now_s, micros = broker.raw.time()
    return float(now_s + micros / 1e6)


def check_expiry(broker: Broker, dump: list[dict[str, Any]], *, began: float) -> list[str]:
    """Keys whose time of expiry is not the one noted, where they were written since a monotonic time."""
    wrong = []
    for entry in dump:
        key = entry["key"]
        if not broker.raw.exists(key):
            continue
        if "expire_at_s" in entry:
            before_s, left_s, after_s = clock(broker), broker.raw.pttl(key) / 1000, clock(broker)
            if not before_s + left_s - 1.5 <= entry["expire_at_s"] <= after_s + left_s + 1.5:
                wrong.append(f"{key} expires at {round(before_s + left_s)}, not {entry['expire_at_s']}")
        elif entry["ttl_s"] is None:
            if broker.raw.ttl(key) != -1:
                wrong.append(f"{key} expires")
        else:
            left_s, passed_s = broker.raw.ttl(key), time.monotonic() - began
            if not entry["ttl_s"] - 2 - passed_s <= left_s <= entry["ttl_s"]:
                wrong.append(f"{key} has {left_s} s left, not {entry['ttl_s']}")
    return wrong


def counted(broker: Broker) -> list[dict[str, Any]]:
    """The short form of a state: sizes by key and the number of hashes."""
    keys = [key for key in broker.raw.scan_iter(count=1000) if not key.startswith(b"taskq:")]
    hashes = [key for key in keys if b"}:t:" in key]
    sizes = []
    for key in sorted(set(keys) - set(hashes)):
        kind, value = read_key(broker.raw, key)
        sizes.append({"key": key.decode(), "type": kind, "size": 1 if kind == "string" else len(value)})
    return [*sizes, {"task_hashes": len(hashes)}]


# --- the operations ---------------------------------------------------------------------------------------------------


def message_of(parameters: dict[str, Any]) -> TaskMessage:
    given = dict(parameters["message"])
    payload = given.pop("payload")
    headers = given.pop("headers")
    return build_message(payload=None if payload is None else bytes.fromhex(payload), headers=headers, **given)


class Replay:
    """Runs our counterpart of one of Go's operations."""

    def __init__(self, broker: Broker, scenario: dict[str, Any]) -> None:
        self.broker = broker
        self.run = broker.run
        self.scenario = scenario
        self.now_ns: int = scenario["now_ns"]
        self.parameters: dict[str, Any] = scenario["given"]["parameters"]
        self.lane = new_tasks.ReceiptSlot("replay")

    def queue(self, name: str | None = None) -> Any:
        return self.broker.keys.queue(name or self.parameters["queue"])

    def __call__(self) -> None:
        getattr(self, self.scenario["given"]["operation"])()

    # Enqueue requests of the client.

    def _enqueue(self, **options: Any) -> None:
        if "error_msg_hex" in self.parameters:
            with pytest.raises(WireFormatError):
                build_message(
                    error_msg=bytes.fromhex(self.parameters["error_msg_hex"]).decode("utf-8", "surrogateescape")
                )
            return
        message = message_of(self.parameters)
        queue = self.queue(message.queue)
        task = NewTask(message.id, encode_message(message), unique_key=message.unique_key, **options)
        self.run(new_tasks.register_queue(self.broker.keys.queues, (message.queue,)))
        code = self.run(at_time(self.now_ns, new_tasks.enqueue(queue, (task,), self.lane)))
        known = {1: "1", 0: "0", -1: "d"}
        assert code == known.get(self.scenario["returns"]["code"], code)

    def enqueue(self) -> None:
        self._enqueue()

    def batch_enqueue(self) -> None:
        by_queue: dict[str, list[NewTask]] = {}
        for item in self.parameters["items"]:
            message, start_ns = message_of(item), item["process_at_ns"]
            start_s = None if start_ns is None else start_ns // 1_000_000_000
            by_queue.setdefault(message.queue, []).append(
                NewTask(message.id, encode_message(message), start_at_s=start_s)
            )
        stored = 0
        for name, tasks in by_queue.items():
            self.run(new_tasks.register_queue(self.broker.keys.queues, (name,)))
            codes = self.run(at_time(self.now_ns, new_tasks.enqueue(self.queue(name), tasks, self.lane)))
            stored += codes.count(StoreCode.STORED)
        assert stored == self.scenario["returns"]["value"]

    def enqueue_unique(self) -> None:
        self._enqueue(unique_s=self.parameters["unique_ttl_ns"] // 1_000_000_000)

    def schedule(self) -> None:
        group = self.parameters["message"]["group_key"]
        self._enqueue(start_at_s=self.parameters["process_at_ns"] // 1_000_000_000, group=group)

    def schedule_unique(self) -> None:
        start_s = self.parameters["process_at_ns"] // 1_000_000_000
        after_start_s = (
            self.parameters["unique_ttl_ns"] + self.now_ns - self.parameters["process_at_ns"]
        ) // 1_000_000_000
        self._enqueue(start_at_s=start_s, unique_s=after_start_s)

    def add_to_group(self) -> None:
        self._enqueue(group=self.parameters["group"])

    def add_to_group_unique(self) -> None:
        unique_s = self.parameters["unique_ttl_ns"] // 1_000_000_000
        self._enqueue(group=self.parameters["group"], unique_s=unique_s)

    # Groups.

    @property
    def set_id(self) -> str:
        observed = self.scenario.get("observed") or {}
        return str(observed.get("set_id") or (self.scenario["returns"]["value"] or {}).get("set_id") or "s")

    def _gather(self) -> str:
        group, given = self.parameters.get("group", "g"), self.parameters
        check = GroupCheck(group, self.set_id, 120, given["grace_s"], given["max_delay_s"], given["max_size"])
        return self.run(at_time(self.now_ns, aggregation.collect_groups(self.queue(), [check], limit=1)))

    def aggregation_check(self) -> None:
        assert self._gather() == str(self.scenario["returns"]["code"])

    def _combine(self, task: NewTask | None) -> None:
        group = self.parameters.get("group", "g")
        members = self.run(aggregation.read_members(self.queue(), group, self.set_id, skip=0))
        assert members
        code = self.run(at_time(self.now_ns, aggregation.combine(self.queue(), group, self.set_id, len(members), task)))
        assert code is StoreCode.STORED

    def aggregation_delete(self) -> None:
        self._combine(None)

    def aggregate(self) -> None:
        assert self._gather() == "1"
        members = self.run(aggregation.read_members(self.queue(), "g", self.set_id, skip=0)) or []
        payload = b",".join(decode_message(message).payload for _, message in members)
        new = self.parameters["new_task"]
        message = build_message(
            payload=payload, type=new["type"], id=new["id"], queue="default", retry=25, timeout=1800
        )
        self._combine(NewTask(new["id"], encode_message(message)))

    def aggregation_reclaim(self) -> None:
        self.run(at_time(self.now_ns, aggregation.reclaim(self.queue(), "aggregator", owner=OWNER, leader_ms=1000)))

    # The worker.

    def dequeue(self) -> None:
        wanted = self.scenario["returns"]["value"]
        for call, name in enumerate(self.parameters["queues"], start=1):
            taken = self.run(
                at_time(self.now_ns, runs.dequeue(self.queue(name), owner=OWNER, call=call, limit=1, lease_s=30))
            )
            if taken.tasks:
                break
        if wanted is None:
            assert not taken.tasks or self.scenario["name"] == "dequeue_undecodable"
        else:
            assert [task_id for task_id, _ in taken.tasks] == [wanted["message"]["id"]]
            assert taken.lease_expiry_s == wanted["lease_expires_ns"] // 1_000_000_000

    def _settle(self, outcome: Outcome, message: bytes = b"", **options: Any) -> None:
        given = message_of(self.parameters)
        end = Settlement(given.id, outcome, 1, message, **options)
        code = self.run(at_time(self.now_ns, runs.settle(self.queue(given.queue), (end,), owner=OWNER)))
        if self.scenario["name"] not in DIFFERENCES:
            assert code == ("1" if self.scenario["returns"]["error"] is None else "0"), "settled or not, as Go"

    def done(self) -> None:
        self._settle(Outcome.DONE, unique_key=message_of(self.parameters).unique_key)

    def mark_as_complete(self) -> None:
        message = message_of(self.parameters)
        changed = completed_message(message, self.now_ns // 1_000_000_000)
        self._settle(Outcome.COMPLETE, changed, seconds=message.retention, unique_key=message.unique_key)

    def archive(self) -> None:
        message = message_of(self.parameters)
        changed = archived_message(message, error=self.parameters["error_msg"], failed_at_s=self.now_ns // 10**9)
        self._settle(Outcome.ARCHIVE, changed)

    def retry(self) -> None:
        message = message_of(self.parameters)
        error = self.parameters.get("error_msg")
        if error is None:
            error = bytes.fromhex(self.parameters["error_msg_hex"]).decode("utf-8", "surrogateescape")
        failure = self.parameters["is_failure"]
        changed = retried_message(message, error=error, failed_at_s=self.now_ns // 10**9, counts=failure)
        # Go cuts the moment to its second; we round up, so the scenario's second is asked for exactly.
        delay_ms = max(0, self.parameters["retry_at_ns"] // 10**9 * 1000 - self.now_ns // 10**6)
        self._settle(Outcome.RETRY if failure else Outcome.RETRY_UNCOUNTED, changed, delay_ms=delay_ms)

    def requeue(self) -> None:
        self._settle(Outcome.REQUEUE)

    def extend_lease(self) -> None:
        self.run(
            at_time(
                self.now_ns,
                runs.extend_leases(
                    self.queue(),
                    [(each, 1) for each in self.parameters["ids"]],
                    owner=OWNER,
                    lease_s=30,
                ),
            )
        )

    def write_result(self) -> None:
        self.run(
            runs.write_fields(
                self.queue(),
                self.parameters["id"],
                {runs.RESULT_FIELD: bytes.fromhex(self.parameters["data"])},
                owner=OWNER,
                run=1,
            )
        )

    # Services.

    def forward(self) -> None:
        for name in self.parameters["queues"]:
            while self.run(at_time(self.now_ns, services.forward(self.queue(name), owner=OWNER, leader_ms=1000))).moved:
                pass

    def _expired(self, name: str) -> list[services.ExpiredTask]:
        grace_s = (self.now_ns - self.parameters.get("cutoff_ns", self.now_ns - 30 * 10**9)) // 10**9
        return self.run(at_time(self.now_ns, services.list_expired(self.queue(name), grace_s=grace_s))).tasks

    def list_lease_expired(self) -> None:
        listed = [task for name in self.parameters["queues"] for task in self._expired(name)]
        wanted = [each["id"] for each in self.scenario["returns"]["value"] or ()]
        if self.scenario["name"] != "lease_expired_list_undecodable":
            assert [task.task_id for task in listed if task.message] == wanted

    def recover(self) -> None:
        for name in self.parameters["queues"]:
            recoveries = [self._verdict(task) for task in self._expired(name)]
            self.run(at_time(self.now_ns, services.recover(self.queue(name), recoveries, grace_s=30)))

    def _verdict(self, task: services.ExpiredTask) -> services.Recovery:
        message = decode_message(task.message)
        error, now_s = self.parameters["error_msg"], self.now_ns // 10**9
        if message.retried >= message.retry:
            return services.Recovery(task, Verdict.ARCHIVE, archived_message(message, error=error, failed_at_s=now_s))
        changed = retried_message(message, error=error, failed_at_s=now_s, counts=True)
        return services.Recovery(task, Verdict.RETRY, changed, self.parameters["retry_delay_s"] * 1000 - 123)

    def delete_expired_completed(self) -> None:
        limit = self.parameters["batch_size"]
        while self.run(at_time(self.now_ns, services.clean(self.queue(), limit=limit)))[0]:
            pass

    # Presence.

    def write_server_state(self) -> None:
        server, keys = self.parameters["server"], self.broker.keys
        names = (server["host"], server["pid"], server["server_id"])
        ttl_s = self.parameters["ttl_ns"] // 10**9
        for index, member in ((keys.servers, keys.server(*names)), (keys.workers, keys.workers_of(*names))):
            self.run(services.index_presence(index, member, expiry_s=self.now_ns // 10**9 + ttl_s))
        workers = {
            each["task_id"]: asynq_pb2.WorkerInfo(**{**each, "task_payload": bytes.fromhex(each["task_payload"] or "")})
            for each in self.parameters["workers"] or ()
        }
        self.run(
            services.beat(
                keys.server(*names),
                keys.workers_of(*names),
                ttl_s=ttl_s,
                server_info=asynq_pb2.ServerInfo(**server).SerializeToString(deterministic=True),
                workers={name: info.SerializeToString(deterministic=True) for name, info in workers.items()},
            )
        )

    def clear_server_state(self) -> None:
        names = [self.parameters[name] for name in ("host", "pid", "server_id")]
        keys = self.broker.keys
        self.run(services.unindex_presence(keys.servers, keys.server(*names)))
        self.run(services.unindex_presence(keys.workers, keys.workers_of(*names)))
        for key in (keys.server(*names), keys.workers_of(*names)):
            self.run(services.clear_presence(key, key))

    # The scheduler.

    def _scheduler(self) -> str:
        host, pid, scheduler_id = self.parameters["scheduler_id"].split(":")
        return self.broker.keys.scheduler(host, int(pid), scheduler_id)

    def write_scheduler_entries(self) -> None:
        key, ttl_s = self._scheduler(), self.parameters["ttl_ns"] // 10**9
        entries = [
            asynq_pb2.SchedulerEntry(**{**each, "task_payload": bytes.fromhex(each["task_payload"] or "")})
            for each in self.parameters["entries"]
        ]
        self.run(services.index_presence(self.broker.keys.schedulers, key, expiry_s=self.now_ns // 10**9 + ttl_s))
        self.run(schedules.announce(key, [each.SerializeToString(deterministic=True) for each in entries], ttl_s=ttl_s))

    def clear_scheduler_entries(self) -> None:
        self.run(services.unindex_presence(self.broker.keys.schedulers, self._scheduler()))
        self.run(schedules.withdraw_entries(self._scheduler()))

    def record_scheduler_event(self) -> None:
        event = self.parameters["event"]
        self.run(
            schedules.record_firing(
                self.broker.keys.scheduler_history(self.parameters["entry_id"]),
                asynq_pb2.SchedulerEnqueueEvent(**event).SerializeToString(deterministic=True),
                at_s=event["enqueue_time"]["seconds"],
            )
        )

    def clear_scheduler_history(self) -> None:
        self.broker.raw.delete(self.broker.keys.scheduler_history(self.parameters["entry_id"]))


REPLAYED = [
    "batch_enqueue",
    "add_to_group",
    "add_to_group_unique",
    "aggregate",
    "aggregation_check",
    "aggregation_delete",
    "aggregation_reclaim",
    "enqueue",
    "enqueue_unique",
    "schedule",
    "schedule_unique",
    "forward",
    "dequeue",
    "done",
    "mark_as_complete",
    "archive",
    "retry",
    "requeue",
    "extend_lease",
    "list_lease_expired",
    "recover",
    "write_result",
    "delete_expired_completed",
    "write_server_state",
    "clear_server_state",
    "write_scheduler_entries",
    "clear_scheduler_entries",
    "record_scheduler_event",
    "clear_scheduler_history",
]
READ = ["aggregation_read", "queue_info", "list_tasks", "get_task", "none"]
INSPECTED = [
    "list_servers",
    "list_scheduler_entries",
    "list_scheduler_events",
    "queue_history",
    "queues",
    "groups",
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
]
"""Operations of Go's inspector, in `test_inspector_states`."""
ELSEWHERE = {
    "cancel": "tests below",
    "client_batch_enqueue": "tests below",
    "client_enqueue": "tests below",
    "process": "test_worker_states",
    "server_heartbeat": "tests below",
    "scheduler_heartbeat": "test_worker_states",
}


def of(*operations: str, counts_only: bool = False) -> list[Any]:
    """The scenarios of some operations, as parameters of a test."""
    return [
        pytest.param(each, id=each["name"])
        for each in SCENARIOS
        if each["given"]["operation"] in operations
        and bool(each.get("counts_only")) == counts_only
        and each["name"] not in NOT_REPLAYED
    ]


def by_name(name: str) -> dict[str, Any]:
    return next(each for each in SCENARIOS if each["name"] == name)


def test_every_scenario_is_covered() -> None:
    """Every operation and scenario must be listed, and no list may name a deleted one."""
    names = {each["name"] for each in SCENARIOS}

    assert {each["given"]["operation"] for each in SCENARIOS} == {*REPLAYED, *READ, *INSPECTED, *ELSEWHERE}
    assert names >= DIFFERENCES.keys() | NOT_REPLAYED.keys() | CLIENT_DIFFERENCES.keys()
    assert len(names) == len(SCENARIOS)


def judge(name: str, wrong: list[str], differences: dict[str, str]) -> None:
    if name in differences:
        assert wrong, "no difference any more: take it off the list"
    else:
        assert not wrong, "\n".join(wrong)


def compare(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [
        f"{key}: {found.get(key)} != {wanted.get(key)}"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]


@rows("scenario", of(*REPLAYED))
def test_an_operation_leaves_the_same_state_as_go(one_server: Broker, scenario: dict[str, Any]) -> None:
    began = time.monotonic()
    load(one_server, scenario["before"])

    Replay(one_server, scenario)()

    wrong = compare(theirs(one_server), expected(scenario["after"]))
    wrong += check_expiry(one_server, scenario["after"], began=began)
    judge(scenario["name"], wrong, DIFFERENCES)


def load_many(broker: Broker, key: str, count: int, state: str) -> None:
    """Put many tasks that wait in a sorted set since 100 s ago."""
    fill = """for i = 1, tonumber(ARGV[1]) do
        local id = string.format('id-%05d', i)
        redis.call('ZADD', KEYS[1], 1999999900, id)
        redis.call('HSET', ARGV[2] .. id, 'msg', 'm', 'state', ARGV[3])
    end"""
    broker.raw.eval(fill, 1, key, count, broker.queue.task_prefix, state)


@rows("scenario", of("archive", counts_only=True))
def test_archiving_keeps_the_set_bounded(one_server: Broker, scenario: dict[str, Any]) -> None:
    """The count of archived tasks after one more is Go's, or at most 10 000."""
    queue = one_server.queue
    sizes = {entry.get("key"): entry.get("size") for entry in scenario["before"]}
    one_server.raw.sadd("asynq:queues", "default")
    load_many(one_server, queue.archived, sizes[queue.archived], "archived")
    one_server.enqueue("id-1")
    one_server.dequeue()

    Replay(one_server, scenario)()

    found = counted(one_server)
    judge(scenario["name"], [] if found == scenario["after"] else [f"{found} != {scenario['after']}"], DIFFERENCES)
    assert one_server.raw.zcard(queue.archived) <= 10_000
    assert one_server.raw.zscore(queue.archived, "id-1")


@pytest.mark.parametrize("scenario", of("forward", counts_only=True))
def test_forwarding_many_takes_several_rounds(one_server: Broker, scenario: dict[str, Any]) -> None:
    one_server.raw.sadd("asynq:queues", "default")
    load_many(one_server, one_server.queue.scheduled, 250, "scheduled")
    assert counted(one_server) == scenario["before"]

    Replay(one_server, scenario)()

    assert counted(one_server) == scenario["after"]


# --- reads ------------------------------------------------------------------------------------------------------------


def described(task: views.StoredTask, now_s: int) -> dict[str, Any]:
    """A task as Go's inspector describes it."""
    message = decode_message(task.message)
    next_s = {TaskState.PENDING: now_s, TaskState.SCHEDULED: task.score, TaskState.RETRY: task.score}
    assert task.state is not None
    return {
        "completed_at_s": message.completed_at or None,
        "deadline_s": message.deadline or None,
        "group": message.group_key,
        "headers": dict(message.headers),
        "id": task.task_id,
        "last_err": message.error_msg,
        "last_failed_at_s": message.last_failed_at or None,
        "max_retry": message.retry,
        "next_process_at_s": next_s.get(task.state),
        "payload": message.payload.hex(),
        "queue": message.queue,
        "result": task.result.hex() or None,
        "retention_s": message.retention,
        "retried": message.retried,
        "state": task.state.value,
        "timeout_s": message.timeout,
        "type": message.type,
    }


def go_describes(value: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name != "is_orphaned"}


@rows("scenario", of("queue_info"))
def test_counts_equal_those_of_go(broker: Broker, scenario: dict[str, Any]) -> None:
    load(broker, scenario["before"])
    queue = broker.keys.queue(scenario["given"]["parameters"]["queue"])

    counts = broker.at(scenario["now_ns"], views.count_tasks(queue))

    wanted = scenario["returns"]["value"] or dict.fromkeys(
        [*TaskState, "failed", "failed_total", "processed", "processed_total", "latency_ns", "size"], 0
    )
    assert {state.value: size for state, size in counts.sizes.items()} == {state: wanted[state] for state in TaskState}
    assert sum(counts.sizes.values()) == wanted["size"]
    assert (counts.processed, counts.failed) == (wanted["processed_total"], wanted["failed_total"])
    assert (counts.processed_today, counts.failed_today) == (wanted["processed"], wanted["failed"])
    assert counts.is_paused == wanted.get("paused", False)
    assert round((counts.latency_s or 0) * 1e9) == wanted["latency_ns"]


@rows("scenario", of("list_tasks", counts_only=True))
def test_a_page_of_tasks_equals_that_of_go(broker: Broker, scenario: dict[str, Any]) -> None:
    parameters = scenario["given"]["parameters"]
    state = TaskState(parameters["state"])
    load(broker, by_name("list_setup")["before"])
    size = parameters["page_size"]

    group = "g" if state is TaskState.AGGREGATING else None
    skip = (parameters["page"] - 1) * size
    page = broker.run(views.list_tasks(broker.queue, state, skip=skip, count=size, group=group))

    wanted = scenario["returns"]["value"]
    assert page.size == 5
    if wanted and isinstance(wanted[0], dict):
        assert [described(task, scenario["now_s"]) for task in page.tasks] == [go_describes(each) for each in wanted]
    else:
        assert [task.task_id for task in page.tasks] == wanted


@pytest.mark.parametrize("scenario", of("list_tasks"))
def test_a_list_of_active_tasks_shows_expired_leases(broker: Broker, scenario: dict[str, Any]) -> None:
    """The score of an active task is its lease, and a missing one has none. An unknown queue is an empty list."""
    load(broker, scenario["before"])
    parameters = scenario["given"]["parameters"]
    queue = broker.keys.queue(parameters["queue"])

    page = broker.run(views.list_tasks(queue, TaskState(parameters["state"]), skip=0, count=30))

    wanted = {each["id"]: each["is_orphaned"] for each in scenario["returns"]["value"] or ()}
    assert {task.task_id: task.score is not None and task.score < 1_500_000_000 for task in page.tasks} == wanted


@rows("scenario", of("get_task", counts_only=True))
def test_a_task_is_read_as_in_go(broker: Broker, scenario: dict[str, Any]) -> None:
    load(broker, by_name("queue_info")["before"])
    parameters = scenario["given"]["parameters"]

    task = broker.run(views.read_task(broker.keys.queue(parameters["queue"]), parameters["id"]))

    wanted = scenario["returns"]["value"]
    assert (None if task is None else described(task, scenario["now_s"])) == (wanted and go_describes(wanted))


@rows("scenario", of("aggregation_read"))
def test_an_aggregation_set_is_read_as_in_go(broker: Broker, scenario: dict[str, Any]) -> None:
    """The order is the same. For a deleted task, Go reads an empty message; taskq returns the id without one."""
    load(broker, scenario["before"])
    set_id = (scenario.get("observed") or {}).get("set_id", "nope")

    page = broker.run(aggregation.read_members(broker.queue, scenario["given"]["parameters"]["group"], set_id, skip=0))

    if scenario["returns"]["error"] is not None:
        assert page is None
    else:
        wanted = scenario["returns"]["value"]["messages"]
        assert page is not None
        assert [decode_message(message).id for _, message in page] == [each["id"] for each in wanted]
        assert all(task_id for task_id, _ in page)


def test_cancelling_publishes_the_id(broker: Broker) -> None:
    scenario = by_name("cancel")
    if broker.store.endpoint.is_cluster:
        pytest.skip("a cluster spreads a message by itself; redis-py's cluster client has no plain subscription")
    listening = broker.raw.pubsub(ignore_subscribe_messages=True)
    listening.subscribe(scenario["observed"]["channel"])
    while listening.get_message(timeout=30) is not None:
        pass

    task_id = scenario["given"]["parameters"]["id"]
    broker.enqueue(task_id)
    broker.dequeue()
    broker.run(services.ask_cancel(broker.queue, broker.keys.cancel, task_id, services.CancelOutcome.ARCHIVE))

    notification = None
    while notification is None:
        notification = listening.get_message(timeout=30)
    listening.close()
    assert notification["data"].decode() == scenario["observed"]["payload"]


# --- the client -------------------------------------------------------------------------------------------------------

CLIENT_DIFFERENCES = {
    "client_timeout_zero": "refused: in Python 0 reads as 'no limit', and Go would make it 30 minutes",
    "client_timeout_only": "1.9 s is rounded up to 2, where Go cuts it to 1",
    "client_timeout_below_second": "half a second is rounded up to 1, where Go loses the limit",
    "client_retention": "90.9 s is rounded up to 91, where Go cuts it to 90",
    "client_deadline_zero_time": "a moment before 1970 is refused",
    "client_blank_group": "no group at all, where Go refuses it",
    "client_group_unique": f"{_LOCK_NAMED}; the lock of an empty payload",
    "client_group_future": _GROUP_KEPT,
    "client_unique_process_at": "the lock of an empty payload; Go's of none at all has another name",
}
"""Where the client leaves another state on purpose, and why."""

_OPTION_NAMES = {
    OptionKind.MAX_RETRY: "max_retry",
    OptionKind.QUEUE: "queue",
    OptionKind.TASK_ID: "task_id",
    OptionKind.TIMEOUT: "timeout",
    OptionKind.DEADLINE: "deadline",
    OptionKind.UNIQUE: "unique_for",
    OptionKind.PROCESS_AT: "run_after",
    OptionKind.PROCESS_IN: "run_after",
    OptionKind.RETENTION: "retention",
    OptionKind.GROUP: "aggregate",
}


def options_of(texts: list[str]) -> dict[str, Any]:
    """Options of our client for option strings of Go's."""
    found: dict[str, Any] = {}
    for text in texts:
        name, value = text.removesuffix(")").split("(", 1)
        kind = OptionKind(name)
        if kind is OptionKind.HEADER:
            found["headers"] = dict([json.loads(value)])
        elif kind in (OptionKind.TASK_ID, OptionKind.QUEUE, OptionKind.GROUP):
            found[_OPTION_NAMES[kind]] = json.loads(value)
        else:
            option = parse_option(text)
            assert option is not None
            is_duration = kind in (OptionKind.TIMEOUT, OptionKind.UNIQUE, OptionKind.PROCESS_IN, OptionKind.RETENTION)
            found[_OPTION_NAMES[kind]] = option.value / 1e9 if is_duration else option.value  # type: ignore[operator]
    return found


def without_real_time(scenario: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return a state without the times of a real clock."""
    found = {}
    for key, (kind, value) in state.items():
        if kind == "hash" and b"pending_since" in value:
            value = {**value, b"pending_since": b"now"}
        if kind == "zset" and scenario["name"] in ("client_process_in", "client_group", "client_group_unique"):
            value = [member for member, _ in value]
        found[key] = (kind, value)
    return found


@rows("scenario", of("client_enqueue"))
@rows("face", ["blocking", "coroutines"])
def test_an_enqueue_leaves_the_same_state_as_gos_client(
    one_server: Broker, scenario: dict[str, Any], face: str
) -> None:
    """Both clients leave what Go's leaves, and refuse what it refuses before anything is written."""
    load(one_server, scenario["before"])
    app = TaskQ(one_server.raw, enqueue_timeout=30)
    parameters = scenario["given"]["parameters"]
    payload = bytes.fromhex(parameters["payload"] or "")

    def enqueue() -> str:
        call = app.remote(parameters["type"], **options_of(parameters["options"])).s(payload)
        if face == "blocking":
            return app.enqueue(call).id

        async def run() -> str:
            try:
                return (await app.aenqueue(call)).id
            finally:
                await app.aclose()

        return asyncio.run(run())

    refusals = {"duplicate_task": DuplicateTaskError, "task_id_conflict": TaskIdConflictError}
    returns = scenario["returns"]
    is_refused_by_go = returns["error"] is not None and scenario["name"] != "client_blank_group"
    refused = is_refused_by_go or scenario["name"] in ("client_deadline_zero_time", "client_timeout_zero")
    task_id = None
    with pytest.raises(refusals.get(returns["error_kind"], ConfigurationError)) if refused else nullcontext():
        task_id = enqueue()
    app.close()

    found = without_real_time(scenario, theirs(one_server))
    wanted = without_real_time(scenario, expected(scenario["after"]))
    if scenario["name"] == "client_defaults_random_id":
        assert uuid.UUID(task_id).version == 4
        assert one_server.pending() == [task_id]
    else:
        judge(scenario["name"], compare(found, wanted), CLIENT_DIFFERENCES)


@pytest.mark.parametrize("scenario", of("client_batch_enqueue"))
@pytest.mark.parametrize("face", ["blocking", "coroutines"])
def test_a_bulk_enqueue_leaves_the_same_state_as_gos_client(
    one_server: Broker, scenario: dict[str, Any], face: str
) -> None:
    """Go skips a taken id silently, and taskq reports it. taskq also accepts calls that Go cannot batch."""
    load(one_server, scenario["before"])
    app = TaskQ(one_server.raw, enqueue_timeout=30)
    task = app.remote("t", retention=0)
    start = datetime.fromtimestamp(2_001_240_000, UTC)
    calls = [
        task.using(task_id="id-1").s(b"1"),
        task.using(task_id="id-2").s(b"2"),
        task.using(task_id="id-3", run_after=start).s(b"3"),
    ]

    async def run() -> BulkResult:
        try:
            return await app.async_client.enqueue_many(calls)
        finally:
            await app.aclose()

    result = app.client.enqueue_many(calls) if face == "blocking" else asyncio.run(run())
    app.close()

    assert result.ids == ["id-1", "id-3"]
    assert [(type(error), error.task_id) for error in result.errors] == [(TaskIdConflictError, "id-2")]
    found = without_real_time(scenario, theirs(one_server))
    assert not compare(found, without_real_time(scenario, expected(scenario["after"])))


@pytest.mark.redis
@rows("scenario", of("server_heartbeat"))
async def test_the_presence_of_a_worker_equals_that_of_gos_server(
    redis_server: RedisServer, scenario: dict[str, Any]
) -> None:
    given, wanted = scenario["given"]["parameters"], scenario["observed"]["server_info"]
    queues = given["queues"] or {"default": 1}
    if scenario["name"] == "server_info_invalid_dropped":
        with pytest.raises(ConfigurationError):  # Go drops such values
            WorkerConfig(queues=queues)
        queues = wanted["queues"]
    config = WorkerConfig(queues=queues, concurrency=given["concurrency"], strict_priority=given["strict_priority"])
    worker = Worker(TaskQ(redis_server.unix_url, enqueue_timeout=30), config)
    worker.id, worker.host = given["server_id"], given["host"]
    name = f"{{{given['host']}:{os.getpid()}:{given['server_id']}}}"
    client = redis_server.client

    running = asyncio.create_task(worker.arun())
    await until(lambda: client.exists(f"asynq:servers:{name}", "asynq:servers", "asynq:workers") == 3)
    data = client.get(f"asynq:servers:{name}")
    assert client.zrange("asynq:servers", 0, -1) == [f"asynq:servers:{name}".encode()]
    assert client.zrange("asynq:workers", 0, -1) == [f"asynq:workers:{name}".encode()]
    worker.stop()
    assert await running == 0
    worker.app.close()

    found = asynq_pb2.ServerInfo.FromString(data)
    assert found.start_time.seconds > 0
    for info in (found, ours := asynq_pb2.ServerInfo(**wanted)):
        info.ClearField("start_time")
        info.ClearField("taskq_processed")  # which Go's tools skip
        info.ClearField("taskq_failed")
        info.pid = 0
    assert found == ours
    assert not [key for key in theirs_of(client) if b"servers" in key or b"workers" in key]


def theirs_of(client: Any) -> list[bytes]:
    return [key for key in client.scan_iter(count=1000) if not key.startswith(b"taskq:")]
