"""The admin pages of tasks: the list, the page of one task, and the form that enqueues a task."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from taskq_core.inspector import Inspector, QueueInfo, UnreadableTask
from taskq_core.views import is_editable
from taskq_django.admin.actions import as_code, form_field
from taskq_django.admin.base import BaseAdmin
from taskq_django.admin.change_list import CURSOR_VAR
from taskq_django.admin.enqueue_page import EnqueuePage
from taskq_django.admin.filters import AgeFilter, QueueFilter, StateFilter, TypeFilter
from taskq_django.admin.task_columns import TaskColumns
from taskq_django.admin.task_fields import TaskFields
from taskq_django.admin.task_form import TaskForm
from taskq_django.admin.task_rows import TaskRows
from taskq_django.app import taskq
from taskq_django.models import Task


class TaskAdminMixin(TaskColumns, TaskFields, EnqueuePage):
    """The pages of tasks, as a mixin for a `ModelAdmin`.

    The list has filters by queue, state, type and age, and shows the beginning of the arguments. There is a page for
    each task, and a form that enqueues a task.
    """

    form = TaskForm
    list_filter = (QueueFilter, StateFilter, TypeFilter, AgeFilter)
    search_fields = ("id",)  # shows the search form; get_search_results searches
    search_help_text = gettext_lazy("The id of a task, or part of its id, its arguments or its last error.")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def queue_infos(self, request: HttpRequest) -> Sequence[QueueInfo]:
        """Return the queues. They are read once per request."""
        infos: Sequence[QueueInfo] | None = getattr(request, "taskq_queue_infos", None)
        if infos is None:
            infos = Inspector(taskq).queue_infos()
            request.taskq_queue_infos = infos  # type: ignore[attr-defined]  # cached for this request
        return infos

    def get_rows(self, request: HttpRequest) -> TaskRows:
        """Return all tasks, except those in groups."""
        searches = vars(request).setdefault("taskq_searches", {})
        return TaskRows(partial(self.queue_infos, request), cursor=request.GET.get(CURSOR_VAR), searches=searches)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the tasks that contain a text."""
        text = search_term.strip()
        return (queryset.narrow(text=text) if text else queryset), False

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
    """Tasks by queue and state, the page of one task, and the form that enqueues a task."""
