"""Records of queues and tasks, and a reader that builds them from the store (Redis) and checks consistency.

`read_queues` reads the whole store in one script call and builds a `Queue` for each queue. It requires that each task
is in exactly the list or set of its state, that exactly the active tasks have leases, that each listed id has a task,
and that no unknown key exists.

Redis's clock, which a test cannot stop, determines when keys expire. Each read therefore rounds every time to live up
to whole tens of seconds, so that the duration of a test has no effect. `age` lets time pass for these keys.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from taskq_core.wire import Keys, QueueKeys

STEP_S = 10
"""Unit of times to live, in seconds."""

_READ = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, ttl = redis.call('TYPE', key).ok, redis.call('PTTL', key)
  if ttl > 0 then
    local tens = math.ceil(ttl / 10000)
    redis.call('PEXPIRE', key, string.format('%.0f', tens * 10000))
    ttl = tens * 10
  end
  local value
  if kind == 'string' then
    value = redis.call('GET', key)
  elseif kind == 'hash' then
    value = redis.call('HGETALL', key)
  elseif kind == 'list' then
    value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then
    value = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then
    value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  end
  found[#found + 1] = { key, kind, ttl, value }
end
return found
"""
_AGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local ttl = redis.call('PTTL', key)
  if ttl > 0 then
    local left = math.ceil(ttl / 10000) * 10000 - tonumber(ARGV[1]) * 1000
    if left <= 0 then
      redis.call('DEL', key)
    else
      redis.call('PEXPIRE', key, string.format('%.0f', left))
    end
  end
end
"""
_STATES = ("scheduled", "retry", "archived", "completed")
_FIELDS = {
    "msg",
    "state",
    "pending_since",
    "unique_key",
    "group",
    "taskq_group",
    "result",
    "taskq_owner",
    "taskq_started",
    "taskq_begun",
    "taskq_attempts",
    "taskq_wait",
    "taskq_copied",
    "taskq_unique",
}


class InconsistentStoreError(AssertionError):
    """The content of the store is inconsistent."""


@dataclass(slots=True)
class Task:
    """The fields of a task, and the list or set that contains it.

    Attributes:
        message: TaskMessage bytes.
        state: Its state.
        score: Its score in the sorted set of its state (for an active task, the lease); None in the pending list.
        pending_since: When it became pending.
        lock: Its unique lock.
        rule: The rule of the lock: in which states the task holds it, and for how long.
        group: Its group.
        later_group: The group that it joins when it is due.
        result: Result bytes.
        owner: Token and run of the worker that runs it, from its fence.
        in_set: Id of the aggregation set that contains it.
        publishes_end: Whether its end is published, because a client waits for it.
        copied: Record of its copy in another queue, "" without a move.
        removed: Whether its queue is being removed.
    """

    message: bytes
    state: str
    score: int | None = None
    pending_since: str = ""
    lock: str = ""
    rule: str = ""
    group: str = ""
    later_group: str = ""
    result: bytes | None = None
    owner: str = ""
    in_set: str = ""
    publishes_end: bool = False
    copied: str = ""
    removed: bool = False

    def leave_group(self) -> None:
        """Leave the group. A task that is now scheduled joins it again when it is due."""
        self.later_group = (self.group or self.later_group) if self.state == "scheduled" else ""
        self.group = ""

    @property
    def is_listed(self) -> bool:
        """Whether the task is in the list or set of its state."""
        return not self.removed and not self.in_set


@dataclass(slots=True)
class Queue:
    """The content of a queue.

    Attributes:
        tasks: All tasks by id.
        pending: Ids of pending tasks; the next to run is first.
        locks: Holder and time to live of each unique lock, by key.
        sets: Group and deadline of each aggregation set, by id.
        quarantine: Time and message of each task in quarantine, by id.
        counters: Value of each counter, by the end of its key.
        leaders: Leader and time to live of the leadership, by service.
        marks: Last firing of each periodic entry.
        receipts: Time of each receipt of an outbox delivery or a move.
        is_paused: Whether the queue is paused.
        has_token: Whether the wake list has a token.
    """

    tasks: dict[str, Task] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    locks: dict[str, tuple[str, int]] = field(default_factory=dict)
    sets: dict[str, tuple[str, int]] = field(default_factory=dict)
    quarantine: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    leaders: dict[str, tuple[str, int]] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, int] = field(default_factory=dict)
    is_paused: bool = False
    has_token: bool = False


@dataclass(slots=True)
class Value:
    """A key of the store: its type, time to live in seconds (-1 without expiry) and value."""

    kind: str
    ttl_s: int
    value: Any

    @property
    def ids(self) -> list[str]:
        """The ids in a list or sorted set."""
        return [text(each) for each in (self.value[::2] if self.kind == "zset" else self.value)]

    @property
    def scores(self) -> dict[str, int]:
        """The scores in a sorted set, by member."""
        words = [text(each) for each in self.value]
        return {member: int(score) for member, score in zip(words[::2], words[1::2], strict=True)}

    @property
    def fields(self) -> dict[str, bytes]:
        """The fields of a hash."""
        return {text(name): value for name, value in zip(self.value[::2], self.value[1::2], strict=True)}


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def read(client: Any) -> dict[str, Value]:
    """Read all keys of the store, and round their times to live up to whole tens of seconds."""
    found = client.eval(_READ, 0)
    return {text(key): Value(text(kind), int(ttl_s), value) for key, kind, ttl_s, value in found}


def age(client: Any, seconds: int) -> None:
    """Reduce the time to live of all keys by some seconds."""
    client.eval(_AGE, 0, seconds)


def read_queues(client: Any, names: Iterable[str], keys: Keys | None = None) -> dict[str, Queue]:
    """Read the queues of the store.

    Raises:
        InconsistentStoreError: The content is inconsistent, or a key is unknown.
    """
    stored = read(client)
    stored.pop((keys or Keys()).queues, None)
    queues = {name: _Reader((keys or Keys()).queue(name), stored).read() for name in names}
    _require(not stored, f"unknown keys: {sorted(stored)}")
    return queues


def _require(condition: object, error: str) -> None:
    if not condition:
        raise InconsistentStoreError(error)


class _Reader:
    def __init__(self, keys: QueueKeys, stored: dict[str, Value]) -> None:
        self._keys = keys
        self._stored = stored
        self._queue = Queue()
        self._places: dict[str, list[tuple[str, int | None]]] = {}

    def read(self) -> Queue:
        keys, queue = self._keys, self._queue
        groups = {text(each) for each in self._take(keys.groups, "set").value}
        self._read_lists()
        self._read_groups(groups)
        self._read_tasks()
        self._read_own()
        queue.is_paused = self._stored.pop(keys.paused, None) is not None
        for key in [each for each in self._stored if each.startswith((keys.processed, keys.failed))]:
            queue.counters[key.removeprefix(keys.prefix)] = int(self._stored.pop(key).value)
        for key in [each for each in self._stored if each.startswith(keys.unique_prefix)]:
            lock = self._stored.pop(key)
            queue.locks[key] = (text(lock.value), lock.ttl_s)
        return queue

    def _take(self, key: str, kind: str) -> Value:
        found = self._stored.pop(key, None)
        _require(found is None or found.kind == kind, f"{key} is a {found and found.kind}")
        return found or Value(kind, -1, [])

    def _put(self, task_id: str, place: str, score: int | None = None) -> None:
        self._places.setdefault(task_id, []).append((place, score))

    def _read_lists(self) -> None:
        keys = self._keys
        pending = self._take(keys.pending, "list").ids
        self._queue.pending = pending[::-1]
        for task_id in pending:
            self._put(task_id, "pending")
        leases = self._take(keys.lease, "zset").scores
        active = self._take(keys.active, "list").ids
        _require(sorted(active) == sorted(leases), f"active {sorted(active)} but leased {sorted(leases)}")
        for task_id in active:
            self._put(task_id, "active", leases[task_id])
        for state in _STATES:
            for task_id, score in self._take(keys.prefix + state, "zset").scores.items():
                self._put(task_id, state, score)
        for kind in ("pending", *_STATES):
            for task_id in self._take(keys.removed(kind), "list" if kind == "pending" else "zset").ids:
                self._put(task_id, "removed")

    def _read_groups(self, groups: set[str]) -> None:
        keys = self._keys
        sets = (
            self._take(keys.aggregation_sets, "zset").scores
            | self._take(keys.removed("aggregation_sets"), "zset").scores
        )
        removed = {text(each) for each in self._take(keys.removed("groups"), "set").value}
        for key in [each for each in self._stored if each.startswith(keys.group_prefix)]:
            members = self._take(key, "zset").scores
            name, _, set_id = key.removeprefix(keys.group_prefix).partition(":")
            if set_id:
                _require(key in sets, f"aggregation set {key} is not listed")
                self._queue.sets[set_id] = (name, sets.pop(key))
            else:
                _require(name in groups | removed, f"group {name} has members but is not listed")
                groups.discard(name)
            for task_id, score in members.items():
                self._put(task_id, f"set {set_id}" if set_id else f"group {name}", score)
        _require(not groups, f"listed groups without members: {sorted(groups)}")
        _require(not sets, f"listed aggregation sets without members: {sorted(sets)}")

    def _read_tasks(self) -> None:
        prefix = self._keys.task_prefix
        for key in [each for each in self._stored if each.startswith(prefix)]:
            task_id = key.removeprefix(prefix)
            task = _task(task_id, self._take(key, "hash").fields)
            places = self._places.pop(task_id, [])
            _require(len(places) == 1, f"task {task_id} ({task.state}) is in {places}")
            place, task.score = places[0]
            token, _, lease = task.owner.rpartition(":")
            task.owner = token if lease == str(task.score) else ""  # an outdated fence does not count
            if place == "removed":
                task.removed = True
            elif place.startswith("set "):
                task.in_set = place.removeprefix("set ")
                _require(task.state == "aggregating", f"task {task_id} is {task.state} in a set")
                group = self._queue.sets[task.in_set][0]
                _require(task.group == group, f"task {task_id} of {task.group} is in a set of {group}")
            else:
                expected = task.state
                if expected == "aggregating":
                    expected = f"group {task.group}"
                _require(place == expected, f"task {task_id} ({task.state}) is in {place}")
            self._queue.tasks[task_id] = task
        for task_id, places in list(self._places.items()):
            if places == [("removed", None)]:
                del self._places[task_id]  # it has arrived in another queue or was deleted; the removal is in progress
        _require(not self._places, f"listed without a task: {self._places}")

    def _read_own(self) -> None:
        keys, queue = self._keys, self._queue
        aside = self._take(keys.quarantine, "zset").scores | self._take(keys.removed("quarantine"), "zset").scores
        for task_id, score in aside.items():
            fields = self._take(keys.quarantined(task_id), "hash").fields
            _require("taskq_owner" not in fields, f"{task_id} is in quarantine with a fence")
            queue.quarantine[task_id] = (score, fields["msg"])
        queue.has_token = bool(self._take(keys.wake, "list").value)
        queue.receipts = self._take(keys.delivered, "zset").scores
        for key in [each for each in self._stored if each.startswith(keys.own_prefix)]:
            kind, _, name = key.removeprefix(keys.own_prefix).partition(":")
            value = self._stored.pop(key)
            if kind == "leader":
                queue.leaders[name] = (text(value.value), value.ttl_s)
            elif kind == "tick":
                queue.marks[name] = text(value.value)
            else:
                _require(kind in {"rcpt", "call"} and value.ttl_s > 0, f"{key} is left over")


def _task(task_id: str, fields: dict[str, bytes]) -> Task:
    _require(fields.keys() <= _FIELDS, f"task {task_id} has fields {sorted(fields.keys() - _FIELDS)}")
    _require("msg" in fields and "state" in fields, f"task {task_id} has only the fields {sorted(fields)}")
    words = {name: text(value) for name, value in fields.items() if name not in {"msg", "result"}}
    owner = words.get("taskq_owner", "")
    state = words["state"]
    _require((state == "active") or not owner, f"task {task_id} ({state}) has the fence {owner}")
    _require((state == "active") or "taskq_started" not in words, f"task {task_id} ({state}) has the start of a run")
    return Task(
        fields["msg"],
        state,
        pending_since=words.get("pending_since", ""),
        lock=words.get("unique_key", ""),
        rule=words.get("taskq_unique", ""),
        group=words.get("group", ""),
        later_group=words.get("taskq_group", ""),
        result=fields.get("result"),
        owner=owner,
        publishes_end="taskq_wait" in words,
        copied=words.get("taskq_copied", ""),
    )
