"""The names and types of all keys in Redis.

Keys under `<prefix>:` belong to Go Asynq and must match its names byte for byte. Keys under `taskq:{Q}:` are used by
taskq only. These keys have the queue as hash tag too, so that all keys of a queue are in one cluster slot. With a
prefix other than `asynq`, taskq-only keys contain the prefix as well, so two prefixes on one Redis never share a key.

Functions that build a key do not check names: Go may have created a queue that taskq would refuse, and tools must still
show it. Code that receives a name from a user has to call the `validate_...` functions.
"""

import hashlib
import re
from datetime import UTC, date, datetime
from functools import lru_cache

from taskq_core.errors import ConfigurationError

DEFAULT_PREFIX = "asynq"
DEFAULT_QUEUE = "default"
MAX_NAME_BYTES = 256
"""Maximum length of a queue name, task id, task type or prefix, in bytes of UTF-8."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN = 80
_CACHED_QUEUES = 1024
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class QueueKeys:
    """The keys of one queue. `Keys.queue` creates and caches them.

    Asynq's keys are lists (`pending`, `active`), sorted sets (`lease`, `scheduled`, `retry`, `archived`, `completed`,
    `aggregation_sets`, groups and their aggregation sets), a set (`groups`), strings (`paused`, the counters, unique
    locks) and one hash per task. taskq-only keys are described at their attribute or method.
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
        self.urgent = own + "urgent"  # sorted set, expiring: ids of pending tasks with a priority, in order
        self.letters = own + "letters"  # sorted set: id of an archived task for the dead-letter handlers, by due time
        self.quarantine = own + "quarantine"  # sorted set: id of an unreadable task by time of quarantine (s)
        self.delivered = (
            own + "delivered"
        )  # sorted set: receipt of a task from an outbox or of a copy, by time of delivery (s)
        self.runs = own + "runs"  # hash: runs of periodic entries that were not copied to the schedule table yet
        self.combined = own + "combined"  # sorted set: id of an aggregation set with members to delete, by time (s)
        self.steps = own + "wf-steps"  # sorted set: started workflow step, by start (s)
        self.workflows_out = own + "wf-out"  # sorted set: workflow step to start in another queue, by time (ms)
        self.failed_steps = own + "wf-failed"  # sorted set: failed steps with an archived task by time of failure (s)
        self.workflow_queues = own + "wf-queues"  # set: other queues that contain steps of workflows of this queue
        self.workflow_notes = own + "wf-notes"  # hash: outcomes of steps whose workflow belongs to another queue
        self.workflow_receipts = own + "wf-receipts"  # sorted set: receipt of a step from another queue, by arrival (s)
        self.workflows_open = own + "wf-open"  # sorted set: workflow that still accepts members, by time limit (s)
        self.workflows_running = own + "wf-running"  # sorted set: running workflow, by start (s)
        self.workflows_ended = own + "wf-ended"  # sorted set: ended workflow, by end of retention (s)
        self.questions = own + "questions"  # sorted set: open question of a task, by the time it was asked (ms)
        self.done = own + "done"  # channel: ids of ended tasks
        self.limits = own + "limits"  # hash: value of a limit that workers declare ("d:") or users set ("o:")
        self.limits_prefix = lim = own + "lim:"  # prefix of the keys of limits, see `_limits.lua`
        self.limits_due = lim + "due"  # sorted set: slot of a limit, by next start (Unix ms)
        self.limit_checks = lim + "check"  # sorted set: slot of a limit, by next check of its tasks (Unix ms)
        self.limit_workers = lim + "keepers"  # sorted set, expiring: worker that supports limits, by its last call (s)
        self.limit_wake = lim + "wake"  # list: at most one token, popped by the worker that starts limited tasks
        self.totals = own + "totals"  # hash, expiring: counters of runs by task type, see `tallies`
        self.receipt_prefix = own + "rcpt:"
        self.absent = own + "absent"  # never exists; deleting it is a harmless write that Redis allows above maxmemory

    def __repr__(self) -> str:
        return f"QueueKeys({self.prefix!r})"

    def task(self, task_id: str) -> str:
        """Hash of one task."""
        return self.task_prefix + task_id

    def group(self, group: str) -> str:
        """Sorted set: members waiting in a group."""
        return self.group_prefix + group

    def aggregation_set(self, group: str, set_id: str) -> str:
        """Sorted set: members of a group that an aggregator is combining into one task."""
        return f"{self.group_prefix}{group}:{set_id}"

    def daily_processed(self, day: date | float) -> str:
        """Counter of tasks processed on a UTC day, given as a date, an aware datetime or Unix seconds."""
        return f"{self.processed}:{_utc_day(day)}"

    def daily_failed(self, day: date | float) -> str:
        """Counter of failures on a UTC day, given as a date, an aware datetime or Unix seconds."""
        return f"{self.failed}:{_utc_day(day)}"

    def unique(self, task_type: str, payload: bytes | None) -> str:
        """Unique lock of a task type and payload. No payload (None) and an empty payload have different locks."""
        return self.lock(task_type, "" if payload is None else hashlib.md5(payload, usedforsecurity=False).hexdigest())

    def lock(self, task_type: str, digest: str) -> str:
        """Unique lock of a task type and a digest of the payload or of some arguments."""
        return f"{self.unique_prefix}{task_type}:{digest}"

    def is_lock(self, name: str) -> bool:
        """Return whether a name read from Redis is a unique lock of this queue. Callers must ignore every other name.

        Any producer of the queue can choose such a name, and the worker would change the named key with its own rights.
        `is_lock` in `_unique.lua` is the same rule for scripts.
        """
        return name.startswith(self.unique_prefix)

    def workflow(self, workflow_id: str) -> str:
        """Hash: a workflow with this home queue. Its groups have keys with additional suffixes, such as `:g<n>`."""
        return f"{self.own_prefix}wf:{workflow_id}"

    def workflow_cancelled(self, workflow_id: str) -> str:
        """String, expiring: present if workers must drop steps of this workflow, which has another home queue."""
        return f"{self.own_prefix}wf-cancelled:{workflow_id}"

    def steps_of(self, task_id: str) -> str:
        """Hash, expiring: results of the steps of a task and signals that it received, see `_steps.lua`."""
        return f"{self.own_prefix}steps:{task_id}"

    def stream_of(self, task_id: str) -> str:
        """Stream, expiring: values that a task emits while it runs."""
        return f"{self.own_prefix}stream:{task_id}"

    def receipt(self, connection: str) -> str:
        """String, expiring: result of the last enqueue call of a connection. A repeat returns this result."""
        return self.receipt_prefix + connection

    def unconfirmed(self, task_id: str) -> str:
        """String, expiring: digest of a call whose task is stored but not yet confirmed by replicas."""
        return f"{self.own_prefix}unconfirmed:{task_id}"

    def call(self, worker: str) -> str:
        """String, expiring: tasks of the last dequeue call of a worker. A repeat returns the same tasks."""
        return f"{self.own_prefix}call:{worker}"

    def leader(self, service: str) -> str:
        """String, expiring: token of the worker that leads a service (`forwarder`, `recoverer`, ...) of this queue."""
        return f"{self.own_prefix}leader:{service}"

    def peers(self, place: str) -> str:
        """Hash, expiring: worker processes of one host by token, see `taskq_core.worker.liveness`."""
        return f"{self.own_prefix}peers:{place}"

    def tick(self, entry: str) -> str:
        """String, expiring: last firings of a periodic entry. `entry` is its id with its schedule, see `periodic`."""
        return f"{self.own_prefix}tick:{entry}"

    def samples(self, step_s: int) -> str:
        """List, expiring: figures of the queue every `step_s` seconds, the newest first, see `samples`."""
        return f"{self.own_prefix}samples:{step_s}"

    def tally(self, hour: int) -> str:
        """Hash, expiring: counters of the runs of an hour (Unix hours), by task type, see `tallies`."""
        return f"{self.own_prefix}tally:{hour}"

    def removed(self, kind: str) -> str:
        """New name of `pending`, `scheduled`, ... while a queue is being removed, until all its tasks are deleted."""
        return f"{self.own_prefix}removed:{kind}"

    def combined_set(self, set_id: str) -> str:
        """Sorted set: members of a combined aggregation set, which must still be deleted."""
        return f"{self.combined}:{set_id}"

    def quarantined(self, task_id: str) -> str:
        """Hash: the unchanged fields of an unreadable task."""
        return f"{self.own_prefix}quarantine:{task_id}"

    def strange(self, key: str, at_ns: int) -> str:
        """New name of a key with a wrong type. It contains the time of the renaming (Unix ns)."""
        return f"{self.own_prefix}strange:{key.removeprefix(self.prefix).removeprefix(self.own_prefix)}:{at_ns}"


class Keys:
    """All keys of one installation.

    Args:
        prefix: First part of every key. Go programs use `asynq`.

    Raises:
        ConfigurationError: The prefix is not valid.
    """

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = validate_prefix(prefix)
        self.queues = f"{prefix}:queues"  # set: names of all queues
        self.servers = f"{prefix}:servers"  # sorted set: server keys by expiry
        self.workers = f"{prefix}:workers"  # sorted set: workers keys by expiry
        self.schedulers = f"{prefix}:schedulers"  # sorted set: scheduler keys by expiry
        self.cancel = f"{prefix}:cancel"  # channel: ids of tasks to cancel
        self._own = own = "taskq" if prefix == DEFAULT_PREFIX else f"{prefix}:taskq"
        self.schedules = f"{own}:schedules"  # hash: schedules added or paused at run time, see `runtime_schedules`
        self.control = f"{own}:control"  # channel: requests to workers, see `taskq_core.codec.worker_requests`
        self._queues: dict[str, QueueKeys] = {}

    def __repr__(self) -> str:
        return f"Keys({self.prefix!r})"

    def queue(self, name: str) -> QueueKeys:
        """Return the keys of a queue, from a cache. The name is not checked."""
        try:
            return self._queues[name]
        except KeyError:
            if len(self._queues) >= _CACHED_QUEUES:  # a program may use very many queue names, so limit the memory
                self._queues.clear()
            keys = self._queues[name] = QueueKeys(self.prefix, name)
            return keys

    def home_of(self, workflow_key: str) -> QueueKeys | None:
        """Return the home queue in the key of a workflow; None if the key has another prefix."""
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
        """String, expiring: token of the scheduler that leads a set of entries. `entries` is a digest of the set."""
        return f"{self._own}:scheduler:leader:{entries}"

    def peers(self, place: str) -> str:
        """Hash, expiring: worker processes of one host by token, whatever their queues. See `QueueKeys.peers`."""
        return f"{self._own}:peers:{place}"

    def outbox_leader(self, table: str) -> str:
        """String, expiring: token of the worker that sends the rows of an outbox table."""
        return f"{self._own}:outbox:leader:{table}"

    def semaphore(self, scope: str) -> str:
        """Sorted set: holders of a semaphore, by the Unix second until which they hold their permit."""
        return f"{self.prefix}:sema:{scope}"

    def scheduler_history(self, entry_id: str) -> str:
        """Sorted set: past firings of one periodic entry."""
        return f"{self.prefix}:scheduler_history:{entry_id}"


def validate_queue_name(name: str) -> str:
    """Return the queue name if it is valid.

    A valid name has at most 256 bytes of UTF-8, is not blank, has no control character, and does not begin with `}`,
    which would make the hash tag empty and distribute the queue over several cluster slots.

    Raises:
        ConfigurationError: The name is not valid.
    """
    _validate("queue name", name)
    if name.startswith("}"):
        raise ConfigurationError(f"queue name must not start with '}}', got {_shown(name)}")
    return name


def validate_task_id(task_id: str) -> str:
    """Return the task id if it is valid: at most 256 bytes of UTF-8, not blank, no control character.

    Raises:
        ConfigurationError: The id is not valid.
    """
    return _validate("task id", task_id)


def validate_task_type(task_type: str) -> str:
    """Return the task type if it is valid: at most 256 bytes of UTF-8, not blank, no control character.

    Raises:
        ConfigurationError: The task type is not valid.
    """
    return _validate("task type", task_type)


def validate_group_name(group: str) -> str:
    """Return the group name if it is valid: at most 256 bytes of UTF-8, not blank, no control character.

    Raises:
        ConfigurationError: The name is not valid.
    """
    return _validate("group name", group)


def validate_scope(scope: str) -> str:
    """Return the scope of a semaphore if it is valid: at most 256 bytes of UTF-8, not blank, no control character.

    Raises:
        ConfigurationError: The scope is not valid.
    """
    return _validate("scope of a semaphore", scope)


def validate_entry_id(entry_id: str) -> str:
    """Return the id of a periodic entry if it is valid. The rules are those of a task id.

    Raises:
        ConfigurationError: The id is not valid.
    """
    return _validate("entry id", entry_id)


def validate_prefix(prefix: str) -> str:
    """Return the key prefix if it is valid.

    A valid prefix has at most 256 bytes of UTF-8, is not blank, has no control character and no brace (which would
    become the hash tag of every key), and does not end in `taskq`, which marks taskq-only keys of another prefix.

    Raises:
        ConfigurationError: The prefix is not valid.
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
            raise ValueError("the UTC day of a naive datetime is unknown; add a time zone")
        return day.astimezone(UTC).date().isoformat()
    if isinstance(day, date):
        return day.isoformat()
    return _day_of_number(int(day // 86_400))


@lru_cache(maxsize=8)
def _day_of_number(number: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + number).isoformat()
