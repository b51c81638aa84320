"""What Go Asynq left in Redis after each of its operations, and what ours leave.

Each scenario loads the state before, runs our operation at the scenario's clock and compares with the state after, byte
for byte. Our own keys (`taskq:`) are left out. The hash of an active task gets the field `taskq_owner` first, as our
dequeue would have written it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskq_core.broker import operations as ops
from taskq_core.broker.operations import NewTask, Outcome, Settlement, Verdict
from taskq_core.errors import WireFormatError
from taskq_core.wire import (
    ServerInfo,
    TaskMessage,
    WorkerInfo,
    archived_message,
    build_message,
    completed_message,
    decode_message,
    encode_message,
    retried_message,
)
from tests.conformance.stores import Broker, Store

SCENARIOS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "states.json").read_text(encoding="utf-8")
)
OWNER = "w1"

DIFFERENCES: dict[str, str] = {}

NOT_OURS_YET: dict[str, str] = {}


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
                    broker.raw.hset(prefix + member, "taskq_owner", f"{OWNER}:{score}")


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
    """What stands in Redis but for our own keys and, in active tasks, our own field."""
    found = {key.decode(): value for key, value in broker.dump().items() if not key.startswith(b"taskq:")}
    for kind, value in found.values():
        if kind == "hash" and value.get(b"state") == b"active":
            value.pop(b"taskq_owner", None)
    return found


def check_expiry(broker: Broker, dump: list[dict[str, Any]]) -> list[str]:
    """Keys whose time of expiry is not the one noted."""
    wrong = []
    for entry in dump:
        key = entry["key"]
        if not broker.raw.exists(key):
            continue
        if "expire_at_s" in entry:
            now_s, micros = broker.raw.time()
            left_ms = broker.raw.pttl(key)
            at = round(now_s + micros / 1e6 + left_ms / 1000)
            if abs(at - entry["expire_at_s"]) > 1:
                wrong.append(f"{key} expires at {at}, not {entry['expire_at_s']}")
        elif entry["ttl_s"] is None:
            if broker.raw.ttl(key) != -1:
                wrong.append(f"{key} expires")
        elif not entry["ttl_s"] - 2 <= broker.raw.ttl(key) <= entry["ttl_s"]:
            wrong.append(f"{key} has {broker.raw.ttl(key)} s left, not {entry['ttl_s']}")
    return wrong


def counted(broker: Broker) -> list[dict[str, Any]]:
    """The short form of a state: sizes by key and the number of hashes."""
    sizes: list[dict[str, Any]] = []
    hashes = 0
    for key, (kind, value) in theirs(broker).items():
        if kind == "hash" and "}:t:" in key:
            hashes += 1
        else:
            sizes.append({"key": key, "type": kind, "size": 1 if kind == "string" else len(value)})
    return [*sorted(sizes, key=lambda each: each["key"]), {"task_hashes": hashes}]


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
        self.lane = ops.ReceiptLane("replay")

    def queue(self, name: str | None = None) -> Any:
        return self.broker.keys.queue(name or self.parameters["queue"])

    def __call__(self) -> None:
        getattr(self, self.scenario["given"]["operation"])()

    # Enqueueing: what the client sends.

    def _enqueue(self, **options: Any) -> None:
        if "error_msg_hex" in self.parameters:
            with pytest.raises(WireFormatError):
                build_message(error_msg=bytes.fromhex(self.parameters["error_msg_hex"]).decode("utf-8", "surrogateescape"))
            return
        message = message_of(self.parameters)
        queue = self.queue(message.queue)
        task = NewTask(message.id, encode_message(message), unique_key=message.unique_key, **options)
        self.run(ops.register_queue(self.broker.keys.queues, (message.queue,)))
        code = self.run(ops.enqueue(queue, (task,), self.lane, now_ns=self.now_ns))
        known = {1: "1", 0: "0", -1: "d"}
        assert code == known.get(self.scenario["returns"]["code"], code)

    def enqueue(self) -> None:
        self._enqueue()

    def enqueue_unique(self) -> None:
        self._enqueue(unique_s=self.parameters["unique_ttl_ns"] // 1_000_000_000)

    def schedule(self) -> None:
        self._enqueue(start_at_s=self.parameters["process_at_ns"] // 1_000_000_000)

    def schedule_unique(self) -> None:
        start_s = self.parameters["process_at_ns"] // 1_000_000_000
        after_start_s = (self.parameters["unique_ttl_ns"] + self.now_ns - self.parameters["process_at_ns"]) // 1_000_000_000
        self._enqueue(start_at_s=start_s, unique_s=after_start_s)

    # The worker.

    def dequeue(self) -> None:
        wanted = self.scenario["returns"]["value"]
        for call, name in enumerate(self.parameters["queues"], start=1):
            taken = self.run(
                ops.dequeue(self.queue(name), owner=OWNER, call=call, limit=1, lease_s=30, now_ns=self.now_ns)
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
        end = Settlement(given.id, outcome, message, **options)
        code = self.run(ops.settle(self.queue(given.queue), (end,), owner=OWNER, now_ns=self.now_ns))
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
        delay_ms = (self.parameters["retry_at_ns"] - self.now_ns) // 1_000_000
        self._settle(Outcome.RETRY if failure else Outcome.RETRY_UNCOUNTED, changed, delay_ms=delay_ms)

    def requeue(self) -> None:
        self._settle(Outcome.REQUEUE)

    def extend_lease(self) -> None:
        self.run(
            ops.extend_leases(self.queue(), self.parameters["ids"], owner=OWNER, lease_s=30, now_ns=self.now_ns)
        )

    def write_result(self) -> None:
        self.run(ops.write_result(self.queue(), self.parameters["id"], bytes.fromhex(self.parameters["data"]), owner=OWNER))

    # Services.

    def forward(self) -> None:
        for name in self.parameters["queues"]:
            while self.run(ops.forward(self.queue(name), owner=OWNER, leader_ms=1000, now_ns=self.now_ns)).moved:
                pass

    def _expired(self, name: str) -> list[ops.ExpiredTask]:
        grace_s = (self.now_ns - self.parameters.get("cutoff_ns", self.now_ns - 30 * 10**9)) // 10**9
        return self.run(ops.list_expired(self.queue(name), grace_s=grace_s, now_ns=self.now_ns)).tasks

    def list_lease_expired(self) -> None:
        listed = [task for name in self.parameters["queues"] for task in self._expired(name)]
        wanted = [each["id"] for each in self.scenario["returns"]["value"] or ()]
        if self.scenario["name"] != "lease_expired_list_undecodable":
            assert [task.task_id for task in listed if task.message] == wanted

    def recover(self) -> None:
        for name in self.parameters["queues"]:
            recoveries = [self._verdict(task) for task in self._expired(name)]
            self.run(ops.recover(self.queue(name), recoveries, grace_s=30, now_ns=self.now_ns))

    def _verdict(self, task: ops.ExpiredTask) -> ops.Recovery:
        message = decode_message(task.message)
        error, now_s = self.parameters["error_msg"], self.now_ns // 10**9
        if message.retried >= message.retry:
            return ops.Recovery(task, Verdict.ARCHIVE, archived_message(message, error=error, failed_at_s=now_s))
        changed = retried_message(message, error=error, failed_at_s=now_s, counts=True)
        return ops.Recovery(task, Verdict.RETRY, changed, self.parameters["retry_delay_s"] * 1000 - 124)

    def delete_expired_completed(self) -> None:
        limit = self.parameters["batch_size"]
        while self.run(ops.clean(self.queue(), limit=limit, now_ns=self.now_ns))[0]:
            pass

    # Presence.

    def write_server_state(self) -> None:
        server, keys = self.parameters["server"], self.broker.keys
        names = (server["host"], server["pid"], server["server_id"])
        ttl_s = self.parameters["ttl_ns"] // 10**9
        for index, member in ((keys.servers, keys.server(*names)), (keys.workers, keys.workers_of(*names))):
            self.run(ops.index_presence(index, member, expiry_s=self.now_ns // 10**9 + ttl_s))
        workers = {
            each["task_id"]: WorkerInfo(**{**each, "task_payload": bytes.fromhex(each["task_payload"])})
            for each in self.parameters["workers"] or ()
        }
        self.run(
            ops.beat(
                keys.server(*names),
                keys.workers_of(*names),
                ttl_s=ttl_s,
                server_info=ServerInfo(**server).SerializeToString(deterministic=True),
                workers={name: info.SerializeToString(deterministic=True) for name, info in workers.items()},
            )
        )

    def clear_server_state(self) -> None:
        names = [self.parameters[name] for name in ("host", "pid", "server_id")]
        keys = self.broker.keys
        self.run(ops.unindex_presence(keys.servers, keys.server(*names)))
        self.run(ops.unindex_presence(keys.workers, keys.workers_of(*names)))
        for key in (keys.server(*names), keys.workers_of(*names)):
            self.run(ops.clear_presence(key, key))


REPLAYED = (
    "enqueue enqueue_unique schedule schedule_unique forward dequeue done mark_as_complete archive retry requeue "
    "extend_lease list_lease_expired recover write_result delete_expired_completed write_server_state clear_server_state"
).split()


def named(scenario: dict[str, Any]) -> str:
    return str(scenario["name"])


@pytest.mark.parametrize(
    "scenario", [each for each in SCENARIOS if each["given"]["operation"] in REPLAYED and not each.get("counts_only")
    and not (each["name"] in NOT_OURS_YET)], ids=named
)
def test_an_operation_leaves_what_go_leaves(one_server: Broker, scenario: dict[str, Any]) -> None:
    load(one_server, scenario["before"])

    Replay(one_server, scenario)()

    found, wanted = theirs(one_server), expected(scenario["after"])
    wrong = [f"{key}: {found.get(key)} != {wanted.get(key)}" for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    wrong += check_expiry(one_server, scenario["after"])
    if scenario["name"] in DIFFERENCES:
        assert wrong, "no difference any more: take it off the list"
    else:
        assert not wrong, "\n".join(wrong)
