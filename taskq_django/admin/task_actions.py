"""Actions on selected tasks, on all matching tasks, and on one task on its own page.

The inspector performs them in chunks. This module confirms, logs and reports them.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext_lazy, override

from taskq_core import ConfigurationError, TaskState
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
from taskq_django.admin.actions import AdminForm, confirmed_action, report_more, report_nothing_left
from taskq_django.admin.base import RedisAdminMixin
from taskq_django.admin.formats import in_active_language, key_of, parts_of
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
    """Queue to move the tasks to: an existing or a configured one."""

    def __init__(self, modeladmin: Any, request: HttpRequest, data: Any = None) -> None:
        super().__init__(modeladmin, request, data)
        choices = [(name, name) for name in modeladmin.queue_names(request)]
        self.add(modeladmin, request, "to_queue", models.CharField(gettext_lazy("To queue"), choices=choices))


class TaskActions(RedisAdminMixin):
    """The actions on tasks."""

    actions: Any = tuple(ACTIONS)

    @confirmed_action(
        description=gettext_lazy("Run selected %(verbose_name_plural)s now"),
        button=gettext_lazy("Run now"),
        question=ngettext_lazy("Run %(count)d task now?", "Run %(count)d tasks now?", "count"),
        permissions=["run"],
    )
    def run_now(self, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str]) -> None:
        """Run tasks now."""
        self._act(request, rows, TaskAction.RUN, shown_marks)

    @confirmed_action(
        description=gettext_lazy("Retry selected %(verbose_name_plural)s later"),
        button=gettext_lazy("Retry later"),
        question=ngettext_lazy("Run %(count)d task at another time?", "Run %(count)d tasks at another time?", "count"),
        permissions=["change"],
        form=RetryForm,
    )
    def retry_later(self, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str], **start: Any) -> None:
        """Run tasks at another time."""
        self._act(request, rows, TaskAction.RETRY, shown_marks, **start)

    @confirmed_action(
        description=gettext_lazy("Archive selected %(verbose_name_plural)s"),
        button=gettext_lazy("Archive"),
        question=ngettext_lazy("Archive %(count)d task?", "Archive %(count)d tasks?", "count"),
        permissions=["change"],
    )
    def archive_tasks(self, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str]) -> None:
        """Archive tasks."""
        self._act(request, rows, TaskAction.ARCHIVE, shown_marks)

    @confirmed_action(
        description=gettext_lazy("Cancel selected %(verbose_name_plural)s"),
        button=gettext_lazy("Cancel"),
        question=ngettext_lazy(
            "Ask the worker of %(count)d task to cancel it?",
            "Ask the workers of %(count)d tasks to cancel them?",
            "count",
        ),
        permissions=["run"],
    )
    def cancel_tasks(self, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str]) -> None:
        """Ask workers to cancel running tasks."""
        self._act(request, rows, TaskAction.CANCEL, shown_marks)

    @confirmed_action(
        description=gettext_lazy("Move selected %(verbose_name_plural)s to another queue"),
        button=gettext_lazy("Move"),
        question=ngettext_lazy(
            "Move %(count)d task to another queue?", "Move %(count)d tasks to another queue?", "count"
        ),
        permissions=["change"],
        form=MoveForm,
    )
    def move_tasks(self, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str], to_queue: str) -> None:
        """Move tasks to another queue."""
        self._act(request, rows, TaskAction.MOVE, shown_marks, to_queue=to_queue)

    @confirmed_action(
        description=gettext_lazy("Delete selected %(verbose_name_plural)s"),
        button=gettext_lazy("Delete"),
        question=ngettext_lazy(
            "Delete %(count)d task? It will not run any more.",
            "Delete %(count)d tasks? They will not run any more.",
            "count",
        ),
        permissions=["delete"],
        is_destructive=True,
    )
    def delete_selected(self, request: HttpRequest, rows: Any, *, shown_marks: Mapping[str, str]) -> None:
        """Delete tasks."""
        self._act(request, rows, TaskAction.DELETE, shown_marks)

    def queue_infos(self, request: HttpRequest) -> Any:
        """Return the queues."""
        raise NotImplementedError

    def queue_names(self, request: HttpRequest) -> list[str]:
        """Return the names of existing and configured queues."""
        return sorted({*(info.name for info in self.queue_infos(request)), *taskq.settings.queues})

    def offers(self, action: str, obj: Any) -> bool:
        """Return whether the state of a task allows an action."""
        return action not in ACTIONS or obj.record.state in ALLOWED_STATES[ACTIONS[action]]

    def _act(
        self, request: HttpRequest, rows: Any, action: TaskAction, shown_marks: Mapping[str, str], **options: Any
    ) -> None:
        """Perform an action on tasks, log it, and report the handled and the skipped tasks."""
        refused: dict[TaskState, int] = {}
        named: dict[str, Task] = {}
        is_complete = True
        if isinstance(rows, PickedRows):
            named = {row.pk: row for row in rows}  # read them first, because the action may delete or move them
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
        with override(None):  # as Django does, log in the language of the code
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
        elif not is_complete:
            report_more(self, request)
        elif not done and not report.skipped:
            report_nothing_left(self, request)


def _ref(key: str, mark: str | None) -> TaskRef:
    return TaskRef(*parts_of(key), next((state for state in TaskState if state == mark), None))
