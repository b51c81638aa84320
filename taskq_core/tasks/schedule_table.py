"""Periodic tasks that stand in a table: what a row may say, and the entry it makes. Adapters bring the table.

A row is read by people first: each thing that is wrong with it is told beside the field it is in. What a scheduler
makes of the entries is said in `scheduler`; how it follows a table in `scheduler.follower`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import ConfigurationError, PayloadError, TaskArgumentsError, TaskQError
from taskq_core.settings import seconds, unknown
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import task_options
from taskq_core.tasks.periodic import DEFAULT_WINDOW_S, CatchUp, PeriodicTask, check_bounds, check_entry_options
from taskq_core.tasks.task import Task
from taskq_core.wire import validate_entry_id, validate_task_type
from taskq_core.wire.cron import Every, parse_schedule, time_zone

LONGEST_INTERVAL = timedelta(days=36_500)
"""Longest interval of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """One row. Nothing in it is checked yet."""

    key: str
    """Names the row for as long as it stands, and no other row ever."""
    name: str
    """What people call it, unique in its table."""
    task: str
    is_remote: bool = False
    """The code of the task is elsewhere, so that nobody misses it here."""
    cron: str = ""
    """When it fires; this or `interval`."""
    interval: timedelta | None = None
    """Time between two firings, whole seconds, at least one. Counted from `start`, or else from `created`."""
    time_zone: str = ""
    """IANA name of the zone of the cron line, "" for that of the settings."""
    kwargs: Any = field(default_factory=dict)
    """Arguments by name, as JSON has them."""
    queue: str = ""
    """Queue its tasks go to, "" for that of the task."""
    options: Any = field(default_factory=dict)
    """Further task options, as JSON has them."""
    is_enabled: bool = True
    catch_up: str = CatchUp.ONE
    window: timedelta = timedelta(seconds=DEFAULT_WINDOW_S)
    start: datetime | None = None
    expire: datetime | None = None
    created: datetime = field(default_factory=lambda: utc_datetime(SYSTEM_CLOCK.time()))

    @property
    def entry_id(self) -> str:
        """Id of its entry. Under another name, or made anew under the old one, it begins anew."""
        return f"{self.name}#{self.key}"

    @property
    def run_key(self) -> str:
        """Name under which its runs are counted: no other row has it, in this table or another."""
        return f"{self.key}-{int(self.created.timestamp() * 1_000_000)}"

    @property
    def spec(self) -> str:
        """When it fires, in one line.

        Raises:
            ConfigurationError: It says neither or both, or the interval cannot be used.
        """
        if bool(self.cron) == (self.interval is not None):
            raise ConfigurationError("give either a cron line or an interval")
        return self.cron or _interval_spec(self.interval)


def entry_of(
    row: ScheduleRow, tasks: Mapping[str, BaseTask[Any]], remote: Callable[[str], BaseTask[Any]]
) -> PeriodicTask:
    """Return the entry of a row.

    Args:
        row: The row.
        tasks: Registered tasks by name.
        remote: Makes a task whose code is elsewhere.

    Raises:
        ConfigurationError: The row cannot be used.
        TaskArgumentsError: Its arguments do not fit the task.
    """
    task = _task_of(row, tasks, remote)
    options = _options_of(row)
    schedule = parse_schedule(row.spec, zone=row.time_zone or "UTC")
    is_counted = isinstance(schedule, Every) and row.start is None
    entry = PeriodicTask(
        row.spec,
        Signature(task, (), fit(task, row.kwargs)),
        id=row.entry_id,
        tz=row.time_zone or None,
        catch_up=row.catch_up,
        window=row.window,
        start=row.created if is_counted else row.start,
        expire=row.expire,
        **options,
    )
    entry.is_paused, entry.run_key = not row.is_enabled, row.run_key
    return entry


def problems(
    row: ScheduleRow,
    tasks: Mapping[str, BaseTask[Any]],
    remote: Callable[[str], BaseTask[Any]],
    *,
    zone: str,
    now: datetime | None = None,
) -> dict[str, str]:
    """Return all that is wrong with a row, by the name of the field it is in; nothing if it can be used.

    Args:
        row: The row.
        tasks: Registered tasks by name.
        remote: Makes a task whose code is elsewhere.
        zone: Time zone of a cron line that names none.
        now: Moment after which it has to fire at least once. None: it may be over.
    """
    found: dict[str, str] = {}

    def check(name: str, function: Callable[[], object]) -> bool:
        try:
            function()
        except (TaskQError, ValueError) as error:
            found[name] = str(error)
        return name not in found

    check("name", lambda: _check_name(row))
    if check("task", lambda: _task_of(row, tasks, remote)):
        task = _task_of(row, tasks, remote)
        check("kwargs", lambda: fit(task, row.kwargs))
    has_zone = check("time_zone", lambda: _check_zone(row))
    by_zone = (row.time_zone or zone) if has_zone else "UTC"
    check("cron" if row.interval is None else "interval", lambda: parse_schedule(row.spec, zone=by_zone))
    check("queue", lambda: task_options({"queue": row.queue} if row.queue else {}))
    if "queue" not in found:
        check("options", lambda: _options_of(row))
    check("catch_up", lambda: _catch_up(row.catch_up))
    check("window", lambda: seconds("window", row.window))
    check("expire", lambda: check_bounds(row.start, row.expire))
    if not found and now is not None:
        entry = entry_of(row, tasks, remote)
        if not entry.upcoming(now, 1, zone=zone):
            where = "cron" if row.expire is None else "expire"
            found[where] = "it never fires" + ("" if row.expire is None else " before it expires")
    return found


def fit(task: BaseTask[Any], kwargs: Any) -> Mapping[str, object]:
    """Return arguments that came as JSON as the task takes them: text becomes a date where one is expected.

    Raises:
        TaskArgumentsError: They do not fit, or are no object of names to values.
    """
    if not isinstance(kwargs, Mapping) or not all(isinstance(each, str) for each in kwargs):
        raise TaskArgumentsError(
            task.name, "", 'the arguments must be a JSON object of names to values, such as {"days": 7}'
        )
    try:
        task.encode((), kwargs)
    except TaskArgumentsError:
        if not isinstance(task, Task):
            raise
        return _read(task, kwargs)
    return kwargs


def _read(task: "Task[..., Any]", kwargs: Mapping[str, object]) -> Mapping[str, object]:
    bound = task.bind((), kwargs)  # a name that is missing or unknown
    try:
        _, read = task.codec.split(task.codec.decode(msgspec.json.encode(bound)))
    except PayloadError as error:
        raise TaskArgumentsError(task.name, error.parameter, error.problem) from None
    task.encode((), read)
    return read


def _task_of(
    row: ScheduleRow, tasks: Mapping[str, BaseTask[Any]], remote: Callable[[str], BaseTask[Any]]
) -> BaseTask[Any]:
    if row.is_remote:
        return remote(validate_task_type(row.task))
    task = tasks.get(row.task)
    if task is None:
        error = unknown("task", row.task, tasks.keys())
        raise ConfigurationError(f"{error} (a task of another program has to be declared remote)")
    return task


def _options_of(row: ScheduleRow) -> dict[str, Any]:
    if not isinstance(row.options, Mapping):
        raise ConfigurationError('the options must be a JSON object, such as {"max_retry": 3}')
    if row.queue and "queue" in row.options:
        raise ConfigurationError("the queue stands in a field of its own already")
    check_entry_options(row.options)
    return {**row.options, "queue": row.queue} if row.queue else dict(row.options)


def _check_name(row: ScheduleRow) -> None:
    if not row.name.strip():
        raise ConfigurationError("the name must not be blank")
    validate_entry_id(row.entry_id)


def _check_zone(row: ScheduleRow) -> None:
    if row.time_zone:
        time_zone(row.time_zone)
        if row.cron.startswith(("CRON_TZ=", "TZ=")):
            raise ConfigurationError("the cron line names a time zone itself")


def _interval_spec(interval: timedelta | None) -> str:
    assert interval is not None
    if not timedelta(seconds=1) <= interval <= LONGEST_INTERVAL or interval % timedelta(seconds=1):
        raise ConfigurationError(
            f"an interval must be whole seconds, from 1 second to 100 years, got {interval.total_seconds():g} s"
        )
    return f"@every {interval // timedelta(seconds=1)}s"


def _catch_up(text: str) -> CatchUp:
    try:
        return CatchUp(text)
    except ValueError:
        raise ConfigurationError(f"catch_up must be 'skip', 'one' or 'all', got {text!r}") from None
