"""Charts of the last hour of a queue, from the samples that its workers take: as in `charts`, with lines for bars."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from django.utils.formats import date_format, number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from taskq_core.views import QueueSeries, Sample, line_path, scale_top
from taskq_django.admin.labels import span

RECENT = timedelta(hours=1)
"""The time that is shown."""
POINTS = 120
"""Most samples of it."""
_Line = tuple[str, str, Callable[[Sample], float | None]]


def recent_charts(series: QueueSeries) -> SafeString:
    """Return what a queue did in the last hour: runs per second, and how long the next task had been waiting."""
    if not series.samples:
        said = _("There are no samples of the last hour: workers that serve the queue take them.")
        return format_html('<p class="help">{}</p>', said)
    rates: Sequence[_Line] = (
        ("succeeded", _("processed"), lambda sample: sample.processed_per_s),
        ("failed", _("failed"), lambda sample: sample.failed_per_s),
    )
    waits: Sequence[_Line] = (
        ("pending", _("latency"), lambda sample: sample.latency.total_seconds() if sample.latency is not None else 0.0),
    )
    return format_html(
        '<div class="taskq-recent" id="taskq-recent" data-taskq-live>{}{}</div>',
        _chart(series, rates, key="taskq-rates", heading=_("Runs per second"), shown=_per_second),
        _chart(series, waits, key="taskq-latency", heading=_("Latency"), shown=_seconds),
    )


def _per_second(value: float) -> str:
    return _("%(count)s per second") % {"count": number_format(value, 2)}


def _seconds(value: float) -> str:
    return span(timedelta(seconds=value))


def _chart(
    series: QueueSeries, lines: Sequence[_Line], *, key: str, heading: str, shown: Callable[[float], str]
) -> SafeString:
    drawn = [(kind, name, series.points(of)) for kind, name, of in lines]
    known = {name: [value for _at, value in points if value is not None] for _kind, name, points in drawn}
    top = scale_top(max((max(values) for values in known.values() if values), default=0.0), most=None, is_whole=False)
    paths = format_html_join(
        "",
        '<path class="taskq-line taskq-line-{}" d="{}" vector-effect="non-scaling-stroke"/>',
        ((kind, line_path(points, top=top, begin=series.begin, end=series.end)) for kind, _name, points in drawn),
    )
    said = "; ".join(
        _("%(name)s: %(last)s at last, at most %(most)s")
        % {"name": name, "last": shown(values[-1]), "most": shown(max(values))}
        for name, values in known.items()
        if values
    )
    legend = format_html_join(
        "",
        '<li><svg class="taskq-swatch" viewBox="0 0 10 10" aria-hidden="true"><path class="taskq-line taskq-line-{}" '
        'd="M0 5H10"/></svg> {}</li>',
        ((kind, name) for kind, name, _points in drawn),
    )
    return format_html(
        '<figure class="taskq-chart" id="{0}"><figcaption><strong>{1}</strong><ul class="taskq-legend">{2}</ul>'
        '</figcaption><p class="taskq-most">{3}</p>'
        '<svg class="taskq-history" role="img" aria-labelledby="{0}-title {0}-desc" viewBox="0 0 1000 100" '
        'preserveAspectRatio="none"><title id="{0}-title">{1}</title><desc id="{0}-desc">{4}</desc>'
        '<path class="taskq-grid" d="M0 0H1000M0 50H1000M0 100H1000"/>{5}</svg>'
        '<p class="taskq-span"><span>{6}</span><span>{7}</span></p><p class="help">{4}</p></figure>',
        key,
        heading,
        legend,
        shown(top),
        said or _("nothing ran"),
        paths,
        date_format(localtime(series.begin), "TIME_FORMAT"),
        date_format(localtime(series.end), "TIME_FORMAT"),
    )
