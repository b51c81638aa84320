"""The columns of the list of queues, and the fields on the page of one queue."""

from typing import Any

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from taskq_core import TaskState
from taskq_core.inspector import LISTED_STATES
from taskq_core.views import DAYS_CHOICES, STATES, QueueStatus
from taskq_django.admin.charts import history_chart, recent_charts, state_bar
from taskq_django.admin.columns import column
from taskq_django.admin.formats import (
    QUEUE_STATUSES,
    TASK_STATES,
    nowrap_span,
    number,
    per_cent,
    render,
    size,
)

DAYS_VAR = "days"


class QueueColumns:
    """Columns and fields of queues. A row has a `record`, `links` and the size of the `largest` queue.

    On the page of one queue it also has a `detail`, the number of `days` of the history, and the `series` of samples of
    the last hour.
    """

    latency = column(_("latency"), "latency", nowrap_span, ordering="latency")
    memory = column(_("memory"), "memory", size, ordering="memory")
    processed_today = column(_("processed today"), "processed_today", number, ordering="processed_today")
    failed_today = column(_("failed today"), "failed_today", number, ordering="failed_today")
    error_rate = column(_("error rate"), "error_rate", per_cent, ordering="error_rate")
    problem = column(_("problem"), "problem")
    groups = column(_("groups"), "groups", number)

    @admin.display(description=_("status"), ordering="status")
    def status(self, queue: Any) -> SafeString | str:
        """Return whether workers run its tasks, or that the queue is damaged."""
        record = queue.record
        name = QUEUE_STATUSES[record.status]
        if record.status is QueueStatus.RUNNING:
            return str(name)
        kind = record.status.value.replace(" ", "-")
        return format_html('<strong class="taskq-{}" title="{}">{}</strong>', kind, record.problem, name)

    @admin.display(description=_("tasks by state"), ordering="size")
    def tasks(self, queue: Any) -> SafeString:
        """Return the number of tasks, a bar that can be compared with other queues, and the number in each state."""
        counts = [
            (f"fill-{state}", _count(queue, state), TASK_STATES[state]) for state in STATES if queue.record.sizes[state]
        ]
        return render("queue_tasks.html", size=queue.record.size, bar=self._bar(queue), counts=counts)

    @admin.display(description=_("size"))
    def bar(self, queue: Any) -> SafeString:
        """Return the number of tasks, with a bar of their states."""
        return render("queue_tasks.html", size=queue.record.size, bar=self._bar(queue))

    def _bar(self, queue: Any) -> SafeString:
        return state_bar(queue.name, queue.record.sizes, whole=queue.largest)

    @admin.display(description=_("workflows"))
    def workflows(self, queue: Any) -> SafeString | str:
        """Return a link to the workflows with this home queue."""
        found: SafeString | str = queue.links.workflows(_("Workflows of this queue"), queue=queue.name)
        return found

    @admin.display(description=_("by state"))
    def sizes(self, queue: Any) -> SafeString:
        """Return the number of tasks by state."""
        rows = [(f"fill-{state}", capfirst(TASK_STATES[state]), _count(queue, state)) for state in STATES]
        return render("queue_sizes.html", rows=rows)

    @admin.display(description=_("today"))
    def today(self, queue: Any) -> str:
        """Return the number of runs since midnight UTC."""
        return _runs(queue.record.processed_today, queue.record.failed_today, queue.record.error_rate)

    @admin.display(description=_("total"))
    def total(self, queue: Any) -> str:
        """Return the number of runs since the queue exists."""
        return _runs(queue.record.processed, queue.record.failed, None)

    @admin.display(description=_("last hour"))
    def recent(self, queue: Any) -> SafeString:
        """Return charts of runs and latency in the last hour."""
        return recent_charts(queue.series)

    @admin.display(description=_("by day"))
    def history(self, queue: Any) -> SafeString:
        """Return a chart of the runs by day."""
        choices = [(f"?{DAYS_VAR}={each}", days_text(each), each == queue.days) for each in DAYS_CHOICES]
        return history_chart(queue.detail.days, key="taskq-history", heading=_now("Runs by day"), choices=choices)

    @admin.display(description=_("by type"))
    def types(self, queue: Any) -> SafeString | str:
        """Return the number of tasks by type."""
        types = queue.detail.types
        if not types:
            return ""
        rows = [(each, state_bar(each.name, each.sizes, whole=types[0].size)) for each in types]
        return render("queue_types.html", rows=rows, detail=queue.detail)


def days_text(days: int) -> str:
    """Return the text of a number of days."""
    return ngettext("%(count)d day", "%(count)d days", days) % {"count": days}


def _count(queue: Any, state: TaskState) -> SafeString | str:
    count = queue.record.sizes[state]
    if not count or state not in LISTED_STATES:
        return number(count)
    found: SafeString | str = queue.links.tasks(number(count), queue=queue.name, state=state.value)
    return found


def _runs(processed: int, failed: int, rate: float | None) -> str:
    text = _now("%(processed)s processed, %(failed)s failed") % {
        "processed": number(processed),
        "failed": number(failed),
    }
    return f"{text} ({per_cent(rate)})" if rate is not None else text
