"""Enqueue a registered task with arguments as JSON. They are checked like the arguments of any other call."""

import logging
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException

from taskq_core import EnqueueError, Task, TaskArgumentsError, TaskInfo, TaskQError
from taskq_core.errors import (
    BrokerError,
    DuplicateTaskError,
    EnqueueUnknownError,
    PayloadError,
    QueueFullError,
    TaskIdConflictError,
)
from taskq_core.settings.language import gettext, marked
from taskq_core.views import as_text, blank_arguments, call_of, signature_of, summary_of
from taskq_dashboard.errors import BadRequestError, NotFoundError
from taskq_dashboard.form import Form
from taskq_dashboard.refusals import error_text
from taskq_dashboard.registry import Done, action, page
from taskq_dashboard.view import Shown, View, link

logger = logging.getLogger("taskq.fastapi")

MAX_RETRY = 2**31 - 1
MAX_DELAY_S = 10 * 365 * 86_400
AnyTask = Task[Any, Any]


def _task_of(view: View, form: Form) -> AnyTask:
    name = form.need("task")
    task = view.services.taskq.tasks.get(name)
    if task is None:
        raise NotFoundError(gettext("no task %(name)r is registered here", name=name[:80]))
    return task


@page("enqueue", label=marked("Enqueue"), is_live=False, needs_operator=True)
async def show(view: View) -> Shown:
    """Show the registered tasks, or the form to enqueue one of them."""
    if not view.may_change:
        raise HTTPException(403, gettext("this dashboard is read-only"))
    if not view.query.get("task"):
        tasks = [view.services.taskq.tasks[name] for name in sorted(view.services.taskq.tasks)]
        offered = [(each.name, signature_of(each), summary_of(each)) for each in tasks]
        return view.page("enqueue_choice.html", title=gettext("Enqueue"), offered=offered)
    task = _task_of(view, view.query)
    fields = {"arguments": blank_arguments(task), "queue": task.options.queue}
    if view.query.get("like"):
        fields |= await _fields_of_task(view, task)
    return await _form_page(view, task, fields)


async def _fields_of_task(view: View, task: AnyTask) -> dict[str, str]:
    """Return the values of the form fields that enqueue a copy of the task named in the address."""
    found = await view.inspector.task(view.query.need("like_queue"), view.query.get("like"))
    if not isinstance(found, TaskInfo) or found.name != task.name:
        raise BadRequestError(gettext("the task to copy has another name than the task of this form"))
    fields = {"queue": found.queue}
    if view.shown.may_ask_payloads and len(found.payload) <= 64 * 1024:
        fields["arguments"] = as_text(found.payload)
    return fields


async def _form_page(
    view: View, task: AnyTask, fields: dict[str, str], *, wrong: dict[str, str] | None = None, status: int = 200
) -> Shown:
    names: Sequence[str] = sorted(
        {*(await view.inspector.queues()), *view.services.taskq.settings.queues, task.options.queue}
    )
    return view.page(
        "enqueue.html",
        title=gettext("Enqueue %(name)s", name=task.name),
        status=status,
        task=task,
        signature=signature_of(task),
        summary=summary_of(task),
        queues=names,
        fields={"run_after": "", "max_retry": "", "task_id": "", **fields},
        wrong=wrong,
    )


@action("task-enqueue", audited=("task", "run_after", "max_retry", "task_id"), body_max=24 * 1024 * 1024)
async def enqueue(view: View, form: Form) -> Done | Shown:
    """Enqueue a task, or show the form again with the errors of its fields."""
    task = _task_of(view, form)
    field = ""
    try:
        call = call_of(task, form.get("arguments"), _options(form))
        handle = await view.services.taskq.aenqueue(call)
    except (PayloadError, TaskArgumentsError) as error:
        field, problem = "arguments", f"{error.parameter}: {error.problem}" if error.parameter else error.problem
    except BadRequestError as error:
        field, problem = error.field, str(error)
    except BrokerError:
        raise
    except TaskQError as error:
        problem = _problem(error)
    else:
        view.audited |= {"id": handle.id, "queue": handle.queue}
        return Done(
            text=gettext("The task was enqueued to the queue “%(queue)s”.", queue=handle.queue),
            back=link("task", queue=handle.queue, id=handle.id),
        )
    view.audited["refused"] = field or "the task was not enqueued"
    names = ("arguments", "queue", "run_after", "max_retry", "task_id")
    fields = {name: form.get(name) for name in names}
    return await _form_page(view, task, fields, wrong={"field": field, "problem": problem}, status=422)


def _options(form: Form) -> dict[str, Any]:
    options: dict[str, Any] = {"queue": form.need("queue")}
    for name, most in (("run_after", MAX_DELAY_S), ("max_retry", MAX_RETRY)):
        if form.get(name).strip():
            options[name] = form.number(name, 0, low=0, high=most)
    if form.get("task_id"):
        options["task_id"] = form.get("task_id")
    return options


def _problem(error: TaskQError) -> str:
    """Return the text of an error that concerns no single field."""
    if isinstance(error, DuplicateTaskError | TaskIdConflictError | QueueFullError):
        return error_text(error)
    if isinstance(error, EnqueueUnknownError):
        return gettext("Redis did not answer, so the task may have been enqueued. Check before you try again.")
    if isinstance(error, EnqueueError):
        logger.warning("a task could not be enqueued from the dashboard: %s", error)
        return gettext(
            "Redis refused the task, or could not be reached. Nothing was enqueued. The server log has details."
        )
    return str(error)
