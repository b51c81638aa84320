"""Charts as inline SVG, drawn on the server without inline styles or further requests of the browser.

Colors are classes of `admin.css`, which follow the light and the dark theme. The title and description of a chart
contain its figures for screen readers, and a table below it shows them. A drawing stretches with the page, so its text
is outside of it.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.utils.formats import number_format
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from taskq_core import TaskState
from taskq_core.inspector import DailyStats
from taskq_core.views import QueueSeries, Sample, bars, line_path, scale_top
from taskq_django.admin.formats import number, render, span, state_name

RECENT = timedelta(hours=1)
"""Period of the line charts."""
POINTS = 120
"""Maximum number of samples in a line chart."""
_WIDTH, _HEIGHT = 1000, 100
"""Size of a drawing in SVG units, which the page stretches."""
_Line = tuple[str, str, Callable[[Sample], float | None]]


def state_bar(name: str, sizes: Mapping[TaskState, int], *, whole: int) -> SafeString:
    """Return a stacked bar of the tasks of a queue by state.

    Args:
        name: Name of the queue, for the title.
        sizes: Tasks by state.
        whole: Number of tasks that corresponds to the full width.
    """
    parts = [(bar, f"{capfirst(state_name(bar.state))}: {number(bar.count)}") for bar in bars(sizes, whole)]
    return render("state_bar.html", name=name, parts=parts)


def history_chart(
    days: Sequence[DailyStats], *, key: str, heading: str, choices: Sequence[tuple[str, str, bool]]
) -> SafeString:
    """Return a chart of processed and failed tasks by day, with a table of the same figures.

    Args:
        days: The days, the oldest first.
        key: Prefix of the element ids in the chart, so that a page may have several charts.
        heading: Text above the chart.
        choices: Links to charts of other periods: address, text, and whether this period is shown.
    """
    most = max((day.processed for day in days), default=0)
    context = {
        "days": days,
        "key": key,
        "heading": heading,
        "choices": choices,
        "most": most,
        "processed": number(sum(day.processed for day in days)),
        "failed": number(sum(day.failed for day in days)),
        "bars": [_day(day, place * _WIDTH / len(days), _WIDTH / len(days), most) for place, day in enumerate(days)],
    }
    return render("history_chart.html", **context)


def _day(day: DailyStats, left: float, step: float, most: int) -> dict[str, Any]:
    """Return the position and heights of the bar of a day. A bar of failures has a visible minimum height."""
    scale = _HEIGHT / most if most else 0
    failed = max(1.0, min(day.failed, day.processed) * scale) if day.failed and most else 0.0
    succeeded = min(day.succeeded * scale, _HEIGHT - failed)
    sizes = {"left": left, "step": step, "x": left + step * 0.1, "width": step * 0.8}
    sizes |= {"succeeded_y": _HEIGHT - succeeded - failed, "succeeded": succeeded}
    sizes |= {"failed_y": _HEIGHT - failed, "failed": failed}
    return {"day": day, **{name: round(value, 2) for name, value in sizes.items()}}


def recent_charts(series: QueueSeries) -> SafeString:
    """Return charts of the last hour of a queue: runs per second, and latency (waiting time of the next task)."""
    rates: Sequence[_Line] = (
        ("succeeded", _("processed"), lambda sample: sample.processed_per_s),
        ("failed", _("failed"), lambda sample: sample.failed_per_s),
    )
    waits: Sequence[_Line] = (
        ("pending", _("latency"), lambda sample: sample.latency.total_seconds() if sample.latency is not None else 0.0),
    )
    charts = (
        _chart(series, rates, key="taskq-rates", heading=_("Runs per second"), show=_per_second),
        _chart(series, waits, key="taskq-latency", heading=_("Latency"), show=lambda s: span(timedelta(seconds=s))),
    )
    return render("line_charts.html", charts=charts if series.samples else ())


def _per_second(value: float) -> str:
    return _("%(count)s per second") % {"count": number_format(value, 2)}


def _chart(
    series: QueueSeries, lines: Sequence[_Line], *, key: str, heading: str, show: Callable[[float], str]
) -> dict[str, Any]:
    drawn = [(kind, name, series.points(of)) for kind, name, of in lines]
    known = {name: [value for _at, value in points if value is not None] for _kind, name, points in drawn}
    top = scale_top(max((max(values) for values in known.values() if values), default=0.0), most=None, is_whole=False)
    return {
        "key": key,
        "heading": heading,
        "top": show(top),
        "lines": [
            (kind, name, line_path(points, top=top, begin=series.begin, end=series.end)) for kind, name, points in drawn
        ],
        "figures": [(name, show(values[-1]), show(max(values))) for name, values in known.items() if values],
        "begin": series.begin,
        "end": series.end,
    }
