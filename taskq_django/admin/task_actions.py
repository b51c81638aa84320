"""What can be done to tasks: to those that are selected, to all that match, and to one on its own page.

The inspector does it, in chunks; here it is confirmed, logged and told.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext_lazy, override

from taskq_core import ConfigurationError, TaskState
from taskq_core.inspector import ALLOWED_STATES, ActionReport, Inspector, Skip, TaskAction, TaskRef
from taskq_core.views import SELECTED_MAX
from taskq_core.views import labels as telling
from taskq_django.admin.actions import confirmed_action, nothing_left
from taskq_django.admin.base import RedisAdminMixin
from taskq_django.admin.language import told_as_active
from taskq_django.admin.rows import PickedRows
from taskq_django.admin.task_rows import key_of, parts_of
from taskq_django.app import taskq
from taskq_django.models import Task

LATEST_MINUTES = 60 * 24 * 365 * 10

LOGGED = {
    TaskAction.RUN: gettext_noop("Run now."),
    TaskAction.RETRY: gettext_noop("Put off until %(start)s."),
    TaskAction.ARCHIVE: gettext_noop("Archived."),
    TaskAction.DELETE: gettext_noop("Deleted."),
    TaskAction.CANCEL: gettext_noop("Asked its worker to cancel it."),
    TaskAction.MOVE: gettext_noop("Moved to queue %(to_queue)s."),
}
"""What is logged of each action."""


class RetryForm(forms.Form):
    """When tasks are to be run."""

    after = forms.IntegerField(
        label=gettext_lazy("Minutes from now"),
        min_value=0,
        max_value=LATEST_MINUTES,
        required=False,
    )
    at = forms.SplitDateTimeField(label=gettext_lazy("Or at"), required=False)

    def clean(self) -> dict[str, Any]:
        """Return one start, in the words of the inspector."""
        after, at = self.cleaned_data.get("after"), self.cleaned_data.get("at")
        if self.errors:
            return {}
        if (after is None) == (at is None):
            raise ValidationError(_("Give either the minutes or a time."))
        if at is None:
            return {"after": timedelta(minutes=after or 0)}
        return {"at": at if timezone.is_aware(at) else timezone.make_aware(at)}


class MoveForm(forms.Form):
    """The queue that tasks are moved to, of those there are and those that are configured."""

    to_queue = forms.ChoiceField(label=gettext_lazy("To queue"))

    def __init__(self, *args: Any, queues: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["to_queue"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "---------"), *((name, name) for name in queues)]


class TaskActions(RedisAdminMixin):
    """The actions."""

    actions: Any = ("run_now", "retry_later", "archive_tasks", "cancel_tasks", "move_tasks", "delete_selected")
    action_states: ClassVar[dict[str, Sequence[TaskState]]] = {
        "run_now": ALLOWED_STATES[TaskAction.RUN],
        "retry_later": ALLOWED_STATES[TaskAction.RETRY],
        "archive_tasks": ALLOWED_STATES[TaskAction.ARCHIVE],
        "cancel_tasks": ALLOWED_STATES[TaskAction.CANCEL],
        "move_tasks": ALLOWED_STATES[TaskAction.MOVE],
        "delete_selected": ALLOWED_STATES[TaskAction.DELETE],
    }
    """States of a task whose own page offers an action."""

    @confirmed_action(
        description=gettext_lazy("Run selected %(verbose_name_plural)s now"),
        button=gettext_lazy("Run now"),
        question=ngettext_lazy("Let %(count)d task run now?", "Let %(count)d tasks run now?", "count"),
        permissions=["run"],
    )
    def run_now(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str]) -> None:
        """Let tasks run now."""
        self._act(request, rows, TaskAction.RUN, seen)

    @confirmed_action(
        description=gettext_lazy("Retry selected %(verbose_name_plural)s later"),
        button=gettext_lazy("Retry later"),
        question=ngettext_lazy(
            "Let %(count)d task wait until another time?", "Let %(count)d tasks wait until another time?", "count"
        ),
        permissions=["change"],
        form=RetryForm,
    )
    def retry_later(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str], **start: Any) -> None:
        """Let tasks wait until another time."""
        self._act(request, rows, TaskAction.RETRY, seen, **start)

    @confirmed_action(
        description=gettext_lazy("Archive selected %(verbose_name_plural)s"),
        button=gettext_lazy("Archive"),
        question=ngettext_lazy("Archive %(count)d task?", "Archive %(count)d tasks?", "count"),
        permissions=["change"],
    )
    def archive_tasks(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str]) -> None:
        """Archive tasks."""
        self._act(request, rows, TaskAction.ARCHIVE, seen)

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
    def cancel_tasks(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str]) -> None:
        """Ask workers to cancel the tasks they run."""
        self._act(request, rows, TaskAction.CANCEL, seen)

    @confirmed_action(
        description=gettext_lazy("Move selected %(verbose_name_plural)s to another queue"),
        button=gettext_lazy("Move"),
        question=ngettext_lazy(
            "Move %(count)d task to another queue?", "Move %(count)d tasks to another queue?", "count"
        ),
        permissions=["change"],
        form="move_form",
    )
    def move_tasks(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str], to_queue: str) -> None:
        """Move tasks to another queue."""
        self._act(request, rows, TaskAction.MOVE, seen, to_queue=to_queue)

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
    def delete_selected(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str]) -> None:
        """Delete tasks."""
        self._act(request, rows, TaskAction.DELETE, seen)

    def move_form(self, request: HttpRequest, data: Any) -> forms.Form:
        """Return the form that asks for a queue."""
        return MoveForm(data, queues=self.queue_names(request))

    def queue_names(self, request: HttpRequest) -> list[str]:
        """Return the queues there are and those that are configured."""
        return sorted({*(info.name for info in self.queue_infos(request)), *taskq.settings.queues})

    def queue_infos(self, request: HttpRequest) -> Any:
        """Return how the queues stand. To be implemented."""
        raise NotImplementedError

    def action_links(self, request: HttpRequest, obj: Any) -> list[tuple[str, str]]:
        """Return the actions that the state of a task allows."""
        fitting = {name for name, states in self.action_states.items() if obj.record.state in states}
        fitting |= {name for name in self._allowed(request) if name not in self.action_states}
        return [
            link
            for name, link in zip(self._allowed(request), super().action_links(request, obj), strict=True)
            if name in fitting
        ]

    # --- doing it -----------------------------------------------------------------------------------------------------

    def _act(
        self, request: HttpRequest, rows: Any, action: TaskAction, seen: Mapping[str, str], **options: Any
    ) -> None:
        """Do it, log it and say what was done and what was not."""
        refused: dict[TaskState, int] = {}
        is_complete = True
        named: dict[str, Task] = {}
        if isinstance(rows, PickedRows):
            named = {row.pk: row for row in rows}
            refs = [_ref(key, seen.get(key)) for key in rows.keys]
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
        self._log(request, report, action, named, options)
        self._tell(request, report, action, is_complete=is_complete)

    def _log(
        self,
        request: HttpRequest,
        report: ActionReport,
        action: TaskAction,
        named: Mapping[str, Task],
        options: Mapping[str, Any],
    ) -> None:
        keys = [key_of(task.queue, task.id) for task in report.done]
        if not keys:
            return
        with override(None):  # as Django's own admin stores what it logs
            start = options.get("at") or _in(options.get("after"))
            text = _(LOGGED[action]) % {"start": start, "to_queue": options.get("to_queue")}
        LogEntry.objects.log_actions(
            user_id=str(request.user.pk),
            queryset=[named.get(key) or Task(id=key) for key in keys],
            action_flag=DELETION if action is TaskAction.DELETE else CHANGE,
            change_message=text,
        )

    def _tell(self, request: HttpRequest, report: ActionReport, action: TaskAction, *, is_complete: bool) -> None:
        done = len(report.done)
        with told_as_active():
            if done:
                self.message_user(request, telling.done(action, done), messages.SUCCESS)
            if report.skipped:
                self.message_user(request, telling.skipped(report.skipped), messages.WARNING)
        if report.failure is not None:
            text = _("Redis failed on the way, and %(count)d were not gone through: %(error)s")
            facts = {"count": report.untouched, "error": report.failure}
            self.message_user(request, text % facts, messages.ERROR)
        elif not is_complete:
            text = _("There may be more: at most %(most)d are gone through at once. Do it again to go on.")
            self.message_user(request, text % {"most": SELECTED_MAX}, messages.WARNING)
        elif not done and not report.skipped:
            self.message_user(request, nothing_left(), messages.WARNING)


def _ref(key: str, mark: str | None) -> TaskRef:
    queue, task_id = parts_of(key)
    return TaskRef(queue, task_id, next((state for state in TaskState if state == mark), None))


def _in(after: timedelta | None) -> datetime | None:
    return None if after is None else timezone.now() + after
