"""What the admin says of a queue: the columns of the list, and the lines of its own page."""

from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, pgettext_lazy

from taskq_core import TaskState
from taskq_core.inspector import LISTED_STATES
from taskq_core.views import DAYS_CHOICES, STATES, QueueDetail, QueueStatus
from taskq_django.admin.charts import history_chart, state_bar, swatch
from taskq_django.admin.labels import Links, nowrap, number, per_cent, size, span
from taskq_django.admin.line_charts import recent_charts
from taskq_django.admin.task_filters import STATE_NAMES

DAYS_VAR = "days"
STATUS_NAMES: dict[QueueStatus, Any] = {
    QueueStatus.RUNNING: pgettext_lazy("queue status", "running"),
    QueueStatus.NO_WORKER: pgettext_lazy("queue status", "no worker"),
    QueueStatus.PAUSED: pgettext_lazy("queue status", "paused"),
    QueueStatus.DAMAGED: pgettext_lazy("queue status", "damaged"),
}


class QueueColumns:
    """Columns and lines. A row has a `record`, `links` and the size of the `largest` queue.

    On its own page it has besides a `detail`, how many `days` of the past are shown, and its `action_links`.
    """

    @admin.display(description=_("status"), ordering="status")
    def status(self, queue: Any) -> SafeString | str:
        """Whether workers take its tasks, or why it cannot be counted."""
        record = queue.record
        name = STATUS_NAMES[record.status]
        if record.status is QueueStatus.RUNNING:
            return str(name)
        kind = record.status.value.replace(" ", "-")
        return format_html('<strong class="taskq-{}" title="{}">{}</strong>', kind, record.problem, name)

    @admin.display(description=_("tasks by state"), ordering="size")
    def tasks(self, queue: Any) -> SafeString:
        """How many it has, as a stacked bar beside those of the other queues, and how many of each state."""
        counts = (
            (swatch(state.value), _size(queue, state), STATE_NAMES[state])
            for state in STATES
            if queue.record.sizes[state]
        )
        return format_html(
            '<div class="taskq-tasks"><b>{}</b>{}</div><ul class="taskq-counts">{}</ul>',
            number(queue.record.size),
            state_bar(queue.name, queue.record.sizes, whole=queue.largest),
            format_html_join("", "<li>{} {} {}</li>", counts),
        )

    @admin.display(description=_("size"))
    def bar(self, queue: Any) -> SafeString:
        """All its tasks as a stacked bar."""
        bar = state_bar(queue.name, queue.record.sizes, whole=queue.largest)
        return format_html('<div class="taskq-tasks"><b>{}</b>{}</div>', number(queue.record.size), bar)

    @admin.display(description=_("latency"), ordering="latency", empty_value="-")
    def latency(self, queue: Any) -> SafeString | str:
        """How long the next task to run has been pending."""
        return nowrap(span(queue.record.latency))

    @admin.display(description=_("memory"), ordering="memory", empty_value="-")
    def memory(self, queue: Any) -> SafeString | str:
        """About how many bytes it takes in Redis."""
        return nowrap(size(queue.record.memory))

    @admin.display(description=_("processed today"), ordering="processed_today")
    def processed_today(self, queue: Any) -> str:
        """Tasks that ran since midnight UTC."""
        return number(queue.record.processed_today)

    @admin.display(description=_("failed today"), ordering="failed_today")
    def failed_today(self, queue: Any) -> str:
        """Runs that failed since midnight UTC."""
        return number(queue.record.failed_today)

    @admin.display(description=_("error rate"), ordering="error_rate", empty_value="-")
    def error_rate(self, queue: Any) -> str:
        """The share of today's runs that failed."""
        return per_cent(queue.record.error_rate)

    @admin.display(description=_("problem"), empty_value="-")
    def problem(self, queue: Any) -> str:
        """Why it cannot be counted."""
        return str(queue.record.problem)

    @admin.display(description=_("actions"))
    def buttons(self, queue: Any) -> SafeString:
        """What this user can do to it."""
        links = format_html_join("", '<li><a class="button" role="button" href="{}">{}</a></li>', queue.action_links)
        return format_html('<ul class="taskq-buttons">{}</ul>', links)

    @admin.display(description=_("workflows"))
    def workflows(self, queue: Any) -> SafeString | str:
        """Where those are listed whose home it is."""
        links: Links = queue.links
        return links.workflows(_("Workflows of this queue"), queue=queue.name)

    @admin.display(description=_("by state"))
    def sizes(self, queue: Any) -> SafeString:
        """Tasks by state."""
        rows = ((swatch(state.value), capfirst(STATE_NAMES[state]), _size(queue, state)) for state in STATES)
        return format_html(
            '<table class="taskq-table" id="taskq-sizes" data-taskq-live><tbody>{}</tbody></table>',
            format_html_join("", '<tr><th scope="row">{} {}</th><td class="taskq-number">{}</td></tr>', rows),
        )

    @admin.display(description=_("groups"))
    def groups(self, queue: Any) -> str:
        """Groups with tasks in them."""
        return number(queue.record.groups)

    @admin.display(description=_("today"))
    def today(self, queue: Any) -> str:
        """What it did since midnight UTC."""
        return _ran(queue.record.processed_today, queue.record.failed_today, queue.record.error_rate)

    @admin.display(description=_("in all"))
    def total(self, queue: Any) -> str:
        """What it did over its life."""
        return _ran(queue.record.processed, queue.record.failed, None)

    @admin.display(description=_("last hour"))
    def recent(self, queue: Any) -> SafeString:
        """What it did in the last hour."""
        return recent_charts(queue.recent)

    @admin.display(description=_("by day"))
    def history(self, queue: Any) -> SafeString:
        """What it did day by day."""
        choices = [(f"?{DAYS_VAR}={each}", days_text(each), each == queue.days) for each in DAYS_CHOICES]
        return history_chart(queue.detail.days, key="taskq-history", heading=_now("Runs by day"), choices=choices)

    @admin.display(description=_("by type"), empty_value="-")
    def types(self, queue: Any) -> SafeString | str:
        """How many tasks of each type are in it."""
        detail: QueueDetail = queue.detail
        if not detail.types:
            return ""
        rows = (
            (
                each.name or f"({_now('unreadable')})",
                number(each.size),
                state_bar(each.name, each.sizes, whole=detail.types[0].size),
            )
            for each in detail.types
        )
        table = format_html(
            '<table class="taskq-table"><tbody>{}</tbody></table>',
            format_html_join("", '<tr><th scope="row">{}</th><td class="taskq-number">{}</td><td>{}</td></tr>', rows),
        )
        note = ""
        if detail.is_sampled:
            note = _now("Of the first %(count)s tasks only: those that come first in each state.") % {
                "count": number(detail.looked_at)
            }
        return format_html('<div id="taskq-types" data-taskq-live>{}<div class="help">{}</div></div>', table, note)


def days_text(days: int) -> str:
    """Return how a span of days is called."""
    return ngettext("%(count)d day", "%(count)d days", days) % {"count": days}


def _size(queue: Any, state: TaskState) -> SafeString | str:
    count = queue.record.sizes[state]
    if not count or state not in LISTED_STATES:
        return number(count)
    links: Links = queue.links
    return links.tasks(number(count), queue=queue.name, state=state.value)


def _ran(processed: int, failed: int, rate: float | None) -> str:
    text = _now("%(processed)s processed, %(failed)s failed") % {
        "processed": number(processed),
        "failed": number(failed),
    }
    return f"{text} ({per_cent(rate)})" if rate is not None else text
