"""The page that enqueues a task: choose one of the registered tasks, then fill in its arguments."""

from typing import Any

from django import forms
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.translation import gettext as _

from taskq_core import TaskQError
from taskq_core.views import signature_of, summary_of
from taskq_django.admin.formats import key_of, render
from taskq_django.admin.task_actions import TaskActions
from taskq_django.admin.task_form import EnqueueForm
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
        """Draw a form with Django's own template or that of the theme."""
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
