"""What stands in the store, read as the model writes it, and refused where it contradicts itself.

`observe` reads the whole store in one script call and builds one `Queue` a queue. A task has one place in these
records, so reading is checking: every task hash has to be in exactly the structure its state names, once; what is
active has to be leased and the other way round; nothing is listed that is not there; no key is left that nobody knows.

Redis counts down expiring keys by its own clock, which a test cannot hold. Each look puts them back to whole tens of
seconds, so the time that a test takes never shows, and `age` lets time pass for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from taskq_core.wire import Keys, QueueKeys

STEP_S = 10
"""Seconds by which times of expiry are told apart."""

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
    "taskq_cursor",
    "taskq_moving",
    "taskq_unique",
}


class BrokenError(AssertionError):
    """The store contradicts itself."""


@dataclass(slots=True)
class Task:
    """A task: its fields, and where it stands.

    Attributes:
        message: TaskMessage bytes.
        state: Its state word.
        score: Its score where it stands (the lease for an active one), None in the list of pending ones or nowhere.
        since: When it became pending, as it says.
        lock: The unique lock its hash names.
        rule: The rule by which it holds it.
        group: The group its hash names.
        later_group: The group it joins when it is due.
        result: Result bytes.
        cursor: Where it would go on.
        owner: Token of the worker that runs it, as its fence and its lease say.
        in_set: Id of the aggregation set it is in.
        waited: Whether somebody asked to be told of its end.
        moving: What its hash says of its way to another queue.
        removed: Whether it belongs to a queue that is being removed.
    """

    message: bytes
    state: str
    score: int | None = None
    since: str = ""
    lock: str = ""
    rule: str = ""
    group: str = ""
    later_group: str = ""
    result: bytes | None = None
    cursor: str = ""
    owner: str = ""
    in_set: str = ""
    waited: bool = False
    moving: str = ""
    removed: bool = False

    def leave_group(self) -> None:
        """Keep the group for later where the task is scheduled now, else forget it."""
        self.later_group = (self.group or self.later_group) if self.state == "scheduled" else ""
        self.group = ""

    @property
    def is_listed(self) -> bool:
        """Whether it stands in the structure of its state."""
        return not self.moving and not self.removed and not self.in_set


@dataclass(slots=True)
class Queue:
    """One queue.

    Attributes:
        tasks: All tasks by id.
        pending: Ids of pending tasks, next to run first.
        locks: Holder and seconds left of each unique lock, by key.
        sets: Group and deadline of each aggregation set, by id.
        quarantine: Time and message of what was set aside, by id.
        removed: Ids of what was set aside because its queue is removed.
        counters: Value of each counter, by its key's end.
        leaders: Holder and seconds left, by service.
        marks: How far periodic entries have come.
        receipts: Until when a receipt of a move is kept.
        is_paused: Whether workers get nothing.
        has_token: Whether a wake token lies there.
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
    """One key: its type, seconds left (-1 for ever) and what it holds."""

    kind: str
    ttl_s: int
    value: Any

    @property
    def ids(self) -> list[str]:
        """Ids in a list or sorted set."""
        return [text(each) for each in (self.value[::2] if self.kind == "zset" else self.value)]

    @property
    def scores(self) -> dict[str, int]:
        """Scores in a sorted set, by member."""
        words = [text(each) for each in self.value]
        return {member: int(score) for member, score in zip(words[::2], words[1::2], strict=True)}

    @property
    def fields(self) -> dict[str, bytes]:
        """Fields of a hash."""
        return {text(name): value for name, value in zip(self.value[::2], self.value[1::2], strict=True)}


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def read(client: Any) -> dict[str, Value]:
    """All keys of a store, and its expiring ones put back to whole tens of seconds."""
    found = client.eval(_READ, 0)
    return {text(key): Value(text(kind), int(ttl_s), value) for key, kind, ttl_s, value in found}


def age(client: Any, seconds: int) -> None:
    """Let time pass for expiring keys."""
    client.eval(_AGE, 0, seconds)


def observe(client: Any, names: Iterable[str], keys: Keys | None = None) -> dict[str, Queue]:
    """Read the queues that stand in a store.

    Raises:
        BrokenError: What stands there contradicts itself.
    """
    stored = read(client)
    stored.pop((keys or Keys()).queues, None)
    queues = {name: _Reader((keys or Keys()).queue(name), stored).read() for name in names}
    _must(not stored, f"keys that nobody knows: {sorted(stored)}")
    return queues


def _must(condition: object, what: str) -> None:
    if not condition:
        raise BrokenError(what)


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
        _must(found is None or found.kind == kind, f"{key} is a {found and found.kind}")
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
        _must(sorted(active) == sorted(leases), f"active {sorted(active)} but leased {sorted(leases)}")
        for task_id in active:
            self._put(task_id, "active", leases[task_id])
        for state in _STATES:
            for task_id, score in self._take(keys.prefix + state, "zset").scores.items():
                self._put(task_id, state, score)
        for task_id in self._take(keys.moving, "zset").scores:
            self._put(task_id, "moving")
        for kind in ("pending", *_STATES, "moving"):
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
                _must(key in sets, f"{key} is no aggregation set that is listed")
                self._queue.sets[set_id] = (name, sets.pop(key))
            else:
                _must(name in groups | removed, f"group {name} has members and no name")
                groups.discard(name)
            for task_id, score in members.items():
                self._put(task_id, f"set {set_id}" if set_id else f"group {name}", score)
        _must(not groups, f"names of groups without members: {sorted(groups)}")
        _must(not sets, f"aggregation sets without members: {sorted(sets)}")

    def _read_tasks(self) -> None:
        prefix = self._keys.task_prefix
        for key in [each for each in self._stored if each.startswith(prefix)]:
            task_id = key.removeprefix(prefix)
            task = _task(task_id, self._take(key, "hash").fields)
            places = self._places.pop(task_id, [])
            _must(len(places) == 1, f"task {task_id} ({task.state}) stands in {places}")
            place, task.score = places[0]
            token, _, lease = task.owner.rpartition(":")
            task.owner = token if lease == str(task.score) else ""  # a stale fence is none
            if place == "removed":
                task.removed = True
            elif place.startswith("set "):
                task.in_set = place.removeprefix("set ")
                _must(task.state == "aggregating", f"task {task_id} is {task.state} in a set")
                group = self._queue.sets[task.in_set][0]
                _must(task.group == group, f"task {task_id} of {task.group} is in a set of {group}")
            else:
                expected = "moving" if task.moving else task.state
                if expected == "aggregating":
                    expected = f"group {task.group}"
                _must(place == expected, f"task {task_id} ({task.state}) stands in {place}")
            self._queue.tasks[task_id] = task
        for task_id, places in list(self._places.items()):
            if places == [("removed", None)]:
                del self._places[
                    task_id
                ]  # it has arrived elsewhere, or gone: what is removed is gone through at leisure
        _must(not self._places, f"listed without a task: {self._places}")

    def _read_own(self) -> None:
        keys, queue = self._keys, self._queue
        aside = self._take(keys.quarantine, "zset").scores | self._take(keys.removed("quarantine"), "zset").scores
        for task_id, score in aside.items():
            fields = self._take(keys.quarantined(task_id), "hash").fields
            _must("taskq_owner" not in fields, f"{task_id} is set aside with a fence")
            queue.quarantine[task_id] = (score, fields["msg"])
        queue.has_token = bool(self._take(keys.wake, "list").value)
        queue.receipts = self._take(keys.moved, "zset").scores
        self._take(keys.delivered, "zset")
        for key in [each for each in self._stored if each.startswith(keys.own_prefix)]:
            kind, _, name = key.removeprefix(keys.own_prefix).partition(":")
            value = self._stored.pop(key)
            if kind == "leader":
                queue.leaders[name] = (text(value.value), value.ttl_s)
            elif kind == "tick":
                queue.marks[name] = text(value.value)
            else:
                _must(kind in {"rcpt", "call"} and value.ttl_s > 0, f"{key} is left behind")


def _task(task_id: str, fields: dict[str, bytes]) -> Task:
    _must(fields.keys() <= _FIELDS, f"task {task_id} has fields {sorted(fields.keys() - _FIELDS)}")
    _must("msg" in fields and "state" in fields, f"task {task_id} has only {sorted(fields)}")
    words = {name: text(value) for name, value in fields.items() if name not in {"msg", "result"}}
    owner = words.get("taskq_owner", "")
    state = words["state"]
    _must((state == "active") or not owner, f"task {task_id} ({state}) has the fence {owner}")
    _must((state == "active") or "taskq_started" not in words, f"task {task_id} ({state}) says since when it runs")
    return Task(
        fields["msg"],
        state,
        since=words.get("pending_since", ""),
        lock=words.get("unique_key", ""),
        rule=words.get("taskq_unique", ""),
        group=words.get("group", ""),
        later_group=words.get("taskq_group", ""),
        result=fields.get("result"),
        cursor=words.get("taskq_cursor", ""),
        owner=owner,
        waited="taskq_wait" in words,
        moving=words.get("taskq_moving", ""),
    )
