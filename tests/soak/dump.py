"""Read tasks, locks and counters of idle queues from Redis, as plain data for the invariants."""

from dataclasses import dataclass, field
from typing import Any

import redis

from taskq_core.errors import WireFormatError
from taskq_core.wire import QueueKeys, decode_message

STATES = ("pending", "active", "scheduled", "retry", "archived", "completed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A task hash.

    Attributes:
        state: The field `state`, "" if it is missing.
        places: Names of the lists and sorted sets that contain the id, repeated if the id occurs several times.
        retried, error: Number of retries and last error in the task's message.
        result: The field `result`, None if it is missing.
    """

    id: str
    state: str = ""
    places: tuple[str, ...] = ()
    retried: int = 0
    error: str = ""
    result: bytes | None = None


@dataclass(slots=True, kw_only=True)
class QueueDump:
    """The content of a queue.

    Attributes:
        tasks: Task hashes by id.
        without_task: Ids in a list or sorted set that have no task hash, with the name of the list or set.
        leased: Ids with a lease.
        locks: Unique locks: the key and the id of the task that holds it.
        quarantined: Ids in quarantine.
        processed, failed: The lifetime counters.
    """

    name: str
    tasks: dict[str, Stored] = field(default_factory=dict)
    without_task: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    leased: list[str] = field(default_factory=list)
    locks: dict[str, str] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)
    processed: int = 0
    failed: int = 0


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def read_queue(client: Any, keys: QueueKeys) -> QueueDump:
    """Read a queue. The queue must be idle, because this takes several commands."""
    dump = QueueDump(name=keys.name)
    places: dict[str, list[str]] = {}
    for state in STATES:
        key = keys.prefix + state
        ids = _ids(client, key, "LRANGE" if state in ("pending", "active") else "ZRANGE")
        dump.sizes[state] = len(ids)
        for each in ids:
            places.setdefault(_text(each), []).append(state)
    dump.leased = [_text(each) for each in _ids(client, keys.lease, "ZRANGE")]
    dump.quarantined = [_text(each) for each in client.zrange(keys.quarantine, 0, -1)]
    dump.processed = int(client.get(keys.processed) or 0)
    dump.failed = int(client.get(keys.failed) or 0)
    for key in client.scan_iter(match=_pattern(keys.unique_prefix), count=1000):
        dump.locks[_text(key)] = _text(client.get(key) or b"")
    for key in sorted(
        set(client.scan_iter(match=_pattern(keys.task_prefix), count=1000))
    ):  # SCAN may return a key twice
        task_id = _text(key).removeprefix(keys.task_prefix)
        if client.type(key) != b"hash":
            continue
        dump.tasks[task_id] = _stored(task_id, client.hgetall(key), tuple(places.pop(task_id, ())))
    dump.without_task = [(task_id, place) for task_id, found in places.items() for place in found]
    return dump


def _ids(client: Any, key: str, command: str) -> list[bytes]:
    """Return all ids of a list or sorted set. If the key has another type, return an id that no task has."""
    try:
        return list(client.execute_command(command, key, 0, -1))
    except redis.ResponseError:
        return [b"(the key has another type)"]


def _stored(task_id: str, fields: dict[bytes, bytes], places: tuple[str, ...]) -> Stored:
    retried, error = 0, ""
    try:
        message = decode_message(fields.get(b"msg", b""))
        retried, error = message.retried, message.error_msg
    except WireFormatError as unreadable:
        error = f"unreadable: {unreadable}"
    return Stored(
        id=task_id,
        state=_text(fields.get(b"state", b"")),
        places=places,
        retried=retried,
        error=error,
        result=fields.get(b"result"),
    )


def _pattern(prefix: str) -> str:
    return prefix.replace("[", "\\[") + "*"


def canaries(client: Any, canary: str, *, skip: tuple[str, ...]) -> list[str]:
    """Return the keys whose names or values contain the canary text, except keys that begin with `skip`."""
    found = []
    for key in client.scan_iter(count=1000):
        name = _text(key)
        if name.startswith(skip):
            continue
        kind = client.type(key)
        value: Any = b""
        if kind == b"string":
            value = client.get(key) or b""
        elif kind == b"hash":
            value = b" ".join(b" ".join(pair) for pair in client.hgetall(key).items())
        elif kind == b"list":
            value = b" ".join(client.lrange(key, 0, -1))
        elif kind == b"zset":
            value = b" ".join(client.zrange(key, 0, -1))
        elif kind == b"set":
            value = b" ".join(client.smembers(key))
        if canary in name or canary.encode() in value:
            found.append(name)
    return found
