"""The form that edits the arguments of a task that waits.

What was shown is remembered: if the arguments are others by the time they are saved, or the task does not wait any
more, nothing is changed, and what was typed stays in the form.
"""

import hashlib
from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from taskq_core import PayloadError, TaskInfo, TaskState
from taskq_core.telemetry import unwrap
from taskq_django.admin.task_page import SHOWN_BYTES, blob
from taskq_django.app import taskq
from taskq_django.models import Task

EDITABLE_STATES = (
    *(TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING, TaskState.ARCHIVED),
)
"""States in which arguments can be changed."""


def is_editable(record: Any) -> bool:
    """Return whether a form can change the arguments of a task: it waits, and they are text and not too long."""
    if not isinstance(record, TaskInfo) or record.state not in EDITABLE_STATES or len(record.payload) > SHOWN_BYTES:
        return False
    try:
        text = record.payload.decode()
    except UnicodeDecodeError:
        return False
    return "\0" not in text  # no form field takes one


def digest(payload: bytes) -> str:
    """Return what stands for a payload in a form."""
    return hashlib.sha256(payload).hexdigest()


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
    text = text.replace("\r\n", "\n")
    if text == blob(record.payload)[0]:
        return record.payload
    payload = text.encode("utf-8", "replace")
    known = taskq.tasks.get(record.name)
    if known is None and not _is_json(record.payload):
        return payload  # another program's, in a form of its own
    try:
        payload = msgspec.json.format(payload, indent=-1)
        msgspec.json.decode(payload, type=msgspec.Raw)  # which takes numbers of any size
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationError(_("This is no JSON: %(error)s"), params={"error": str(error)}) from None
    if known is not None:
        inner, _traceparent = unwrap(payload, known.codec.parameters)
        try:
            known.codec.decode(inner)
        except PayloadError as error:
            raise ValidationError(str(error)) from None
    return payload


def _is_json(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
