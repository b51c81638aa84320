"""Show one task in full, and edit its payload."""

from typing import Any

import msgspec

from taskq_core import TaskInfo, TaskState
from taskq_core.errors import PayloadError, TaskNotFoundError, TaskStateError
from taskq_core.inspector import TaskAction, UnreadableTask
from taskq_core.settings.language import gettext
from taskq_core.views import (
    ENQUEUED,
    SIGNALS_MAX,
    Attempt,
    TaskRecord,
    as_text,
    digest,
    edited_payload,
    is_editable,
    is_orphaned,
    times_of,
    trace_id,
    trace_url,
    utc_now,
    workflow_of,
)
from taskq_core.views.labels import SIGNALS, error_heading, signal_question
from taskq_core.views.messages import actions_for
from taskq_dashboard.blobs import listed, result_of, whole
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.form import Form
from taskq_dashboard.labels import span
from taskq_dashboard.pages.inbox import row_of
from taskq_dashboard.registry import Done, Question, action, page
from taskq_dashboard.task_table import mark_of, status_of
from taskq_dashboard.view import Shown, View, link

MESSAGE_BYTES = 4096
"""Maximum number of bytes of an unreadable message on its page."""


async def read(view: View, form: Form) -> TaskRecord:
    """Return the task that the URL or the form of a request names."""
    queue, task_id = form.need("queue"), form.need("id")
    return await view.inspector.task(queue, task_id)


@page("task")
async def show(view: View) -> Shown:
    """Show one task."""
    queue, task_id = view.query.need("queue"), view.query.need("id")
    task = await view.inspector.task(queue, task_id)
    actions = [(action, label) for action, label in actions_for(task.state) if not _cannot_reach_worker(task, action)]
    now = utc_now()
    activity = status_of(task, now) if task.state is TaskState.ACTIVE else ""
    common: dict[str, Any] = {
        "task": task,
        "mark": mark_of(task),
        "actions": actions,
        "activity": activity,
    }
    if isinstance(task, UnreadableTask):
        may_see = view.shown.may_ask_payloads
        message = task.message[:MESSAGE_BYTES].hex(" ", -2) if may_see else ""
        return view.page("task_unreadable.html", title=task_id, message=message, is_hidden=not may_see, **common)
    shown, name = view.shown, task.name
    # The page shows the time of the enqueue among the times.
    headers = shown.headers(name, {key: value for key, value in task.headers.items() if key != ENQUEUED})
    known = view.services.taskq.tasks.get(name)
    asks = task.wait is not None and task.wait.kind == "question"
    questions = await view.inspector.questions(queue, task_id) if asks else []
    return view.page(
        "task.html",
        title=name,
        payload=whole(shown, name, "payload", task.payload),
        result=result_of(whole, shown, task),
        progress_message=_progress_message(view, task),
        error_heading=error_heading(task),
        error=str(shown.value(name, "error", task.last_error)),
        attempts=[_attempt(view, task, each) for each in reversed(task.attempts)],
        times=[(text, at, at > now) for at, text in times_of(task)],
        headers=sorted(headers.items()) if isinstance(headers, dict) else [("", str(headers))],
        workflow=workflow_of(task),
        signals=[(do, gettext(label)) for do, (label, _) in SIGNALS.items()],
        timeline=[
            (each, listed(shown, name, "payload", each.asked), listed(shown, name, "result", each.result))
            for each in await view.dashboard.timeline(queue, task_id)
        ],
        questions=[row_of(view, each) for each in questions],
        trace=trace_id(task.headers),
        trace_link=trace_url(view.services.taskq.settings.trace.url, task.headers),
        is_editable=is_editable(task) and view.shown.may_ask_payloads,
        is_known=known is not None,
        **common,
    )


def _progress_message(view: View, task: TaskInfo) -> str:
    progress = task.progress
    if progress is None or not progress.message:
        return ""
    return str(view.shown.value(task.name, "progress", progress.message))


def _cannot_reach_worker(task: TaskRecord, action: TaskAction) -> bool:
    """Return whether the action is a cancellation that no worker would receive, because the task's worker is lost."""
    return action is TaskAction.CANCEL and is_orphaned(task, utc_now())


def _attempt(view: View, task: TaskInfo, attempt: Attempt) -> tuple[Attempt, str, str]:
    """Return an attempt, its duration, "" if it is unknown, and its traceback, "" if it is hidden."""
    took = span(attempt.ended_at - attempt.started_at) if attempt.started_at and attempt.ended_at else ""
    traceback = str(view.shown.value(task.name, "traceback", attempt.traceback)) if view.sees_payloads else ""
    return attempt, took, traceback


# --- sending a signal -------------------------------------------------------------------------------------------------


async def ask_signal(view: View, form: Form) -> Question:
    """Ask for confirmation before a signal is sent, and for its value if the button has none."""
    do = form.choice("do", SIGNALS) or "send_signal"
    label, value = SIGNALS[do]
    task = await read(view, form)
    name, payload = (task.name, task.payload) if isinstance(task, TaskInfo) else (task.id, b"")
    return Question(
        text=signal_question(do, name, form.need("name")),
        button=gettext(label),
        template="question_signal.html",
        context={"payload": whole(view.shown, name, "payload", payload), "needs_value": value is None},
    )


@action("task-signal", ask=ask_signal, audited=("queue", "id", "name", "do"))
async def send_signal(view: View, form: Form) -> Done:
    """Send a signal to a task that still waits for it."""
    name, (_, value) = form.need("name"), SIGNALS[form.choice("do", SIGNALS) or "send_signal"]
    if value is None:
        try:
            value = msgspec.json.decode(form.get("value"))
        except (ValueError, RecursionError) as error:
            raise BadRequestError(gettext("The value is not JSON: %(problem)s", problem=str(error))) from None
    number = form.number("number", 0, low=0, high=SIGNALS_MAX)
    try:
        await view.inspector.signal_task(
            form.need("queue"), form.need("id"), name, value, number=number, generation=form.get("generation")
        )
    except (TaskNotFoundError, TaskStateError):
        view.audited["refused"] = "the task does not wait for this signal"
        return Done(
            level="warning", text=gettext("The task does not wait for the signal “%(name)s” any more.", name=name)
        )
    return Done(text=gettext("The signal “%(name)s” was sent.", name=name))


# --- editing the payload ----------------------------------------------------------------------------------------------


def _editable(view: View, task: TaskRecord) -> TaskInfo:
    if not view.shown.may_ask_payloads:
        raise BadRequestError(gettext("only a payload that is shown in full can be edited"))
    if not isinstance(task, TaskInfo) or not is_editable(task):
        raise BadRequestError(
            gettext(
                "the payload of this task cannot be edited: the task is not waiting, or the payload is not a short text"
            )
        )
    return task


@page("task-edit", is_live=False, needs_operator=True)
async def show_edit(view: View) -> Shown:
    """Show the form that edits a payload."""
    task = _editable(view, await read(view, view.query))
    return _form(view, task, as_text(task.payload), digest(task))


def _form(view: View, task: TaskInfo, text: str, shown_digest: str, *, problem: str = "", status: int = 200) -> Shown:
    return view.page(
        "task_edit.html",
        title=gettext("Edit the payload of %(name)s", name=task.name),
        status=status,
        task=task,
        text=text,
        shown_digest=shown_digest,
        problem=problem,
        is_known=task.name in view.services.taskq.tasks,
    )


@action("task-payload", audited=("queue", "id"))
async def edit(view: View, form: Form) -> Done | Shown:
    """Replace a payload, unless it has changed since the form was shown, or is not valid for the task."""
    task = _editable(view, await read(view, form))
    text, shown_digest = form.get("payload"), form.get("shown_digest")
    problem = gettext("The payload has changed since the page was loaded. Nothing was saved. Reload the page.")
    if shown_digest == digest(task):
        try:
            payload = edited_payload(task, text, view.services.taskq.tasks.get(task.name))
            await view.inspector.update_payload(
                task.queue, task.id, payload, expected=task.payload, generation=task.generation
            )
        except PayloadError as error:
            problem = f"{error.parameter}: {error.problem}" if error.parameter else error.problem
        except TaskStateError:
            view.audited["refused"] = "the payload has changed"
            return _form(view, task, text, shown_digest, problem=problem, status=409)
        else:
            return Done(text=gettext("The payload was changed."), back=link("task", queue=task.queue, id=task.id))
        view.audited["refused"] = "the payload is not valid"
        return _form(view, task, text, shown_digest, problem=problem, status=422)
    view.audited["refused"] = "the payload has changed"
    return _form(view, task, text, shown_digest, problem=problem, status=409)
