"""The settings of a queue application as checked, immutable records.

`Settings` holds the arguments of `TaskQ(...)`, Django's setting `TASKQ` and the variables `TASKQ_<KEY>` of the
environment. Keys are upper case in a dict and in the environment, and lower case in Python. An error names the key, its
value and the expected values, but never shows a password of the URL.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from taskq_core.errors import ConfigurationError
from taskq_core.settings.environment import read_environ
from taskq_core.settings.log import LogSettings
from taskq_core.settings.values import (
    CONCURRENCY_MAX,
    Duration,
    by_field,
    by_queue,
    check_flag,
    check_modules,
    check_processes,
    check_queues,
    check_whole,
    member,
    members,
    memory_bytes,
    message_bytes,
    read_record,
    seconds,
    unknown,
)
from taskq_core.wire import validate_prefix
from taskq_core.wire.cron import time_zone

TRACE_ID = "{trace_id}"
"""Placeholder for the id of a trace in `TRACE["URL"]`."""


class Relation(StrEnum):
    """How the span of a run relates to the span in which the task was enqueued."""

    PARENT = "parent"
    """The span of the run is a child of the span of the enqueue, so both are in one trace."""
    LINK = "link"
    """The run starts a new trace with a link to the span of the enqueue."""
    NONE = "none"
    """The run starts a new trace without a link."""


class OptIn(StrEnum):
    """Optional details of traces.

    These details are off by default, because they add spans or reveal the size of data.
    """

    RECEIVE = "receive"
    """A span `receive <queue>` for each response of Redis in which a worker received tasks."""
    SETTLE = "settle"
    """A span `settle <queue>` for each batch of task outcomes that a worker sends."""
    BODY_SIZE = "body_size"
    """The payload size in bytes, as the span attribute `messaging.message.body.size`."""


class EnqueueMode(StrEnum):
    """When a framework adapter sends a task that is enqueued inside a database transaction."""

    ON_COMMIT = "on_commit"
    IMMEDIATE = "immediate"
    OUTBOX = "outbox"


class WhenFull(StrEnum):
    """What an enqueue does if the queue is full."""

    REJECT = "reject"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """The setting `TRACE`: how tasks continue traces."""

    relation: Relation = Relation.PARENT
    """`parent`: a task continues the trace of its request. `link`: it starts a new trace with a link to the trace of
    the request. `none`: it starts a new trace without a link."""
    baggage: bool = True
    """Whether a task's headers contain OpenTelemetry's baggage. All headers together have at most 8 KiB."""
    url: str = ""
    """URL of a trace in a tracing tool, `http` or `https`, with `{trace_id}` for the id. Dashboards link to it. "": no
    links."""
    opt_in: Collection[OptIn] = ()
    """Optional details of traces: `receive` and `settle` (spans of a worker's requests to Redis) and `body_size`."""

    create_spans: bool = True
    """Whether each task of a bulk enqueue has a span `create`. Otherwise its run continues the span of the batch."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "relation", member(Relation, "TRACE['RELATION']", self.relation))
        for flag in ("baggage", "create_spans"):
            check_flag(f"TRACE[{flag.upper()!r}]", getattr(self, flag))
        object.__setattr__(self, "opt_in", members(OptIn, "TRACE['OPT_IN']", self.opt_in))
        _check_trace_url(self.url)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The size and age limits of one queue's archive."""

    max_tasks: int = 10_000
    """Maximum number of archived tasks. The oldest tasks are deleted first."""
    kept_s: int = 7_776_000
    """Seconds after which an archived task is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """The setting `ARCHIVE`: how many archived tasks are stored, and for how long. Older tasks are deleted.

    No limit can be 0, because an archived task is the only record of work that was not done.
    """

    max_tasks: int = 10_000
    """Maximum number of archived tasks of a queue, 1 to 10,000,000. The oldest tasks are deleted first."""
    max_age: Duration = 7_776_000.0
    """Time after which an archived task is deleted, at least one second."""
    queues: Mapping[str, Any] = field(default_factory=dict)
    """Limits for single queues: a dict of queue names to dicts with the keys `MAX_TASKS` and `MAX_AGE`."""

    def __post_init__(self) -> None:
        usual = self._checked("ARCHIVE", self.max_tasks, self.max_age)
        object.__setattr__(self, "max_age", float(usual.kept_s))
        queues = by_queue("ARCHIVE['QUEUES']", self.queues, self._of_queue)
        object.__setattr__(self, "queues", MappingProxyType(queues))

    def _of_queue(self, where: str, value: Any) -> ArchiveLimits:
        if isinstance(value, ArchiveLimits):
            return self._checked(where, value.max_tasks, value.kept_s)
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where} must be a dict of MAX_TASKS and MAX_AGE, got {value!r}")
        for key in value:
            if key not in ("MAX_TASKS", "MAX_AGE"):
                raise unknown(f"setting in {where}", str(key), ("MAX_TASKS", "MAX_AGE"))
        return self._checked(where, value.get("MAX_TASKS", self.max_tasks), value.get("MAX_AGE", self.max_age))

    @staticmethod
    def _checked(where: str, max_tasks: object, max_age: object) -> ArchiveLimits:
        tasks = check_whole(f"{where}['MAX_TASKS']", max_tasks, least=1, most=10_000_000)
        age_s = seconds(f"{where}['MAX_AGE']", max_age)
        if age_s < 1:
            raise ConfigurationError(f"{where}['MAX_AGE'] must be at least 1 second, got {max_age!r}")
        return ArchiveLimits(tasks, int(age_s))

    def limits(self, queue: str) -> ArchiveLimits:
        """Return the limits of a queue."""
        limits: ArchiveLimits | None = self.queues.get(queue)
        return limits or self._checked("ARCHIVE", self.max_tasks, self.max_age)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimit:
    """The limits of one queue in the setting `LIMITS`: how many tasks may be pending, and how many may run at once."""

    max_pending: int | None = None
    """Maximum pending tasks, 1 to 100,000,000. The queue is then full, and clients cannot enqueue. None: no limit."""
    when_full: WhenFull = WhenFull.REJECT
    """`reject`: enqueueing to a full queue raises `QueueFullError` at once. `block`: the enqueue first waits for
    room."""
    block_timeout: Duration | None = None
    """Maximum time to wait for room in the queue, more than 0. None: the value of `ENQUEUE_TIMEOUT`."""
    concurrency: int | None = None
    """Maximum tasks of the queue that run at once on all workers. Tasks on Go workers count, but Go workers do not obey
    the limit. None: no limit."""
    worker_concurrency: int | None = None
    """Maximum tasks of the queue that run at once in one worker process. None: the worker's `concurrency`."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        for name in ("max_pending", "concurrency", "worker_concurrency"):
            if getattr(self, name) is not None:
                check_whole(name.upper(), getattr(self, name), least=1, most=100_000_000)
        set_(self, "when_full", member(WhenFull, "WHEN_FULL", self.when_full))
        if self.block_timeout is not None:
            set_(self, "block_timeout", seconds("BLOCK_TIMEOUT", self.block_timeout, allow_zero=False))


def _limit(where: str, value: Any) -> QueueLimit:
    if isinstance(value, QueueLimit):
        return value
    given = by_field(QueueLimit, where, value if isinstance(value, Mapping) else {"MAX_PENDING": value})
    if not given.keys() & {"max_pending", "concurrency", "worker_concurrency"}:
        raise ConfigurationError(f"{where} must have MAX_PENDING, CONCURRENCY or WORKER_CONCURRENCY, got {value!r}")
    try:
        return QueueLimit(**given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSettings:
    """The setting `CIRCUIT_BREAKER`: when clients stop sending requests to an unavailable Redis, and try again."""

    failures: int = 5
    """Number of consecutive failed enqueues after which the circuit opens and enqueues fail at once, 0 to 1,000,000.
    0: the circuit never opens."""
    first_pause: Duration = 0.5
    """Approximate time until the first retry after the circuit opened, more than 0. It doubles with each failed
    retry."""
    max_pause: Duration = 5.0
    """Maximum time until the next try to reach Redis, at least `first_pause`."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        check_whole("CIRCUIT_BREAKER['FAILURES']", self.failures, least=0, most=1_000_000)
        for name in ("first_pause", "max_pause"):
            where = f"CIRCUIT_BREAKER[{name.upper()!r}]"
            set_(self, name, seconds(where, getattr(self, name), allow_zero=False))
        if self.max_pause < self.first_pause:  # type: ignore[operator]  # both made seconds above
            raise ConfigurationError(
                f"CIRCUIT_BREAKER['MAX_PAUSE'] must be at least FIRST_PAUSE ({self.first_pause} s), "
                f"got {self.max_pause} s"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PropagateSettings:
    """The setting `PROPAGATE`: context of the enqueue that is also active while the task runs."""

    language: bool = True
    """Django: propagate the active language, unless it is the default."""
    time_zone: bool = True
    """Django: propagate the current time zone, unless it is the default."""
    enqueued_at: bool = True
    """Django: store the time of the enqueue, which the admin shows."""
    request_id: bool | str = True
    """Django: propagate the id of the request. Text is the import path of a function without arguments that returns
    it."""

    def __post_init__(self) -> None:
        for flag in ("language", "time_zone", "enqueued_at"):
            check_flag(f"PROPAGATE[{flag.upper()!r}]", getattr(self, flag))
        if not isinstance(self.request_id, bool) and not (isinstance(self.request_id, str) and "." in self.request_id):
            raise ConfigurationError(
                f"PROPAGATE['REQUEST_ID'] must be True, False or the path of a function, got {self.request_id!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSettings:
    """The setting `EMAIL`: how workers send Django's e-mail. See `taskq_django.mail`."""

    backend: str = "django.core.mail.backends.smtp.EmailBackend"
    """Django: import path of the backend with which the worker sends. Unused if Django's setting `MAILERS` is set."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the task that sends a message, such as `queue` and `max_retry`."""

    def __post_init__(self) -> None:
        if not isinstance(self.backend, str) or "." not in self.backend:
            raise ConfigurationError(f"EMAIL['BACKEND'] must be the path of a backend's class, got {self.backend!r}")
        if not isinstance(self.options, Mapping):
            raise ConfigurationError(f"EMAIL['OPTIONS'] must be a dict of task options, got {self.options!r}")
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


DEFAULT_QUEUES: Mapping[str, int] = MappingProxyType({"default": 1})
"""Default of the setting `QUEUES`, with weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Configuration of one queue application."""

    url: Any = field(default="redis://localhost:6379/0", repr=False)
    """Address of Redis: a URL (redis, rediss, unix, redis+sentinel, redis+cluster, embedded) or a redis-py client."""
    prefix: str = "asynq"
    """First part of every key in Redis. Go Asynq only supports `asynq`."""
    queues: Mapping[str, int] = field(default_factory=lambda: DEFAULT_QUEUES)
    """Queues that a worker serves, with their weights (1 or more)."""
    strict_priority: bool = False
    """Serve a queue only while all queues with larger weights are empty."""
    concurrency: int = 10
    """Number of tasks that a worker process runs at the same time. At least 1."""
    processes: int | str = 1
    """Number of processes that `taskq worker` and `runworker` start, each running `concurrency` tasks. `auto`: one for
    each core. A worker inside an app always has one process."""
    max_tasks: int | None = None
    """Approximate number of tasks after which a worker process is replaced, at least 1. None: no limit."""
    max_memory: int | str | None = None
    """Approximate memory use at which a worker process is replaced: bytes, or text such as `300MB`; at least 16 MiB.
    None: no limit."""
    max_message_size: int | str = "32MiB"
    """Maximum size of a message that workers read: bytes, or text such as `64MB`; 17 MiB to 512 MiB. A task with a
    larger message is moved to quarantine unread. Only other programs can enqueue such a task."""
    shutdown_grace: Duration = 30.0
    """Seconds that a stopping worker gives running tasks to finish. Then they return to the head of their queue."""
    unknown_task_timeout: Duration = 3600.0
    """Seconds for which workers return a task that they do not know to its queue, for other workers. Returning the task
    uses no attempt. After this time, the task is archived. 0 archives the task at once."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Default task options, as in `@taskq.task(...)`."""
    enqueue: EnqueueMode = EnqueueMode.ON_COMMIT
    """When a task that is enqueued in an open database transaction is sent. `on_commit`: at the commit. `immediate`: at
    once. `outbox`: the task is written to the database in the transaction, and sent to Redis after the commit; see
    `taskq_core.client.outbox`."""
    enqueue_timeout: Duration = 2.0
    """Maximum seconds that an enqueue may take if Redis does not answer."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Limits of queues: a dict of queue names to a maximum number of pending tasks, or to a dict of the keys of
    `QueueLimit`, such as `MAX_PENDING` and `CONCURRENCY`."""
    circuit_breaker: CircuitSettings = field(default_factory=CircuitSettings)
    """When clients stop sending requests to an unavailable Redis. False: never."""
    eager: bool = False
    """Django: run each task at once in the process that enqueues it, without Redis. For tests and development."""
    eager_propagates: bool = False
    """Django: with `eager`, raise the error of a failed task from the call that enqueues it, or from the commit that
    sends it."""
    redis_in_tests: bool = False
    """Django: let tests use the Redis of `url`. Otherwise an enqueue in a test fails unless the test uses a store in
    memory."""
    dev_worker: bool = False
    """Django: run a worker in the process of `manage.py runserver`. Not allowed without `DEBUG`."""
    include: Sequence[str] = ()
    """Modules with tasks, for example `("shop.tasks",)`. Workers, schedulers and the command line import them."""
    autodiscover: bool | tuple[str, ...] = True
    """Django: import the module `tasks` of every installed app (True), nothing (False), or modules with these names."""
    schedule: Mapping[str, Any] = field(default_factory=dict)
    """Periodic tasks: a dict of entry ids to dicts of `task` and `spec`, and optionally `kwargs`, `tz`, `catch_up`,
    `window` and task options."""
    time_zone: str = "UTC"
    """IANA name of the time zone of cron lines that name no time zone."""
    propagate: PropagateSettings = field(default_factory=PropagateSettings)
    """Django: context of the enqueue that is also active while the task runs. False: none."""
    email: EmailSettings = field(default_factory=EmailSettings)
    """Django: how workers send the e-mail that `taskq_django.mail.EmailBackend` enqueues."""
    archive: ArchiveSettings = field(default_factory=ArchiveSettings)
    """How many archived tasks are stored, and for how long."""
    trace: TraceSettings = field(default_factory=TraceSettings)
    """How tasks continue the trace of the code that enqueued them."""
    log: LogSettings = field(default_factory=LogSettings)
    """How failed runs appear in logs and spans."""

    def __post_init__(self) -> None:
        if isinstance(self.url, str) and not self.url.strip():
            raise ConfigurationError("URL must not be blank; for example redis://localhost:6379/0")
        validate_prefix(self.prefix)
        set_ = object.__setattr__
        if self.queues is not DEFAULT_QUEUES:
            set_(self, "queues", MappingProxyType(check_queues(self.queues)))
        check_whole("CONCURRENCY", self.concurrency, least=1, most=CONCURRENCY_MAX)
        check_processes("PROCESSES", self.processes)
        if self.max_tasks is not None:
            check_whole("MAX_TASKS", self.max_tasks, least=1, most=1_000_000_000)
        if self.max_memory is not None:
            set_(self, "max_memory", memory_bytes("MAX_MEMORY", self.max_memory))
        set_(self, "max_message_size", message_bytes("MAX_MESSAGE_SIZE", self.max_message_size))
        set_(self, "shutdown_grace", seconds("SHUTDOWN_GRACE", self.shutdown_grace))
        set_(self, "unknown_task_timeout", seconds("UNKNOWN_TASK_TIMEOUT", self.unknown_task_timeout))
        set_(self, "enqueue_timeout", seconds("ENQUEUE_TIMEOUT", self.enqueue_timeout, allow_zero=False))
        set_(self, "limits", MappingProxyType(by_queue("LIMITS", self.limits, _limit)))
        set_(self, "enqueue", member(EnqueueMode, "ENQUEUE", self.enqueue))
        for flag in ("strict_priority", "eager", "eager_propagates", "redis_in_tests", "dev_worker"):
            check_flag(flag.upper(), getattr(self, flag))
        for name, content in (("defaults", "task options"), ("schedule", "periodic tasks")):
            set_(self, name, _frozen(name.upper(), getattr(self, name), content))
        _check_zone(self.time_zone)
        for name, kind, off in _RECORDS:
            set_(self, name, read_record(kind, name.upper(), getattr(self, name), off=off))
        set_(self, "include", check_modules("INCLUDE", self.include))
        set_(self, "autodiscover", _modules(self.autodiscover))

    @property
    def max_message_bytes(self) -> int:
        """The setting `max_message_size` in bytes."""
        assert isinstance(self.max_message_size, int)
        return self.max_message_size

    @property
    def has_own_queues(self) -> bool:
        """Whether `queues` was set explicitly."""
        return self.queues is not DEFAULT_QUEUES

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> "Settings":
        """Build settings from a dict of upper-case keys. Variables `TASKQ_<KEY>` of the environment replace its values.

        Raises:
            ConfigurationError: A key is unknown (the message suggests a similar one) or a value is not valid.
        """
        return cls(**{**by_field(cls, "TASKQ", mapping), **values_from_environ(environ or {})})


_RECORDS: tuple[tuple[str, type[Any], Any], ...] = (
    ("circuit_breaker", CircuitSettings, CircuitSettings(failures=0)),
    (
        "propagate",
        PropagateSettings,
        PropagateSettings(language=False, time_zone=False, enqueued_at=False, request_id=False),
    ),
    ("email", EmailSettings, None),
    ("archive", ArchiveSettings, None),
    ("trace", TraceSettings, None),
    ("log", LogSettings, None),
)
"""Settings whose value is a record: the setting's name, the record's class, and the record that the value False
means."""


def _frozen(name: str, value: Any, content: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must be a dict of {content}, got {type(value).__name__}")
    return MappingProxyType(dict(value))


def _check_trace_url(url: Any) -> None:
    """Check that a trace URL is an http or https address with a placeholder. A `javascript:` URL would be an attack."""
    expected = "TRACE['URL'] must be an http or https address with {trace_id} in it, got"
    if not isinstance(url, str):
        raise ConfigurationError(f"{expected} {url!r}")
    if not url:
        return
    filled = url.replace(TRACE_ID, "0" * 32)
    try:
        parts = urlsplit(filled)
        host = parts.hostname
    except ValueError:
        host = None
    is_plain = url.isprintable() and not any(char in filled for char in " {}<>\"'\\`")
    if TRACE_ID not in url or not is_plain or not host or parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{expected} {url!r}")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("TRACE['URL'] must not contain a user or password, because pages show it")


def _check_zone(name: Any) -> None:
    try:
        time_zone(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"TIME_ZONE: {error}") from None


def _modules(value: Any) -> bool | tuple[str, ...]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        raise ConfigurationError(f"AUTODISCOVER must be True, False or a list of module names, got {value!r}")
    return tuple(value)


def values_from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings from `TASKQ_<KEY>` variables by field name. The values are not checked yet.

    Raises:
        ConfigurationError: A variable that begins with `TASKQ_` is unknown, or its text cannot be parsed.
    """
    return read_environ(environ, {each.name.upper(): each for each in fields(Settings)})
