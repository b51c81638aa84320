"""Show outcomes and durations of runs by task type."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from taskq_core.settings.language import gettext, marked
from taskq_core.views import TypeRuns
from taskq_dashboard.errors import NotFoundError
from taskq_dashboard.registry import page
from taskq_dashboard.view import Shown, View

HOURS = (1, 6, 24)
"""Periods in hours that the page offers."""
SORTS: dict[str, Callable[[TypeRuns], Any]] = {
    "type": lambda row: row.name,
    "processed": lambda row: row.processed,
    "failed": lambda row: row.failed,
    "archived": lambda row: row.archived,
    "errors": lambda row: row.error_rate or 0.0,
    "total": lambda row: row.total,
    "mean": lambda row: row.mean or timedelta(0),
    "p95": lambda row: row.p95 or timedelta(0),
}
"""Sort keys of the table."""


@page("types", label=marked("Types"))
async def show(view: View) -> Shown:
    """Show outcomes and durations by task type, for one queue or all queues."""
    queue = view.query.get("queue")
    hours = view.query.number("hours", HOURS[-1], low=0, high=24)
    existing = await view.inspector.queues()
    if queue and queue not in existing:
        raise NotFoundError(gettext("no queue %(queue)r", queue=queue[:80]))
    names = (queue,) if queue else tuple(existing)
    found = await view.dashboard.types(names, hours=hours)
    sort, rows = view.in_order(found.types, SORTS, "-processed")
    return view.page(
        "types.html",
        title=gettext("Task types"),
        found=found,
        rows=rows,
        sort=sort,
        hours=hours,
        hours_choices=HOURS,
        existing=existing,
        queue=queue,
    )
