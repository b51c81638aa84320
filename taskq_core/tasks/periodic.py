"""Periodic tasks: schedule entries, the sources from which they come, and hooks around their enqueues.

A `PeriodicTask` is one schedule entry. Schedule entries come from `@taskq.periodic`, from `taskq.schedule`, from the
setting `SCHEDULE`, from providers (functions) and from database tables. A `Timetable` holds the schedule entries of one
queue application. `wire.cron` computes when an entry fires, and `scheduler` enqueues the entry's task then.
"""

import functools
import hashlib
import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from msgspec import Struct, field

from taskq_core.errors import ConfigurationError
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.settings import Duration, member, seconds
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import CallOptionsDict, TaskOptions, call_options, check_call_options, task_options
from taskq_core.wire import Option, OptionKind, format_option, validate_entry_id
from taskq_core.wire.cron import Bounded, Cron, Schedule, parse_schedule
from taskq_core.wire.durations import NS_PER_S

DEFAULT_WINDOW_S = 3600.0
"""Default age in seconds up to which a missed firing is caught up."""
PROVIDER_EVERY_S = 180.0
"""Default time in seconds between two calls of a provider, as in Asynq."""

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

T = TypeVar("T", bound=BaseTask[Any])


class CatchUp(StrEnum):
    """What happens to firings that were missed because no scheduler ran.

    A firing that is less than a minute late does not count as missed, because the change of the leading scheduler takes
    less than a minute.
    """

    SKIP = "skip"
    """No task is enqueued for missed firings."""
    ONE = "one"
    """The task of the last missed firing is enqueued, unless a later firing is on time."""
    ALL = "all"
    """The task of each missed firing is enqueued, in order."""


class ScheduleOptionsDict(CallOptionsDict, total=False):
    """Keyword options of `periodic` and `schedule`."""

    id: str | None
    tz: "str | ZoneInfo | None"
    catch_up: CatchUp | str
    window: Duration


class PeriodicTask:
    """A schedule entry: a call that schedulers enqueue repeatedly.

    Args:
        spec: A cron line, a descriptor such as `@hourly`, or `@every 90s`. See `taskq_core.wire.cron`.
        call: The task, or `task.s(...)` to give it arguments.
        id: Id of the entry, under which its past enqueues are stored. None: the task's name with a digest of spec, zone
            and arguments, so that it is the same after a restart.
        tz: IANA name of the time zone of a cron line that names no time zone. None: the setting `TIME_ZONE`.
        catch_up: `skip`, `one` or `all`: what happens to missed firings.
        window: Seconds or `timedelta` after which a missed firing is no longer caught up.
        start: Aware datetime of the earliest firing, from which an interval is counted. None: no bound, and an interval
            is counted from the time at which a scheduler first sees the entry.
        expire: Aware datetime after which the entry does not fire. None: no end.
        **options: Task options of each enqueue. They replace options of the task.

    Attributes:
        is_paused: True if schedulers enqueue nothing. Firings during a pause are not caught up later.
        run_key: Key under which a database table counts the enqueues of the entry. "" for an entry that comes from no
            table.

    Raises:
        ConfigurationError: A value is not valid.
        TaskArgumentsError: The arguments do not match the parameters of the task.
    """

    __slots__ = (
        "call",
        "catch_up",
        "expire",
        "id",
        "is_paused",
        "options",
        "payload",
        "run_key",
        "spec",
        "start",
        "tz",
        "window_s",
    )

    def __init__(
        self,
        spec: str,
        call: Signature[Any] | BaseTask[Any],
        *,
        id: str | None = None,  # noqa: A002 - the name in Asynq's format and in its tools
        tz: "str | ZoneInfo | None" = None,
        catch_up: CatchUp | str = CatchUp.ONE,
        window: Duration = DEFAULT_WINDOW_S,
        start: datetime | None = None,
        expire: datetime | None = None,
        **options: Unpack[CallOptionsDict],
    ) -> None:
        if isinstance(call, BaseTask):
            call = Signature(call, (), {})
        if not isinstance(call, Signature):
            raise ConfigurationError(f"a periodic task is a task or task.s(...), got {call!r}")
        self.spec = spec
        self.tz = _zone_name(tz)
        self.catch_up, self.window_s = checked_policy(catch_up, window)
        self.start, self.expire = check_bounds(start, expire)
        self.is_paused = False
        self.run_key = ""
        check_entry_options(options)
        self.options: Mapping[str, Any] = dict(options)
        self.call = call.using(**options) if options else call
        self.schedule("UTC")  # an invalid spec must fail here, and not later in the scheduler
        self.payload = call.task.encode(call.args, call.kwargs)
        self.id = self._derived_id() if id is None else validate_entry_id(id)

    def _derived_id(self) -> str:
        digest = hashlib.sha256(f"{self.spec}\n{self.tz or ''}\n".encode() + self.payload).hexdigest()
        return f"{self.call.task.name}:{digest[:8]}"

    def __repr__(self) -> str:
        return f"<periodic task {self.id!r}: {self.call.task.name!r} at {self.spec!r}>"

    def schedule(self, zone: str) -> Schedule:
        """Return the schedule of the entry. `zone` is the time zone of a cron line that names none."""
        schedule = parse_schedule(self.spec, zone=self.tz or zone)
        if self.start is None and self.expire is None:
            return schedule
        return Bounded(schedule, _second(self.start), _second(self.expire))

    def time_zone(self, zone: str = "UTC") -> tzinfo | None:
        """Return the time zone of the entry's cron line: `zone` if the line names none, None for an interval."""
        schedule = parse_schedule(self.spec, zone=self.tz or zone)
        return schedule.zone if isinstance(schedule, Cron) else None

    def upcoming(self, after: datetime, count: int, *, zone: str = "UTC") -> list[datetime]:
        """Return the times of the next firings after an aware datetime, at most `count`, in UTC.

        An interval without a start is counted from `after`. A pause of the entry is ignored.
        """
        schedule = self.schedule(zone)
        found: list[datetime] = []
        moment_s = schedule.next_after(math.floor(after.timestamp()))
        while moment_s is not None and len(found) < count:
            found.append(datetime.fromtimestamp(moment_s, UTC))
            moment_s = schedule.next_after(moment_s)
        return found

    def is_same(self, other: "PeriodicTask") -> bool:
        """Return whether both entries enqueue the same call at the same times."""
        compared = [name for name in self.__slots__ if name != "call"]
        is_equal = all(getattr(self, name) == getattr(other, name) for name in compared)
        return is_equal and self.call.task.name == other.call.task.name

    @property
    def option_strings(self) -> tuple[str, ...]:
        """The options of each enqueue in Asynq's notation: those of the task, and those of the entry.

        Options that have their default value, or that Asynq does not have, are left out.
        """
        default = TaskOptions()
        own = {
            name: value
            for name, value in call_options(self.call.task.options).items()
            if value != getattr(default, name)
        }
        return option_strings({**own, **self.options})


def _zone_name(tz: Any) -> str | None:
    if tz is None or isinstance(tz, str):
        return tz
    from zoneinfo import ZoneInfo  # imported here to keep start-up fast; see `taskq_core.wire.cron.time_zone`

    if isinstance(tz, ZoneInfo) and tz.key is not None:
        return tz.key
    raise ConfigurationError(f"tz must be the IANA name of a time zone, such as 'Europe/Berlin', got {tz!r}")


def check_bounds(start: datetime | None, expire: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Check the start and the end of a schedule entry, and return them.

    Raises:
        ConfigurationError: A bound is not an aware datetime, or the entry would end before it starts.
    """
    for name, moment in (("start", start), ("expire", expire)):
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            raise ConfigurationError(f"{name} must be an aware datetime, got {moment!r}")
    if start is not None and expire is not None and start >= expire:
        raise ConfigurationError(f"start must be before expire, got {start.isoformat()} and {expire.isoformat()}")
    return start, expire


def _second(moment: datetime | None) -> int | None:
    return None if moment is None else math.ceil(moment.timestamp())


def check_entry_options(given: Mapping[str, Any]) -> None:
    """Check the task options of a schedule entry.

    Raises:
        ConfigurationError: An option is unknown, its value is not valid, or it would have no effect in a schedule.
    """
    check_call_options(given)
    for name in ("replicated", "fsynced"):
        if given.get(name):
            raise ConfigurationError(
                f"{name}={given[name]!r} has no effect in a schedule: a scheduler does not wait for the "
                "confirmation; it enqueues a firing again that Redis has lost"
            )


def checked_policy(catch_up: object, window: object) -> tuple[CatchUp, float]:
    """Check the policy for missed firings and its window. Return both, the window in seconds.

    Raises:
        ConfigurationError: A value is not valid.
    """
    return member(CatchUp, "catch_up", catch_up), seconds("window", window)


def option_strings(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return task options in Asynq's notation, without options that Asynq does not have."""
    checked = task_options(given)
    found: list[Option] = []

    def add(name: str, kind: OptionKind, value: Any) -> None:
        if given.get(name) is not None:
            found.append(Option(kind, value))

    add("queue", OptionKind.QUEUE, checked.queue)
    add("max_retry", OptionKind.MAX_RETRY, checked.max_retry)
    add("task_id", OptionKind.TASK_ID, checked.task_id)
    add("timeout", OptionKind.TIMEOUT, checked.timeout_s * NS_PER_S)
    add("deadline", OptionKind.DEADLINE, checked.deadline)
    add("unique_for", OptionKind.UNIQUE, checked.unique_s * NS_PER_S)
    if isinstance(checked.run_after, datetime):
        add("run_after", OptionKind.PROCESS_AT, checked.run_after)
    elif checked.run_after is not None:
        add("run_after", OptionKind.PROCESS_IN, int(seconds("run_after", checked.run_after) * NS_PER_S))
    add("retention", OptionKind.RETENTION, checked.retention_s * NS_PER_S)
    add("aggregate", OptionKind.GROUP, checked.aggregate)
    found += [Option(OptionKind.HEADER, pair) for pair in checked.headers.items()]
    return tuple(format_option(each) for each in found)


# --- hooks, providers and tables --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One firing of a schedule entry."""

    entry: PeriodicTask
    at: datetime
    """Time at which the firing was due, in UTC."""
    task_id: str
    """Id of the task to enqueue. Every scheduler derives the same id, so the task is enqueued once."""


class FiringOutcome(StrEnum):
    """Result of the enqueue at a firing."""

    ENQUEUED = "enqueued"
    ID_TAKEN = "id_taken"
    """A task with the id of this firing exists already, for example because another scheduler enqueued it."""
    DUPLICATE = "duplicate"
    """Another task holds the unique lock, so the task of the firing was not enqueued."""
    REFUSED = "refused"
    """The call is not valid, or a middleware raised an error. The scheduler does not try again."""
    FAILED = "failed"
    """Redis refused the task or did not answer, or a middleware hung. The scheduler tries again."""


class ScheduleHook:
    """Base class of hooks that a scheduler calls before and after each enqueue. Override the methods that you need.

    A plain method runs in a thread, a coroutine on the scheduler's event loop. Hooks of several firings run at the same
    time. Errors of hooks are logged and change nothing. The scheduler waits at most five seconds for a hook.
    """

    def before_enqueue(self, firing: Firing) -> object:
        """Called before the task is enqueued. Another scheduler may have enqueued it already."""

    def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> object:
        """Called after the enqueue. `error` is the reason if the enqueue failed, otherwise None."""


HookFunction = Callable[..., object]
Provided = Iterable[PeriodicTask]
ProviderFunction = Callable[[], Provided | Awaitable[Provided]]


class Provider(Struct, frozen=True):
    """A function that returns schedule entries, and the seconds between two calls of it."""

    function: ProviderFunction
    every_s: float


class EntryRuns(Struct, frozen=True, kw_only=True):
    """The enqueues of one schedule entry since the last `ScheduleTable.record`."""

    run_key: str
    """`PeriodicTask.run_key` of the entry."""
    count: int
    """Number of tasks that were enqueued for the entry."""
    last: datetime
    """When the last of these tasks was due, in UTC."""


class ScheduleTable(Protocol):
    """A database table of schedule entries that users edit while schedulers run. Adapters implement it.

    A scheduler calls these methods in a separate thread. While reading the table fails, the scheduler uses the entries
    of its last read and logs only the first error.
    """

    every_s: float
    """Seconds between two reads of the database table."""

    def read(self, last_version: object) -> tuple[object, list[PeriodicTask]] | None:
        """Return the version of the table and its entries. Return None if the table is unchanged since the last read.

        Args:
            last_version: The version that the last read returned, None for the first read.
        """
        ...

    def record(self, runs: Sequence[EntryRuns]) -> None:
        """Add the numbers of enqueued tasks to the counters of the entries in the table.

        A scheduler may repeat a call, even much later. So skip an entry if the table already has the same last run or a
        newer one. Also skip entries that no longer exist.
        """
        ...

    def record_next_firings(self) -> None:
        """Store when each entry fires next. Only the leading scheduler calls this method, after an entry changed."""
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed`, in any thread, each time this process changes an entry. Return a function that stops this."""
        ...


def _unguarded(function: HookFunction | ProviderFunction) -> Any:
    return function


def _listed(function: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap a plain provider so that it returns a list. A generator or query set then does its work inside the call."""

    @functools.wraps(function)
    def provide() -> Any:
        found = function()
        return found if inspect.isawaitable(found) else list(found)

    return provide


class Timetable(Struct):
    """The schedule entries of a queue application, without those of the setting `SCHEDULE`, and their hooks."""

    entries: dict[str, PeriodicTask] = field(default_factory=dict)
    """Schedule entries by id, without entries of providers and tables."""
    providers: list[Provider] = field(default_factory=list)
    tables: list[ScheduleTable] = field(default_factory=list)
    before_hooks: list[HookFunction] = field(default_factory=list)
    """Methods of hooks to call before an enqueue."""
    after_hooks: list[HookFunction] = field(default_factory=list)
    """Methods of hooks to call after an enqueue."""
    guard: Callable[[Any], Any] = _unguarded
    """Wraps each provider and hook. Adapters use it to check database connections."""
    version: int = 0
    """Number that grows with every change of the entries, so that running schedulers notice the change."""

    def add(self, entry: PeriodicTask) -> PeriodicTask:
        """Add an entry. An equal entry with the same id is replaced, because a module may be imported twice.

        Raises:
            ConfigurationError: A different entry has the same id.
        """
        known = self.entries.get(entry.id)
        if known is not None and not known.is_same(entry):
            raise ConfigurationError(
                f"two periodic tasks have the id {entry.id!r}: {known.call.task.name!r} at {known.spec!r} and "
                f"{entry.call.task.name!r} at {entry.spec!r}; give one of them another id="
            )
        self.entries[entry.id] = entry
        self.version += 1
        return entry

    def remove(self, entry_id: str) -> bool:
        """Remove an entry. Return False if it does not exist."""
        self.version += 1
        return self.entries.pop(entry_id, None) is not None

    def provide(self, function: ProviderFunction, every: Duration) -> None:
        """Add a provider.

        Raises:
            ConfigurationError: `function` is not a function, or `every` is not valid.
        """
        if not callable(function):
            raise ConfigurationError(f"a provider must be a function, got {function!r}")
        every_s = seconds("every", every, allow_zero=False)
        provider = function if is_coroutine_function(function) else _listed(function)
        self.providers.append(Provider(self.guard(provider), every_s))
        self.version += 1

    def add_hook(self, hook: object) -> None:
        """Add a hook.

        Raises:
            ConfigurationError: `hook` is not a `ScheduleHook`.
        """
        if not isinstance(hook, ScheduleHook):
            hint = "; write the brackets behind its name" if isinstance(hook, type) else ""
            raise ConfigurationError(f"a hook must be a taskq_core.ScheduleHook, got {hook!r}{hint}")
        if type(hook).before_enqueue is not ScheduleHook.before_enqueue:
            self.before_hooks.append(self.guard(hook.before_enqueue))
        if type(hook).after_enqueue is not ScheduleHook.after_enqueue:
            self.after_hooks.append(self.guard(hook.after_enqueue))
