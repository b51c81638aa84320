"""The admin's actions on selected tasks, on all matching tasks, and on one task from its own page.

The inspector performs them in chunks. This module confirms, logs and reports them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from django import forms
from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext, ngettext_lazy, override

from taskq_core import ConfigurationError, TaskInfo, TaskState
from taskq_core.inspector import (
    ALLOWED_STATES,
    RETRY_MINUTES_MAX,
    ActionReport,
    Inspector,
    Skip,
    TaskAction,
    TaskRef,
)
from taskq_core.views import labels
from taskq_django.admin.actions import (
    AdminForm,
    SkippedError,
    confirmed_action,
    read_mark,
    report_more,
    report_nothing_left,
    row_action,
)
from taskq_django.admin.base import RedisAdminMixin
from taskq_django.admin.formats import HIDDEN, arguments_line, block, in_active_language, key_of, parts_of, waiting
from taskq_django.admin.rows import PickedRows
from taskq_django.app import taskq
from taskq_django.models import Task

LOGGED = {
    TaskAction.RUN: gettext_noop("Run now."),
    TaskAction.RETRY: gettext_noop("Postponed until %(start)s."),
    TaskAction.ARCHIVE: gettext_noop("Archived."),
    TaskAction.DELETE: gettext_noop("Deleted."),
    TaskAction.CANCEL: gettext_noop("Cancel request sent to its worker."),
    TaskAction.MOVE: gettext_noop("Moved to queue %(to_queue)s."),
}
"""Log entry of each action."""
ACTIONS = {
    "run_now": TaskAction.RUN,
    "retry_later": TaskAction.RETRY,
    "archive_tasks": TaskAction.ARCHIVE,
    "cancel_tasks": TaskAction.CANCEL,
    "move_tasks": TaskAction.MOVE,
    "delete_selected": TaskAction.DELETE,
}
"""The inspector's action for each action of the admin."""


class RetryForm(AdminForm):
    """The new start of the tasks: minutes from now, or a time."""

    columns = {  # noqa: RUF012 - constant, as in Django's own forms
        "after": models.PositiveIntegerField(
            gettext_lazy("Minutes from now"),
            null=True,
            blank=True,
            validators=[MaxValueValidator(RETRY_MINUTES_MAX)],
        ),
        "at": models.DateTimeField(gettext_lazy("Or at"), null=True, blank=True),
    }

    def clean(self) -> dict[str, Any]:
        """Return the start as the keyword argument of the inspector."""
        after, at = self.cleaned_data.get("after"), self.cleaned_data.get("at")
        if self.errors:
            return {}
        if (after is None) == (at is None):
            raise ValidationError(_("Enter either the minutes or a time."))
        if at is None:
            return {"after": timedelta(minutes=after or 0)}
        return {"at": at if timezone.is_aware(at) else timezone.make_aware(at)}


class MoveForm(AdminForm):
    """Asks for the queue to which tasks are moved: an existing or a configured queue."""

    def __init__(self, modeladmin: Any, request: HttpRequest, data: Any = None, rows: Any = ()) -> None:
        super().__init__(modeladmin, request, data, rows)
        choices = [(name, name) for name in modeladmin.queue_names(request)]
        self.add(modeladmin, request, "to_queue", models.CharField(gettext_lazy("To queue"), choices=choices))


class SignalForm(AdminForm):
    """The value of a signal, and its name if a task waits for the first of several signals."""

    columns = {  # noqa: RUF012 - constant, as in Django's own forms
        "value": models.TextField(gettext_lazy("Value"), default='{"approved": true}', help_text="JSON")
    }

    def __init__(self, modeladmin: Any, request: HttpRequest, data: Any = None, rows: Any = ()) -> None:
        super().__init__(modeladmin, request, data, rows)
        waits = [each.record.wait for each in rows if isinstance(each.record, TaskInfo)]
        names = {name: name for each in waits if each is not None and len(each.signals) > 1 for name in each.signals}
        if names:
            self.add(
                modeladmin, request, "signal", models.CharField(gettext_lazy("Signal"), choices=list(names.items()))
            )

    def clean_value(self) -> Any:
        """Decode the value."""
        try:
            return msgspec.json.decode(self.cleaned_data["value"])
        except (ValueError, RecursionError):
            raise ValidationError(forms.JSONField.default_error_messages["invalid"]) from None


def _signal_action(name: str, description: Any) -> Any:
    """Return an action that sends a value to tasks that wait for a signal.

    Args:
        name: Name of the action in `labels.SIGNALS`.
        description: Text of the action in the list of actions.
    """
    button, sent = labels.SIGNALS[name]

    def act(self: Any, row: Task, _deadline: object, value: object = sent, signal: str = "") -> tuple[str, int]:
        wait = getattr(row.record, "wait", None)
        if wait is not None and wait.kind == "question":
            _answer(row, f"{wait.name}#{wait.number}", value)
            return f"Answered the question “{wait.name}”{'' if sent is None else f' with {json.dumps(sent)}'}.", 1
        if wait is None or wait.kind != "signal":
            raise SkippedError(gettext_lazy("not waiting for a signal"))
        name = wait.name if len(wait.signals) == 1 else signal
        if name not in wait.signals:
            raise SkippedError(gettext_lazy("waiting for other signals"))
        number, generation = wait.signals[name], row.record.generation
        Inspector(taskq).signal_task(row.record.queue, row.record.id, name, value, number=number, generation=generation)
        return f"Sent {'a value' if sent is None else json.dumps(sent)} as the signal “{name}”.", 1

    def question(count: int, rows: Sequence[Task]) -> str:
        wait = getattr(rows[0].record, "wait", None) if count == 1 else None
        if wait is not None:
            with in_active_language():
                return labels.signal_question(name, rows[0].record.name, wait.name)
        if sent is None:
            text = ngettext("Send a value to %(count)d task?", "Send a value to %(count)d tasks?", count)
        elif sent["approved"]:
            text = ngettext("Approve %(count)d task?", "Approve %(count)d tasks?", count)
        else:
            text = ngettext("Reject %(count)d task?", "Reject %(count)d tasks?", count)
        return text % {"count": count}

    act.__name__ = name
    return row_action(
        report=ngettext_lazy("%(count)d signal was sent.", "%(count)d signals were sent.", "count"),
        description=description,
        button=gettext_lazy(button),
        question=question,
        permissions=["signal"],
        form=SignalForm if sent is None else None,
    )(act)


def _answer(row: Task, key: str, value: object) -> None:
    """Answer the question for which a task waits."""
    record = row.record
    found = Inspector(taskq).questions(record.queue, record.id)
    question = next((each for each in found if each.key == key), None)
    if question is None:
        raise SkippedError(gettext_lazy("changed since the page was loaded"))
    Inspector(taskq).answer_task(
        record.queue, record.id, question.number, value, by=row.user, generation=record.generation
    )


def _task_action(name: str, description: Any, permission: str, **more: Any) -> Any:
    """Return the admin's action on tasks for a name in `ACTIONS`, with its text in the list and its permission."""
    action = ACTIONS[name]

    def act(self: Any, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str], **options: Any) -> None:
        self._act(request, rows, action, shown_marks, **options)

    def question(count: int, _rows: object) -> str:
        whom = ngettext("%(count)d task", "%(count)d tasks", count) % {"count": count}
        with in_active_language():
            return labels.question(action, whom, count)

    act.__name__ = name
    confirmed = confirmed_action(
        description=description,
        button=gettext_lazy(labels.BUTTONS[action]),
        question=question,
        permissions=[permission],
        **more,
    )
    return confirmed(act)


class TaskActions(RedisAdminMixin):
    """The actions on tasks."""

    actions: Any = (*labels.SIGNALS, *ACTIONS)

    approve = _signal_action("approve", gettext_lazy("Approve selected %(verbose_name_plural)s"))
    reject = _signal_action("reject", gettext_lazy("Reject selected %(verbose_name_plural)s"))
    send_signal = _signal_action("send_signal", gettext_lazy("Send a signal to selected %(verbose_name_plural)s"))
    run_now = _task_action("run_now", gettext_lazy("Run selected %(verbose_name_plural)s now"), "run")
    retry_later = _task_action(
        "retry_later", gettext_lazy("Retry selected %(verbose_name_plural)s later"), "change", form=RetryForm
    )
    archive_tasks = _task_action("archive_tasks", gettext_lazy("Archive selected %(verbose_name_plural)s"), "change")
    cancel_tasks = _task_action("cancel_tasks", gettext_lazy("Cancel selected %(verbose_name_plural)s"), "run")
    move_tasks = _task_action(
        "move_tasks",
        gettext_lazy("Move selected %(verbose_name_plural)s to another queue"),
        "change",
        form=MoveForm,
    )
    delete_selected = _task_action(
        "delete_selected",
        gettext_lazy("Delete selected %(verbose_name_plural)s"),
        "delete",
        is_destructive=True,
    )

    def queue_infos(self, request: HttpRequest) -> Any:
        """Return the queues."""
        raise NotImplementedError

    def queue_names(self, request: HttpRequest) -> list[str]:
        """Return the names of existing and configured queues."""
        return sorted({*(info.name for info in self.queue_infos(request)), *taskq.settings.queues})

    def row_label(self, row: Task) -> SafeString | str:
        """Return the name of a task, and the beginning of its id."""
        if not isinstance(row.record, TaskInfo):
            return str(row)
        label = '{} <span class="quiet nowrap" title="{}">{}</span>'
        return format_html(label, row.record.name, row.record.id, Truncator(row.record.id).chars(9))

    def row_details(self, row: Task, count: int) -> SafeString | str:
        """Return what a task waits for, and its arguments: in full if it is the only one."""
        if not isinstance(row.record, TaskInfo):
            return ""
        wait = waiting(row.record.wait)
        show = block if count == 1 else arguments_line
        shown = format_html('<div class="help">{}</div>', HIDDEN) if row.hides_payload else show(row.record.payload)
        return format_html("{}{} {}", ", " if wait else "", wait, shown) if wait or shown else ""

    def offers(self, action: str, obj: Any) -> bool:
        """Return whether the state of a task allows an action."""
        if action in labels.SIGNALS:
            wait = obj.record.wait
            is_one = wait is not None and (wait.kind == "question" or len(wait.signals) == 1)
            return is_one or (wait is not None and wait.kind == "signal" and action == "send_signal")
        return action not in ACTIONS or obj.record.state in ALLOWED_STATES[ACTIONS[action]]

    def _act(
        self, request: HttpRequest, rows: Any, action: TaskAction, shown_marks: Mapping[str, str], **options: Any
    ) -> None:
        """Perform an action on tasks, log it, and report the handled and the skipped tasks."""
        refused: dict[TaskState, int] = {}
        named: dict[str, Task] = {}
        is_complete = True
        if isinstance(rows, PickedRows):
            named = {row.pk: row for row in rows}  # read for the log, before the action deletes or moves the tasks
            refs = [_ref(key, shown_marks.get(key)) for key in rows.keys]
        else:
            selection = rows.select(ALLOWED_STATES[action])
            refs, refused, is_complete = list(selection.tasks), selection.refused, selection.is_complete
        try:
            report = Inspector(taskq).act_on(refs, action, **options)
        except ConfigurationError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        for state, count in refused.items():
            report.skipped[Skip.STATE, str(state)] += count
        self._log(request, named, report, action, options)
        self._report(request, report, action, is_complete=is_complete)

    def _log(
        self,
        request: HttpRequest,
        named: Mapping[str, Task],
        report: ActionReport,
        action: TaskAction,
        options: Mapping[str, Any],
    ) -> None:
        keys = [key_of(task.queue, task.id) for task in report.done]
        if not keys:
            return
        with override(None):  # write log entries untranslated, as Django does
            start = options.get("at") or timezone.now() + options.get("after", timedelta())
            text = _(LOGGED[action]) % {"start": start, "to_queue": options.get("to_queue")}
        LogEntry.objects.log_actions(
            user_id=str(request.user.pk),
            queryset=[named.get(key) or Task(id=key) for key in keys],
            action_flag=DELETION if action is TaskAction.DELETE else CHANGE,
            change_message=text,
        )

    def _report(self, request: HttpRequest, report: ActionReport, action: TaskAction, *, is_complete: bool) -> None:
        done = len(report.done)
        with in_active_language():
            if done:
                self.message_user(request, labels.done(action, done), messages.SUCCESS)
            if report.skipped:
                self.message_user(request, labels.skipped(report.skipped), messages.WARNING)
        if report.failure is not None:
            text = _("Redis failed, and %(count)d tasks were not handled: %(error)s")
            facts = {"count": report.untouched, "error": report.failure}
            self.message_user(request, text % facts, messages.ERROR)
        elif not is_complete and done:
            report_more(self, request)
        elif not is_complete:
            text = _("Nothing was done: one request cannot read all tasks. Select the tasks with further filters.")
            self.message_user(request, text, messages.WARNING)
        elif not done and not report.skipped:
            report_nothing_left(self, request)


def _ref(key: str, mark: str | None) -> TaskRef:
    generation, shown = read_mark(mark or "")
    state = next((state for state in TaskState if state == shown.split(" ")[0]), None)
    return TaskRef(*parts_of(key), state, generation or None)
