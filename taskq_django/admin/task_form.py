"""The form that edits the arguments of a waiting task, and the form that enqueues a registered task."""

from collections.abc import Iterable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from taskq_core import PayloadError, Signature, TaskArgumentsError, TaskInfo, TaskQError
from taskq_core.inspector import Inspector
from taskq_core.tasks.task import Task as TaskFunction
from taskq_core.views import as_text, blank_arguments, call_of, digest, edited_payload, is_editable
from taskq_django.admin.actions import AdminForm, as_code
from taskq_django.app import taskq
from taskq_django.models import Task


class TaskForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own class takes no parameter
    """The arguments of a task, as indented JSON.

    If the stored arguments have changed since the page was loaded, or the task is not waiting any more, nothing is
    saved, and the form shows the input again.
    """

    arguments = forms.CharField(label=gettext_lazy("Arguments"), strip=False, required=False)
    shown = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:  # noqa: D106 - Django's own form
        model = Task
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        record = self.instance.record
        if isinstance(record, TaskInfo):
            self.initial = {"arguments": as_text(record.payload), "shown": digest(record)}

    def clean(self) -> dict[str, Any]:
        """Check the arguments and save them. They are saved here so that the form can show an error of Redis."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        record = self.instance.record
        if not is_editable(record):
            raise ValidationError(
                _("The task is not waiting any more, or has no arguments to edit. Nothing was changed.")
            )
        if cleaned.get("shown") != digest(record):
            raise ValidationError(
                _(
                    "The arguments have changed since this page was opened. Nothing was saved. Open the page again to "
                    "see the current arguments."
                )
            )
        try:
            payload = edited_payload(record, cleaned.get("arguments", ""), taskq.tasks.get(record.name))
            Inspector(taskq).update_payload(
                record.queue, record.id, payload, expected=record.payload, generation=record.generation
            )
        except PayloadError as error:
            self.add_error("arguments", _text(error))
        except TaskQError as error:
            raise ValidationError(str(error)) from None
        return cleaned


class EnqueueForm(AdminForm):
    """Arguments and options of one call.

    Args:
        modeladmin, request, data: As in `AdminForm`.
        task: The task.
        queues: Queues to choose from.
    """

    call: Signature[Any]
    """The call, once the form is valid."""

    def __init__(
        self, modeladmin: Any, request: HttpRequest, data: Any, *, task: TaskFunction[Any, Any], queues: Iterable[str]
    ) -> None:
        super().__init__(modeladmin, request, data)
        self._task = task
        own = task.options
        choices = [(name, name) for name in sorted({own.queue, *queues})]
        columns: dict[str, models.Field[Any, Any]] = {
            "arguments": models.TextField(gettext_lazy("Arguments"), help_text=gettext_lazy("A JSON object.")),
            "queue": models.CharField(gettext_lazy("Queue"), choices=choices, default=own.queue),
            "run_after": models.PositiveIntegerField(
                gettext_lazy("Run after"), null=True, blank=True, help_text=_("Seconds from now. Empty: immediately.")
            ),
            "max_retry": models.PositiveIntegerField(
                gettext_lazy("Max retry"),
                null=True,
                blank=True,
                help_text=_("Empty: %(default)s.") % {"default": own.max_retry},
            ),
            "task_id": models.CharField(
                gettext_lazy("Task id"), blank=True, help_text=_("Unique in its queue. Empty: a random id.")
            ),
        }
        for name, column in columns.items():
            self.add(modeladmin, request, name, column)
        as_code(self.fields["arguments"], 12)
        self.initial = {"arguments": blank_arguments(task), "queue": own.queue}

    def clean(self) -> dict[str, Any]:
        """Build the call."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            names = ("queue", "run_after", "max_retry", "task_id")
            options = {name: cleaned[name] for name in names if cleaned[name] not in (None, "")}
            try:
                self.call = call_of(self._task, cleaned["arguments"], options)
            except (PayloadError, TaskArgumentsError) as error:
                self.add_error("arguments", _text(error))
            except TaskQError as error:
                raise ValidationError(str(error)) from None
        return cleaned


def _text(error: PayloadError | TaskArgumentsError) -> str:
    return f"{error.parameter}: {error.problem}" if error.parameter else capfirst(error.problem)
