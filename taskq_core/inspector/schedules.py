"""List, add, pause, resume and remove schedules while schedulers run."""

import contextlib

from taskq_core.app import TaskQ
from taskq_core.broker.operations import diagnosis, presence
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError, EntryNotFoundError, TaskQError, WireFormatError
from taskq_core.inspector.alive import alive
from taskq_core.inspector.known import check_text, hint
from taskq_core.inspector.presence import moment_of
from taskq_core.inspector.reading import check_page
from taskq_core.inspector.records import PeriodicEntryInfo, SchedulerEvent
from taskq_core.scheduler.runtime_schedules import (
    ADDED_MAX,
    RuntimeSchedules,
    declares,
    encode_schedule,
    entry_field,
    paused_field,
    read_stored,
)
from taskq_core.tasks.periodic import PeriodicTask
from taskq_core.wire import Keys, SchedulerEnqueueEvent, SchedulerEntry

_STEP = 500


def scheduler_entries(keys: Keys) -> RequestPlan[list[PeriodicEntryInfo]]:
    """Return the periodic entries of all schedulers that are alive, by id."""
    runtime = RuntimeSchedules.of((yield from ask(presence.read_schedules(keys.schedules))))
    added = {}
    for entry_id, data in runtime.added.items():
        with contextlib.suppress(TaskQError, ValueError):
            added[entry_id] = read_stored(entry_id, data)
    entries = dict(added)
    for key in (yield from alive(keys.schedulers)):
        skip = 0
        while True:
            page = yield from ask(presence.read_entries(key, skip=skip, count=_STEP))
            for data in page:
                with contextlib.suppress(WireFormatError):
                    entry = SchedulerEntry.decode(data)
                    # After a change of an added schedule, the scheduler may still announce the old version. Skip the
                    # old version.
                    if entry.id not in added or _is_of(entry, added[entry.id]):
                        entries[entry.id] = entry
            skip += len(page)
            if len(page) < _STEP:
                break
    return [_info(entries[each], runtime) for each in sorted(entries)]


def _is_of(entry: SchedulerEntry, added: SchedulerEntry) -> bool:
    """Return whether an entry that a scheduler reports is the current version of a run-time schedule.

    The reported spec may begin with a time zone.
    """
    same_call = (entry.task_type, entry.task_payload) == (added.task_type, added.task_payload)
    return same_call and entry.spec.endswith(added.spec)


def _info(entry: SchedulerEntry, runtime: RuntimeSchedules) -> PeriodicEntryInfo:
    is_paused = entry.id in runtime.paused
    return PeriodicEntryInfo(
        id=entry.id,
        spec=entry.spec,
        name=entry.task_type,
        payload=entry.task_payload,
        options=tuple(entry.enqueue_options),
        next_run_at=None if is_paused else moment_of(entry.next_enqueue_time_ns),
        previous_run_at=moment_of(entry.prev_enqueue_time_ns),
        is_paused=is_paused,
        is_removable=entry.id in runtime.added,
    )


def scheduler_events(
    keys: Keys, entry_id: str, page: int = 1, page_size: int = 30
) -> RequestPlan[list[SchedulerEvent]]:
    """Return past enqueues of a periodic entry, the newest first. At most the last 1000 are stored.

    Args:
        entry_id: Id of the entry.
        page: Number of the page, from 1.
        page_size: Maximum number of events on a page, 1 to 1000.

    Raises:
        EntryNotFoundError: No running scheduler has this entry, and it has no past enqueues.
        ConfigurationError: Page or page size is out of bounds.
    """
    check_text("entry_id", entry_id)
    check_page(page, page_size)
    history = keys.scheduler_history(entry_id)
    found = yield from ask(presence.read_events(history, skip=(page - 1) * page_size, count=page_size))
    if not found and not (yield from ask(diagnosis.count_members(history))):
        ids = [entry.id for entry in (yield from scheduler_entries(keys))]
        if entry_id not in ids:
            raise EntryNotFoundError(entry_id, hint(entry_id, ids))
    events = []
    for data in found:
        try:
            event = SchedulerEnqueueEvent.decode(data)
        except WireFormatError:
            continue
        events.append(SchedulerEvent(task_id=event.task_id, enqueued_at=moment_of(event.enqueue_time_ns)))
    return events


def add_schedule(app: TaskQ, entry: PeriodicTask, *, replace: bool = False) -> RequestPlan[None]:
    """Add a schedule at run time.

    Running schedulers load the schedule within two seconds. It is stored until `remove_schedule` removes it.

    Args:
        entry: The schedule. Its options are text, numbers and durations.
        replace: Overwrite a schedule that was added before under the same id.

    Raises:
        ConfigurationError: The id is taken, an option cannot be stored, or 1000 schedules were added already.
    """
    keys, entry_id, data = app.runtime.keys, entry.id, encode_schedule(app, entry)
    known = yield from scheduler_entries(keys)
    existing = next((each for each in known if each.id == entry_id), None)
    if existing is not None and not (replace and existing.is_removable):
        how = (
            "pass replace=True to change it"
            if existing.is_removable
            else "it is declared in code or in a table, or was removed seconds ago"
        )
        raise ConfigurationError(f"there is already a schedule {entry_id!r}; {how}, or choose another id")
    if existing is None and sum(each.is_removable for each in known) >= ADDED_MAX:
        raise ConfigurationError(f"at most {ADDED_MAX} schedules can be added at run time; use a table for more")
    field = entry_field(entry_id)
    is_new = yield from ask(presence.write_schedule(keys.schedules, field, data, only_new=not replace))
    if is_new or replace:
        return
    stored = yield from ask(presence.read_schedules(keys.schedules))
    if stored.get(field) != data:  # if the data are equal, an earlier attempt of the same write has stored them
        raise ConfigurationError(f"schedule {entry_id!r} was just added by another program; choose another id")


def remove_schedule(keys: Keys, entry_id: str) -> RequestPlan[None]:
    """Remove a schedule that was added by `add_schedule`.

    Raises:
        EntryNotFoundError: The schedule does not exist.
        ConfigurationError: The schedule is declared in code or in a table.
    """
    entry = yield from _known(keys, entry_id)
    if not entry.is_removable:
        raise ConfigurationError(
            f"schedule {entry_id!r} is declared in code or in a table; remove it there, or pause it"
        )
    yield from ask(presence.delete_schedule(keys.schedules, entry_field(entry_id), paused_field(entry_id)))


def pause_schedule(app: TaskQ, entry_id: str) -> RequestPlan[bool]:
    """Pause a schedule, wherever it is declared. Return False if it was already paused.

    Raises:
        EntryNotFoundError: The schedule does not exist.
    """
    keys = app.runtime.keys
    if not declares(app, entry_id):
        yield from _known(keys, entry_id)
    return bool((yield from ask(presence.write_schedule(keys.schedules, paused_field(entry_id), b"1"))))


def resume_schedule(keys: Keys, entry_id: str) -> RequestPlan[bool]:
    """Resume a paused schedule. Missed firings are not enqueued. Return False if it was not paused.

    Raises:
        EntryNotFoundError: The schedule does not exist.
    """
    was_paused = yield from ask(presence.delete_schedule(keys.schedules, paused_field(entry_id)))
    if not was_paused:
        yield from _known(keys, entry_id)
    return bool(was_paused)


def _known(keys: Keys, entry_id: str) -> RequestPlan[PeriodicEntryInfo]:
    entries = yield from scheduler_entries(keys)
    for entry in entries:
        if entry.id == entry_id:
            return entry
    raise EntryNotFoundError(entry_id, hint(entry_id, [each.id for each in entries]))
