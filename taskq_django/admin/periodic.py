"""The admin pages of periodic tasks. Those of the database can be edited, those of code can be viewed and paused.

The rows are in a database table, so the pages are Django's own. The mixin has no template except that of confirmations,
so it works with any `ModelAdmin`:

    class MyPeriodicTaskAdmin(PeriodicTaskAdminMixin, unfold.admin.ModelAdmin): ...
"""

import functools
from collections.abc import Sequence
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy, override

from taskq_core import TaskQError
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.inspector import Inspector
from taskq_core.wire.cron import with_zone
from taskq_django.admin.actions import Deadline, SkippedError, act_on_each, row_action
from taskq_django.admin.base import BaseAdmin, FrameMixin
from taskq_django.admin.code_entries import CODE_KEY, SOURCE_VAR, PeriodicTaskList, code_rows
from taskq_django.admin.formats import HIDDEN, in_zone, render, sees_payloads
from taskq_django.admin.periodic_form import PeriodicTaskForm, adapt_widget
from taskq_django.app import taskq
from taskq_django.models import PeriodicTask

FIRINGS_SHOWN = 5
"""Number of firings shown."""


def local_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return a time as text in a time zone, by default the user's. Seconds are omitted if they are 0."""
    local = in_zone(moment if timezone.is_aware(moment) else timezone.make_aware(moment), zone)
    time = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {time} {local.tzname()}"


def next_firings(obj: PeriodicTask, *, folded: bool = False) -> Any:
    """Return the next firings of a periodic task in its time zone and the user's, or the reason why there are none.

    Args:
        obj: The periodic task.
        folded: Show only the first firing until the user clicks on it.
    """
    try:
        if not obj.enabled:
            return _("disabled")
        moments = _moments(obj)
        zone = obj.entry.time_zone(taskq.settings.time_zone)
    except (TaskQError, ValueError, TypeError, OverflowError) as error:
        return format_html('<span class="taskq-trouble">{}</span>', str(error))
    if moments is None:
        return _("unknown: no running scheduler reports it")
    if not moments:
        return _("never again")
    mine = timezone.get_current_timezone()
    agree = zone is None or all(in_zone(each, zone).utcoffset() == in_zone(each, mine).utcoffset() for each in moments)
    rows = [(None if agree else local_time(each, zone), local_time(each)) for each in moments]
    return render("upcoming.html", rows=rows, zone=None if agree else zone, mine=mine, folded=folded)


def _moments(obj: PeriodicTask) -> Sequence[datetime] | None:
    """Return the next firings. None if unknown: only a running scheduler knows the start of an interval in code."""
    entry = obj.entry
    if obj.code_entry is None or entry.start is not None or entry.time_zone() is not None:
        return obj.upcoming(FIRINGS_SHOWN)
    first = obj.next_run_at
    if first is None or first <= utc_datetime(SYSTEM_CLOCK.time()):
        return None
    return [first, *obj.entry.upcoming(first, FIRINGS_SHOWN - 1)]


class SourceFilter(admin.SimpleListFilter):
    """Periodic tasks of the database, or of code and settings."""

    title = gettext_lazy("source")
    parameter_name = SOURCE_VAR

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("database", gettext_lazy("Database")), ("code", gettext_lazy("Code and settings"))]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> "QuerySet[PeriodicTask]":
        """Return the rows of the database. `PeriodicTaskList` adds the periodic tasks of the code."""
        return queryset.none() if self.value() == "code" else queryset


class PeriodicTaskAdminMixin(FrameMixin):
    """The pages of periodic tasks, as a mixin for a `ModelAdmin`."""

    form = PeriodicTaskForm
    list_display = ("name", "task", "schedule", "upcoming", "last_run", "runs", "enabled", "source")
    list_filter = (SourceFilter, "enabled", "task")
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER  # Django would not count the periodic tasks of the code
    search_fields = ("name", "task", "queue", "description")
    actions = ("enable", "disable", "run_now")
    save_as = True
    fieldsets = (
        (None, {"fields": ("name", "enabled", "description")}),
        (gettext_lazy("Task"), {"fields": ("task", "is_remote", "kwargs", "queue", "options")}),
        (gettext_lazy("Schedule"), {"fields": ("cron", "interval", "time_zone", "start_at", "expire_at", "next_runs")}),
        (gettext_lazy("Missed firings"), {"fields": ("catch_up", "catch_up_window")}),
        (gettext_lazy("Runs"), {"fields": ("last_run", "runs")}),
    )
    code_fieldsets: Any = (
        (None, {"fields": ("name", "source", "switch")}),
        (gettext_lazy("Task"), {"fields": ("task", "kwargs", "queue", "given_options")}),
        (gettext_lazy("Schedule"), {"fields": ("schedule", "next_runs", "last_run")}),
        (gettext_lazy("Missed firings"), {"fields": ("catch_up", "catch_up_window")}),
    )
    readonly_fields = ("next_runs", "last_run", "runs", "schedule", "source", "switch", "given_options", "hidden")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        """Return the change list class of the base class, extended by the periodic tasks of the code."""
        base = super().get_changelist(request, **kwargs)
        return type("PeriodicTaskList", (PeriodicTaskList, base), {})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a row of the database, or the row for a periodic task of the code."""
        if object_id.startswith(CODE_KEY):
            return next((row for row in code_rows() if str(row.pk) == object_id), None)
        return super().get_object(request, object_id, from_field)

    @functools.wraps(admin.ModelAdmin.action_checkbox)  # copies attributes such as the heading of the column
    def action_checkbox(self, obj: Any) -> Any:  # type: ignore[override]  # it is wrapped
        """Return the checkbox of a row, or an empty cell for rows without actions."""
        return mark_safe("<span></span>") if obj.code_entry is not None else super().action_checkbox(obj)

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change a periodic task. Periodic tasks of the code cannot be changed here."""
        return (obj is None or obj.code_entry is None) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete a periodic task. Periodic tasks of the code cannot be deleted here."""
        is_of_code = obj is not None and obj.code_entry is not None and not obj.is_added
        return not is_of_code and super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: PeriodicTask) -> None:
        """Delete a row, or a schedule that was added at run time."""
        if obj.is_added:
            Inspector(taskq).remove_schedule(obj.name)
        else:
            super().delete_model(request, obj)

    # --- form ---------------------------------------------------------------------------------------------------------

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the form field of the base class, with suggestions."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None:
            adapt_widget(db_field.name, field)
        return field

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fieldsets of the form. The form of a new row has only the editable fields."""
        if obj is not None and obj.code_entry is not None:
            shown = self.code_fieldsets
            if not self.has_change_permission(request):
                shown = ((None, {"fields": ("name", "source")}), *shown[1:])
            return _without_arguments(request, shown)
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None:
            return _without_arguments(request, fieldsets)
        editable = [
            (title, {**options, "fields": [each for each in options["fields"] if each not in self.readonly_fields]})
            for title, options in fieldsets
        ]
        return [(title, options) for title, options in editable if options["fields"]]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Draw the form. It has no button "Save as new" if it is read-only, or if it does not show the arguments."""
        response: Any = super().render_change_form(request, context, *args, **kwargs)
        may_change = self.has_change_permission(request, kwargs.get("obj"))
        if not (kwargs.get("add") or (may_change and sees_payloads(request))):
            response.context_data["save_as"] = False
        return response

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Return whether an address may filter by a field. A filter by arguments would reveal them."""
        hides = lookup.partition("__")[0] == "kwargs" and not sees_payloads(request)
        return not hides and super().lookup_allowed(lookup, value, request)

    # --- columns ----------------------------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("schedule"))
    def schedule(self, obj: PeriodicTask) -> str:
        """Return the schedule as one line."""
        if not obj.cron:
            return _("every %(span)s") % {"span": obj.interval}
        return with_zone(obj.cron, obj.time_zone or taskq.settings.time_zone)

    @admin.display(description=gettext_lazy("source"))
    def source(self, obj: PeriodicTask) -> str:
        """Return where the periodic task is defined."""
        if obj.code_entry is None:
            return _("database")
        return _("added at run time") if obj.is_added else _("code or settings")

    @admin.display(description=gettext_lazy("enabled"))
    def switch(self, obj: PeriodicTask) -> SafeString:
        """Return whether a periodic task of the code is enabled, with a button to pause or resume it."""
        return format_html(
            '{} <button type="submit" class="button" formaction="{}" formmethod="post" formnovalidate>{}</button>',
            _("yes") if obj.enabled else _("no (paused)"),
            self.address("switch", str(obj.pk)),
            _("Pause") if obj.enabled else _("Resume"),
        )

    @admin.display(description=gettext_lazy("last run"), ordering="last_run_at")
    def last_run(self, obj: PeriodicTask) -> str:
        """Return the time of the last firing."""
        return "-" if obj.last_run_at is None else local_time(obj.last_run_at)

    @admin.display(description=gettext_lazy("runs"), ordering="total_runs")
    def runs(self, obj: PeriodicTask) -> int | str:
        """Return the number of enqueued tasks. Runs of periodic tasks of the code are not counted."""
        return obj.total_runs if obj.code_entry is None else "-"

    @admin.display(description=gettext_lazy("arguments"))
    def hidden(self, obj: PeriodicTask) -> str:
        """Return why the user does not see the arguments."""
        return str(HIDDEN)

    @admin.display(description=gettext_lazy("options"))
    def given_options(self, obj: PeriodicTask) -> str:
        """Return the options of a periodic task of the code."""
        return "\n".join(obj.options) or "-"

    @admin.display(description=gettext_lazy("next runs"))
    def upcoming(self, obj: PeriodicTask) -> Any:
        """Return the next firing for the list. A click shows further firings."""
        return next_firings(obj, folded=True)

    @admin.display(description=gettext_lazy("next runs"))
    def next_runs(self, obj: PeriodicTask) -> Any:
        """Return the next firings."""
        return next_firings(obj)

    # --- actions ------------------------------------------------------------------------------------------------------

    @admin.action(permissions=["change"], description=gettext_lazy("Enable selected %(verbose_name_plural)s"))
    def enable(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        """Enable periodic tasks. Firings missed while they were disabled are not caught up."""
        report = ngettext_lazy(
            "%(count)d periodic task was enabled.", "%(count)d periodic tasks were enabled.", "count"
        )
        act_on_each(self, request, queryset, partial(_switch, True), report)

    @admin.action(permissions=["change"], description=gettext_lazy("Disable selected %(verbose_name_plural)s"))
    def disable(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        """Disable periodic tasks until they are enabled again."""
        report = ngettext_lazy(
            "%(count)d periodic task was disabled.", "%(count)d periodic tasks were disabled.", "count"
        )
        act_on_each(self, request, queryset, partial(_switch, False), report)

    @row_action(
        description=gettext_lazy("Run selected %(verbose_name_plural)s now"),
        button=gettext_lazy("Run now"),
        question=ngettext_lazy(
            "Enqueue a task of %(count)d periodic task now, in addition to its schedule?",
            "Enqueue a task of each of %(count)d periodic tasks now, in addition to their schedules?",
            "count",
        ),
        report=ngettext_lazy("%(count)d task was enqueued.", "%(count)d tasks were enqueued.", "count"),
        permissions=["run"],
    )
    def run_now(self, obj: PeriodicTask, deadline: Deadline) -> tuple[str, int]:
        """Enqueue a task of a periodic task now. This does not count as one of its runs."""
        try:
            handle = taskq.client.enqueue(obj.entry.call)
        except (TaskQError, ValueError, TypeError) as error:
            raise SkippedError(f"{obj}: {error}") from error
        return _("Run now, as task %(id)s.") % {"id": handle.id}, 1

    # --- views --------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Return Django's pages, and the address to pause or resume a periodic task of the code."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_switch"
        return [
            path("<path:object_id>/switch/", self.admin_site.admin_view(self.switch_view), name=name),
            *super().get_urls(),
        ]

    def switch_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Pause or resume a periodic task of the code, for all schedulers."""
        if request.method != "POST" or not self.has_change_permission(request):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None or obj.code_entry is None:
            return HttpResponseRedirect(self.address("changelist"))
        inspector = Inspector(taskq)
        try:
            if obj.enabled:
                inspector.pause_schedule(obj.name)
                text = _("The periodic task was paused.")
            else:
                inspector.resume_schedule(obj.name)
                text = _("The periodic task was resumed.")
        except TaskQError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, text, messages.SUCCESS)
            with override(None):  # write log entries untranslated, as Django does
                self.log_change(request, obj, _("Paused.") if obj.enabled else _("Resumed."))
        return HttpResponseRedirect(self.address("change", str(obj.pk)))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete a periodic task after its confirmation. Report errors of Redis as a message."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except TaskQError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(self.address("changelist"))

    @transaction.non_atomic_requests  # "run now" must enqueue its task before the response
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or perform an action on its rows."""
        return super().changelist_view(request, extra_context)


def _without_arguments(request: HttpRequest, fieldsets: Any) -> Any:
    """Return fieldsets in which a note replaces the arguments if the user may not see them."""
    if sees_payloads(request):
        return fieldsets

    def shown(options: Any) -> Any:
        return {**options, "fields": ["hidden" if each == "kwargs" else each for each in options["fields"]]}

    return [(title, shown(options)) for title, options in fieldsets]


def _switch(is_on: bool, obj: PeriodicTask, deadline: Deadline) -> tuple[Any, int]:
    """Enable or disable a row."""
    obj.enabled = is_on
    obj.save(update_fields=["enabled"])
    label = capfirst(str(obj._meta.get_field("enabled").verbose_name))
    return [{"changed": {"fields": [label]}}], 1


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(PeriodicTaskAdminMixin, BaseAdmin):
    """Periodic tasks in Django's own admin."""
