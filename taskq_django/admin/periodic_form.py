"""The form of a periodic task."""

import zoneinfo
from collections.abc import Callable, Iterable
from typing import Any

from django import forms
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from taskq_django.admin.actions import as_code
from taskq_django.admin.json_field import StoredJSONField
from taskq_django.app import taskq
from taskq_django.models import PeriodicTask


def adapt_widget(name: str, field: Any) -> None:
    """Change the widget of a form field: add suggestions, or format it for JSON. It may be a widget of a theme."""
    if name in _SUGGESTIONS:
        kind = type(field.widget)
        field.widget.__class__ = type("SuggestingWidget", (_Suggesting, kind), {"suggestions": _SUGGESTIONS[name]})
    elif name in ("kwargs", "options"):
        as_code(field, 4)
    elif name == "description":
        field.widget.attrs["rows"] = 2


class _Suggesting:
    """Mixin for a widget class: an input with suggestions, which are read each time the widget is drawn."""

    suggestions: Callable[[], Iterable[str]]

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        """Return the HTML of the input and its suggestions."""
        list_id = f"{(attrs or {}).get('id', name)}_suggestions"
        line = super().render(name, value, {**(attrs or {}), "list": list_id}, renderer)  # type: ignore[misc]  # the widget's own
        options = format_html_join("", '<option value="{}"></option>', ((each,) for each in self.suggestions()))
        return format_html('{}<datalist id="{}">{}</datalist>', line, list_id, options)


_SUGGESTIONS: dict[str, Callable[[], Iterable[str]]] = {
    "task": staticmethod(lambda: sorted(taskq.tasks)),
    "time_zone": staticmethod(lambda: sorted(zoneinfo.available_timezones())),
    "queue": staticmethod(
        lambda: sorted({*taskq.settings.queues, *(each.options.queue for each in taskq.tasks.values())})
    ),
}


class PeriodicTaskForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's own class takes no parameter
    """The form of a periodic task in the database."""

    class Meta:  # noqa: D106 - Django's own form
        model = PeriodicTask
        fields = (
            *("name", "task", "is_remote", "kwargs", "enabled", "description", "cron", "interval", "time_zone"),
            *("start_at", "expire_at", "queue", "options", "catch_up", "catch_up_window"),
        )
        field_classes = {"kwargs": StoredJSONField, "options": StoredJSONField}  # noqa: RUF012 - Django's own form
        help_texts = {  # noqa: RUF012 - Django's own form
            "name": _("Unique. The history belongs to this name, so renaming starts a new history."),
            "task": _("Name of a registered task."),
            "is_remote": _("The task is defined in another program, so its name and arguments cannot be checked here."),
            "kwargs": _('A JSON object of names to values, such as {"days": 7}.'),
            "enabled": _("Firings that are missed while it is disabled are not caught up."),
            "cron": _(
                "Minute, hour, day of month, month, day of week, as in “30 4 * * MON-FRI”; or @hourly, @daily, "
                "@weekly, @monthly, @yearly. Six fields begin with the second."
            ),
            "interval": _(
                "Instead of a cron line: “90” are seconds, “1:30:00” one and a half hours, “7 00:00:00” a week."
            ),
            "time_zone": _(
                "Of the cron line, such as Europe/Berlin. Empty: TIME_ZONE in the setting TASKQ, or Django's."
            ),
            "start_at": _(
                "No tasks are enqueued before this time. An interval starts here. Empty: it starts at the creation of "
                "the periodic task."
            ),
            "expire_at": _("No tasks are enqueued from this time on."),
            "queue": _("Empty: the queue of the task."),
            "options": _('Further task options, a JSON object such as {"max_retry": 3, "timeout": 60}.'),
            "catch_up": _("What to do with firings that were missed because no scheduler was running."),
            "catch_up_window": _("Older missed firings are always skipped."),
        }

    def add_error(self, field: str | None, error: Any) -> None:
        """Add an error. Errors of a field that the form does not show become errors of the whole form."""
        if field is None and hasattr(error, "error_dict"):
            for name, errors in error.error_dict.items():
                super().add_error(name if name in self.fields else None, errors)
        else:
            super().add_error(field, error)

    def clean(self) -> dict[str, Any] | None:
        """Record which fields are invalid, so that the model does not report further errors about them."""
        self.instance.unreadable = frozenset(self.errors)
        return super().clean()
