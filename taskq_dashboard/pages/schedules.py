"""The pages of schedules and their past enqueues, and actions to run, pause, resume, add and remove schedules."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from taskq_core.errors import EntryNotFoundError
from taskq_core.inspector import PeriodicEntryInfo
from taskq_core.settings.language import gettext, marked
from taskq_core.views import entry_call, named_schedule
from taskq_core.views.messages import fire_question
from taskq_dashboard.blobs import listed, whole
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.form import Form
from taskq_dashboard.registry import Done, Question, action, page
from taskq_dashboard.view import Shown, View, link

_NEVER = datetime.max.replace(tzinfo=UTC)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

SORTS: dict[str, Callable[[PeriodicEntryInfo], Any]] = {
    "id": lambda entry: entry.id,
    "spec": lambda entry: entry.spec,
    "type": lambda entry: entry.name,
    "next": lambda entry: entry.next_run_at or _NEVER,
    "previous": lambda entry: entry.previous_run_at or _LONG_AGO,
}
"""Sort keys of the table."""


@page("schedules", label=marked("Schedules"))
async def show(view: View) -> Shown:
    """Show the schedules of all running schedulers, and those added at run time."""
    found = await view.inspector.scheduler_entries()
    sort, rows = view.in_order(found, SORTS, "id")
    paging = view.paging(len(rows))
    part = rows[paging.skip : paging.skip + paging.rows]
    return view.page(
        "schedules.html",
        title=gettext("Schedules"),
        rows=[(entry, listed(view.shown, entry.name, "payload", entry.payload)) for entry in part],
        paging=paging,
        sort=sort,
    )


@page("schedule")
async def show_entry(view: View) -> Shown:
    """Show one schedule and its past enqueues."""
    entry_id = view.query.need("id")
    paging = view.paging(_EVENTS_STORED)
    events = await view.inspector.scheduler_events(entry_id, page=paging.number, page_size=paging.rows)
    found = await view.inspector.scheduler_entries()
    entry = next((each for each in found if each.id == entry_id), None)
    return view.page(
        "schedule.html",
        title=entry_id,
        entry_id=entry_id,
        entry=entry,
        payload=None if entry is None else whole(view.shown, entry.name, "payload", entry.payload),
        events=events,
        page=paging.number,
        has_more=len(events) == paging.rows,
    )


_EVENTS_STORED = 1000
"""Number of past enqueues of a schedule that Redis stores."""


async def _entry(view: View, form: Form) -> PeriodicEntryInfo:
    entry_id = form.need("id")
    for entry in await view.inspector.scheduler_entries():
        if entry.id == entry_id:
            return entry
    raise EntryNotFoundError(entry_id, "")


async def ask_run(view: View, form: Form) -> Question:
    """Ask for confirmation to run a schedule now."""
    entry = await _entry(view, form)
    return Question(
        text=fire_question(entry),
        button=gettext("Run now"),
    )


@action("schedule-run", ask=ask_run, audited=("id",))
async def run(view: View, form: Form) -> Done:
    """Enqueue the task of a schedule now."""
    entry = await _entry(view, form)
    handle = await view.services.taskq.async_client.enqueue(entry_call(view.services.taskq, entry))
    view.audited |= {"task_id": handle.id, "queue": handle.queue}
    return Done(text=gettext("Task %(id)s was enqueued to “%(queue)s”.", id=handle.id, queue=handle.queue))


@action("schedule-pause", audited=("id",))
async def pause(view: View, form: Form) -> Done:
    """Pause a schedule."""
    entry_id = form.need("id")
    await view.inspector.pause_schedule(entry_id)
    return Done(text=gettext("Schedule “%(id)s” is paused.", id=entry_id))


@action("schedule-resume", audited=("id",))
async def resume(view: View, form: Form) -> Done:
    """Resume a schedule."""
    entry_id = form.need("id")
    await view.inspector.resume_schedule(entry_id)
    return Done(text=gettext("Schedule “%(id)s” is resumed.", id=entry_id))


async def ask_add(view: View, form: Form) -> Question:
    """Show the form for a new schedule."""
    return Question(
        text=gettext("Add a schedule. It is stored in Redis until you remove it."),
        button=gettext("Add schedule"),
        template="question_schedule.html",
        context={"tasks": sorted(view.services.taskq.tasks)},
    )


@action("schedule-add", ask=ask_add, audited=("id", "task", "spec", "tz", "queue"))
async def add(view: View, form: Form) -> Done:
    """Add a schedule."""
    try:
        kwargs = json.loads(form.get("kwargs") or "{}")
    except ValueError as error:
        raise BadRequestError(gettext("The arguments are not JSON: %(problem)s", problem=str(error))) from None
    entry = named_schedule(
        view.services.taskq,
        form.need("id"),
        form.need("spec"),
        form.need("task"),
        kwargs=kwargs,
        tz=form.get("tz") or None,
        options={"queue": form.get("queue")} if form.get("queue") else {},
    )
    await view.inspector.add_schedule(entry)
    return Done(text=gettext("Schedule “%(id)s” was added. Schedulers load it within seconds.", id=entry.id))


async def ask_remove(view: View, form: Form) -> Question:
    """Ask for confirmation to remove a schedule."""
    return Question(
        text=gettext("Remove the schedule “%(id)s”?", id=form.need("id")),
        button=gettext("Remove"),
        is_destructive=True,
    )


@action("schedule-remove", ask=ask_remove, audited=("id",))
async def remove(view: View, form: Form) -> Done:
    """Remove a schedule that was added at run time."""
    entry_id = form.need("id")
    await view.inspector.remove_schedule(entry_id)
    return Done(text=gettext("Schedule “%(id)s” was removed.", id=entry_id), back=link("schedules"))
