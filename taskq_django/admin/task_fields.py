"""The fields on the page of one task."""

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext, pgettext
from django.utils.translation import gettext_lazy as _

from taskq_core import TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.handles.attempts import Attempt
from taskq_core.settings import TRACE_ID
from taskq_core.telemetry import trace_id
from taskq_core.views import attempt_text, labels, times_of, trace_url, workflow_of
from taskq_core.wire import ENQUEUED
from taskq_django.admin.columns import column
from taskq_django.admin.formats import HIDDEN, SHOWN_BYTES, block, in_active_language, render, span, state_name, waiting
from taskq_django.admin.live import MixinBase
from taskq_django.app import taskq
from taskq_django.models import Task

RESULT_BYTES = 800
"""Maximum number of bytes of a step's result on the page."""
_WHICH = ("task_name", "task_id", "task_queue", "task_state", "waits_for", "attempts_used", "group", "workflow")


def _shortened(data: bytes) -> str:
    return Truncator(data[:RESULT_BYTES].decode("utf-8", "replace")).chars(RESULT_BYTES // 4)


class TaskFields(MixinBase):
    """The fields of tasks. Fields without a value are omitted."""

    fieldsets = (
        (None, {"fields": (*_WHICH, "buttons")}),
        (_("Attempts"), {"fields": ("last_error", "earlier_error", "attempts")}),
        (_("Steps"), {"fields": ("steps",)}),
        (_("Data"), {"fields": ("payload", "progress", "result")}),
        (_("Times"), {"fields": ("timeline", "worker", "timeout", "retention")}),
        (_("Trace and headers"), {"fields": ("trace", "headers")}),
    )
    unreadable_fieldsets: Any = (
        (None, {"fields": ("task_id", "task_queue", "task_state", "problem", "message", "buttons")}),
    )

    task_name = column(_("name"), "name")
    task_id = column(_("id"), "id")
    task_queue = column(_("queue"), "queue")
    group = column(_("group"), "group")
    worker = column(_("worker"), "worker")
    timeout = column(_("timeout"), "timeout", lambda value: str(value) if value else "")
    retention = column(_("retention"), "retention", lambda value: str(value) if value else "")
    problem = column(_("problem"), "problem")
    message = column(_("stored bytes"), "message", lambda message: block(message[:SHOWN_BYTES].hex(" ", -2)))

    @admin.display(description=_("arguments"))
    def payload(self, task: Task) -> SafeString | str:
        """Return the arguments, or why the user does not see them."""
        return str(HIDDEN) if task.hides_payload else block(task.record.payload)

    @admin.display(description=_("last error"))
    def last_error(self, task: Task) -> SafeString | str:
        """Return the last error of a task that has not succeeded since."""
        return "" if task.record.state is TaskState.COMPLETED else block(task.record.last_error)

    @admin.display(description=_("error of an earlier run"))
    def earlier_error(self, task: Task) -> SafeString | str:
        """Return the last error of a completed task."""
        return block(task.record.last_error) if task.record.state is TaskState.COMPLETED else ""

    @admin.display(description=_("state"))
    def task_state(self, task: Task) -> str:
        """Return the state, and what a task with steps waits for."""
        wait = waiting(getattr(task.record, "wait", None))
        return f"{state_name(task.record.state)}, {wait}" if wait else state_name(task.record.state)

    @admin.display(description=_("steps"))
    def steps(self, task: Any) -> SafeString | str:
        """Return the steps, sleeps, signals and sub-tasks of the task in order."""
        steps = []
        for each in task.timeline:
            linked = task.links.workflow(each.name, task.record.queue, each.workflow_id)
            asked, result = _shortened(each.asked), _shortened(each.result)
            name = linked if each.workflow_id else each.name
            steps.append((each, pgettext("step of a task", each.kind), name, asked, result))
        return render("steps.html", steps=steps) if steps else ""

    @admin.display(description=_("waits for"))
    def waits_for(self, task: Task) -> str:
        """Return the limit for which the task waits."""
        if not task.record.waits_for_limit:
            return ""
        return gettext("the limit %(name)s") % {"name": task.record.limit} if task.record.limit else gettext("a limit")

    @admin.display(description=_("retries"))
    def attempts_used(self, task: Task) -> str:
        """Return the number of retries, and the maximum. The first run is not a retry."""
        return gettext("%(done)d of %(most)d") % {"done": task.record.retried, "most": task.record.max_retry}

    @admin.display(description=_("step of the workflow"))
    def workflow(self, task: Any) -> SafeString | str:
        """Return a link to the workflow of this step."""
        found = workflow_of(task.record)
        return "" if found is None else task.links.workflow(found[1], *found)

    @admin.display(description=_("attempts"))
    def attempts(self, task: Task) -> SafeString | str:
        """Return the recorded attempts, the latest first, with the tracebacks of failures."""
        attempts = [
            {
                "record": each,
                "text": _attempt_text(each),
                "took": span(each.ended_at - each.started_at) if each.started_at and each.ended_at else "",
            }
            for each in reversed(task.record.attempts)
        ]
        return render("attempts.html", attempts=attempts) if attempts else ""

    @admin.display(description=_("progress"))
    def progress(self, task: Task) -> SafeString | str:
        """Return the progress last reported by the task."""
        progress = task.record.progress
        return "" if progress is None else render("progress.html", progress=progress)

    @admin.display(description=_("result"))
    def result(self, task: Task) -> SafeString | str:
        """Return the result, or the partial result of a running task."""
        if task.record.oversized_result is not None:
            with in_active_language():
                return labels.not_stored(task.record.oversized_result)
        shown = block(task.record.result)
        if shown and task.record.state is TaskState.ACTIVE:
            return format_html('{}<div class="help">{}</div>', shown, _("Partial result: the task is still running."))
        return shown

    @admin.display(description=_("timeline"))
    def timeline(self, task: Task) -> SafeString | str:
        """Return the times of the task in order. Future times have another style."""
        now = utc_datetime(SYSTEM_CLOCK.time())
        with in_active_language():
            times = [(at, at > now, text) for at, text in times_of(task.record)]
        return render("timeline.html", times=times) if times else ""

    @admin.display(description=_("trace"))
    def trace(self, task: Task) -> SafeString | str:
        """Return the trace id, as a link if the settings have a URL for traces."""
        found = trace_id(task.record.headers)
        if found is None:
            return ""
        url = trace_url(taskq.settings.trace.url, task.record.headers)
        if url is None:
            hint = gettext("For a link, set TASKQ['TRACE']['URL'], such as https://tempo.example/trace/%s") % TRACE_ID
            return format_html('{}<div class="help">{}</div>', found, hint)
        return format_html('<a href="{}" target="_blank" rel="noopener noreferrer">{}</a>', url, found)

    @admin.display(description=_("headers"))
    def headers(self, task: Task) -> SafeString | str:
        """Return the headers, without the time of the enqueue, which is in the timeline."""
        headers = [each for each in sorted(task.record.headers.items()) if each[0] != ENQUEUED]
        return render("headers.html", headers=headers) if headers else ""


def _attempt_text(attempt: Attempt) -> str:
    with in_active_language():
        return attempt_text(attempt.number, failed=bool(attempt.error))
