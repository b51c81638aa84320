"""Periodic tasks: those of the table, which can be edited, and those of the code, which can be read and paused.

The rows are in a table, so the pages are Django's own. The mixin brings only the template of a confirmation, so it can
be put over another `ModelAdmin`:

    class MyPeriodicTaskAdmin(PeriodicTaskAdminMixin, unfold.admin.ModelAdmin): ...
"""

import functools
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext_lazy, override

from taskq_core import TaskQError
from taskq_core.inspector import Inspector
from taskq_core.wire.cron import with_zone
from taskq_django.admin.actions import Deadline, SkippedError, act_on_each, confirmed_action
from taskq_django.admin.base import BaseAdmin, FrameMixin
from taskq_django.admin.code_entries import CODE_KEY, SOURCE_VAR, PeriodicTaskList, code_rows
from taskq_django.admin.periodic_form import PeriodicTaskForm, fit_widget
from taskq_django.admin.upcoming import at, look_ahead
from taskq_django.app import taskq
from taskq_django.models import PeriodicTask


class SourceFilter(admin.SimpleListFilter):
    """Whether a periodic task is a row of the table or part of the code."""

    title = gettext_lazy("source")
    parameter_name = SOURCE_VAR

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("database", gettext_lazy("Database")), ("code", gettext_lazy("Code and settings"))]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> "QuerySet[PeriodicTask]":
        """Return the rows of the table; the list adds those of the code."""
        return queryset.none() if self.value() == "code" else queryset


class PeriodicTaskAdminMixin(FrameMixin):
    """The pages of periodic tasks, to be put over a `ModelAdmin`."""

    form = PeriodicTaskForm
    list_display = ("name", "task", "schedule", "upcoming", "last_run", "runs", "enabled", "source")
    list_filter = (SourceFilter, "enabled", "task")
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER  # the database counts only its own rows
    search_fields = ("name", "task", "description")
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
    readonly_fields = ("next_runs", "last_run", "runs", "schedule", "source", "switch", "given_options")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[Any]:
        """Return the list page of the class below, with the periodic tasks of the code."""
        below = super().get_changelist(request, **kwargs)
        return type("PeriodicTaskList", (PeriodicTaskList, below), {})

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return a row of the table, or the row for a periodic task of the code."""
        if object_id.startswith(CODE_KEY):
            return next((row for row in code_rows() if str(row.pk) == object_id), None)
        return super().get_object(request, object_id, from_field)

    @functools.wraps(admin.ModelAdmin.action_checkbox)  # with its heading, which Django 5.2 keeps there
    def action_checkbox(self, obj: Any) -> Any:  # type: ignore[override]  # it is wrapped
        """Return the checkbox of a row, or an empty cell for rows without actions."""
        return mark_safe("<span></span>") if obj.code_entry is not None else super().action_checkbox(obj)

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change it. Those of the code are changed in the code."""
        return (obj is None or obj.code_entry is None) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete it. Those of the code are deleted in the code."""
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
        """Return the field of the class below, with suggestions."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None:
            fit_widget(db_field.name, field)
        return field

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the parts of the form. The form of a new row has only the editable fields."""
        if obj is not None and obj.code_entry is not None:
            if self.has_change_permission(request):
                return self.code_fieldsets
            return ((None, {"fields": ("name", "source")}), *self.code_fieldsets[1:])
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None:
            return fieldsets
        kept = [
            (title, {**options, "fields": [each for each in options["fields"] if each not in self.readonly_fields]})
            for title, options in fieldsets
        ]
        return [(title, options) for title, options in kept if options["fields"]]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Draw the form. Where it is only to be read there is nothing that could be saved as a new one."""
        response: Any = super().render_change_form(request, context, *args, **kwargs)
        if not (kwargs.get("add") or self.has_change_permission(request, kwargs.get("obj"))):
            response.context_data["save_as"] = False
        return response

    # --- columns ----------------------------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("schedule"))
    def schedule(self, obj: PeriodicTask) -> str:
        """When it fires, in a line."""
        if not obj.cron:
            return _("every %(span)s") % {"span": obj.interval}
        return with_zone(obj.cron, obj.time_zone or taskq.settings.time_zone)

    @admin.display(description=gettext_lazy("source"))
    def source(self, obj: PeriodicTask) -> str:
        """Where it is defined."""
        if obj.code_entry is None:
            return _("database")
        return _("added at run time") if obj.is_added else _("code or settings")

    @admin.display(description=gettext_lazy("enabled"))
    def switch(self, obj: PeriodicTask) -> SafeString:
        """Whether a periodic task of the code is enabled, with a button to pause or resume it."""
        return format_html(
            '{} <button type="submit" class="button" formaction="{}" formmethod="post" formnovalidate>{}</button>',
            _("yes") if obj.enabled else _("no, it is paused"),
            self.address("switch", str(obj.pk)),
            _("Pause") if obj.enabled else _("Resume"),
        )

    @admin.display(description=gettext_lazy("last run"), ordering="last_run_at")
    def last_run(self, obj: PeriodicTask) -> str:
        """When it was due last."""
        return "-" if obj.last_run_at is None else at(obj.last_run_at)

    @admin.display(description=gettext_lazy("runs"), ordering="total_runs")
    def runs(self, obj: PeriodicTask) -> int | str:
        """Number of tasks it has enqueued. Those of the code are not counted."""
        return obj.total_runs if obj.code_entry is None else "-"

    @admin.display(description=gettext_lazy("options"))
    def given_options(self, obj: PeriodicTask) -> str:
        """Options of a periodic task of the code."""
        return "\n".join(obj.options) or "-"

    @admin.display(description=gettext_lazy("next runs"))
    def upcoming(self, obj: PeriodicTask) -> Any:
        """Next firing; a click shows those after it. For the list."""
        return look_ahead(obj, folded=True)

    @admin.display(description=gettext_lazy("next runs"))
    def next_runs(self, obj: PeriodicTask) -> Any:
        """Next firings."""
        return look_ahead(obj)

    # --- actions ------------------------------------------------------------------------------------------------------

    @admin.action(permissions=["change"], description=gettext_lazy("Enable selected %(verbose_name_plural)s"))
    def enable(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        """Let them fire again. Firings missed while they were disabled are not caught up."""
        report = ngettext_lazy(
            "%(count)d periodic task was enabled.", "%(count)d periodic tasks were enabled.", "count"
        )
        act_on_each(self, request, queryset, partial(_switch, True), report)

    @admin.action(permissions=["change"], description=gettext_lazy("Disable selected %(verbose_name_plural)s"))
    def disable(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        """Keep them from firing until they are enabled."""
        report = ngettext_lazy(
            "%(count)d periodic task was disabled.", "%(count)d periodic tasks were disabled.", "count"
        )
        act_on_each(self, request, queryset, partial(_switch, False), report)

    @confirmed_action(
        description=gettext_lazy("Run selected %(verbose_name_plural)s now"),
        button=gettext_lazy("Run now"),
        question=ngettext_lazy(
            "Enqueue a task of %(count)d periodic task now, besides those that are due?",
            "Enqueue a task of each of %(count)d periodic tasks now, besides those that are due?",
            "count",
        ),
        permissions=["run"],
    )
    def run_now(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]", **_seen: Any) -> None:
        """Enqueue a task of each now. It is not counted as one of its runs."""

        def act(obj: PeriodicTask, deadline: Deadline) -> tuple[str, int]:
            try:
                handle = taskq.client.enqueue(obj.entry.call)
            except (TaskQError, ValueError, TypeError) as error:
                raise SkippedError(f"{obj}: {error}") from error
            return _("Run now, as task %(id)s.") % {"id": handle.id}, 1

        report = ngettext_lazy("%(count)d task was enqueued.", "%(count)d tasks were enqueued.", "count")
        act_on_each(self, request, queryset, act, report)

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
                text = _("The periodic task is paused.")
            else:
                inspector.resume_schedule(obj.name)
                text = _("The periodic task goes on.")
        except TaskQError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, text, messages.SUCCESS)
            with override(None):  # as above
                self.log_change(request, obj, _("Paused.") if obj.enabled else _("Resumed."))
        return HttpResponseRedirect(self.address("change", str(obj.pk)))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete one after its confirmation, or report that Redis failed."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except TaskQError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(self.address("changelist"))

    @transaction.non_atomic_requests  # "run now" sends its tasks while the response can still report it
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or take an action on rows of it."""
        return super().changelist_view(request, extra_context)


def _switch(is_on: bool, obj: PeriodicTask, deadline: Deadline) -> tuple[Any, int]:
    """Enable or disable a row."""
    obj.enabled = is_on
    obj.save(update_fields=["enabled"])
    label = capfirst(str(obj._meta.get_field("enabled").verbose_name))
    return [{"changed": {"fields": [label]}}], 1


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(PeriodicTaskAdminMixin, BaseAdmin):
    """Periodic tasks in Django's own admin."""
