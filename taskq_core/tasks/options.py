"""The options of a task, with their meanings, units, defaults and checks."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol, TypedDict

from taskq_core.broker.operations.operation import replicas_of
from taskq_core.codec import check_step_name
from taskq_core.codec.oversized import LARGEST_RESULT, RESULT_MAX
from taskq_core.errors import ConfigurationError, TaskControl
from taskq_core.execution.retry import RetryDelay, as_policy
from taskq_core.settings import Duration, Relation, check_flag, check_whole, exception_classes, member, seconds, unknown
from taskq_core.tasks.limits import (
    Concurrency,
    Key,
    Limit,
    RateLimit,
    TaskSequence,
    as_concurrency,
    as_rate_limit,
    as_sequence,
)
from taskq_core.tasks.uniqueness import Unique
from taskq_core.telemetry.propagation import check_headers
from taskq_core.wire import (
    DEFAULT_QUEUE,
    HIGHEST_BAND,
    Expiry,
    validate_group_name,
    validate_queue_name,
    validate_task_id,
    validate_task_type,
)
from taskq_core.wire.durations import LATEST_S

DEFAULT_MAX_RETRY = 25
"""Default of the option `max_retry`, the same as Asynq's."""
DEFAULT_TIMEOUT_S = 1800
"""Timeout in seconds of a task with neither timeout nor deadline, the same as Asynq's."""


class TaskExecutor(StrEnum):
    """Where a worker runs the plain function of a task."""

    THREAD = "thread"
    """The function runs in a thread of the worker."""
    PROCESS = "process"
    """The function runs in a separate process, which has its own interpreter lock and can be killed."""


class OnMissing(StrEnum):
    """What happens to a run if an object that its arguments refer to no longer exists."""

    FAIL = "fail"
    DISCARD = "discard"


class OnExpiry(StrEnum):
    """What happens to a task that was not started in time."""

    ARCHIVE = "archive"
    DISCARD = "discard"


class DeadLetterTask(Protocol):
    """The attributes that the option `dead_letter` needs of a task."""

    @property
    def name(self) -> str:
        """Name of the task."""
        ...

    @property
    def options(self) -> "TaskOptions":
        """Options of the task."""
        ...


class CallOptionsDict(TypedDict, total=False):
    """Keyword options of `.using(...)`, steps, schedules and remote tasks. The task message contains them."""

    queue: str
    priority: int
    retry_priority: int | None
    max_retry: int
    timeout: Duration | None
    deadline: datetime | None
    run_after: Duration | datetime | None
    expires: Duration | datetime | None
    on_expiry: OnExpiry | str
    dead_letter: "DeadLetterTask | str | None"
    retention: Duration
    task_id: str | None
    unique_for: Duration
    unique: Unique | None
    aggregate: str | None
    rate_limit: RateLimit | str | None
    concurrency: Concurrency | int | tuple[Concurrency | int, ...] | None
    sequence: TaskSequence | Key
    headers: Mapping[str, str]
    replicated: bool | int
    fsynced: bool


class HandlerOptionsDict(TypedDict, total=False):
    """Keyword options of `@taskq.handler(...)`. A worker reads them from its own code."""

    retry_delay: RetryDelay
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    no_retry_on: type[BaseException] | tuple[type[BaseException], ...]
    is_failure: Callable[[BaseException], bool] | None
    trace: Relation | str | None
    max_result_bytes: int


class TaskOptionsDict(CallOptionsDict, HandlerOptionsDict, total=False):
    """Keyword options of `@taskq.task(...)`."""

    on_missing: OnMissing | str
    signals: Mapping[str, Any]
    step_errors: type[Exception] | tuple[type[Exception], ...]
    max_emitted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Options of one task, checked."""

    queue: str = "default"
    """Queue of the task."""
    priority: int = 0
    """Priority band inside the queue, 0 to 9. Workers take tasks of higher bands first."""
    retry_priority: int | None = None
    """Priority band of the task's retries. None: the value of `priority`."""
    max_retry: int = DEFAULT_MAX_RETRY
    """Maximum retries after the first run. With 0 the task runs once."""
    retry_delay: RetryDelay = None
    """Time until the next attempt: None (Asynq's default), a duration, a list, `exponential(...)` or a function."""
    retry_on: tuple[type[BaseException], ...] = ()
    """Exception classes that cause a retry. Any other error archives the task. Empty: every error causes a retry."""
    no_retry_on: tuple[type[BaseException], ...] = ()
    """Exception classes that archive the task at once."""
    is_failure: Callable[[BaseException], bool] | None = None
    """Function that returns whether an error counts as a failure. If not, the task is retried without using an attempt
    and without counting a failure. None: every error counts."""
    trace: Relation | str | None = None
    """How the trace of a run relates to the trace of its enqueue: `parent`, `link` or `none`. None: the setting
    `TRACE` decides."""
    on_missing: OnMissing | str = OnMissing.FAIL
    """What happens to a run if an object that its arguments refer to no longer exists, such as a deleted row: `fail`
    archives the task at once with `MissingReferenceError`, `discard` drops it."""
    signals: Mapping[str, Any] = field(default_factory=dict)
    """Names and types of the signals that the task receives. A handle refuses other names, and values that do not fit.
    Empty: every signal is sent, and `context.receive` checks its type."""
    step_errors: tuple[type[Exception], ...] = ()
    """Exception classes that the task's code may catch from its steps, at most one of each name. Other exceptions of
    steps reach the code as `StepFailedError`."""
    max_emitted: int = 10_000
    """Approximate number of emitted values that are stored for the task, 1 to 1,000,000. Older ones are deleted."""
    timeout: Duration | None = None
    """Maximum run time, more than 0. None: 30 minutes, or only the deadline if it is set. A plain function that has not
    ended 10 seconds after the timeout keeps running, and the worker starts another task beside it. With
    `executor="process"`, the function is killed."""
    deadline: datetime | None = None
    """Latest time at which the task may run, an aware datetime. None: no limit."""
    run_after: Duration | datetime | None = None
    """Earliest start: a delay from the enqueue, or an aware datetime. 0 or a past time means at once."""
    expires: Duration | datetime | None = None
    """Latest start of a run, including retries: a delay after the enqueue or `run_after`, or an aware datetime. None:
    no limit."""
    on_expiry: OnExpiry | str = OnExpiry.ARCHIVE
    """What happens to a task that was not started in time: `archive` or `discard`."""
    dead_letter: "DeadLetterTask | str | None" = None
    """Task, or name of a task in the queue `default`, that is enqueued when a worker archives this task."""
    retention: Duration = 0
    """How long the task and its result are stored after success. 0 deletes the task at once."""
    max_result_bytes: int = RESULT_MAX
    """Maximum bytes of the result as JSON, 1 to 536,870,912 (512 MiB). A larger result is not stored, and reading it
    raises `ResultTooLargeError`; the run still succeeds. Workers use the value of the registered task."""
    task_id: str | None = None
    """Id of the task, unique in its queue. None: a random UUID."""
    unique_for: Duration = 0
    """Refuse an enqueue while another task with the same queue, name and arguments was enqueued within this time and
    has not succeeded. At least one second, or 0 to refuse nothing. The lock is the same as Asynq's."""
    unique: Unique | None = None
    """Which tasks count as equal, for how long, and what happens to a second, equal task. `unique_for` is the short
    form for the most common case; only one of the two may be set. None: equal tasks are allowed. Added in 0.1."""
    aggregate: str | None = None
    """Group of the queue in which the task waits until an aggregator combines the group into one task. None or "": the
    task runs alone."""
    rate_limit: RateLimit | str | None = None
    """How often the task may start, for all workers of its queue together: "100/m" or a `RateLimit`. None: no limit."""
    concurrency: Concurrency | int | tuple[Concurrency | int, ...] | None = None
    """How many runs of the task may be active at once, for all workers of its queue together: a number, a `Concurrency`
    (may have a key), or a tuple of them. None: no limit."""
    sequence: TaskSequence | Key = None
    """Run tasks with the same key one at a time, in order: a parameter's name, a function of parameters, or a
    `TaskSequence`. None: in any order."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the task: text to text, at most 7 KiB of names and values together. Names that begin with `taskq-`
    are reserved, as are `traceparent`, `tracestate` and `baggage`."""
    replicated: bool | int = False
    """Number of Redis replicas that must have the task before its enqueue succeeds, 0 to 100. True: one."""
    fsynced: bool = False
    """Whether the task must be on disk before its enqueue succeeds: in the append-only file of Redis and of as many
    replicas as `replicated` requires. Needs Redis 7.2 with `appendonly yes`."""
    policy: Callable[..., Duration] = field(init=False, repr=False, compare=False)
    """The option `retry_delay` converted to a function, which `retry.delay_after` calls."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        validate_queue_name(self.queue)
        check_whole("max_retry", self.max_retry, least=0, most=2**31 - 1)
        for name in ("priority", "retry_priority"):
            _check_band(name, getattr(self, name))
        set_(self, "policy", as_policy(self.retry_delay))
        set_(self, "retry_on", exception_classes("retry_on", self.retry_on))
        set_(self, "no_retry_on", exception_classes("no_retry_on", self.no_retry_on))
        if self.is_failure is not None:
            _check_error_function("is_failure", self.is_failure)
        if self.trace is not None:
            set_(self, "trace", member(Relation, "trace", self.trace))
        set_(self, "on_missing", member(OnMissing, "on_missing", self.on_missing))
        if not isinstance(self.signals, Mapping):
            raise ConfigurationError(f"signals must be a mapping of names to types, got {self.signals!r:.200}")
        for name in self.signals:
            check_step_name("name of a signal", name)
        set_(self, "step_errors", _step_errors(self.step_errors))
        check_whole("max_emitted", self.max_emitted, least=1, most=1_000_000)
        set_(self, "on_expiry", member(OnExpiry, "on_expiry", self.on_expiry))
        _check_dead_letter(self.dead_letter)
        check_whole("max_result_bytes", self.max_result_bytes, least=1, most=LARGEST_RESULT)
        if self.task_id is not None:
            validate_task_id(self.task_id)
        set_(self, "aggregate", validate_group_name(self.aggregate) if self.aggregate else None)
        set_(self, "rate_limit", as_rate_limit(self.rate_limit))
        set_(self, "concurrency", as_concurrency(self.concurrency))
        set_(self, "sequence", as_sequence(self.sequence))
        set_(self, "headers", MappingProxyType(_check_headers(self.headers)))
        set_(self, "replicated", replicas_of(self.replicated))
        check_flag("fsynced", self.fsynced)
        self._set_times()

    def _set_times(self) -> None:
        """Check the options that are durations or times, and convert durations to seconds."""
        set_ = object.__setattr__
        if self.timeout is not None:
            set_(self, "timeout", seconds("timeout", self.timeout, allow_zero=False))
        if self.deadline is not None:
            _aware("deadline", self.deadline)
        if isinstance(self.run_after, datetime):
            _aware("run_after", self.run_after)
        elif self.run_after is not None:
            set_(self, "run_after", _signed_seconds("run_after", self.run_after))
        if isinstance(self.expires, datetime):
            _aware("expires", self.expires)
        elif self.expires is not None:
            set_(self, "expires", seconds("expires", self.expires, allow_zero=False))
        set_(self, "retention", seconds("retention", self.retention))
        unique_s = seconds("unique_for", self.unique_for)
        if 0 < unique_s < 1:
            raise ConfigurationError(f"unique_for must be at least one second, got {self.unique_for!r}")
        set_(self, "unique_for", unique_s)
        if self.unique is not None and not isinstance(self.unique, Unique):
            raise ConfigurationError(f"unique must be Unique(...) or None, got {self.unique!r}")
        if self.unique is not None and unique_s:
            raise ConfigurationError(
                "unique and unique_for cannot be combined; remove one of them with unique_for=0 or unique=None"
            )

    @property
    def relation(self) -> Relation | None:
        """The option `trace` as an enum member."""
        return None if self.trace is None else Relation(self.trace)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The rate limit, concurrency limits and sequence of the task, in any order."""
        found: list[Any] = [self.sequence, *as_concurrency(self.concurrency), self.rate_limit]
        return tuple(each for each in found if each is not None)

    @property
    def timeout_s(self) -> int:
        """Timeout for the task message in whole seconds, rounded up. 0 if only a deadline limits the run."""
        timeout_s = 0 if self.timeout is None else _round_up(seconds("timeout", self.timeout))
        return timeout_s or (0 if self.deadline_s else DEFAULT_TIMEOUT_S)

    @property
    def deadline_s(self) -> int:
        """Deadline as the user set it, in Unix seconds. 0 if there is no deadline."""
        return int(self.deadline.timestamp()) if self.deadline is not None else 0

    @property
    def bands(self) -> tuple[int, int]:
        """Two numbers: the priority band of the first run, and the priority band of retries."""
        return self.priority, self.priority if self.retry_priority is None else self.retry_priority

    @property
    def dead_letter_address(self) -> tuple[str, str] | None:
        """Queue and name of the dead letter task, None if there is none."""
        if self.dead_letter is None:
            return None
        if isinstance(self.dead_letter, str):
            return DEFAULT_QUEUE, self.dead_letter
        return self.dead_letter.options.queue, self.dead_letter.name

    @property
    def expiry(self) -> Expiry | None:
        """Latest start for the task message, rounded up to whole seconds. None: no limit."""
        if self.expires is None:
            return None
        is_discarded = self.on_expiry is OnExpiry.DISCARD
        if isinstance(self.expires, datetime):
            return Expiry(math.ceil(self.expires.timestamp()), is_discarded=is_discarded)
        return Expiry(_round_up(seconds("expires", self.expires)), True, is_discarded)

    @property
    def stored_deadline_s(self) -> int:
        """Deadline for the task message in Unix seconds, 0 if there is none.

        Go workers ignore `expires`. So a task that expires at a fixed time and has no deadline gets a deadline:
        `timeout` after `expires`. Go workers then do not start it later, and do not interrupt a run that began in time.
        """
        expiry = self.expiry
        if self.deadline_s or not self.timeout_s or expiry is None or expiry.is_relative:
            return self.deadline_s
        return expiry.value_s + self.timeout_s

    @property
    def retention_s(self) -> int:
        """Retention for the task message in whole seconds, rounded up so that a short retention does not become 0."""
        return _round_up(seconds("retention", self.retention))

    @property
    def unique_s(self) -> int:
        """Time limit of the unique lock in whole seconds. 0: there is no lock, or it has no time limit."""
        if self.unique is not None:
            return self.unique.period_s
        return int(seconds("unique_for", self.unique_for))


OPTION_NAMES = tuple(each.name for each in fields(TaskOptions) if each.init)
CALL_OPTIONS = frozenset(CallOptionsDict.__annotations__)
"""Names of options that the task message contains. Workers read the other options from the registered task."""
_OF_CELERY = {
    "countdown": "use run_after",
    "eta": "use run_after",
    "delay": "use run_after",
    "expires_in": "use expires",
    "autoretry_for": "use retry_on",
    "dont_autoretry_for": "use no_retry_on",
    "default_retry_delay": "use retry_delay",
    "retry_backoff": "use retry_delay=exponential(...)",
    "retry_backoff_max": "use retry_delay=exponential(...)",
    "retry_jitter": "use retry_delay=exponential(...)",
    "time_limit": 'use timeout and executor="process"',
    "soft_time_limit": "use timeout",
    "result_expires": "use retention",
    "ignore_result": "use retention=0, which is the default",
    "bind": "annotate the first parameter of the function with TaskContext",
    "acks_late": "leave it out, because taskq acknowledges a task when it has ended",
    "link": "use on_success of a signature: task.s(...).on_success(...)",
    "link_error": "use on_error of a signature: task.s(...).on_error(...)",
}
"""Hints for error messages: what to use instead of common options of Celery and similar libraries."""


def task_options(given: Mapping[str, Any], *, base: TaskOptions | None = None) -> TaskOptions:
    """Check options and return them. Options that are not given have the values of `base`.

    Raises:
        ConfigurationError: An option is unknown (the message suggests a similar one) or its value is not valid.
    """
    for name in given:
        if name in _OF_CELERY:
            raise ConfigurationError(f"unknown task option {name!r}; {_OF_CELERY[name]}")
        if name not in OPTION_NAMES:
            raise unknown("task option", name, OPTION_NAMES)
    return replace(base or TaskOptions(), **given)


def check_call_options(given: Mapping[str, Any]) -> None:
    """Check options of a call. A call cannot set options that workers read from the registered task.

    Raises:
        ConfigurationError: A call cannot set an option, an option is unknown, or its value is not valid.
    """
    for name in given:
        if name in OPTION_NAMES and name not in CALL_OPTIONS:
            raise ConfigurationError(
                f"{name}={given[name]!r:.100} cannot be set for a single call, because workers read it from the "
                "registered task; set it in the decorator of the task, or in DEFAULTS for all tasks"
            )
    task_options(given)


def call_options(options: TaskOptions) -> dict[str, Any]:
    """Return the options that the task message contains, by name."""
    return {name: getattr(options, name) for name in OPTION_NAMES if name in CALL_OPTIONS}


def check_defaults(given: Mapping[str, Any], *, where: str = "DEFAULTS", for_calls: bool = False) -> None:
    """Check a setting with options of many tasks, such as `DEFAULTS`.

    Args:
        given: Options.
        where: The name of the setting.
        for_calls: Allow only options that a single call can set, because workers do not read the setting.

    Raises:
        ConfigurationError: An option is unknown, its value is not valid, or tasks cannot share its value.
    """
    try:
        (check_call_options if for_calls else task_options)(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    if given.get("task_id") is not None:
        raise ConfigurationError(f"{where}: task_id cannot be the same for all tasks")


def _round_up(value_s: float) -> int:
    return -int(-value_s // 1)


def _signed_seconds(name: str, value: Any) -> float:
    """Return a delay in seconds; a negative delay is 0."""
    if isinstance(value, timedelta) and value < timedelta(0):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0 and value != float("-inf"):
        return 0.0
    return seconds(name, value)


def _aware(name: str, moment: object) -> None:
    if not isinstance(moment, datetime):
        raise ConfigurationError(f"{name} must be an aware datetime, got {moment!r}")
    if moment.utcoffset() is None:
        raise ConfigurationError(f"{name} must be an aware datetime (with a time zone), got the naive {moment!r}")
    if not 0 <= moment.timestamp() <= LATEST_S:
        raise ConfigurationError(f"{name} must be between 1970 and 9999, got {moment!r}")


def _step_errors(value: Any) -> tuple[type[BaseException], ...]:
    classes = exception_classes("step_errors", value)
    for each in classes:
        if not issubclass(each, Exception) or issubclass(each, TaskControl):
            raise ConfigurationError(f"step_errors takes classes of errors, got {each.__name__}, which is not an error")
    if len({each.__name__ for each in classes}) < len(classes):
        raise ConfigurationError(f"step_errors has two classes of one name: {classes!r:.200}")
    return classes


def _check_band(name: str, band: object) -> None:
    if band is None and name == "retry_priority":
        return
    if isinstance(band, int) and band < 0 and not isinstance(band, bool):
        hint = "; use another queue for tasks that are less urgent than the rest"
        raise ConfigurationError(f"{name} must be between 0 and {HIGHEST_BAND}, got {band}{hint}")
    check_whole(name, band, least=0, most=HIGHEST_BAND)


def _check_dead_letter(task: Any) -> None:
    if isinstance(task, str):
        validate_task_type(task)
    elif task is not None and not isinstance(getattr(task, "name", None), str):
        raise ConfigurationError(f"dead_letter must be a task, or the name of one, got {task!r}")
    elif ignored := sorted(getattr(task, "changed", frozenset()) - {"queue"}):
        raise ConfigurationError(
            f"dead_letter={task!r} cannot set {ignored[0]}, because the message contains only its name and queue; set "
            f"{ignored[0]} in the decorator of that task"
        )


def _check_error_function(name: str, function: object) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{name} must be a plain function of the error, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return  # some built-in functions have no signature to check
    try:
        signature.bind(None)
    except TypeError:
        raise ConfigurationError(f"{name} must take the error alone, got {function!r} with {signature}") from None


_RESERVED = ("traceparent", "tracestate", "baggage")


def _check_headers(headers: Any) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers must map text to text, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name:
            raise ConfigurationError(f"headers must map text to text, got {type(value).__name__} for {name!r}")
        if name.startswith("taskq-") or name in _RESERVED:
            raise ConfigurationError(f"header {name!r} is reserved for taskq; choose another name")
        try:
            (name + value).encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"header {name!r} has a lone surrogate, which UTF-8 cannot encode") from None
    check_headers(headers)
    return dict(headers)
