"""The lines of the page of one task."""

from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from taskq_core import TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.settings import TRACE_ID
from taskq_core.telemetry import trace_id
from taskq_core.views import TimeKind, times_of, trace_headers, trace_url, workflow_of
from taskq_django.admin import labels as wording
from taskq_django.admin.base import MixinBase
from taskq_django.admin.task_filters import STATE_NAMES
from taskq_django.admin.task_page import SHOWN_BYTES, block, clock_span, moment, pairs, retries, roughly
from taskq_django.app import taskq
from taskq_django.models import Task

_WHICH = ("task_name", "task_id", "task_queue", "task_state", "waits_for", "attempts_used", "group", "workflow")


class TaskFields(MixinBase):
    """The lines; one that has nothing to say is left out."""

    fieldsets = (
        (None, {"fields": (*_WHICH, "do")}),
        (_("Error"), {"fields": ("last_error", "attempts")}),
        (_("Data"), {"fields": ("payload", "progress", "result")}),
        (_("Times"), {"fields": ("timeline", "worker", "timeout", "retention")}),
        (_("Trace and headers"), {"fields": ("trace", "headers")}),
    )
    unreadable_fieldsets: Any = (
        (None, {"fields": ("task_id", "task_queue", "task_state", "problem", "message", "do")}),
    )
    readonly_fields = (
        *(*_WHICH, "do", "last_error", "attempts"),
        *("payload", "progress", "result", "timeline", "worker", "timeout", "retention", "trace", "headers", "problem"),
        "message",
    )

    def told(self, task: Task, name: str) -> bool:
        """Return whether a line has something to say of a task."""
        return getattr(self, name)(task) not in ("", None)

    @admin.display(description=_("name"))
    def task_name(self, task: Task) -> str:
        """The name."""
        return str(task.record.name)

    @admin.display(description=_("id"))
    def task_id(self, task: Task) -> str:
        """The whole id."""
        return str(task.record.id)

    @admin.display(description=_("queue"))
    def task_queue(self, task: Task) -> str:
        """Its queue."""
        return str(task.record.queue)

    @admin.display(description=_("state"))
    def task_state(self, task: Task) -> str:
        """Its state."""
        return str(STATE_NAMES[task.record.state])

    @admin.display(description=_("waits for"))
    def waits_for(self, task: Task) -> str:
        """The limit that it waits for."""
        if not task.record.waits_for_limit:
            return ""
        return gettext("the limit %(name)s") % {"name": task.record.limit} if task.record.limit else gettext("a limit")

    @admin.display(description=_("retries"))
    def attempts_used(self, task: Task) -> str:
        """How often it was retried."""
        return retries(task.record)

    @admin.display(description=_("group"))
    def group(self, task: Task) -> str:
        """The group it waits in."""
        return str(task.record.group)

    @admin.display(description=_("step of the workflow"))
    def workflow(self, task: Any) -> SafeString | str:
        """The workflow that it is a step of."""
        found = workflow_of(task.record)
        return "" if found is None else task.addresses.workflow(found[1], *found)

    @admin.display(description=_("actions"))
    def do(self, task: Any) -> SafeString | str:
        """What can be done to it."""
        links = getattr(task, "links", ())
        return format_html_join(" ", '<a role="button" class="button taskq-action" href="{}">{}</a>', links)

    @admin.display(description=_("last error"))
    def last_error(self, task: Task) -> SafeString | str:
        """The text of its last failure."""
        return block(task.record.last_error)

    @admin.display(description=_("attempts"))
    def attempts(self, task: Task) -> SafeString | str:
        """Its attempts that are noted, the latest first, those that failed with their traceback."""
        return format_html_join("", "{}", ((_attempt(each),) for each in reversed(task.record.attempts)))

    @admin.display(description=_("arguments"))
    def payload(self, task: Task) -> SafeString | str:
        """What it is called with."""
        return block(task.record.payload)

    @admin.display(description=_("progress"))
    def progress(self, task: Task) -> SafeString | str:
        """How far it is, as it told."""
        progress = task.record.progress
        if progress is None:
            return ""
        bar: SafeString | str = ""
        if progress.fraction is not None:
            bar = format_html('<progress value="{}" max="1"></progress> ', f"{progress.fraction:.3f}")
        return format_html('{}{} <span class="quiet">{}</span>', bar, str(progress), roughly(progress.at))

    @admin.display(description=_("result"))
    def result(self, task: Task) -> SafeString | str:
        """What it returned; of one that runs, what it has written so far."""
        oversized = task.record.oversized_result
        shown = block(task.record.result) if oversized is None else wording.not_stored(oversized)
        if shown and task.record.state is TaskState.ACTIVE:
            return format_html('{}<div class="help">{}</div>', shown, _("Written so far; it still runs."))
        return shown

    @admin.display(description=_("timeline"))
    def timeline(self, task: Task) -> SafeString | str:
        """Its times in their order, those to come set apart."""
        now = utc_datetime(SYSTEM_CLOCK.time())
        lines = [
            (
                "taskq-ahead" if each.at > now else "taskq-past",
                _label(each.kind, each.attempt),
                format_html('<time datetime="{}">{}</time>', each.at.isoformat(), moment(each.at)),
                roughly(each.at),
            )
            for each in times_of(task.record)
        ]
        if not lines:
            return ""
        line = '<li class="{}"><strong>{}</strong> {} <span class="quiet">{}</span></li>'
        return format_html('<ol class="taskq-timeline">{}</ol>', format_html_join("", line, lines))

    @admin.display(description=_("worker"))
    def worker(self, task: Task) -> str:
        """Token of the worker that runs it."""
        return str(task.record.worker)

    @admin.display(description=_("timeout"))
    def timeout(self, task: Task) -> str:
        """Its longest run."""
        return clock_span(task.record.timeout)

    @admin.display(description=_("kept after success"))
    def retention(self, task: Task) -> str:
        """How long it is kept."""
        return clock_span(task.record.retention)

    @admin.display(description=_("trace"))
    def trace(self, task: Task) -> SafeString | str:
        """Its trace, a link where the settings say to where."""
        known = taskq.tasks.get(task.record.name)
        headers = trace_headers(task.record, () if known is None else known.codec.parameters)
        found = trace_id(headers)
        if found is None:
            return ""
        url = trace_url(taskq.settings.trace.url, headers)
        if url is None:
            hint = gettext("To link to it, set TASKQ['TRACE']['URL'], as https://tempo.example/trace/%s") % TRACE_ID
            return format_html('{}<div class="help">{}</div>', found, hint)
        return format_html('<a href="{}" target="_blank" rel="noopener noreferrer">{}</a>', url, found)

    @admin.display(description=_("headers"))
    def headers(self, task: Task) -> SafeString | str:
        """What travels with it."""
        return pairs(task.record.headers)

    @admin.display(description=_("problem"))
    def problem(self, task: Task) -> str:
        """Why it cannot be read."""
        return str(task.record.problem)

    @admin.display(description=_("stored bytes"))
    def message(self, task: Task) -> SafeString | str:
        """What stands in Redis instead."""
        return block(task.record.message[:SHOWN_BYTES].hex(" ", -2))


_TIMES = {
    TimeKind.ATTEMPT_FAILED: _("attempt %(number)d failed"),
    TimeKind.ATTEMPT_SUCCEEDED: _("attempt %(number)d succeeded"),
    TimeKind.FAILED: _("failed"),
    TimeKind.STARTED: _("started"),
    TimeKind.COMPLETED: _("completed"),
    TimeKind.ARCHIVED: _("archived"),
    TimeKind.STARTS: _("starts"),
    TimeKind.NEXT_ATTEMPT: _("next attempt"),
    TimeKind.LEASE_ENDS: _("lease ends, unless its worker extends it"),
    TimeKind.START_BY: _("expires, unless a worker has begun it"),
    TimeKind.DEADLINE: _("deadline"),
    TimeKind.DELETED: _("deleted"),
}


def _label(kind: TimeKind, number: int | None) -> str:
    return str(_TIMES[kind]) % {"number": number}


def _attempt(attempt: Any) -> SafeString:
    """One attempt: what became of it, how long it took and who made it; its traceback folded."""
    kind = TimeKind.ATTEMPT_FAILED if attempt.error else TimeKind.ATTEMPT_SUCCEEDED
    facts = [_label(kind, attempt.number)]
    if attempt.started_at and attempt.ended_at:
        facts.append(gettext("after %(span)s") % {"span": wording.span(attempt.ended_at - attempt.started_at)})
    if attempt.worker:
        facts.append(gettext("worker %(worker)s") % {"worker": attempt.worker})
    line = format_html("{}{}", ", ".join(facts), f": {attempt.error}" if attempt.error else "")
    if not attempt.traceback:
        return format_html('<div class="taskq-attempt">{}</div>', line)
    return format_html(
        '<details class="taskq-attempt"><summary>{}</summary>{}</details>', line, block(attempt.traceback)
    )
