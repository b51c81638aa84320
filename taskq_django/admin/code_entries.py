"""List the periodic tasks of code and settings, and those added at run time, below those of the database table.

They are shown as `PeriodicTask` instances that are never saved. Rows of the table never have their keys.
"""

import copy
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
"""Prefix of the keys of these rows. The id of the entry follows."""
SOURCE_VAR = "source"


def code_rows() -> list[PeriodicTask]:
    """Return a row for each periodic task of code and settings or added at run time, sorted by name.

    The times of the last and the next run come from running schedulers. They are missing while Redis does not answer.
    Entries that are invalid in this process are omitted.
    """
    try:
        entries = taskq.periodic_tasks()
    except TaskQError:
        entries = []  # the system check taskq.E003 reports the error
    inspector = Inspector(taskq)
    shown: dict[str, PeriodicEntryInfo] = {}
    paused: frozenset[str] = frozenset()
    try:
        shown = {each.id: each for each in inspector.scheduler_entries()}
        schedules = inspector.run_plan(lambda keys: ask(presence.read_schedules(keys.schedules)))
        paused = RuntimeSchedules.of(schedules).paused  # Redis stores this even if no scheduler runs
    except (BrokerError, ConfigurationError):
        pass
    rows = [_row(entry, shown.pop(entry.id, None), is_paused=entry.id in paused) for entry in entries]
    for each in shown.values():
        if each.is_removable:
            try:
                entry = Entry(each.spec, entry_call(taskq, each), id=each.id)
            except (TaskQError, ValueError, TypeError):
                continue
            rows.append(_row(entry, each, is_paused=each.is_paused))
            rows[-1].is_added = True
    return sorted(rows, key=lambda row: row.name)


def _row(entry: Entry, shown: PeriodicEntryInfo | None, *, is_paused: bool) -> PeriodicTask:
    task = entry.call.task
    row = PeriodicTask(
        pk=f"{CODE_KEY}{entry.id}",
        name=entry.id,
        task=task.name,
        is_remote=task.name not in taskq.tasks,
        cron=entry.spec,
        time_zone=entry.tz or "",
        kwargs=_arguments(entry.payload),
        queue=task.options.queue,
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
        return {}  # another program's task may have a payload that is not JSON


class Listed(list[Any]):
    """Rows of a page of the list: rows of the database, then rows of the code.

    Its length is only the number of rows of the database, because Django offers actions for that number of rows.
    """

    def __init__(self, rows: Any, code: Any) -> None:
        super().__init__([*rows, *code])
        self._length = len(rows)

    def __len__(self) -> int:
        return self._length


class PeriodicTaskList(ChangeList):
    """A change list whose last page ends with the periodic tasks of the code that match its filters and search.

    Its own counts are those of the rows of the database, to which actions apply.
    """

    counted: "PeriodicTaskList"
    """A copy of this list that counts all rows, for the texts that show the number of rows."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the rows of the page."""
        super().get_results(request)
        filters = {name: values[-1] for name, values in self.get_filters_params().items()}
        is_last = self.show_all or not self.multi_page or self.page_num == self.paginator.num_pages
        words = self.query.lower().split()
        code = code_rows()
        has_code = filters.pop(SOURCE_VAR, "code") == "code"
        fitting = [
            row
            for row in code
            if has_code
            and all(word in f"{row.name} {row.task} {row.queue}".lower() for word in words)
            and all(_fits(row, lookup, value) for lookup, value in filters.items())
        ]
        self.counted = copy.copy(self)
        self.counted.result_count += len(fitting)
        if self.full_result_count is not None:
            self.counted.full_result_count = self.full_result_count + len(code)
        self.result_list = Listed(self.result_list, fitting if is_last else ())


def _fits(row: PeriodicTask, lookup: str, value: str) -> bool:
    """Return whether a row matches a filter of the list."""
    found = getattr(row, lookup.removesuffix("__exact"), None)
    return str(int(found) if isinstance(found, bool) else found) == value
