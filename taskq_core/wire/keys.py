"""Every key in Redis: its name, its type, who owns it.

The names under `<prefix>:` are Go Asynq's contract and must match it byte for byte. The names under `taskq:{Q}:` are
our own; they carry the queue as hash tag too, so a script that touches both stays on one cluster slot. With another
prefix than `asynq` our own keys carry it as well, and two prefixes on one Redis never share a key.

Building a key never checks the name: Go may have created a queue that we would refuse, and tools must still show it.
Whoever takes a name from a user calls the `validate_...` functions first.
"""

import hashlib
import re
from datetime import UTC, date, datetime
from functools import lru_cache

from taskq_core.errors import ConfigurationError

DEFAULT_PREFIX = "asynq"
DEFAULT_QUEUE = "default"
MAX_NAME_BYTES = 256
"""Longest queue name, task id, task type or prefix, in bytes of UTF-8."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN = 80
_CACHED_QUEUES = 1024
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class QueueKeys:
    """The keys of one queue, built once.

    Made by `Keys.queue`. Asynq's are lists (`pending`, `active`), sorted sets (`lease`, `scheduled`, `retry`,
    `archived`, `completed`, `aggregation_sets`, groups and their aggregation sets), a set (`groups`), strings
    (`paused`, the counters, unique locks) and one hash a task. Ours are described at their attribute or method.
    """

    def __init__(self, prefix: str, name: str) -> None:
        self.name = name
        self.prefix = base = f"{prefix}:{{{name}}}:"
        self.task_prefix = base + "t:"
        self.group_prefix = base + "g:"
        self.unique_prefix = base + "unique:"
        self.pending = base + "pending"
        self.active = base + "active"
        self.lease = base + "lease"
        self.scheduled = base + "scheduled"
        self.retry = base + "retry"
        self.archived = base + "archived"
        self.completed = base + "completed"
        self.paused = base + "paused"
        self.processed = base + "processed"
        self.failed = base + "failed"
        self.groups = base + "groups"
        self.aggregation_sets = base + "aggregation_sets"
        self.own_prefix = own = f"taskq:{{{name}}}:" if prefix == DEFAULT_PREFIX else f"{prefix}:taskq:{{{name}}}:"
        self.wake = own + "wake"  # list: at most one token, popped by an idle worker
        self.urgent = own + "urgent"  # sorted set, expiring: ids of pending tasks of higher bands in their order
        self.letters = own + "letters"  # sorted set: id of an archived task that a handler has to receive, by due time
        self.quarantine = own + "quarantine"  # sorted set: id of an unreadable task by the second it was put aside
        self.moving = own + "moving"  # sorted set: id of a task on its way to another queue by the second it set out
        self.moved = own + "moved"  # sorted set: receipt of a task from another queue by the second it is kept
        self.delivered = own + "delivered"  # sorted set: receipt of a task from an outbox by the second it was stored
        self.runs = own + "runs"  # hash: runs of table entries that were not reported yet, by entry
        self.combined = own + "combined"  # sorted set: id of a combined set with members to delete, by second
        self.steps = own + "wf-steps"  # sorted set: steps of workflows that were started here, by the second of that
        self.workflows_out = own + "wf-out"  # sorted set: steps to start in other queues, by millisecond
        self.workflow_queues = own + "wf-queues"  # set: other queues that steps were sent to from here
        self.workflow_notes = own + "wf-notes"  # hash: how steps of workflows at home elsewhere have ended
        self.workflow_receipts = own + "wf-receipts"  # sorted set: steps from elsewhere by the second they came
        self.workflows_open = own + "wf-open"  # sorted set: id of a workflow by the second until which members may come
        self.workflows_running = own + "wf-running"  # sorted set: id of a workflow by the second it began
        self.workflows_ended = own + "wf-ended"  # sorted set: id of a workflow by the second it is kept until
        self.done = own + "done"  # channel: ids of tasks that came to an end
        self.limits = own + "limits"  # hash: numbers of limits, as workers declare ("d:") and people set them ("o:")
        self.limits_prefix = lim = own + "lim:"  # prefix of holders, lines and tokens by slot, see `_limits.lua`
        self.limits_due = lim + "due"  # sorted set: slot of a limit by when the next may start, Unix ms
        self.limit_checks = lim + "check"  # sorted set: slot of a limit by when its holders are looked at, Unix ms
        self.limit_keepers = lim + "keepers"  # sorted set, expiring: worker that admits tasks, by its last call, s
        self.limit_wake = lim + "wake"  # list: at most one token, popped by the worker that admits
        self.totals = own + "totals"  # hash, expiring: what became of runs since ever, by task type, see `tallies`
        self.absent = own + "absent"  # never exists; deleting it is a write that a full Redis takes

    def __repr__(self) -> str:
        return f"QueueKeys({self.prefix!r})"

    def task(self, task_id: str) -> str:
        """Hash of one task."""
        return self.task_prefix + task_id

    def group(self, group: str) -> str:
        """Sorted set: members waiting in a group."""
        return self.group_prefix + group

    def aggregation_set(self, group: str, set_id: str) -> str:
        """Sorted set: members of a group that are being turned into one task."""
        return f"{self.group_prefix}{group}:{set_id}"

    def daily_processed(self, day: date | float) -> str:
        """Counter of tasks processed on a UTC day, given as a date, an aware datetime or Unix seconds."""
        return f"{self.processed}:{_utc_day(day)}"

    def daily_failed(self, day: date | float) -> str:
        """Counter of failures on a UTC day, given as a date, an aware datetime or Unix seconds."""
        return f"{self.failed}:{_utc_day(day)}"

    def unique(self, task_type: str, payload: bytes | None) -> str:
        """Lock of a task type and payload. No payload (None) and an empty one are different locks."""
        return self.lock(task_type, "" if payload is None else hashlib.md5(payload, usedforsecurity=False).hexdigest())

    def lock(self, task_type: str, digest: str) -> str:
        """Lock of a task type, by the digest of what counts."""
        return f"{self.unique_prefix}{task_type}:{digest}"

    def is_lock(self, name: str) -> bool:
        """Return whether a name read from Redis is a unique lock of this queue. Ignore every other name.

        Any producer of the queue can choose the name, and a worker acts on it with its own rights. `is_lock` in
        `_unique.lua` is the same rule for scripts.
        """
        return name.startswith(self.unique_prefix)

    def workflow(self, workflow_id: str) -> str:
        """Hash: a workflow whose home is this queue. Its groups have keys beside it, `:g<n>` and so on behind."""
        return f"{self.own_prefix}wf:{workflow_id}"

    def workflow_cancelled(self, workflow_id: str) -> str:
        """String, expiring: steps of this workflow, which is at home elsewhere, are dropped when they are fetched."""
        return f"{self.own_prefix}wf-cancelled:{workflow_id}"

    def receipt(self, connection: str) -> str:
        """String, expiring: result of the last enqueue of a connection, which its repeat returns."""
        return f"{self.own_prefix}rcpt:{connection}"

    def unconfirmed(self, task_id: str) -> str:
        """String, expiring: digest of a call whose task is stored and not confirmed by replicas yet."""
        return f"{self.own_prefix}unconfirmed:{task_id}"

    def call(self, worker: str) -> str:
        """String, expiring: tasks of the last dequeue call of a worker, which its repeat returns."""
        return f"{self.own_prefix}call:{worker}"

    def leader(self, service: str) -> str:
        """String, expiring: which worker acts for a service (`forwarder`, `recoverer`, ...) on this queue."""
        return f"{self.own_prefix}leader:{service}"

    def peers(self, place: str) -> str:
        """Hash, expiring: worker processes of one host by token, see `taskq_core.worker.liveness`."""
        return f"{self.own_prefix}peers:{place}"

    def tick(self, entry: str) -> str:
        """String, expiring: how far a periodic entry has come. `entry` is its id and when it fires, see `periodic`."""
        return f"{self.own_prefix}tick:{entry}"

    def samples(self, step_s: int) -> str:
        """List, expiring: figures of the queue every `step_s` seconds, the newest first, see `samples`."""
        return f"{self.own_prefix}samples:{step_s}"

    def tally(self, hour: int) -> str:
        """Hash, expiring: what became of runs in an hour (Unix hours), by task type, see `tallies`."""
        return f"{self.own_prefix}tally:{hour}"

    def removed(self, kind: str) -> str:
        """Former `pending`, `scheduled`, ... of a queue that is being removed, until its tasks are deleted."""
        return f"{self.own_prefix}removed:{kind}"

    def combined_set(self, set_id: str) -> str:
        """Sorted set: members of a set that was turned into one task, still to be deleted."""
        return f"{self.combined}:{set_id}"

    def quarantined(self, task_id: str) -> str:
        """Hash: the fields of an unreadable task, byte for byte."""
        return f"{self.own_prefix}quarantine:{task_id}"

    def strange(self, key: str, at_ns: int) -> str:
        """Former key of the queue with a wrong type, with the time (Unix ns) it was renamed."""
        return f"{self.own_prefix}strange:{key.removeprefix(self.prefix).removeprefix(self.own_prefix)}:{at_ns}"


class Keys:
    """All keys of one installation.

    Args:
        prefix: First part of every key. `asynq` is what Go programs use.

    Raises:
        ConfigurationError: The prefix is not usable.
    """

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = validate_prefix(prefix)
        self.queues = f"{prefix}:queues"  # set: names of all queues
        self.servers = f"{prefix}:servers"  # sorted set: server keys by expiry
        self.workers = f"{prefix}:workers"  # sorted set: workers keys by expiry
        self.schedulers = f"{prefix}:schedulers"  # sorted set: scheduler keys by expiry
        self.cancel = f"{prefix}:cancel"  # channel: ids of tasks to cancel
        self._own = own = "taskq" if prefix == DEFAULT_PREFIX else f"{prefix}:taskq"
        self.schedules = f"{own}:schedules"  # hash: schedules added, and paused, at run time, see `runtime_schedules`
        self.control = f"{own}:control"  # channel: requests to workers, see `taskq_core.codec.worker_requests`
        self._queues: dict[str, QueueKeys] = {}

    def __repr__(self) -> str:
        return f"Keys({self.prefix!r})"

    def queue(self, name: str) -> QueueKeys:
        """Return the keys of a queue; the same object for the same name. The name is not checked."""
        try:
            return self._queues[name]
        except KeyError:
            if len(self._queues) >= _CACHED_QUEUES:  # a flood of names must not grow memory
                self._queues.clear()
            keys = self._queues[name] = QueueKeys(self.prefix, name)
            return keys

    def home_of(self, workflow_key: str) -> QueueKeys | None:
        """Return the home queue of a workflow by its key, None if it belongs to another prefix."""
        own, found, workflow_id = workflow_key.rpartition(":wf:")
        _, opened, name = own.partition("{")
        if not found or not opened or not name.endswith("}") or not workflow_id or re.search(r"[:\s]", workflow_id):
            return None
        queue = self.queue(name[:-1])
        return queue if workflow_key.startswith(queue.own_prefix) else None

    def server(self, host: str, pid: int, server_id: str) -> str:
        """String, expiring: record of one worker process."""
        return f"{self.servers}:{{{host}:{pid}:{server_id}}}"

    def workers_of(self, host: str, pid: int, server_id: str) -> str:
        """Hash, expiring: running tasks of one worker process."""
        return f"{self.workers}:{{{host}:{pid}:{server_id}}}"

    def scheduler(self, host: str, pid: int, scheduler_id: str) -> str:
        """List, expiring: periodic entries of one scheduler."""
        return f"{self.schedulers}:{{{host}:{pid}:{scheduler_id}}}"

    def scheduler_leader(self, entries: str) -> str:
        """String, expiring: which scheduler acts for a set of entries, which is named by its digest."""
        return f"{self._own}:scheduler:leader:{entries}"

    def outbox_leader(self, table: str) -> str:
        """String, expiring: which worker relays the rows of an outbox table."""
        return f"{self._own}:outbox:leader:{table}"

    def semaphore(self, scope: str) -> str:
        """Sorted set: who holds a place of a semaphore, by the Unix second until which it is held."""
        return f"{self.prefix}:sema:{scope}"

    def scheduler_history(self, entry_id: str) -> str:
        """Sorted set: past firings of one periodic entry."""
        return f"{self.prefix}:scheduler_history:{entry_id}"


def validate_queue_name(name: str) -> str:
    """Return the queue name if it can be used.

    At most 256 bytes of valid UTF-8, not blank, no control character, and no `}` in front: that would leave the hash
    tag empty and spread one queue over several cluster slots.

    Raises:
        ConfigurationError: It cannot.
    """
    _validate("queue name", name)
    if name.startswith("}"):
        raise ConfigurationError(f"queue name must not start with '}}', got {_shown(name)}")
    return name


def validate_task_id(task_id: str) -> str:
    """Return the task id if it can be used: at most 256 bytes of valid UTF-8, not blank, no control character.

    Raises:
        ConfigurationError: It cannot.
    """
    return _validate("task id", task_id)


def validate_task_type(task_type: str) -> str:
    """Return the task type if it can be used: at most 256 bytes of valid UTF-8, not blank, no control character.

    Raises:
        ConfigurationError: It cannot.
    """
    return _validate("task type", task_type)


def validate_group_name(group: str) -> str:
    """Return the group name if it can be used: at most 256 bytes of valid UTF-8, not blank, no control character.

    Raises:
        ConfigurationError: It cannot.
    """
    return _validate("group name", group)


def validate_scope(scope: str) -> str:
    """Return the scope of a semaphore if it can be used: at most 256 bytes of valid UTF-8, no control character.

    Raises:
        ConfigurationError: It cannot.
    """
    return _validate("scope of a semaphore", scope)


def validate_entry_id(entry_id: str) -> str:
    """Return the id of a periodic entry if it can be used: as a task id.

    Raises:
        ConfigurationError: It cannot.
    """
    return _validate("entry id", entry_id)


def validate_prefix(prefix: str) -> str:
    """Return the key prefix if it can be used.

    At most 256 bytes of valid UTF-8, not blank, no control character, no brace (it would become the hash tag of every
    key), and not `taskq` as its last part, because our own keys of another prefix are named so.

    Raises:
        ConfigurationError: It cannot.
    """
    _validate("key prefix", prefix)
    if "{" in prefix or "}" in prefix:
        raise ConfigurationError(f"key prefix must not contain a brace, got {_shown(prefix)}")
    if prefix == "taskq" or prefix.endswith(":taskq"):
        raise ConfigurationError(f"key prefix must not end in 'taskq', got {_shown(prefix)}")
    return prefix


def _validate(what: str, value: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{what} must be a string, got {type(value).__name__}")
    if not value or value.isspace():
        raise ConfigurationError(f"{what} must not be blank, got {_shown(value)}")
    if value.isascii() and value.isprintable() and len(value) <= MAX_NAME_BYTES:
        return value
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"{what} must be valid UTF-8, got {_shown(value)}") from None
    if size > MAX_NAME_BYTES:
        raise ConfigurationError(f"{what} must be at most {MAX_NAME_BYTES} bytes, got {size}: {_shown(value)}")
    if _CONTROL.search(value):
        raise ConfigurationError(f"{what} must not contain a control character, got {_shown(value)}")
    return value


def _shown(value: str) -> str:
    text = ascii(value[:_SHOWN])
    return text if len(value) <= _SHOWN and len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _utc_day(day: date | float) -> str:
    if isinstance(day, datetime):
        if day.tzinfo is None:
            raise ValueError("the day of a naive datetime is not known; give it a time zone")
        return day.astimezone(UTC).date().isoformat()
    if isinstance(day, date):
        return day.isoformat()
    return _day_of_number(int(day // 86_400))


@lru_cache(maxsize=8)
def _day_of_number(number: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + number).isoformat()
