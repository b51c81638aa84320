"""Search the tasks of all queues, and show failed tasks by error."""

from collections import Counter
from collections.abc import Sequence

from taskq_core import TaskInfo, TaskState
from taskq_core.inspector import LISTED_STATES, QueueInfo, TaskFilter, TaskOrder, total_of
from taskq_core.settings.language import gettext, marked
from taskq_core.views import TaskRecord, utc_now
from taskq_core.views.labels import search_text
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.registry import page
from taskq_dashboard.task_lists import FILTER_FIELDS, ORDERS, listing, task_filter
from taskq_dashboard.task_table import error_line
from taskq_dashboard.view import Shown, View

SAMPLE = 1_000
"""Maximum number of failed tasks that the breakdown by error reads."""
ERRORS = 20
"""Maximum number of listed errors."""
AGES = (
    ("", marked("any time")),
    ("3600", marked("an hour")),
    ("86400", marked("a day")),
    ("604800", marked("a week")),
    ("2592000", marked("30 days")),
)
FAILED = (TaskState.ARCHIVED, TaskState.RETRY)


@page("tasks", label=marked("Tasks"), is_live=False)
async def show(view: View) -> Shown:
    """Search tasks."""
    wanted = task_filter(view, view.query, LISTED_STATES)
    infos = await view.inspector.queue_infos()
    if wanted.queue is not None and wanted.queue not in [info.name for info in infos]:
        raise BadRequestError(gettext("there is no queue %(queue)r", queue=wanted.queue[:80]))
    rows = view.paging(0).rows
    now = max((info.as_of for info in infos), default=utc_now())
    tasks: Sequence[TaskRecord]
    paging, cursor, progress = None, None, ""
    order = view.query.choice("order", ORDERS) or TaskOrder.RECENT
    if wanted.needs_reading:
        found = await view.dashboard.search_tasks(
            infos, wanted, cursor=view.query.get("cursor") or None, limit=rows, order=order
        )
        tasks, cursor, progress = found.tasks, found.cursor, search_text(found, gettext("tasks"))
        keeps_order = wanted.state not in (TaskState.PENDING, TaskState.ACTIVE)
    else:
        paging = view.paging(total_of(wanted.of(infos), wanted.state))
        tasks = await view.dashboard.tasks(infos, wanted, skip=paging.skip, count=paging.rows, order=order)
        keeps_order = True
    filter_fields = {name: view.query.get(name) for name in FILTER_FIELDS if view.query.get(name)}
    # A search by id offers no action on all matches: once that task is deleted, the id would be searched as text.
    is_bulk = wanted.state is not None and not any(task.id == wanted.text for task in tasks)
    listed = await listing(
        view,
        tasks,
        state=None,
        now=now,
        paging=paging,
        filter_fields=filter_fields,
        is_bulk=is_bulk,
        order=order,
        sorted_state=wanted.state if keeps_order and len(wanted.of(infos)) == 1 else None,
    )
    return view.page(
        "tasks.html",
        title=gettext("Tasks"),
        found=listed,
        wanted=wanted,
        cursor=cursor,
        progress=progress,
        rows=rows,
        queues=[info.name for info in infos],
        listed_states=LISTED_STATES,
        ages=AGES,
    )


# --- failed tasks -----------------------------------------------------------------------------------------------------


@page("failed", label=marked("Failed"))
async def show_failed(view: View) -> Shown:
    """Show failed tasks of all queues, archived or waiting for a retry, with a breakdown by error."""
    state = view.query.choice("state", FAILED) or TaskState.ARCHIVED
    infos: Sequence[QueueInfo] = await view.inspector.queue_infos()
    paging = view.paging(total_of(infos, state))
    wanted = TaskFilter(state=state)
    tasks = await view.dashboard.tasks(infos, wanted, skip=paging.skip, count=paging.rows)
    sample = await view.dashboard.tasks(infos, wanted, count=SAMPLE)
    now = max((info.as_of for info in infos), default=utc_now())
    return view.page(
        "failed.html",
        title=gettext("Failed tasks"),
        found=await listing(view, tasks, state=None, now=now, paging=paging, filter_fields={"state": state.value}),
        state=state,
        sizes={each: total_of(infos, each) for each in FAILED},
        failures=_failures(view, sample),
        looked_at=len(sample),
        is_sampled=len(sample) < paging.total,
    )


def _failures(view: View, tasks: Sequence[TaskRecord]) -> list[tuple[str, str, int]]:
    """Return the name of the task, the first line of the error and the number of tasks, of the most frequent errors."""
    counts = Counter((task.name, error_line(view, task)) for task in tasks if isinstance(task, TaskInfo))
    return [(name, error, count) for (name, error), count in counts.most_common(ERRORS)]
