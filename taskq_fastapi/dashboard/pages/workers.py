"""Worker processes: which live, what they serve, what they run, and how busy they are."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from taskq_core.dashboard import WorkerRow
from taskq_core.language import gettext, marked
from taskq_fastapi.dashboard.errors import unknown_choice
from taskq_fastapi.dashboard.registry import Page
from taskq_fastapi.dashboard.view import Shown, View

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def utilisation(row: WorkerRow) -> float:
    """Return which share of the slots of a worker is taken."""
    return min(1.0, len(row.running) / row.concurrency) if row.concurrency > 0 else 0.0


SORTS: dict[str, Callable[[WorkerRow], Any]] = {
    "worker": lambda row: (row.host, row.pid),
    "started": lambda row: row.started_at or _LONG_AGO,
    "status": lambda row: row.status,
    "active": lambda row: len(row.running),
    "utilisation": utilisation,
}
"""What the table can be sorted by."""


async def show(view: View) -> Shown:
    """Show all workers."""
    sort = view.query.get("sort", "worker")
    if sort.removeprefix("-") not in SORTS:
        raise unknown_choice("sort", SORTS, sort)
    found = await view.shared("workers", view.dashboard.workers)
    rows = sorted(found.workers, key=SORTS["worker"])
    rows.sort(key=SORTS[sort.removeprefix("-")], reverse=sort.startswith("-"))
    running, slots = found.running, found.concurrency
    return view.page(
        "workers.html",
        title=gettext("Workers"),
        found=found,
        paging=(paging := view.paging(len(rows))),
        rows=[(row, utilisation(row)) for row in rows[paging.skip : paging.skip + paging.rows]],
        share=min(1.0, running / slots) if slots else None,
        sort=sort,
        running_shown=RUNNING_SHOWN,
    )


RUNNING_SHOWN = 100
"""Most tasks of a worker that are listed."""
PAGE = Page(path="workers", label=marked("Workers"), show=show)
