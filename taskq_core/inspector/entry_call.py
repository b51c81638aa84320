"""Build the call of a schedule entry, so that a user can enqueue the entry's task now."""

from datetime import timedelta
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.inspector.records import PeriodicEntryInfo
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.options import call_options
from taskq_core.wire import OptionKind, parse_option
from taskq_core.wire.durations import NS_PER_S

_NAMES = {
    OptionKind.MAX_RETRY: "max_retry",
    OptionKind.QUEUE: "queue",
    OptionKind.TASK_ID: "task_id",
    OptionKind.TIMEOUT: "timeout",
    OptionKind.DEADLINE: "deadline",
    OptionKind.UNIQUE: "unique_for",
    OptionKind.PROCESS_AT: "run_after",
    OptionKind.PROCESS_IN: "run_after",
    OptionKind.RETENTION: "retention",
    OptionKind.GROUP: "aggregate",
}
_DURATIONS = (OptionKind.TIMEOUT, OptionKind.UNIQUE, OptionKind.PROCESS_IN, OptionKind.RETENTION)


def entry_call(app: TaskQ, entry: PeriodicEntryInfo) -> Signature[Any]:
    """Return the call that an entry enqueues when it is due.

    For an entry that the application declares, return the declared call with all its options. For other entries, the
    options come from the report of the scheduler, and then from the task if the application has it. Schedulers report
    only options that Asynq has.

    Raises:
        ConfigurationError: An option that the scheduler reports is not valid here.
    """
    declared = app.timetable.entries.get(entry.id)
    if declared is not None and (declared.call.task.name, declared.payload) == (entry.name, entry.payload):
        return declared.call
    options: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for text in entry.options:
        option = parse_option(text)
        if option is None:
            continue
        if option.kind is OptionKind.HEADER and isinstance(option.value, tuple):
            headers[option.value[0]] = option.value[1]
        elif option.kind in _DURATIONS and isinstance(option.value, int):
            options[_NAMES[option.kind]] = _duration(option.value)
        elif option.kind in _NAMES:
            options[_NAMES[option.kind]] = option.value
    known = app.tasks.get(entry.name)
    own: dict[str, Any] = {}
    if known is not None:
        own = call_options(known.options)
    if headers:
        options["headers"] = {**own.get("headers", {}), **headers}
    return app.remote(entry.name, **{**own, **options}).s(entry.payload)


def _duration(ns: int) -> timedelta:
    """Return a duration in whole seconds, as Go stores it.

    The number is rounded up, so that a short duration does not become 0.
    """
    return timedelta(seconds=-(-ns // NS_PER_S))
