"""The admin pages of tasks: the list, the page of one task, and the form that enqueues a task."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from taskq_core import TaskQError
from taskq_core.inspector import Inspector, QueueInfo, UnreadableTask
from taskq_core.views import Dashboard, is_editable, signature_of, summary_of
from taskq_django.admin.actions import as_code, form_field
from taskq_django.admin.base import BaseAdmin
from taskq_django.admin.filters import AgeFilter, QueueFilter, StateFilter, TypeFilter
from taskq_django.admin.formats import key_of, render, sees_payloads
from taskq_django.admin.rows import once
from taskq_django.admin.task_actions import TaskActions
from taskq_django.admin.task_columns import TaskColumns
from taskq_django.admin.task_fields import TaskFields
from taskq_django.admin.task_form import EnqueueForm, TaskForm
from taskq_django.admin.task_rows import TaskRows
from taskq_django.app import taskq
from taskq_django.models import Task

TASK_VAR = "task"


class EnqueuePage(TaskActions):
    """The page that enqueues a registered task. It needs the permission to add tasks."""

    @transaction.non_atomic_requests
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the registered tasks or the form of one task, or enqueue a task."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        task = taskq.tasks.get(request.GET.get(TASK_VAR, ""))
        if task is None:
            tasks = [(name, signature_of(each), summary_of(each)) for name, each in sorted(taskq.tasks.items())]
            fieldsets: list[Any] = [
                (_("Choose a task"), {"fields": [], "description": render("offered.html", tasks=tasks)})
            ]
            hidden = dict.fromkeys(("show_save", "show_save_and_continue", "show_save_and_add_another"), False)
            return self._draw_form(request, forms.Form(), fieldsets, None, {**hidden, **(extra_context or {})})
        data = request.POST if request.method == "POST" else None
        form = EnqueueForm(self, request, data, task=task, queues=self.queue_names(request))
        if form.is_bound and form.is_valid():
            try:
                handle = taskq.enqueue(form.call)
            except TaskQError as error:
                form.add_error(None, str(error))
            else:
                row = Task(id=key_of(handle.queue, handle.id))
                self.log_addition(request, row, [{"added": {}}])
                if "_addanother" in request.POST:
                    self.message_user(request, _("The task was enqueued. You may enqueue another below."))
                    return HttpResponseRedirect(request.get_full_path())
                return self.response_add(request, row)
        about = format_html("<code>{}</code> {}", signature_of(task), summary_of(task))
        fieldsets = [
            (None, {"fields": ["arguments"], "description": about}),
            (_("Options"), {"fields": ["queue", "run_after", "max_retry", "task_id"]}),
        ]
        return self._draw_form(request, form, fieldsets, task.name, extra_context)

    def _draw_form(
        self, request: HttpRequest, form: Any, fieldsets: list[Any], subtitle: str | None, extra: dict[str, Any] | None
    ) -> HttpResponse:
        """Draw a form with the template of Django or of the theme."""
        adminform = helpers.AdminForm(form, fieldsets, {}, model_admin=self)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Enqueue a task"),
            "subtitle": subtitle,
            "adminform": adminform,
            "object_id": None,
            "original": None,
            "is_popup": False,
            "to_field": None,
            "media": self.media + adminform.media,
            "inline_admin_formsets": [],
            "errors": helpers.AdminErrorList(form, []),
            "preserved_filters": self.get_preserved_filters(request),
            **(extra or {}),
        }
        page: HttpResponse = self.render_change_form(request, context, add=True, change=False, obj=None)
        return page


class TaskAdminMixin(TaskColumns, TaskFields, EnqueuePage):
    """The pages of tasks, as a mixin for a `ModelAdmin`.

    The list has filters by queue, state, type and age, and shows the beginning of the arguments. There is a page for
    each task, and a form that enqueues a task.
    """

    form = TaskForm
    list_filter = (QueueFilter, StateFilter, TypeFilter, AgeFilter)
    search_fields = ("id",)
    search_help_text = gettext_lazy("The id of a task, or part of its id, name, queue, arguments or last error.")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def queue_infos(self, request: HttpRequest) -> Sequence[QueueInfo]:
        """Return the queues. They are read once per request."""
        return once(request, "queues", Inspector(taskq).queue_infos)

    def get_rows(self, request: HttpRequest) -> TaskRows:
        """Return all tasks, except tasks that wait in groups."""
        return TaskRows(
            request, self.list_per_page, partial(self.queue_infos, request), with_payloads=sees_payloads(request)
        )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Return the list. Its search does not read the payloads that the user may not see."""
        found = super().get_changelist_instance(request)
        if not (sees_payloads(request) or found.queryset.note):
            found.search_help_text = _("The id of a task, or part of its id, name, queue or last error.")
        return found

    def read_one(self, request: HttpRequest, key: str) -> Any:
        """Return a task with its steps."""
        task = super().read_one(request, key)
        if task is not None:
            timeline = Dashboard(Inspector(taskq)).timeline(task.record.queue, task.record.id)
            hidden = [replace(each, result=b"", asked=b"") for each in timeline]
            task.timeline = hidden if task.hides_payload else timeline
        return task

    # --- the page of one task -----------------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fieldsets of a task. Its arguments are an input if they can be edited."""
        if obj is not None and isinstance(obj.record, UnreadableTask):
            return self.unreadable_fieldsets
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None and self._may_edit(request, obj):
            for _heading, options in fieldsets:
                if "payload" in options["fields"]:
                    place = options["fields"].index("payload")
                    options["fields"][place : place + 1] = ["arguments", "shown"]
        return fieldsets

    def has_value(self, obj: Any, name: str) -> bool:
        """Return whether a field has a value. The arguments of an editable task are shown even if they are empty."""
        return super().has_value(obj, name) or (name == "payload" and is_editable(obj.record))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change tasks, or the arguments of one task, which they must be able to see."""
        return super().has_change_permission(request, obj) and (obj is None or sees_payloads(request))

    def _may_edit(self, request: HttpRequest, obj: Any) -> bool:
        return is_editable(obj.record) and self.has_change_permission(request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form, with the widget that this `ModelAdmin` uses for texts."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        if "arguments" in form.base_fields:
            column = models.TextField(gettext_lazy("Arguments"), blank=True)
            field = form_field(self, request, "arguments", column)
            field.strip = False
            as_code(field, 12)
            form.base_fields["arguments"] = field
        return form

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Do nothing: the form has saved the arguments."""

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Draw the page of a task. It has save buttons only if its arguments can be edited."""
        obj = kwargs.get("obj")
        if obj is not None:
            can_save = self._may_edit(request, obj)
            context |= {"show_save": can_save, "show_save_and_continue": can_save, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)


@admin.register(Task)
class TaskAdmin(TaskAdminMixin, BaseAdmin):
    """Tasks in Django's own admin: the list, the page of one task, and the form that enqueues a task."""
