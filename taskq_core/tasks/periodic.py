"""Periodic tasks: entries, their providers and tables, and hooks.

A `PeriodicTask` is one entry. Entries come from `@taskq.periodic`, from `taskq.schedule`, from the setting `SCHEDULE`,
from providers and from tables. A `Timetable` holds the entries of one queue application. `wire.cron` computes when an
entry fires, and `scheduler` enqueues it.
"""

import functools
import hashlib
import inspect
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from taskq_core.errors import ConfigurationError
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.settings import Duration, member, seconds
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import CallOptionsDict, check_call_options, task_options
from taskq_core.wire import Option, OptionKind, format_option, validate_entry_id
from taskq_core.wire.cron import Bounded, Cron, Schedule, parse_schedule
from taskq_core.wire.durations import NS_PER_S

DEFAULT_WINDOW_S = 3600.0
"""Seconds during which a missed firing may be caught up."""
PROVIDER_EVERY_S = 180.0
"""Seconds between two calls of a provider, as in Asynq."""

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

T = TypeVar("T", bound=BaseTask[Any])


class CatchUp(StrEnum):
    """What happens to firings that were missed because no scheduler ran.

    A firing that is less than a minute late is not missed, because a change of the leader takes less.
    """

    SKIP = "skip"
    """They are skipped."""
    ONE = "one"
    """The last of them is enqueued, unless a later firing is on time."""
    ALL = "all"
    """Each is enqueued, in order."""


class ScheduleOptionsDict(CallOptionsDict, total=False):
    """Keyword options of `periodic` and `schedule`."""

    id: str | None
    tz: "str | ZoneInfo | None"
    catch_up: CatchUp | str
    window: Duration


class PeriodicTask:
    """One entry: a call that is enqueued repeatedly.

    Args:
        spec: A cron line, a descriptor such as `@hourly`, or `@every 90s`. See `taskq_core.wire.cron`.
        call: The task, or `task.s(...)` to give it arguments.
        id: Id of the entry and of its history. None: the task's name and a digest of spec, zone and arguments, which is
            the same after a restart.
        tz: IANA name of the time zone of a cron line without one. None: the setting `TIME_ZONE`.
        catch_up: `skip`, `one` or `all`: what happens to missed firings.
        window: Seconds or `timedelta` after which a missed firing is not caught up.
        start: Aware moment of the earliest firing. An interval counts from there. None: no bound, and an interval
            counts from when a scheduler first sees the entry.
        expire: Aware moment of the end; it fires only before. None: no end.
        **options: Task options of what is enqueued, over those of the task.

    Attributes:
        is_paused: True to enqueue nothing. Firings during a pause are not caught up later.
        run_key: Name under which a table counts the runs of the entry, "" without a table.

    Raises:
        ConfigurationError: A value is not valid.
        TaskArgumentsError: The arguments do not fit the task.
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
        id: str | None = None,  # noqa: A002 - what the wire and the tools call it
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
        self.schedule("UTC")  # raises for a wrong spec, here instead of in the scheduler
        self.payload = call.task.encode(call.args, call.kwargs)
        self.id = self._derived_id() if id is None else validate_entry_id(id)

    def _derived_id(self) -> str:
        digest = hashlib.sha256(f"{self.spec}\n{self.tz or ''}\n".encode() + self.payload).hexdigest()
        return f"{self.call.task.name}:{digest[:8]}"

    def __repr__(self) -> str:
        return f"<periodic task {self.id!r}: {self.call.task.name!r} at {self.spec!r}>"

    def schedule(self, zone: str) -> Schedule:
        """Return its schedule; `zone` is the time zone of a cron line without one."""
        schedule = parse_schedule(self.spec, zone=self.tz or zone)
        if self.start is None and self.expire is None:
            return schedule
        return Bounded(schedule, _second(self.start), _second(self.expire))

    def time_zone(self, zone: str = "UTC") -> tzinfo | None:
        """Return the time zone of its cron line, or `zone` if it names none; None for an interval."""
        schedule = parse_schedule(self.spec, zone=self.tz or zone)
        return schedule.zone if isinstance(schedule, Cron) else None

    def upcoming(self, after: datetime, count: int, *, zone: str = "UTC") -> list[datetime]:
        """Return the next firings after an aware moment, at most `count`, in UTC.

        An interval without a start counts from that moment. A pause is ignored.
        """
        schedule = self.schedule(zone)
        found: list[datetime] = []
        moment_s = schedule.next_after(math.floor(after.timestamp()))
        while moment_s is not None and len(found) < count:
            found.append(datetime.fromtimestamp(moment_s, UTC))
            moment_s = schedule.next_after(moment_s)
        return found

    def is_same(self, other: "PeriodicTask") -> bool:
        """Whether both enqueue the same call at the same times."""
        compared = [name for name in self.__slots__ if name != "call"]
        is_equal = all(getattr(self, name) == getattr(other, name) for name in compared)
        return is_equal and self.call.task.name == other.call.task.name

    @property
    def option_strings(self) -> tuple[str, ...]:
        """The options of the entry in Asynq's notation, without options that Asynq does not have."""
        return option_strings(self.options)


def _zone_name(tz: Any) -> str | None:
    if tz is None or isinstance(tz, str):
        return tz
    from zoneinfo import ZoneInfo  # not above, see `taskq_core.wire.cron.time_zone`

    if isinstance(tz, ZoneInfo) and tz.key is not None:
        return tz.key
    raise ConfigurationError(f"tz must be the IANA name of a time zone, such as 'Europe/Berlin', got {tz!r}")


def check_bounds(start: datetime | None, expire: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Return the bounds of an entry, checked.

    Raises:
        ConfigurationError: One is not an aware moment, or the entry would end before it starts.
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
    """Check the task options of a periodic task.

    Raises:
        ConfigurationError: An option is unknown, its value is not valid, or it would have no effect.
    """
    check_call_options(given)
    for name in ("replicated", "fsynced"):
        if given.get(name):
            raise ConfigurationError(
                f"{name}={given[name]!r} has no effect in a schedule: a scheduler does not wait for the "
                "confirmation; it enqueues a firing again that Redis has lost"
            )


def checked_policy(catch_up: object, window: object) -> tuple[CatchUp, float]:
    """Return the policy for missed firings, and its window in seconds.

    Raises:
        ConfigurationError: A value is not valid.
    """
    return member(CatchUp, "catch_up", catch_up), seconds("window", window)


def option_strings(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return options in Asynq's notation, without options that Asynq does not have."""
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
    """One firing of an entry."""

    entry: PeriodicTask
    at: datetime
    """When it was due, UTC."""
    task_id: str
    """Id of the task it enqueues; the same on every scheduler."""


class FiringOutcome(StrEnum):
    """Outcome of a firing."""

    ENQUEUED = "enqueued"
    ID_TAKEN = "id_taken"
    """A task with its id exists already."""
    DUPLICATE = "duplicate"
    """Another task holds the unique lock (`unique_for`)."""
    REFUSED = "refused"
    """The call does not fit, or a middleware raised an error. It is not repeated."""
    FAILED = "failed"
    """Redis refused or was not reached, or a middleware hung. It is repeated."""


class ScheduleHook:
    """Called before and after each enqueue of a periodic task. Override the methods that you need, also as coroutines.

    A function runs in a thread, a coroutine on the scheduler's event loop. Hooks of several firings run at the same
    time. Errors are logged and change nothing. The scheduler waits at most five seconds for a hook.
    """

    def before_enqueue(self, firing: Firing) -> object:
        """Called before the task is enqueued. Another scheduler may have enqueued it already."""

    def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> object:
        """Called after the enqueue. `error` is the reason if it failed, otherwise None."""


HookFunction = Callable[..., object]
Provided = Iterable[PeriodicTask]
ProviderFunction = Callable[[], Provided | Awaitable[Provided]]


@dataclass(frozen=True, slots=True)
class Provider:
    """A function that returns entries, and how often it is called."""

    function: ProviderFunction
    every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRuns:
    """Number of tasks that an entry of a table has enqueued since the last `ScheduleTable.record`."""

    run_key: str
    """Identifies the entry. As `PeriodicTask.run_key`."""
    count: int
    """How many."""
    last: datetime
    """When the last of them was due, UTC."""


class ScheduleTable(Protocol):
    """A table of periodic tasks that users edit while schedulers run. Schedulers call it in a separate thread.

    The first of several errors is logged. While it fails, the entries stay unchanged.
    """

    every_s: float
    """Seconds between two reads of the table."""

    def read(self, seen: object) -> tuple[object, list[PeriodicTask]] | None:
        """Return a version of the table and its entries, or None if the table has not changed.

        Args:
            seen: The version from the last read, None at first.
        """
        ...

    def record(self, runs: Sequence[EntryRuns]) -> None:
        """Add runs to the counts of the entries.

        A scheduler may repeat a call, also late. Skip an entry whose stored last run is not older. Skip entries that no
        longer exist.
        """
        ...

    def note_next(self) -> None:
        """Store when each entry fires next. Only the leading scheduler calls it, after a change."""
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call a function, in any thread, after this process has changed an entry. Return a function that ends this."""
        ...


def _unguarded(function: HookFunction | ProviderFunction) -> Any:
    return function


def _listed(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a plain provider that reads its result, because generators and query sets do their work only then."""

    @functools.wraps(function)
    def provide() -> Any:
        found = function()
        return found if inspect.isawaitable(found) else list(found)

    return provide


@dataclass(slots=True)
class Timetable:
    """The periodic tasks of a queue application, without those of its settings."""

    entries: dict[str, PeriodicTask] = field(default_factory=dict)
    """By id."""
    providers: list[Provider] = field(default_factory=list)
    tables: list[ScheduleTable] = field(default_factory=list)
    before_hooks: list[HookFunction] = field(default_factory=list)
    """Methods of hooks to call before an enqueue."""
    after_hooks: list[HookFunction] = field(default_factory=list)
    """Methods of hooks to call after an enqueue."""
    guard: Callable[[Any], Any] = _unguarded
    """Wraps each provider and hook. Adapters use it to check database connections."""
    version: int = 0
    """Grows with every change."""

    def add(self, entry: PeriodicTask) -> PeriodicTask:
        """Add an entry. It may replace an equal one, because a module may be imported twice.

        Raises:
            ConfigurationError: Another entry has its id.
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
            ConfigurationError: It is not a function, or the time is not valid.
        """
        if not callable(function):
            raise ConfigurationError(f"a provider must be a function, got {function!r}")
        every_s = seconds("every", every, allow_zero=False)
        asked = function if is_coroutine_function(function) else _listed(function)
        self.providers.append(Provider(self.guard(asked), every_s))
        self.version += 1

    def add_hook(self, hook: object) -> None:
        """Add a hook.

        Raises:
            ConfigurationError: It is not a `ScheduleHook`.
        """
        if not isinstance(hook, ScheduleHook):
            hint = "; write the brackets behind its name" if isinstance(hook, type) else ""
            raise ConfigurationError(f"a hook must be a taskq_core.ScheduleHook, got {hook!r}{hint}")
        if type(hook).before_enqueue is not ScheduleHook.before_enqueue:
            self.before_hooks.append(self.guard(hook.before_enqueue))
        if type(hook).after_enqueue is not ScheduleHook.after_enqueue:
            self.after_hooks.append(self.guard(hook.after_enqueue))
