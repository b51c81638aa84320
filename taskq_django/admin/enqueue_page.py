"""The page that enqueues a task: first one of the registered tasks is chosen, then its arguments are filled in."""

from typing import Any

from django import forms
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from taskq_core import BrokerError, ConfigurationError, TaskArgumentsError, TaskQError
from taskq_core.tasks.task import Task as TaskFunction
from taskq_core.views import signature_of, summary_of
from taskq_django.admin.enqueue_form import ARGUMENT, EnqueueForm
from taskq_django.admin.task_actions import TaskActions
from taskq_django.admin.task_rows import key_of
from taskq_django.admin.theming import themed
from taskq_django.app import taskq
from taskq_django.models import Task

TASK_VAR = "task"


class EnqueuePage(TaskActions):
    """The page. It needs the permission to add tasks; only registered tasks can be enqueued."""

    @transaction.non_atomic_requests
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Offer the registered tasks, show the form of one, or enqueue it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        task = taskq.tasks.get(request.GET.get(TASK_VAR, ""))
        try:
            if task is None:
                return self._offer(request, extra_context)
            queues = self.queue_names(request)
            form = EnqueueForm(request.POST if request.method == "POST" else None, task=task, queues=queues)
            themed(self, request, form)
            if form.is_bound and form.is_valid():
                row = self._enqueue(form, task)
                if row is not None:
                    self.log_addition(request, row, [{"added": {}}])
                    if "_addanother" in request.POST:
                        self.message_user(request, _("The task was enqueued. You may enqueue another below."))
                        return HttpResponseRedirect(request.get_full_path())
                    return self.response_add(request, row)
            return self._draw(request, form, task, extra_context)
        except (BrokerError, ConfigurationError) as error:
            return self.render_trouble(request, error)

    def _enqueue(self, form: EnqueueForm, task: TaskFunction[Any, Any]) -> Task | None:
        """Enqueue the call of a form; what is refused is said in the form, and None returned."""
        try:
            handle = taskq.enqueue(form.call())
        except TaskArgumentsError as error:
            field = ARGUMENT + error.parameter
            form.add_error(field if field in form.fields else None, error.problem)
        except TaskQError as error:
            form.add_error(None, str(error))
        else:
            return Task(id=key_of(handle.queue, handle.id))
        return None

    def _draw(
        self, request: HttpRequest, form: EnqueueForm, task: TaskFunction[Any, Any], extra: dict[str, Any] | None
    ) -> HttpResponse:
        about = format_html("<code>{}</code> {}", signature_of(task), summary_of(task))
        fieldsets = [
            (_("Arguments"), {"fields": form.argument_names, "description": about}),
            (_("Options"), {"fields": ["queue", "run_after", "max_retry", "task_id"]}),
        ]
        return self._draw_form(request, form, fieldsets, task.name, extra)

    def _offer(self, request: HttpRequest, extra: dict[str, Any] | None) -> HttpResponse:
        tasks = [taskq.tasks[name] for name in sorted(taskq.tasks)]
        lines = ((urlencode({TASK_VAR: each.name}), each.name, signature_of(each), summary_of(each)) for each in tasks)
        line = '<li><a href="?{}">{}</a> <code>{}</code> <div class="quiet">{}</div></li>'
        offered: SafeString | str = format_html('<ul class="taskq-offered">{}</ul>', format_html_join("", line, lines))
        if not tasks:
            offered = _("No task is registered here.")
        fieldsets = [(_("Choose a task"), {"fields": [], "description": offered})]
        hidden = dict.fromkeys(("show_save", "show_save_and_continue", "show_save_and_add_another"), False)
        return self._draw_form(request, forms.Form(), fieldsets, None, {**hidden, **(extra or {})})

    def _draw_form(
        self, request: HttpRequest, form: Any, fieldsets: list[Any], subtitle: str | None, extra: dict[str, Any] | None
    ) -> HttpResponse:
        """Draw a form by Django's own template, or that of the theme below."""
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
