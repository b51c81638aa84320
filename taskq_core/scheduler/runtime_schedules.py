"""Schedules that are added, paused and removed while schedulers run. One hash in Redis holds them.

The field `entry:<id>` holds an added schedule as JSON. The field `paused:<id>` marks a schedule as paused, whether it
comes from the code, a table or this hash. Schedulers read the hash every two seconds; tools write it.
"""

import contextlib
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from taskq_core.errors import ConfigurationError, TaskQError
from taskq_core.settings import unknown
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import TaskOptions, call_options
from taskq_core.tasks.periodic import PeriodicTask, option_strings
from taskq_core.tasks.schedule_table import fit
from taskq_core.wire import SchedulerEntry, validate_task_type

if TYPE_CHECKING:
    from taskq_core.app import TaskQ

logger = logging.getLogger("taskq.scheduler")

ADDED_MAX = 1000
"""Maximum number of schedules that can be added at run time. A table in a database holds more."""
_ENTRY, _PAUSED = "entry:", "paused:"


class _Stored(msgspec.Struct, omit_defaults=True):
    """An added schedule in its stored JSON form, with the payload in Base64."""

    spec: str
    task: str
    payload: bytes
    catch_up: str
    window_s: float
    tz: str | None = None
    start: datetime | None = None
    expire: datetime | None = None
    options: dict[str, Any] = {}


class RuntimeSchedules(Struct, frozen=True):
    """The parsed content of the hash with the run-time schedules.

    Attributes:
        added: The added schedules, as JSON by id.
        paused: Ids of paused schedules, wherever they are declared.
    """

    added: Mapping[str, bytes]
    paused: frozenset[str]

    @classmethod
    def of(cls, hash_fields: Mapping[str, bytes]) -> "RuntimeSchedules":
        """Parse the fields of the Redis hash."""
        added = {name.removeprefix(_ENTRY): data for name, data in hash_fields.items() if name.startswith(_ENTRY)}
        return cls(added, frozenset(name.removeprefix(_PAUSED) for name in hash_fields if name.startswith(_PAUSED)))

    def entries(self, app: "TaskQ") -> list[PeriodicTask]:
        """Return the added schedules as entries. Log and skip unusable ones."""
        found = []
        for entry_id, data in sorted(self.added.items()):
            try:
                found.append(decode_schedule(app, entry_id, data))
            except (TaskQError, ValueError, TypeError) as error:
                logger.error("schedule %s, which was added at run time, is skipped: %s", entry_id, error)
        return found


def entry_field(entry_id: str) -> str:
    """Return the hash field that holds an added schedule."""
    return _ENTRY + entry_id


def paused_field(entry_id: str) -> str:
    """Return the hash field that marks a schedule as paused."""
    return _PAUSED + entry_id


def declares(app: "TaskQ", entry_id: str) -> bool:
    """Return whether the application defines a schedule with this id in its code or settings."""
    return entry_id in app.timetable.entries or entry_id in app.settings.schedule


def encode_schedule(app: "TaskQ", entry: PeriodicTask) -> bytes:
    """Encode a schedule for the hash.

    Raises:
        ConfigurationError: An option cannot be stored, or the time zone is unknown.
    """
    entry.schedule(app.settings.time_zone)
    task = entry.call.task
    if (app.tasks.get(task.name) or app.remote(task.name)).using(**entry.options).options != task.options:
        raise ConfigurationError(f"give the options of task {task.name!r} to PeriodicTask(...), not to the task")
    stored = _Stored(
        spec=entry.spec,
        task=task.name,
        payload=entry.payload,
        catch_up=entry.catch_up.value,
        window_s=entry.window_s,
        tz=entry.tz,
        start=entry.start,
        expire=entry.expire,
        options=_own_options(task.options) | {name: _plain(name, value) for name, value in entry.options.items()},
    )
    return msgspec.json.encode(stored)


def decode_schedule(app: "TaskQ", entry_id: str, data: bytes) -> PeriodicTask:
    """Decode a stored schedule. Options that it does not contain come from the task, if the application has it.

    Raises:
        TaskQError, ValueError, TypeError: The stored schedule is not usable.
    """
    stored = msgspec.json.decode(data, type=_Stored)
    known = app.tasks.get(stored.task)
    own = {} if known is None else call_options(known.options)
    own = {name: value for name, value in own.items() if name not in stored.options}
    return PeriodicTask(
        stored.spec,
        app.remote(stored.task, **own).s(stored.payload),
        id=entry_id,
        tz=stored.tz,
        catch_up=stored.catch_up,
        window=stored.window_s,
        start=stored.start,
        expire=stored.expire,
        **stored.options,
    )


def _own_options(options: TaskOptions) -> dict[str, Any]:
    """Return the options to store with a schedule.

    A scheduler without the task's code then enqueues the task with the same options as this application.
    """
    default = TaskOptions()
    found: dict[str, Any] = {"queue": options.queue}
    for name, value in call_options(options).items():
        if value != getattr(default, name):
            # Skip options that cannot be stored, such as limits, because other programs could not apply them.
            with contextlib.suppress(ConfigurationError):
                found[name] = _plain(name, value)
    return found


def _plain(name: str, value: object) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping) and all(isinstance(each, str) for pair in value.items() for each in pair):
        return dict(value)
    raise ConfigurationError(f"a stored schedule cannot have the option {name}={value!r}: give text or a number")


def read_stored(entry_id: str, data: bytes) -> SchedulerEntry:
    """Decode a stored schedule into the form in which the announcer shows entries to tools.

    Raises:
        TaskQError, ValueError: The stored schedule is not usable.
    """
    stored = msgspec.json.decode(data, type=_Stored)
    return SchedulerEntry(
        id=entry_id,
        spec=stored.spec,
        task_type=stored.task,
        task_payload=stored.payload,
        enqueue_options=option_strings(stored.options),
    )


def named_schedule(
    app: "TaskQ",
    entry_id: str | None,
    spec: str,
    task: str,
    *,
    kwargs: object = None,
    tz: str | None = None,
    remote: bool = False,
    options: Mapping[str, Any] | None = None,
) -> PeriodicTask:
    """Return a schedule for a task name, with JSON arguments and options.

    Args:
        app: The queue application.
        entry_id: Id of the schedule. None: the task's name and a digest.
        spec: Cron line or interval that says when the schedule is due.
        task: Name of the task.
        kwargs: Keyword arguments.
        tz: IANA name of the zone of a cron line.
        remote: Whether another program has the task's code. An application without tasks accepts every name.
        options: Task options, `catch_up` and `window`.

    Raises:
        ConfigurationError: A value is not usable, or the task is unknown.
        TaskArgumentsError: The arguments do not fit the task.
    """
    known = None if remote else app.tasks.get(task)
    if known is None and app.tasks and not remote:
        raise ConfigurationError(f"{unknown('task', task, app.tasks)} (a task of another program has to be remote)")
    target = known or app.remote(validate_task_type(task))
    arguments = fit(target, {} if kwargs is None else kwargs)
    return PeriodicTask(spec, Signature(target, (), arguments), id=entry_id, tz=tz, **(options or {}))
