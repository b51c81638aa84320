"""Tasks by queue and state, the page of one task, and the form that enqueues one."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy

from taskq_core import TaskQError
from taskq_core.inspector import Inspector, QueueInfo, UnreadableTask
from taskq_core.views import is_editable
from taskq_django.admin.base import BaseAdmin
from taskq_django.admin.change_list import CURSOR_VAR
from taskq_django.admin.enqueue_page import EnqueuePage
from taskq_django.admin.labels import Links
from taskq_django.admin.task_actions import TaskActions
from taskq_django.admin.task_columns import TaskColumns
from taskq_django.admin.task_fields import TaskFields
from taskq_django.admin.task_filters import AgeFilter, QueueFilter, StateFilter, TypeFilter
from taskq_django.admin.task_form import TaskForm
from taskq_django.admin.task_rows import TaskRows, parts_of
from taskq_django.admin.theming import themed_field
from taskq_django.app import taskq
from taskq_django.models import Task


class ChangeRefusedError(Exception):
    """Redis has refused a change that the form had let through: somebody was faster."""


class TaskAdminMixin(TaskColumns, TaskFields, EnqueuePage, TaskActions):
    """The pages of tasks, to be put over a `ModelAdmin`.

    A list by queue, state, type and age, in which arguments are not shown, a page for each task, and the form that
    enqueues one.
    """

    form = TaskForm
    list_filter = (QueueFilter, StateFilter, TypeFilter, AgeFilter)
    search_fields = ("id",)  # what is searched is said by get_search_results; this shows the form
    search_help_text = gettext_lazy("The id of a task, or part of its id, its arguments or its last error.")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def queue_infos(self, request: HttpRequest) -> Sequence[QueueInfo]:
        """Return how the queues stand, read once a request."""
        infos: Sequence[QueueInfo] | None = getattr(request, "taskq_queue_infos", None)
        if infos is None:
            infos = Inspector(taskq).queue_infos()
            request.taskq_queue_infos = infos  # type: ignore[attr-defined]  # kept for this request
        return infos

    def get_rows(self, request: HttpRequest) -> TaskRows:
        """Return all tasks but those in groups."""
        if not hasattr(request, "taskq_searches"):
            request.taskq_searches = {}  # type: ignore[attr-defined]  # kept for this request
        searches = request.taskq_searches  # type: ignore[attr-defined]  # set above
        return TaskRows(partial(self.queue_infos, request), cursor=request.GET.get(CURSOR_VAR), searches=searches)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Return the tasks that were searched for."""
        text = search_term.strip()
        return (queryset.narrow(text=text) if text else queryset), False

    # --- the page of one task -----------------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return what there is to say of a task; its arguments as a field where they can be edited."""
        if obj is None:
            return super().get_fieldsets(request, obj)
        obj.links, obj.addresses = self.action_links(request, obj), Links(request, self.admin_site)
        if isinstance(obj.record, UnreadableTask):
            return self.unreadable_fieldsets
        told: list[Any] = []
        for heading, options in self.fieldsets:
            names = [str(name) for name in options["fields"]]
            fields: list[str] = []
            for name in names:
                if name == "payload" and self._may_edit(request, obj):
                    fields += ["arguments", "shown"]
                elif self.told(obj, name):
                    fields.append(name)
            if fields:
                told.append((heading, {**options, "fields": tuple(fields)}))
        return told

    def _may_edit(self, request: HttpRequest, obj: Any) -> bool:
        return is_editable(obj.record) and self.has_change_permission(request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form, which knows if Redis has just refused it."""
        form: Any = super().get_form(request, obj, change, **kwargs)
        form.refusal = getattr(request, "taskq_refusal", None)
        if "arguments" in form.base_fields:
            field = copy.copy(form.base_fields["arguments"])
            themed_field(self, request, "arguments", field)
            form.base_fields["arguments"] = field
        return form

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the page of a task, or save its arguments. If Redis refuses them they stay in the form."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except ChangeRefusedError as error:
            request.taskq_refusal = str(error)  # type: ignore[attr-defined]  # kept for this request
            return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Change the arguments of a task, if they are still those that were shown."""
        payload = form.cleaned_data["payload"]
        queue, task_id = parts_of(obj.pk)
        try:
            Inspector(taskq).update_payload(queue, task_id, payload, expected=obj.record.payload)
        except TaskQError as error:
            raise ChangeRefusedError(str(error)) from error

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Draw the page of a task; buttons that save are there where something can be saved."""
        obj = kwargs.get("obj")
        if obj is not None:
            can_save = self._may_edit(request, obj)
            context |= {"show_save": can_save, "show_save_and_continue": can_save, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)


@admin.register(Task)
class TaskAdmin(TaskAdminMixin, BaseAdmin):
    """Tasks by queue and state, the page of one task, and the form that enqueues one."""
