"""Show periodic tasks of the code, of the settings and added at run time as rows beside those of the table.

They are instances that are never saved, under keys that no row of the table has.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest

from taskq_core import BrokerError, ConfigurationError, TaskQError
from taskq_core import PeriodicTask as Entry
from taskq_core.broker.operations import presence
from taskq_core.broker.plans import ask
from taskq_core.inspector import Inspector, PeriodicEntryInfo
from taskq_core.inspector.entry_call import entry_call
from taskq_core.scheduler.runtime_schedules import RuntimeSchedules
from taskq_django.app import taskq
from taskq_django.models import PeriodicTask

CODE_KEY = "code:"
"""How the key of such a row begins; the id of its entry follows."""
SOURCE_VAR = "source"


def code_rows() -> list[PeriodicTask]:
    """Return a row for each periodic task of the code, of the settings, and added at run time, sorted by name.

    Those of the code and the settings are omitted if they are not valid.

    When they were and will be enqueued is asked of the schedulers that run, in one look at Redis.
    """
    try:
        entries = taskq.periodic_tasks()
    except TaskQError:
        entries = []  # the system check taskq.E003 reports it
    shown, paused = _shown_by_schedulers(), _paused()
    declared = {entry.id for entry in entries}
    rows = [_row(entry, shown.get(entry.id), is_paused=entry.id in paused) for entry in entries]
    rows += [row for each in shown.values() if each.is_removable and each.id not in declared for row in _added(each)]
    return sorted(rows, key=lambda each: each.name)


def _added(shown: PeriodicEntryInfo) -> list[PeriodicTask]:
    """Return a row for a periodic task that was added at run time, or None if it is not valid here."""
    try:
        entry = Entry(shown.spec, entry_call(taskq, shown), id=shown.id)
    except (TaskQError, ValueError, TypeError):
        return []
    row = _row(entry, shown, is_paused=shown.is_paused)
    row.is_added = True
    return [row]


def _row(entry: Entry, shown: PeriodicEntryInfo | None, *, is_paused: bool) -> PeriodicTask:
    call = entry.call
    row = PeriodicTask(
        pk=f"{CODE_KEY}{entry.id}",
        name=entry.id,
        task=call.task.name,
        is_remote=call.task.name not in taskq.tasks,
        cron=entry.spec,
        time_zone=entry.tz or "",
        kwargs=_arguments(entry.payload),
        queue=call.task.options.queue,
        options=list(entry.option_strings),
        catch_up=entry.catch_up.value,
        catch_up_window=timedelta(seconds=entry.window_s),
        start_at=entry.start,
        expire_at=entry.expire,
        last_run_at=None if shown is None else shown.previous_run_at,
        next_run_at=None if shown is None else shown.next_run_at,
        enabled=not is_paused,
    )
    row.code_entry = entry
    return row


def _arguments(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload) if payload else {}
    except msgspec.DecodeError:
        return {}  # bytes of a task of another program


def _shown_by_schedulers() -> Mapping[str, PeriodicEntryInfo]:
    """Return what running schedulers tell of their entries, by id; nothing while Redis does not answer."""
    try:
        return {each.id: each for each in Inspector(taskq).scheduler_entries()}
    except (BrokerError, ConfigurationError):
        return {}


def _paused() -> frozenset[str]:
    """Return the ids of paused periodic tasks, even if no scheduler runs. Empty while Redis is down."""
    try:
        found = Inspector(taskq).run_plan(lambda keys: ask(presence.read_schedules(keys.schedules)))
    except (BrokerError, ConfigurationError):
        return frozenset()
    return RuntimeSchedules.of(found).paused


class Listed(list[Any]):
    """Rows of a page of the list. Its length is the number of those that actions can be taken on."""

    def __init__(self, rows: Any, code: Any) -> None:
        super().__init__([*rows, *code])
        self._length = len(rows)

    def __len__(self) -> int:
        return self._length


class PeriodicTaskList(ChangeList):
    """A list whose last page closes with the periodic tasks of the code that fit its filters and search."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page."""
        super().get_results(request)
        is_last = self.show_all or not self.multi_page or self.page_num == self.paginator.num_pages
        code = self._fitting() if is_last else []
        self.result_list = Listed(self.result_list, code)

    def _fitting(self) -> list[PeriodicTask]:
        filters = {name: values[-1] for name, values in self.get_filters_params().items()}
        if filters.pop(SOURCE_VAR, "code") != "code":
            return []
        words = self.query.lower().split()
        return [
            row
            for row in code_rows()
            if all(word in f"{row.name} {row.task}".lower() for word in words)
            and all(_fits(row, name, value) for name, value in filters.items())
        ]


def _fits(row: PeriodicTask, lookup: str, value: str) -> bool:
    """Whether a row passes a filter of the list; one that compares in another way than for equality lets none pass."""
    name, _, how = lookup.partition("__")
    if how not in ("", "exact"):
        return False
    found = getattr(row, name, None)
    return value in (("1", "True") if found else ("0", "False")) if isinstance(found, bool) else str(found) == value
