"""The form that enqueues a registered task: a field for each parameter, made from its annotation.

What is no plain value (a list, a record, a model's key) is given as JSON. A field that is left empty leaves its
parameter to the default, if it has one. Whether the arguments fit is judged by the task itself, as for any other
caller.
"""

import enum
import inspect
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from taskq_core import ConfigurationError, PayloadError, Signature
from taskq_core.codec import Parameter, decode_payload
from taskq_core.tasks.task import Task
from taskq_core.wire import validate_task_id

ARGUMENT = "arg_"
"""What stands before a parameter's name in the form, so that it cannot be mistaken for an option."""
DEFAULT_CHARS = 60
MAX_RETRY = 2**31 - 1
MAX_DELAY_S = 10 * 365 * 86_400

Make = Callable[[Any, dict[str, Any]], forms.Field]


class EnqueueForm(forms.Form):
    """Arguments and options of one call.

    Args:
        task: The task.
        queues: Queues that are offered.
    """

    def __init__(self, *args: Any, task: Task[Any, Any], queues: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task = task
        self._read: dict[str, Callable[[Any], object]] = {}
        signature = inspect.signature(task.function)
        for name, known in task.codec.known.items():
            field, read = _field_of(known, signature.parameters[name].default)
            field.label = name
            self.fields[ARGUMENT + name] = field
            self._read[name] = read
        own = task.options
        names = sorted({own.queue, *queues})
        self.fields["queue"] = forms.ChoiceField(
            label=gettext_lazy("Queue"), choices=[(name, name) for name in names], initial=own.queue
        )
        self.fields["run_after"] = forms.IntegerField(
            label=gettext_lazy("Run after"),
            required=False,
            min_value=0,
            max_value=MAX_DELAY_S,
            help_text=gettext_lazy("Seconds from now. Left empty: at once."),
        )
        self.fields["max_retry"] = forms.IntegerField(
            label=gettext_lazy("Max retry"),
            required=False,
            min_value=0,
            max_value=MAX_RETRY,
            help_text=_("Left empty: %(default)s.") % {"default": own.max_retry},
        )
        self.fields["task_id"] = forms.CharField(
            label=gettext_lazy("Task id"),
            required=False,
            help_text=gettext_lazy("Unique in its queue. Left empty: a random one."),
        )

    @property
    def argument_names(self) -> list[str]:
        """Names of the fields of arguments."""
        return [ARGUMENT + name for name in self._read]

    def clean_task_id(self) -> str:
        """Refuse what is no id."""
        task_id: str = self.cleaned_data["task_id"]
        if task_id:
            try:
                validate_task_id(task_id)
            except ConfigurationError as error:
                raise ValidationError(str(error)) from None
        return task_id

    def clean(self) -> dict[str, Any]:
        """Make the call, unless a field is wrong."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        arguments: dict[str, object] = {}
        for name, read in self._read.items():
            value = cleaned.get(ARGUMENT + name)
            if ARGUMENT + name in self.errors or value is LEFT_OUT:
                continue
            try:
                arguments[name] = read(value)
            except PayloadError as error:
                self.add_error(ARGUMENT + name, error.problem)
            except ValidationError as error:
                self.add_error(ARGUMENT + name, error)
        cleaned["arguments"] = arguments
        return cleaned

    def call(self) -> Signature[Any]:
        """Return the call.

        Raises:
            TaskArgumentsError: The arguments do not fit.
            ConfigurationError: The options do not fit.
        """
        options: dict[str, Any] = {"queue": self.cleaned_data["queue"]}
        for name in ("run_after", "max_retry"):
            if self.cleaned_data[name] is not None:
                options[name] = self.cleaned_data[name]
        if self.cleaned_data["task_id"]:
            options["task_id"] = self.cleaned_data["task_id"]
        args, kwargs = self._task.codec.split(self.cleaned_data["arguments"])
        return self._task.using(**options).s(*args, **kwargs)


class _LeftOut:
    """A parameter that is left to its default."""

    def __bool__(self) -> bool:
        return False


LEFT_OUT: Any = _LeftOut()


def _field_of(known: Parameter, default: Any) -> tuple[forms.Field, Callable[[Any], object]]:
    """Return the field of a parameter, and how its cleaned value is read."""
    hint, holds_references = known.annotation, known.holds_references
    kind, is_optional = _unwrapped(hint)
    has_default = not known.required
    may_be_empty = has_default or is_optional
    options: dict[str, Any] = {"required": not may_be_empty}
    if default is not inspect.Parameter.empty:
        shown = Truncator(repr(default)).chars(DEFAULT_CHARS)
        options["help_text"] = _("Left empty: %(default)s.") % {"default": shown}
    elif is_optional and known.required:
        options["help_text"] = _("Left empty: None.")

    def read(value: Any) -> object:
        if value in (None, ""):
            return value if kind is str and not may_be_empty else None
        return value

    field = None if holds_references else _plain_field(kind, options)
    if field is None:
        return _json_field(hint, options, holds_references)
    if has_default:
        field = _with_default(field)
    return field, read


def _with_default(field: forms.Field) -> forms.Field:
    """Let an empty field stand for the default."""
    clean = field.clean

    def cleaned(value: Any) -> Any:
        result = clean(value)
        return LEFT_OUT if result in (None, "") else result

    field.clean = cleaned  # type: ignore[method-assign]  # this field alone
    return field


def _unwrapped(hint: Any) -> tuple[Any, bool]:
    """Return the type within `Annotated` and `Optional`, and whether None is allowed."""
    if hasattr(hint, "__metadata__"):
        return _unwrapped(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [each for each in typing.get_args(hint) if each is not types.NoneType]
        if len(members) < len(typing.get_args(hint)) and len(members) == 1:
            return _unwrapped(members[0])[0], True
    return hint, False


def _plain_field(kind: Any, options: dict[str, Any]) -> forms.Field | None:
    """Return the field of a plain value, None if it is none."""
    if kind in _FIELDS:
        return _FIELDS[kind](kind, options)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _choices({member.name: member for member in kind}, options)
    if typing.get_origin(kind) is typing.Literal:
        return _choices({str(value): value for value in typing.get_args(kind)}, options)
    return None


def _choices(values: Mapping[str, object], options: dict[str, Any]) -> forms.Field:
    return forms.TypedChoiceField(
        choices=[("", "---------"), *((name, name) for name in values)],
        coerce=lambda name: values[name],
        empty_value=None,
        **options,
    )


def _text(kind: Any, options: dict[str, Any]) -> forms.Field:
    # Empty text is text too: where there is no default, it is what an empty field stands for.
    return forms.CharField(strip=False, **{**options, "required": False})


def _moment(kind: Any, options: dict[str, Any]) -> forms.Field:
    return _AwareField(**options)


class _AwareField(forms.SplitDateTimeField):
    """A moment with a time zone, also in a project without."""

    def clean(self, value: Any) -> Any:
        moment = super().clean(value)
        return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment


_FIELDS: dict[Any, Make] = {
    str: _text,
    int: lambda kind, options: forms.IntegerField(**options),
    float: lambda kind, options: forms.FloatField(**options),
    bool: lambda kind, options: _choices({"True": True, "False": False}, options),
    date: lambda kind, options: forms.DateField(**options),
    datetime: _moment,
    Decimal: lambda kind, options: forms.DecimalField(**options),
    uuid.UUID: lambda kind, options: forms.UUIDField(**options),
}


def _json_field(
    hint: Any, options: dict[str, Any], holds_references: bool
) -> tuple[forms.Field, Callable[[Any], object]]:
    """Return the field of a value that is given as JSON."""
    note = _("As JSON; of a row its primary key.") if holds_references else _("As JSON.")
    options["help_text"] = " ".join(filter(None, (note, options.get("help_text", ""))))
    widget = forms.Textarea(attrs={"rows": 4, "class": "taskq-json", "spellcheck": "false"})
    field: forms.Field = forms.CharField(strip=True, widget=widget, **options)
    if not options["required"]:
        field = _with_default(field)

    def read(text: str) -> object:
        data = text.encode("utf-8", "replace")
        if not holds_references:
            return decode_payload(data, hint, task="")
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValidationError(_("This is no JSON: %(error)s") % {"error": error}) from None

    return field, read
