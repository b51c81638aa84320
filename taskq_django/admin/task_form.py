"""The form that edits the arguments of a task that waits.

What was shown is remembered: if the arguments are others by the time they are saved, or the task does not wait any
more, nothing is changed, and what was typed stays in the form.
"""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from taskq_core import PayloadError, TaskInfo
from taskq_core.views import digest, edited_payload, is_editable
from taskq_django.admin.task_page import blob
from taskq_django.app import taskq
from taskq_django.models import Task


class TaskForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own class takes no parameter
    """Arguments as text, JSON laid out."""

    arguments = forms.CharField(
        label=gettext_lazy("Arguments"),
        strip=False,
        required=False,
        widget=forms.Textarea(attrs={"rows": 12, "class": "taskq-json", "spellcheck": "false"}),
    )
    shown = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:  # noqa: D106 - Django's own form
        model = Task
        fields: tuple[str, ...] = ()

    refusal: str | None = None
    """Why Redis refused what was saved a moment ago."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        record = self.instance.record
        if not isinstance(record, TaskInfo):
            return
        self.initial.setdefault("arguments", blob(record.payload)[0])
        self.initial.setdefault("shown", digest(record.payload))

    def clean(self) -> dict[str, Any]:
        """Check that the arguments fit the task, and that they are still those that were shown."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        record = self.instance.record
        if self.refusal is not None:
            raise ValidationError(self.refusal)
        if not is_editable(record):
            raise ValidationError(
                _("The task does not wait any more, or has no arguments to edit; nothing was changed.")
            )
        if cleaned.get("shown") != digest(record.payload):
            raise ValidationError(
                _(
                    "The arguments have changed since this page was opened, and nothing was saved. "
                    "Open it again to see them."
                )
            )
        try:
            cleaned["payload"] = payload_of(record, cleaned.get("arguments", ""))
        except ValidationError as error:
            self.add_error("arguments", error)
        return cleaned


def payload_of(record: TaskInfo, text: str) -> bytes:
    """Return the payload that edited text stands for.

    Raises:
        ValidationError: It does not fit the task, or is no JSON though the payload was.
    """
    try:
        return edited_payload(record, text, taskq.tasks.get(record.name))
    except PayloadError as error:
        said = str(error)
        if error.problem.startswith("this is no JSON"):
            said = error.problem.replace("this", "This", 1)
        raise ValidationError(said) from None
