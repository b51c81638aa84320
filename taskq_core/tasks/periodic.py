"""Periodic tasks as values: what is enqueued when, and who wants to hear of it.

A `PeriodicTask` is one entry. Entries come from `@taskq.periodic`, from `taskq.schedule`, from the setting `SCHEDULE`
and from providers, which a scheduler asks again and again. A `Timetable` holds those of one queue application. When an
entry fires is said in `cron`; what a scheduler makes of it in `scheduler`.
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
from taskq_core.settings import Duration, seconds
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import CallOptionsDict, check_call_options, task_options
from taskq_core.wire import Option, OptionKind, format_option, validate_entry_id
from taskq_core.wire.cron import Bounded, Cron, Schedule, parse_schedule
from taskq_core.wire.durations import NS_PER_S

DEFAULT_WINDOW_S = 3600.0
"""Seconds a missed firing may still be caught up."""
PROVIDER_EVERY_S = 180.0
"""Seconds between two calls of a provider, as upstream."""

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

T = TypeVar("T", bound=BaseTask[Any])


class CatchUp(StrEnum):
    """What becomes of firings that were missed because no scheduler ran.

    A firing less than a minute late counts as on time and is never missed: a change of leader takes less.
    """

    SKIP = "skip"
    """They are left out."""
    ONE = "one"
    """The last of them is enqueued, unless a later firing is on time anyway."""
    ALL = "all"
    """Each is enqueued, in order."""


class PeriodicTask:
    """One entry: a call that is enqueued again and again.

    Args:
        spec: A cron line, a descriptor such as `@hourly`, or `@every 90s`. See `taskq_core.wire.cron`.
        call: The task, or `task.s(...)` to give it arguments.
        id: Name of the entry, under which its history is kept. None: the task's name and a digest of spec, zone and
            arguments, which is the same after a restart.
        tz: IANA name of the zone of a cron line that names none. None: the setting `TIME_ZONE`.
        catch_up: `skip`, `one` or `all`: what becomes of firings that were missed.
        window: Seconds or `timedelta` after which a missed firing is not caught up any more.
        start: Aware moment before which it does not fire. An interval is counted from there. None: at once, and an
            interval from when a scheduler first sees the entry.
        expire: Aware moment from which on it does not fire any more. None: never.
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
        self.schedule("UTC")  # refused here, where the mistake is
        self.payload = call.task.encode(call.args, call.kwargs)
        self.id = self._derived_id() if id is None else validate_entry_id(id)

    def _derived_id(self) -> str:
        digest = hashlib.sha256(f"{self.spec}\n{self.tz or ''}\n".encode() + self.payload).hexdigest()
        return f"{self.call.task.name}:{digest[:8]}"

    def __repr__(self) -> str:
        return f"<periodic task {self.id!r}: {self.call.task.name!r} at {self.spec!r}>"

    def schedule(self, zone: str) -> Schedule:
        """Return when it fires, where a cron line without a time zone is one of the zone given."""
        schedule = parse_schedule(self.spec, zone=self.tz or zone)
        if self.start is None and self.expire is None:
            return schedule
        return Bounded(schedule, _second(self.start), _second(self.expire))

    def time_zone(self, zone: str = "UTC") -> tzinfo | None:
        """Return the time zone by whose clock it fires, that given where none is named; None for an interval."""
        schedule = parse_schedule(self.spec, zone=self.tz or zone)
        return schedule.zone if isinstance(schedule, Cron) else None

    def upcoming(self, after: datetime, count: int, *, zone: str = "UTC") -> list[datetime]:
        """Return the next firings after an aware moment, at most `count`, in UTC.

        An interval without a start is counted from that moment. Whether the entry is paused does not matter.
        """
        schedule = self.schedule(zone)
        found: list[datetime] = []
        moment_s = schedule.next_after(math.floor(after.timestamp()))
        while moment_s is not None and len(found) < count:
            found.append(datetime.fromtimestamp(moment_s, UTC))
            moment_s = schedule.next_after(moment_s)
        return found

    def is_same(self, other: "PeriodicTask") -> bool:
        """Whether both enqueue the same at the same times."""
        compared = [name for name in self.__slots__ if name != "call"]
        is_equal = all(getattr(self, name) == getattr(other, name) for name in compared)
        return is_equal and self.call.task.name == other.call.task.name

    @property
    def option_strings(self) -> tuple[str, ...]:
        """The options given with the entry, as Asynq writes them. What Asynq has no word for is left out."""
        return option_strings(self.options)


def _zone_name(tz: Any) -> str | None:
    if tz is None or isinstance(tz, str):
        return tz
    from zoneinfo import ZoneInfo  # not above, see `taskq_core.wire.cron.time_zone`

    if isinstance(tz, ZoneInfo) and tz.key is not None:
        return tz.key
    raise ConfigurationError(f"tz must be the IANA name of a time zone, such as 'Europe/Berlin', got {tz!r}")


def check_bounds(start: datetime | None, expire: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Return the bounds of an entry if they can be used.

    Raises:
        ConfigurationError: One is no aware moment, or the entry would end before it starts.
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
    """Refuse task options that a periodic task cannot have.

    Raises:
        ConfigurationError: An option is unknown, its value is not usable, or it would have no effect.
    """
    check_call_options(given)
    for name in ("replicated", "fsynced"):
        if given.get(name):
            raise ConfigurationError(
                f"{name}={given[name]!r} has no effect in a schedule: a scheduler does not wait for the "
                "confirmation; it enqueues a firing again that Redis has lost"
            )


def checked_policy(catch_up: object, window: object) -> tuple[CatchUp, float]:
    """Return what becomes of missed firings, and for how many seconds.

    Raises:
        ConfigurationError: One of them is not usable.
    """
    try:
        policy = CatchUp(catch_up)  # type: ignore[arg-type]  # whatever it is, it is a member's value or refused
    except ValueError:
        raise ConfigurationError(f"catch_up must be 'skip', 'one' or 'all', got {catch_up!r}") from None
    return policy, seconds("window", window)


def option_strings(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return options as Asynq writes them. What Asynq has no word for is left out."""
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


# --- who wants to hear of it ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One firing of an entry."""

    entry: PeriodicTask
    at: datetime
    """When it was due, UTC."""
    task_id: str
    """Id of the task it enqueues; the same on every scheduler."""


class FiringOutcome(StrEnum):
    """What became of a firing."""

    ENQUEUED = "enqueued"
    ID_TAKEN = "id_taken"
    """A task with its id is stored already."""
    DUPLICATE = "duplicate"
    """Another task holds the unique lock (`unique_for`)."""
    REFUSED = "refused"
    """The call does not fit, or a middleware refused it. It is not tried again."""
    FAILED = "failed"
    """Redis refused or was not reached, or a middleware hung. It is tried again."""


class ScheduleHook:
    """Told before and after each enqueue of a periodic task. Override what you need, as a function or a coroutine.

    A function runs in a thread, a coroutine on the scheduler's event loop, and those of several firings at the same
    time. What it raises is logged and changes nothing. One that has not returned after five seconds is waited for no
    longer.
    """

    def before_enqueue(self, firing: Firing) -> object:
        """The task is about to be enqueued. It may turn out that another scheduler has done it."""

    def after_enqueue(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> object:
        """The task was enqueued, or was not. `error` says why, None where there is nothing to say."""


HookFunction = Callable[..., object]
Provided = Iterable[PeriodicTask]
ProviderFunction = Callable[[], Provided | Awaitable[Provided]]


@dataclass(frozen=True, slots=True)
class Provider:
    """A function that returns the entries there should be, and how often it is asked."""

    function: ProviderFunction
    every_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRuns:
    """Tasks that an entry of a table has enqueued since the table was told last."""

    run_key: str
    """Names the entry, as its `PeriodicTask` does."""
    count: int
    """How many."""
    last: datetime
    """When the last of them was due, UTC."""


class ScheduleTable(Protocol):
    """A table of periodic tasks that are edited while schedulers run. All calls come from a thread of its own.

    What it raises is logged once until it works again; meanwhile the entries stay as they were.
    """

    every_s: float
    """Seconds between two looks at it."""

    def read(self, seen: object) -> tuple[object, list[PeriodicTask]] | None:
        """Return what stands there: a value that tells whether it has changed, and the entries.

        Args:
            seen: The value of the last time, None at first. Where it has not changed since, the answer is None.
        """
        ...

    def record(self, runs: Sequence[EntryRuns]) -> None:
        """Add runs to what is counted.

        The same runs may come again, also late, from a scheduler that slept: an entry whose last run is noted already
        has them. Entries that are gone are left out.
        """
        ...

    def note_next(self) -> None:
        """Write down when each entry fires next. Only the scheduler that leads asks for it, after a change."""
        ...

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Let somebody be told, in any thread, when this process has changed an entry; return what ends that."""
        ...


def _unguarded(function: HookFunction | ProviderFunction) -> Any:
    return function


def _listed(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a plain provider that goes through what it returns: a generator or a query set does its work only then."""

    @functools.wraps(function)
    def provide() -> Any:
        found = function()
        return found if inspect.isawaitable(found) else list(found)

    return provide


@dataclass(slots=True)
class Timetable:
    """The periodic tasks of a queue application, but for those of its settings."""

    entries: dict[str, PeriodicTask] = field(default_factory=dict)
    """By id."""
    providers: list[Provider] = field(default_factory=list)
    tables: list[ScheduleTable] = field(default_factory=list)
    told_before: list[HookFunction] = field(default_factory=list)
    """What hooks do before an enqueue."""
    told_after: list[HookFunction] = field(default_factory=list)
    """What hooks do after an enqueue."""
    guard: Callable[[Any], Any] = _unguarded
    """Put around each provider and hook. A framework's adapter may look after database connections there."""
    version: int = 0
    """Grows with every change."""

    def add(self, entry: PeriodicTask) -> PeriodicTask:
        """Add an entry, or put it in the place of an equal one: a module may be imported twice.

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
        """Take an entry out. Return False if there is none."""
        self.version += 1
        return self.entries.pop(entry_id, None) is not None

    def provide(self, function: ProviderFunction, every: Duration) -> None:
        """Add a provider.

        Raises:
            ConfigurationError: It is no function, or the time is not usable.
        """
        if not callable(function):
            raise ConfigurationError(f"a provider must be a function, got {function!r}")
        every_s = seconds("every", every, allow_zero=False)
        asked = function if is_coroutine_function(function) else _listed(function)
        self.providers.append(Provider(self.guard(asked), every_s))
        self.version += 1

    def tell(self, hook: object) -> None:
        """Add a hook.

        Raises:
            ConfigurationError: It is no `ScheduleHook`.
        """
        if not isinstance(hook, ScheduleHook):
            hint = "; write the brackets behind its name" if isinstance(hook, type) else ""
            raise ConfigurationError(f"a hook must be a taskq_core.ScheduleHook, got {hook!r}{hint}")
        if type(hook).before_enqueue is not ScheduleHook.before_enqueue:
            self.told_before.append(self.guard(hook.before_enqueue))
        if type(hook).after_enqueue is not ScheduleHook.after_enqueue:
            self.told_after.append(self.guard(hook.after_enqueue))
