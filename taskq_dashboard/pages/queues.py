"""The page of all queues with their state and daily counters, and actions to pause, resume and delete queues."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from taskq_core.inspector import QueueInfo
from taskq_core.settings.language import gettext, marked
from taskq_core.views import DAYS_CHOICES, QueueStatus
from taskq_dashboard.form import Form
from taskq_dashboard.registry import Done, Question, action, page
from taskq_dashboard.view import Shown, View, link, own_link
from taskq_fastapi.api.parts import time_left

_ORDER = (QueueStatus.DAMAGED, QueueStatus.NO_WORKER, QueueStatus.PAUSED, QueueStatus.RUNNING)
SORTS: dict[str, Callable[[QueueInfo], Any]] = {
    "queue": lambda row: row.name,
    "state": lambda row: _ORDER.index(row.status),
    "size": lambda row: row.size,
    "memory": lambda row: row.memory or 0,
    "latency": lambda row: row.latency or timedelta(0),
    "processed": lambda row: row.processed_today,
    "failed": lambda row: row.failed_today,
    "errors": lambda row: row.error_rate or 0.0,
}
"""Sort keys of the table."""


@page("", label=marked("Queues"))
async def show(view: View) -> Shown:
    """Show all queues."""
    days = view.query.number("days", DAYS_CHOICES[0], low=1, high=90)
    found = await view.dashboard.queues()
    names = tuple(row.name for row in found.queues)
    past = await view.dashboard.history(names, days=days)
    sort, rows = view.in_order(found.queues, SORTS, "queue")
    return view.page(
        "queues.html",
        title=gettext("Queues"),
        found=found,
        rows=rows,
        largest=max((row.size for row in rows), default=0),
        sort=sort,
        past=past,
        days=days,
        days_choices=(1, *DAYS_CHOICES),
    )


@action("queue-pause", audited=("queue",))
async def pause(view: View, form: Form) -> Done:
    """Pause a queue."""
    name = form.need("queue")
    await view.inspector.pause(name)
    return Done(text=gettext("Queue “%(queue)s” is paused: workers take no tasks from it.", queue=name))


@action("queue-resume", audited=("queue",))
async def resume(view: View, form: Form) -> Done:
    """Resume a queue."""
    name = form.need("queue")
    await view.inspector.resume(name)
    return Done(text=gettext("Queue “%(queue)s” is resumed.", queue=name))


async def ask_delete(view: View, form: Form) -> Question:
    """Ask for confirmation to delete a queue."""
    name = form.need("queue")
    info = await view.inspector.queue_info(name)
    if info.size:
        tasks = gettext(
            "It has tasks (%(count)s), and is deleted only if all of them have succeeded.", count=f"{info.size:,}"
        )
    else:
        tasks = gettext("It is empty.")
    return Question(
        text=f"{gettext('Delete the queue “%(queue)s” with its counters?', queue=name)} {tasks}",
        button=gettext("Delete"),
        is_destructive=True,
    )


@action("queue-delete", ask=ask_delete, audited=("queue",))
async def delete(view: View, form: Form) -> Done | Shown:
    """Delete a queue unless tasks would be lost. After about a second, show the progress and continue."""
    name, cursor = form.need("queue"), form.get("cursor") or None
    total = form.number("total", 0, low=0, high=10**15) if cursor else (await view.inspector.queue_info(name)).size
    part = await view.inspector.remove_queue_part(name, cursor=cursor, has_time=time_left())
    deleted = form.number("done", 0, low=0, high=10**15) + part.deleted
    view.audited["deleted"] = part.deleted
    if part.next is None:
        return Done(text=gettext("Queue “%(queue)s” was deleted.", queue=name), back=link(""))
    return view.page(
        "bulk.html",
        title=gettext("Deleting “%(queue)s”", queue=name),
        path="queue-delete",
        progress=gettext(
            "%(done)s of about %(all)s tasks were deleted.", done=f"{deleted:,}", all=f"{max(total, deleted):,}"
        ),
        done="",
        skipped="",
        failure="",
        scanned=deleted,
        total=max(total, deleted),
        carried=[("queue", name), ("cursor", part.next), ("done", str(deleted)), ("total", str(total))],
        back=own_link(form.get("back")) or "./",
    )
