"""Periodic tasks: those of the table, to be edited, and those of the code beside them, to be read.

A table stands behind these pages, so they are Django's own throughout. The mixin brings no templates but that of a
confirmation, so it can be put over another `ModelAdmin`:

    class MyPeriodicTaskAdmin(PeriodicTaskAdminMixin, unfold.admin.ModelAdmin): ...
"""

import functools
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy, override

from taskq_core import BrokerUnavailableError, EnqueueError, TaskQError
from taskq_core.inspector import Inspector
from taskq_core.wire.cron import with_zone
from taskq_django.admin.actions import confirmed_action
from taskq_django.admin.base import BaseAdmin, TableAdminMixin, is_row_key
from taskq_django.admin.code_entries import CODE_KEY, SOURCE_VAR, PeriodicTaskList, code_rows
from taskq_django.admin.frame import FrameMixin
from taskq_django.admin.periodic_form import PeriodicTaskForm, fit_widget
from taskq_django.admin.upcoming import at, look_ahead
from taskq_django.app import taskq
from taskq_django.models import PeriodicTask

NOTHING = "-"
"""What stands for a value that is not there, as in Django's own lists."""


class SourceFilter(admin.SimpleListFilter):
    """Whether a periodic task is a row of the table or stands in the code."""

    title = gettext_lazy("where it is from")
    parameter_name = SOURCE_VAR

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choices."""
        return [("database", gettext_lazy("Database")), ("code", gettext_lazy("Code and settings"))]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> "QuerySet[PeriodicTask]":
        """Return the rows of the table; those of the code are added by the list."""
        return queryset.none() if self.value() == "code" else queryset


class PeriodicTaskAdminMixin(FrameMixin, TableAdminMixin):
    """The pages of periodic tasks, to be put over a `ModelAdmin`."""

    form = PeriodicTaskForm
    list_display = ("name", "task", "schedule", "upcoming", "last_run", "runs", "enabled", "source")
    list_filter = (SourceFilter, "enabled", "task")
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER  # the database counts its own rows alone
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
        """Return a row of the table, or one that stands for a periodic task of the code."""
        if object_id.startswith(CODE_KEY):
            return next((row for row in code_rows() if str(row.pk) == object_id), None)
        return super().get_object(request, object_id, from_field)

    @functools.wraps(admin.ModelAdmin.action_checkbox)  # with its heading, which Django 5.2 keeps there
    def action_checkbox(self, obj: Any) -> Any:  # type: ignore[override]  # it is wrapped
        """Return the box to choose a row; there is none where no action can be taken."""
        return mark_safe("<span></span>") if obj.code_entry is not None else super().action_checkbox(obj)

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change it. What stands in the code is changed there."""
        return (obj is None or obj.code_entry is None) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may delete it. What stands in the code is deleted there."""
        return (obj is None or obj.code_entry is None) and super().has_delete_permission(request, obj)

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may enqueue a periodic task at once."""
        codename = get_permission_codename("run", self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    # --- form ---------------------------------------------------------------------------------------------------------

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the field of the class below, with suggestions."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None:
            fit_widget(db_field.name, field.widget)
        return field

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the parts of the form; of a new one those that can be filled in."""
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

    # --- what is shown ------------------------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("schedule"))
    def schedule(self, obj: PeriodicTask) -> str:
        """Return when it fires, in a line."""
        if not obj.cron:
            return _("every %(span)s") % {"span": obj.interval}
        return with_zone(obj.cron, obj.time_zone or taskq.settings.time_zone)

    @admin.display(description=gettext_lazy("from"))
    def source(self, obj: PeriodicTask) -> str:
        """Return where it stands."""
        if obj.code_entry is None:
            return _("database")
        return _("added at run time") if obj.is_added else _("code or settings")

    @admin.display(description=gettext_lazy("enabled"))
    def switch(self, obj: PeriodicTask) -> SafeString:
        """Return whether a periodic task of the code is enabled, with a button to pause or resume it."""
        return format_html(
            '{} <button type="submit" class="button" formaction="{}" formmethod="post" formnovalidate>{}</button>',
            _("yes") if obj.enabled else _("no, it is paused"),
            self._address("switch", str(obj.pk)),
            _("Pause") if obj.enabled else _("Resume"),
        )

    @admin.display(description=gettext_lazy("last run"), ordering="last_run_at")
    def last_run(self, obj: PeriodicTask) -> str:
        """Return when it was due last, in the user's time zone."""
        return NOTHING if obj.last_run_at is None else at(obj.last_run_at)

    @admin.display(description=gettext_lazy("runs"), ordering="total_runs")
    def runs(self, obj: PeriodicTask) -> int | str:
        """Return how many tasks it has enqueued; of one of the code that is not counted."""
        return obj.total_runs if obj.code_entry is None else NOTHING

    @admin.display(description=gettext_lazy("options"))
    def given_options(self, obj: PeriodicTask) -> str:
        """Return the options of a periodic task of the code."""
        return "\n".join(obj.options) or NOTHING

    @admin.display(description=gettext_lazy("next runs"))
    def upcoming(self, obj: PeriodicTask) -> Any:
        """Return the next firing, and folded up those after it. For the list."""
        ahead = look_ahead(obj)
        if not ahead.moments:
            return ahead.note
        return format_html(
            '<details class="taskq-upcoming"><summary>{}</summary>{}</details>', at(ahead.moments[0]), ahead.table()
        )

    @admin.display(description=gettext_lazy("next runs"))
    def next_runs(self, obj: PeriodicTask) -> Any:
        """Return the next firings. For the page of one."""
        ahead = look_ahead(obj)
        return ahead.table() if ahead.moments else ahead.note

    # --- actions ------------------------------------------------------------------------------------------------------

    @admin.action(permissions=["change"], description=gettext_lazy("Enable selected %(verbose_name_plural)s"))
    def enable(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        """Let them fire again. What came up while they were disabled is not caught up."""
        count = self._switch(request, queryset, is_on=True)
        text = ngettext("%(count)d periodic task was enabled.", "%(count)d periodic tasks were enabled.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)

    @admin.action(permissions=["change"], description=gettext_lazy("Disable selected %(verbose_name_plural)s"))
    def disable(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]") -> None:
        """Let them fire no more until they are enabled."""
        count = self._switch(request, queryset, is_on=False)
        text = ngettext("%(count)d periodic task was disabled.", "%(count)d periodic tasks were disabled.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)

    def _switch(self, request: HttpRequest, queryset: "QuerySet[PeriodicTask]", *, is_on: bool) -> int:
        """Turn those that are not yet so, and return how many there were."""
        count = 0
        for obj in queryset.filter(enabled=not is_on):
            obj.enabled = is_on
            alias = router.db_for_write(type(obj), instance=obj)  # rows may be read elsewhere
            with transaction.atomic(using=alias):
                if not type(obj)._base_manager.using(alias).filter(pk=obj.pk).exists():
                    continue  # deleted meanwhile
                obj.save(using=alias, update_fields=["enabled"])
                with override(None):  # a log is kept in the language of the code, as Django's own
                    label = capfirst(str(self.opts.get_field("enabled").verbose_name))  # type: ignore[union-attr]  # a field of the model's own
                self.log_change(request, obj, [{"changed": {"fields": [label]}}])
            count += 1
        return count

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
        """Enqueue a task of each, as if it were due. It does not count as one of its runs."""
        count = 0
        for obj in queryset:
            try:
                handle = taskq.client.enqueue(obj.entry.call)
            except EnqueueError as error:
                self.message_user(request, f"{obj}: {error}", messages.ERROR)
                if isinstance(error.__cause__, BrokerUnavailableError):
                    break  # the others would wait for Redis as well
            except (TaskQError, ValueError, TypeError) as error:
                self.message_user(request, f"{obj}: {error}", messages.ERROR)
            else:
                count += 1
                with override(None):  # as above
                    said = _("Run now, as task %(id)s.") % {"id": handle.id}
                self.log_change(request, obj, said)
        if count:
            text = ngettext("%(count)d task was enqueued.", "%(count)d tasks were enqueued.", count)
            self.message_user(request, text % {"count": count}, messages.SUCCESS)

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
            return HttpResponseRedirect(self._address("changelist"))
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
        return HttpResponseRedirect(self._address("change", str(obj.pk)))

    @transaction.non_atomic_requests  # what "run now" enqueues is sent, or not, while this can still be said
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or take an action on rows of it."""
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if not all(is_row_key(each) for each in chosen):
            self.message_user(request, _("Nothing was done: no such periodic task can be chosen."), messages.WARNING)
            return HttpResponseRedirect(request.get_full_path())
        return super().changelist_view(request, extra_context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the form, or save it; what was deleted meanwhile is said to be gone."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except DatabaseError:
            if object_id is None or self.get_object(request, unquote(object_id)) is not None:
                raise
            facts = {"name": self.opts.verbose_name, "key": unquote(object_id)}
            self.message_user(request, _("%(name)s “%(key)s” is not there (any more).") % facts, messages.WARNING)
            return HttpResponseRedirect(self._address("changelist"))


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(PeriodicTaskAdminMixin, BaseAdmin):
    """Periodic tasks in Django's own admin."""
