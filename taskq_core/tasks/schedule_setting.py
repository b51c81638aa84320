"""Schedule entries in the setting `SCHEDULE`: check them, and convert them to `PeriodicTask` objects."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from taskq_core.errors import ConfigurationError, TaskArgumentsError
from taskq_core.settings import unknown
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import OPTION_NAMES
from taskq_core.tasks.periodic import DEFAULT_WINDOW_S, CatchUp, PeriodicTask, check_entry_options, checked_policy
from taskq_core.wire import validate_entry_id
from taskq_core.wire.cron import parse_schedule

_LINE_KEYS = ("task", "spec", "cron", "kwargs", "tz", "catch_up", "window", "options", "remote")


class ScheduleLine(Struct, frozen=True, kw_only=True):
    """One checked entry of the setting `SCHEDULE`.

    Its task was not checked, because the task may not be registered yet.
    """

    task: str
    is_remote: bool
    """True if the code of the task is in another program, so that it need not be registered here."""
    kwargs: Mapping[str, Any]
    entry: Mapping[str, Any]
    """Arguments of `PeriodicTask`, such as `spec`, `id` and task options."""


def schedule_lines(schedule: Mapping[str, Any], *, zone: str) -> list[ScheduleLine]:
    """Read the setting `SCHEDULE`: a dict of entry ids to dicts.

    Raises:
        ConfigurationError: An entry is not valid. The message contains its id.
    """
    lines = []
    for entry_id, given in schedule.items():
        try:
            lines.append(_read_line(entry_id, given, zone))
        except ConfigurationError as error:
            raise ConfigurationError(f"SCHEDULE[{entry_id!r}]: {error}") from None
    return lines


def _read_line(entry_id: Any, given: Any, zone: str) -> ScheduleLine:
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"the entry must be a dict with 'task' and 'spec', got {type(given).__name__}")
    for key in given:
        if key not in _LINE_KEYS and key not in OPTION_NAMES:
            raise unknown("key", str(key), (*_LINE_KEYS, *OPTION_NAMES))
    specs = [given[key] for key in ("spec", "cron") if key in given]
    if len(specs) != 1:
        raise ConfigurationError("give exactly one of 'spec' and 'cron'; they have the same meaning")
    name, tz, remote = given.get("task"), given.get("tz"), given.get("remote", False)
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"'task' must be the name of a task, got {name!r}")
    if tz is not None and not isinstance(tz, str):
        raise ConfigurationError(f"'tz' must be the name of a time zone, got {tz!r}")
    if not isinstance(remote, bool):
        raise ConfigurationError(f"'remote' must be True or False, got {remote!r}")
    kwargs, options = given.get("kwargs", {}), given.get("options", {})
    for key, value in (("kwargs", kwargs), ("options", options)):
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value):
            raise ConfigurationError(f"{key!r} must be a dict of names to values")
    options = {**options, **{key: given[key] for key in OPTION_NAMES if key in given}}
    parse_schedule(specs[0], zone=tz or zone)
    check_entry_options(options)
    policy, window_s = checked_policy(given.get("catch_up", CatchUp.ONE), given.get("window", DEFAULT_WINDOW_S))
    entry = {"spec": specs[0], "id": validate_entry_id(entry_id), "tz": tz, "catch_up": policy, "window": window_s}
    return ScheduleLine(task=name, is_remote=remote, kwargs=dict(kwargs), entry={**options, **entry})


def scheduled_entries(
    lines: Iterable[ScheduleLine], tasks: Mapping[str, BaseTask[Any]], remote: Callable[[str], BaseTask[Any]]
) -> list[PeriodicTask]:
    """Return the entries of the setting `SCHEDULE`.

    Raises:
        ConfigurationError: A task is not registered. The message suggests the most similar name.
        TaskArgumentsError: The arguments do not match the parameters of a task.
    """
    entries = []
    for line in lines:
        task = tasks.get(line.task)
        if task is None:
            if not line.is_remote:
                error = unknown("task", line.task, tasks.keys())
                raise ConfigurationError(
                    f"SCHEDULE[{line.entry['id']!r}]: {error} (if the task's code is in another program, set 'remote': "
                    "True)"
                )
            task = remote(line.task)
        try:
            entries.append(PeriodicTask(call=Signature(task, (), line.kwargs), **line.entry))
        except TaskArgumentsError as error:
            where = f"{error.problem} (in SCHEDULE[{line.entry['id']!r}])"
            raise TaskArgumentsError(error.task, error.parameter, where) from None
    return entries
