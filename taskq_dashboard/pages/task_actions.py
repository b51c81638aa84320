"""Run actions on selected tasks, or on all tasks that match a filter, in requests of about a second."""

from collections import Counter
from datetime import timedelta
from typing import Any

from taskq_core import TaskState
from taskq_core.inspector import (
    ALLOWED_STATES,
    RETRY_MINUTES_MAX,
    ActionReport,
    Skip,
    TaskAction,
    TaskFilter,
    TaskRef,
)
from taskq_core.settings.language import gettext, pgettext
from taskq_core.views.labels import BUTTONS, Skipped, done, question, skipped
from taskq_core.views.messages import outcome
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.form import Form
from taskq_dashboard.registry import Done, Question, action
from taskq_dashboard.task_labels import in_utc
from taskq_dashboard.task_lists import FILTER_FIELDS, task_filter
from taskq_dashboard.task_table import ref_of
from taskq_dashboard.view import Shown, View, link, own_link
from taskq_fastapi.api.parts import time_left

SELECTED_MAX = 200
"""Maximum number of selected tasks. It is larger than a page."""
_TEMPLATES = {TaskAction.RETRY: "question_retry.html", TaskAction.MOVE: "question_move.html"}
_OPTIONS = ("minutes", "at", "to_queue")
_NOT_AUDITED = ("payload", "text")
"""Fields of a filter whose values may be parts of payloads. The audit log contains only that they were given."""


def action_of(form: Form) -> TaskAction:
    """Return the action in a form.

    Raises:
        BadRequestError: The form has no action, or an unknown one.
    """
    form.need("do")
    action = form.choice("do", TaskAction)
    assert action is not None
    return action


def options_of(action: TaskAction, form: Form) -> dict[str, Any]:
    """Return the options of an action in a form, as arguments of the inspector.

    Raises:
        BadRequestError: An option is missing or not valid.
    """
    if action is TaskAction.MOVE:
        return {"to_queue": form.need("to_queue")}
    if action is not TaskAction.RETRY:
        return {}
    minutes, at = form.get("minutes").strip(), form.get("at").strip()
    if bool(minutes) == bool(at):
        raise BadRequestError(gettext("give either minutes or a time"))
    if minutes:
        return {"after": timedelta(minutes=form.number("minutes", 0, low=0, high=RETRY_MINUTES_MAX))}
    found = in_utc(at)
    if found is None:
        raise BadRequestError(gettext("the time must have a form such as 2030-01-31T03:00, got %(got)r", got=at[:50]))
    return {"at": found}


async def _question(view: View, action: TaskAction, text: str) -> Question:
    context: dict[str, object] = {}
    if action is TaskAction.MOVE:
        context["queues"] = sorted({*(await view.inspector.queues()), *view.services.taskq.settings.queues})
    return Question(
        text=text,
        button=gettext(BUTTONS[action]),
        is_destructive=action is TaskAction.DELETE,
        template=_TEMPLATES.get(action),
        context=context,
    )


# --- selected tasks ---------------------------------------------------------------------------------------------------


def _refs(form: Form) -> list[TaskRef]:
    marks = form.all("task")
    if not marks:
        raise BadRequestError(gettext("no task is selected"))
    if len(marks) > SELECTED_MAX:
        raise BadRequestError(
            gettext("at most %(most)s tasks can be selected, got %(got)s", most=SELECTED_MAX, got=f"{len(marks):,}")
        )
    return [ref_of(mark) for mark in dict.fromkeys(marks)]


async def ask_selected(view: View, form: Form) -> Question:
    """Ask for confirmation to apply an action to the selected tasks."""
    action, refs = action_of(form), _refs(form)
    if len(refs) == 1:
        whom = gettext("the task “%(id)s” of the queue “%(queue)s”", id=refs[0].id, queue=refs[0].queue)
    else:
        whom = gettext("%(count)s tasks", count=f"{len(refs):,}")
    return await _question(view, action, question(action, whom, len(refs)))


@action("tasks-act", ask=ask_selected, audited=("do", "task", *_OPTIONS))
async def act_on_selected(view: View, form: Form) -> Done:
    """Apply an action to the selected tasks."""
    action, refs = action_of(form), _refs(form)
    report = await view.inspector.act_on(refs, action, **options_of(action, form))
    _audit(view, report)
    level, text = outcome(action, report)
    back = None
    if action in (TaskAction.DELETE, TaskAction.MOVE) and len(refs) == 1 and report.done:
        back = _next_page(form, refs[0], form.get("to_queue"))
    return Done(text=text, level=level, back=back)


def _next_page(form: Form, task: TaskRef, to_queue: str) -> str | None:
    """Return the page to show after a task was deleted or moved from its own page, which no longer exists.

    None if the action was started from another page, which is shown again.
    """
    if not (own_link(form.get("back")) or "").startswith("./task?"):
        return None
    if to_queue:
        return link("task", queue=to_queue, id=task.id)
    return link("queue", name=task.queue, state=task.state)


def _audit(view: View, report: ActionReport) -> None:
    view.audited |= {
        "done": len(report.done),
        "skipped": sum(report.skipped.values()),
        "failure": None if report.failure is None else type(report.failure).__name__,
    }


# --- all matching tasks -----------------------------------------------------------------------------------------------


def _checked(view: View, form: Form) -> tuple[TaskAction, TaskFilter, TaskState]:
    form.need("state")
    action, wanted = action_of(form), task_filter(view, form, TaskState)
    assert wanted.state is not None
    if wanted.state not in ALLOWED_STATES[action]:
        raise BadRequestError(
            gettext(
                "%(action)s: not possible for %(state)s tasks",
                action=gettext(BUTTONS[action]).lower(),
                state=pgettext("task state", wanted.state),
            )
        )
    return action, wanted, wanted.state


async def ask_all(view: View, form: Form) -> Question:
    """Ask for confirmation to apply an action to all matching tasks."""
    action, wanted, task_state = _checked(view, form)
    total = await _total(view, wanted, task_state)
    where = gettext("the queue “%(queue)s”", queue=wanted.queue) if wanted.queue else gettext("all queues")
    if wanted.group is not None:
        where = gettext("the group “%(group)s” of %(where)s", group=wanted.group, where=where)
    state = pgettext("task state", task_state)
    if not wanted.needs_reading:
        whom = gettext("all %(count)s %(state)s tasks of %(where)s", count=f"{total:,}", state=state, where=where)
    else:
        whom = gettext("all matching %(state)s tasks of %(where)s", state=state, where=where)
    return await _question(view, action, question(action, whom, 2))


@action(
    "tasks-act-all",
    ask=ask_all,
    audited=("do", *(name for name in FILTER_FIELDS if name not in _NOT_AUDITED), *_OPTIONS),
)
async def act_on_all(view: View, form: Form) -> Done | Shown:
    """Run an action on all matching tasks. After about a second, show the progress and continue."""
    view.audited |= {name: "given" for name in _NOT_AUDITED if form.get(name)}
    action, wanted, state = _checked(view, form)
    cursor = form.get("cursor") or None
    total = form.number("total", 0, low=0, high=10**15) if cursor else await _total(view, wanted, state)
    part = await view.inspector.act_on_matching(
        wanted, action, **options_of(action, form), cursor=cursor, has_time=time_left()
    )
    _audit(view, part.report)
    count = form.number("done", 0, low=0, high=10**15) + len(part.report.done)
    scanned = form.number("scanned", 0, low=0, high=10**15) + part.scanned
    reasons = _skipped_so_far(form) + part.report.skipped
    if part.next is None:
        texts = [text for text in (done(action, count) if count else "", skipped(reasons)) if text]
        return Done(
            text=" ".join(texts) or gettext("There was nothing to do."),
            level="success" if count and not reasons else "warning",
        )
    repeated = [(name, form.get(name)) for name in ("do", *FILTER_FIELDS, *_OPTIONS) if form.get(name)]
    repeated += [("cursor", part.next), ("done", str(count)), ("scanned", str(scanned)), ("total", str(total))]
    repeated += [("skip", f"{reason}/{state}/{number}") for (reason, state), number in sorted(reasons.items())]
    return view.page(
        "bulk.html",
        title=gettext("%(action)s: in progress", action=gettext(BUTTONS[action])),
        path="tasks-act-all",
        progress=gettext(
            "%(done)s of about %(all)s tasks were checked.", done=f"{scanned:,}", all=f"{max(total, scanned):,}"
        ),
        done=done(action, count) if count else "",
        skipped=skipped(reasons),
        scanned=scanned,
        total=max(total, scanned),
        failure=""
        if part.report.failure is None
        else gettext("Redis failed before the end. Nothing is lost: continue when Redis is back."),
        carried=repeated,
        back=own_link(form.get("back")) or "./",
    )


async def _total(view: View, wanted: TaskFilter, state: TaskState) -> int:
    """Return the number of tasks that an action on all matching tasks has to read, for its progress."""
    if wanted.group is not None and wanted.queue is not None:
        return await view.inspector.count(wanted.queue, state, group=wanted.group)
    if wanted.queue is not None:
        return (await view.inspector.queue_info(wanted.queue)).sizes[state]
    return sum(info.sizes[state] for info in await view.inspector.queue_infos())


def _skipped_so_far(form: Form) -> Skipped:
    reasons: Skipped = Counter()
    for text in form.all("skip")[:100]:
        reason, _, rest = text.partition("/")
        state, _, number = rest.partition("/")
        if (
            reason in tuple(Skip)
            and (state == "" or state in tuple(TaskState))
            and number.isdecimal()
            and len(number) < 16
        ):
            reasons[Skip(reason), state] += int(number)
    return reasons
