"""Check a row of a database table with schedule entries, and convert it to a `PeriodicTask`. Adapters have the table.

Users edit a row in a form, so `problems` returns all mistakes of a row by the name of the form field.
`scheduler.follower` applies changes of the table to a running scheduler.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import ConfigurationError, PayloadError, TaskArgumentsError, TaskQError
from taskq_core.settings import member, seconds, unknown
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import task_options
from taskq_core.tasks.periodic import DEFAULT_WINDOW_S, CatchUp, PeriodicTask, check_bounds, check_entry_options
from taskq_core.tasks.task import Task
from taskq_core.wire import validate_entry_id, validate_task_type
from taskq_core.wire.cron import Every, parse_schedule, time_zone

LONGEST_INTERVAL = timedelta(days=36_500)
"""Longest allowed interval of a schedule entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """One row of the table of schedule entries, not checked yet."""

    id: int | None
    """Identifies the row. Another row never gets the same id. None: the row is not stored yet."""
    name: str
    """Name of the schedule entry for display, unique in the table."""
    task: str
    is_remote: bool = False
    """True if the code of the task is in another program, so that it need not be registered here."""
    cron: str = ""
    """Cron line that says when the row fires. A row has either a cron line or an `interval`."""
    interval: timedelta | None = None
    """Time between two firings, whole seconds, at least one. Counted from `start_at`, or else from `created_at`."""
    time_zone: str = ""
    """IANA name of the time zone of the cron line. "": the setting `TIME_ZONE`."""
    kwargs: Any = field(default_factory=dict)
    """Arguments of the task by name, as decoded JSON."""
    queue: str = ""
    """Queue to which the task is enqueued. "": the queue in the task's options."""
    options: Any = field(default_factory=dict)
    """Further task options, as decoded JSON."""
    enabled: bool = True
    catch_up: str = CatchUp.ONE
    catch_up_window: timedelta = timedelta(seconds=DEFAULT_WINDOW_S)
    start_at: datetime | None = None
    expire_at: datetime | None = None
    created_at: datetime = field(default_factory=lambda: utc_datetime(SYSTEM_CLOCK.time()))

    @property
    def entry_id(self) -> str:
        """Id of the row's entry. A renamed or recreated row gets another id, and so a new history."""
        return f"{self.name}#{self.id or 0}"

    @property
    def run_key(self) -> str:
        """Name under which Redis counts the runs of the row. It is unique over all rows of all tables."""
        return f"{self.id or 0}-{int(self.created_at.timestamp() * 1_000_000)}"

    @property
    def spec(self) -> str:
        """The spec of the entry: the cron line, or `@every` with the interval.

        Raises:
            ConfigurationError: The row has neither a cron line nor an interval, or has both, or the interval is not
                valid.
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
        remote: Makes a task whose code is in another program.

    Raises:
        ConfigurationError: The row is not valid.
        TaskArgumentsError: The arguments do not match the task's parameters.
    """
    task = _task_of(row, tasks, remote)
    options = _options_of(row)
    schedule = parse_schedule(row.spec, zone=row.time_zone or "UTC")
    is_counted = isinstance(schedule, Every) and row.start_at is None
    entry = PeriodicTask(
        row.spec,
        Signature(task, (), fit(task, row.kwargs)),
        id=row.entry_id,
        tz=row.time_zone or None,
        catch_up=row.catch_up,
        window=row.catch_up_window,
        start=row.created_at if is_counted else row.start_at,
        expire=row.expire_at,
        **options,
    )
    entry.is_paused, entry.run_key = not row.enabled, row.run_key
    return entry


def problems(
    row: ScheduleRow,
    tasks: Mapping[str, BaseTask[Any]],
    remote: Callable[[str], BaseTask[Any]],
    *,
    zone: str,
    now: datetime | None = None,
) -> dict[str, str]:
    """Return all mistakes in a row by the name of their field; an empty dict if the row is valid.

    Args:
        row: The row.
        tasks: Registered tasks by name.
        remote: Makes a task whose code is in another program.
        zone: Time zone of a cron line that names none.
        now: Current time. The row must fire at least once after it. None: do not check this.
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
    check("catch_up", lambda: member(CatchUp, "catch_up", row.catch_up))
    check("catch_up_window", lambda: seconds("catch_up_window", row.catch_up_window))
    check("expire_at", lambda: check_bounds(row.start_at, row.expire_at))
    if not found and now is not None:
        entry = entry_of(row, tasks, remote)
        if not entry.upcoming(now, 1, zone=zone):
            where = "cron" if row.expire_at is None else "expire_at"
            found[where] = "it never fires" + ("" if row.expire_at is None else " before it expires")
    return found


def fit(task: BaseTask[Any], kwargs: Any) -> Mapping[str, object]:
    """Convert arguments from JSON to the types of the task's parameters, for example text to dates.

    Raises:
        TaskArgumentsError: The arguments do not match the task's parameters, or are not a JSON object.
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
    bound = task.bind((), kwargs)  # `bind` raises an error for missing and unknown names
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
        raise ConfigurationError("set the queue in its own field, not in the options")
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
            raise ConfigurationError("the cron line names a time zone, too; remove one of the two")


def _interval_spec(interval: timedelta | None) -> str:
    assert interval is not None
    if not timedelta(seconds=1) <= interval <= LONGEST_INTERVAL or interval % timedelta(seconds=1):
        raise ConfigurationError(
            f"an interval must be whole seconds, from 1 second to 100 years, got {interval.total_seconds():g} s"
        )
    return f"@every {interval // timedelta(seconds=1)}s"
