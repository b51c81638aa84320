"""Show running worker processes with their queues, tasks and load, and send them requests."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from taskq_core.inspector import WorkerAction, WorkerProcess
from taskq_core.settings.language import gettext, marked
from taskq_core.views import CONCURRENCY_MAX
from taskq_dashboard.form import Form
from taskq_dashboard.registry import Done, Question, action, page
from taskq_dashboard.view import Shown, View

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def utilisation(row: WorkerProcess) -> float:
    """Return the share of busy slots of a worker, 0 to 1."""
    return min(1.0, len(row.running) / row.concurrency) if row.concurrency > 0 else 0.0


SORTS: dict[str, Callable[[WorkerProcess], Any]] = {
    "worker": lambda row: (row.host, row.pid),
    "started": lambda row: row.started_at or _LONG_AGO,
    "status": lambda row: row.status,
    "active": lambda row: len(row.running),
    "utilisation": utilisation,
}
"""Sort keys of the table."""


@page("workers", label=marked("Workers"))
async def show(view: View) -> Shown:
    """Show all workers."""
    found = await view.dashboard.workers()
    sort, rows = view.in_order(found.workers, SORTS, "worker")
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


async def _ask_worker(view: View, form: Form, action: WorkerAction, concurrency: int | None = None) -> Done:
    receivers = await view.inspector.control_workers(action, [form.need("worker")], concurrency=concurrency)
    if not receivers:
        return Done(
            text=gettext("The worker did not receive the request: it is a Go worker, or is not connected."),
            level="error",
        )
    return Done(text=gettext("The worker received the request. The list shows the change within five seconds."))


@action("worker-quiet", audited=("worker",))
async def quiet(view: View, form: Form) -> Done:
    """Stop a worker from taking new tasks."""
    return await _ask_worker(view, form, WorkerAction.QUIET)


@action("worker-resume", audited=("worker",))
async def resume(view: View, form: Form) -> Done:
    """Let a worker take tasks again."""
    return await _ask_worker(view, form, WorkerAction.RESUME)


async def ask_scale(view: View, form: Form) -> Question:
    """Show the form for the concurrency of a worker."""
    return Question(
        text=gettext("How many tasks may this worker run at a time, until it restarts?"),
        button=gettext("Scale"),
        template="question_scale.html",
    )


@action("worker-scale", ask=ask_scale, audited=("worker", "concurrency"))
async def scale(view: View, form: Form) -> Done:
    """Change the concurrency of a worker."""
    form.need("concurrency")
    concurrency = form.number("concurrency", 1, low=1, high=CONCURRENCY_MAX)
    return await _ask_worker(view, form, WorkerAction.SCALE, concurrency)


async def ask_stop(view: View, form: Form) -> Question:
    """Ask for confirmation to stop a worker."""
    return Question(
        text=gettext(
            "Stop this worker? Running tasks get time to finish. With several processes, all of them are stopped."
        ),
        button=gettext("Stop"),
        is_destructive=True,
    )


@action("worker-stop", ask=ask_stop, audited=("worker",))
async def stop(view: View, form: Form) -> Done:
    """Stop a worker gracefully."""
    return await _ask_worker(view, form, WorkerAction.STOP)


RUNNING_SHOWN = 100
"""Maximum number of listed tasks of a worker."""
