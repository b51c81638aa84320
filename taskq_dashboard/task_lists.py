"""Lists of tasks: of a queue and state, of a group, or of all queues."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskq_core import TaskState
from taskq_core.inspector import QueueInfo, TaskAction, TaskFilter, TaskOrder, is_reversed
from taskq_core.settings.language import gettext
from taskq_core.views import TaskRecord
from taskq_core.views.labels import BUTTONS
from taskq_core.views.messages import ALL_BUTTONS, actions_for
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.form import Form
from taskq_dashboard.paging import Paging
from taskq_dashboard.task_table import COLUMNS, TIMES, Row, rows_of
from taskq_dashboard.view import View

FILTER_FIELDS = ("queue", "state", "group", "type", "error", "payload", "text", "older", "newer")
"""Fields of a query or form that are a filter for tasks."""
ORDERS = (TaskOrder.NEWEST, TaskOrder.OLDEST)
"""Orders that a user can choose for the tasks of one queue and state."""
GROUPS = 100
"""Approximate number of groups on a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskList:
    """A table of tasks.

    Attributes:
        rows: The rows of the table.
        columns: The columns between type and actions.
        paging: The page of the list. None: the list has no pages.
        selected: Actions for selected tasks. Tasks whose state does not allow an action are skipped and counted.
        all: Form fields that select the whole list.
        all_actions: Actions for the whole list.
        sorted_by: The column with the time by which the list is sorted, "" if the user cannot choose the order.
        order: The order by this time.
    """

    rows: Sequence[Row]
    columns: Sequence[str]
    paging: Paging | None
    selected: Sequence[tuple[TaskAction, str]]
    all: Mapping[str, str]
    all_actions: Sequence[tuple[TaskAction, str]]
    sorted_by: str
    order: TaskOrder


def task_filter(view: View, fields: Form, states: Iterable[TaskState]) -> TaskFilter:
    """Return the filter in the fields of a query or form.

    Args:
        view: The view of the user.
        fields: The query or form.
        states: States that may be chosen.

    Raises:
        BadRequestError: The filter is not valid, or it searches payloads that are hidden or redacted.
    """
    if fields.get("payload") and not view.shown.may_ask_payloads:
        raise BadRequestError(gettext("payloads that are hidden or redacted cannot be searched"))

    def age(name: str) -> int | None:
        return fields.number(name, 0, low=0, high=10**9) if fields.get(name) else None

    return TaskFilter(
        queue=fields.get("queue") or None,
        state=fields.choice("state", states),
        group=fields.get("group") or None,
        name_part=fields.get("type"),
        error=fields.get("error"),
        payload=fields.get("payload"),
        text=fields.get("text").strip(),
        older_than=age("older"),
        newer_than=age("newer"),
        in_payload=view.shown.may_ask_payloads,
    )


async def listing(
    view: View,
    tasks: Sequence[TaskRecord],
    *,
    state: TaskState | None,
    now: datetime,
    paging: Paging | None,
    filter_fields: Mapping[str, str],
    is_bulk: bool = True,
    order: TaskOrder = TaskOrder.NEXT,
    sorted_state: TaskState | None = None,
) -> TaskList:
    """Return the table of tasks of a state, or of several.

    Args:
        view: The view of the user.
        tasks: The tasks.
        state: Their state. None: tasks of several states or queues.
        now: The current time of Redis.
        paging: The page of the list.
        filter_fields: The form fields that select the whole list.
        is_bulk: Whether actions for the whole list are offered.
        order: The order of the tasks.
        sorted_state: The state whose time sorts the list. None: the list cannot be sorted.
    """
    workers = await view.dashboard.workers() if state is TaskState.ACTIVE else None
    selected = (
        actions_for(state) if state is not None else [(action, gettext(label)) for action, label in BUTTONS.items()]
    )
    return TaskList(
        rows=rows_of(view, tasks, now=now, workers=workers),
        columns=[TIMES[sorted_state] if each == "time" and sorted_state else each for each in COLUMNS[state]],
        paging=paging,
        selected=selected,
        all=filter_fields,
        all_actions=[
            (action, gettext(ALL_BUTTONS[action])) for action, _ in actions_for(TaskState(filter_fields["state"]))
        ]
        if is_bulk
        else (),
        sorted_by=TIMES[sorted_state] if sorted_state else "",
        order=TaskOrder.NEWEST if sorted_state and is_reversed(sorted_state, order) else TaskOrder.OLDEST,
    )


async def of_queue(view: View, row: QueueInfo, state: TaskState | None) -> dict[str, Any]:
    """Return the template variables for the tasks on the page of a queue."""
    group = view.query.get("group") or None if state is TaskState.AGGREGATING else None
    context: dict[str, Any] = {"group": group, "groups": None, "tasks": None}
    if state is None or row.problem:
        return context | {"state": None if row.problem else state}
    if state is TaskState.AGGREGATING and group is None:
        cursor = view.query.get("groups") or None
        return context | {"groups": await view.inspector.groups_page(row.name, limit=GROUPS, cursor=cursor)}
    total = row.sizes[state]
    if group is not None:
        total = await view.inspector.count(row.name, state, group=group)
    paging = view.paging(total)
    wanted = TaskFilter(queue=row.name, state=state, group=group)
    order = view.query.choice("order", ORDERS) or TaskOrder.NEXT
    tasks = await view.dashboard.tasks([row], wanted, skip=paging.skip, count=paging.rows, order=order)
    filter_fields = {"queue": row.name, "state": str(state)} | ({} if group is None else {"group": group})
    listed = await listing(
        view,
        tasks,
        state=state,
        now=row.as_of,
        paging=paging,
        filter_fields=filter_fields,
        order=order,
        sorted_state=state if state in TIMES else None,
    )
    return context | {"tasks": listed}
