"""Charts as inline SVG, drawn on the server: nothing is fetched, nothing runs, no style stands in the page.

Colours are classes of `admin.css`, which follow the light and the dark theme. What a chart shows is said in its title
and description for screen readers, and stands in a table below it or beside it. Text is not drawn into the picture,
which stretches with the page; it stays readable on a narrow screen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from taskq_core import TaskState
from taskq_core.views import STATES, DayRow
from taskq_django.admin.labels import number, per_cent
from taskq_django.admin.task_filters import STATE_NAMES

_WIDTH, _HEIGHT = 1000, 100
"""Units of a drawing: they say where something is, the page says how large."""
_LEAST = 6
"""Units that a part is wide at least, so that one task among thousands is seen."""


def swatch(kind: str) -> SafeString:
    """Return the small square that names a colour in a legend."""
    return format_html(
        '<svg class="taskq-swatch" viewBox="0 0 10 10" aria-hidden="true">'
        '<rect class="taskq-fill-{}" width="10" height="10" rx="2"/></svg>',
        kind,
    )


def state_bar(name: str, sizes: Mapping[TaskState, int], *, whole: int) -> SafeString:
    """Return a bar of the states of a queue, stacked.

    Args:
        name: Whose bar it is, for its title.
        sizes: Tasks by state.
        whole: Tasks that a bar over the full width stands for; at least 1 is taken.
    """
    there = [(state, sizes[state]) for state in STATES if sizes[state]]
    said = ", ".join(f"{STATE_NAMES[state]}: {number(size)}" for state, size in there) or _("no tasks")
    widths = _widths([size for _state, size in there], whole)
    parts, left = [], 0.0
    for (state, size), width in zip(there, widths, strict=True):
        parts.append((state, _units(left), _units(width), f"{capfirst(STATE_NAMES[state])}: {number(size)}"))
        left += width
    rects = format_html_join(
        "", '<rect class="taskq-fill-{}" x="{}" width="{}" height="10"><title>{}</title></rect>', parts
    )
    return format_html(
        '<svg class="taskq-bar" role="img" aria-label="{}" viewBox="0 0 {} 10" preserveAspectRatio="none">'
        '<rect class="taskq-track" width="{}" height="10"/>{}</svg>',
        f"{name}: {said}",
        _WIDTH,
        _WIDTH,
        rects,
    )


def _widths(sizes: Sequence[int], whole: int) -> list[float]:
    """Share out the width: each part its share, and a small one as much as can be seen."""
    wide = [max(_LEAST, _WIDTH * size / max(1, whole)) for size in sizes]
    most = max(_LEAST * len(sizes), min(_WIDTH, _WIDTH * sum(sizes) / max(1, whole)))
    over = sum(wide) - most
    spare = sum(width - _LEAST for width in wide)
    if over <= 0 or spare <= 0:
        return wide
    return [width - over * (width - _LEAST) / spare for width in wide]


def _units(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")  # SVG knows one decimal point, whatever the language


def history_chart(
    days: Sequence[DayRow], *, key: str, heading: str, choices: Sequence[tuple[str, str, bool]]
) -> SafeString:
    """Return a chart of what was processed and what failed, day by day, with a table of the same.

    Args:
        days: The days, the oldest first.
        key: Begins the ids in it, so that several charts may stand on one page.
        heading: What is said above it.
        choices: Other spans of time: address, text, and whether it is the one shown.
    """
    most = max((day.processed for day in days), default=0)
    step = _WIDTH / max(1, len(days))
    bars = format_html_join("", "{}", ((_day(day, place * step, step, most),) for place, day in enumerate(days)))
    processed, failed = sum(day.processed for day in days), sum(day.failed for day in days)
    described = _("%(processed)s runs in %(days)d days, %(failed)s of them failed.") % {
        "processed": number(processed),
        "days": len(days),
        "failed": number(failed),
    }
    drawing = format_html(
        '<svg class="taskq-history" role="img" aria-labelledby="{0}-title {0}-desc" viewBox="0 0 {1} {2}" '
        'preserveAspectRatio="none"><title id="{0}-title">{3}</title><desc id="{0}-desc">{4}</desc>'
        '<path class="taskq-grid" d="M0 0H{1}M0 {5}H{1}M0 {2}H{1}"/>{6}</svg>',
        key,
        _WIDTH,
        _HEIGHT,
        heading,
        described,
        _HEIGHT // 2,
        bars,
    )
    links = format_html_join(
        "", '<li><a href="{}"{}>{}</a></li>', ((url, _current(shown), text) for url, text, shown in choices)
    )
    legend = format_html(
        "<li>{} {}</li><li>{} {}</li>", swatch("succeeded"), _("succeeded"), swatch("failed"), _("failed")
    )
    return format_html(
        '<figure class="taskq-chart" id="{}" data-taskq-live><figcaption><strong>{}</strong>'
        '<ul class="taskq-legend">{}</ul><ul class="taskq-choices" aria-label="{}">{}</ul></figcaption>'
        '<p class="taskq-most">{}</p>{}<p class="taskq-span"><span>{}</span><span>{}</span></p>'
        '<p class="help">{}</p>{}</figure>',
        key,
        heading,
        legend,
        _("Days that are shown"),
        links,
        number(most),
        drawing,
        date_format(days[0].day, "SHORT_DATE_FORMAT") if days else "",
        date_format(days[-1].day, "SHORT_DATE_FORMAT") if days else "",
        described,
        _table(days),
    )


def _current(shown: bool) -> SafeString:
    return SafeString(' aria-current="true"' if shown else "")


def _day(day: DayRow, left: float, step: float, most: int) -> SafeString:
    said = _("%(day)s: %(processed)s processed, %(failed)s failed") % {
        "day": date_format(day.day, "SHORT_DATE_FORMAT"),
        "processed": number(day.processed),
        "failed": number(day.failed),
    }
    scale = _HEIGHT / most if most else 0
    failed = max(1.0, min(day.failed, day.processed) * scale) if day.failed and most else 0.0
    succeeded = day.succeeded * scale
    failed = min(failed, _HEIGHT - succeeded) if succeeded < _HEIGHT - 1 else failed
    x, width = _units(left + step * 0.1), _units(step * 0.8)
    return format_html(
        '<g><title>{0}</title><rect class="taskq-hover" x="{1}" width="{2}" height="{3}"/>'
        '<rect class="taskq-fill-succeeded" x="{4}" width="{5}" y="{6}" height="{7}"/>'
        '<rect class="taskq-fill-failed" x="{4}" width="{5}" y="{8}" height="{9}"/></g>',
        said,
        _units(left),
        _units(step),
        _HEIGHT,
        x,
        width,
        _units(max(0.0, _HEIGHT - succeeded - failed)),
        _units(succeeded),
        _units(_HEIGHT - failed),
        _units(failed),
    )


def _table(days: Sequence[DayRow]) -> SafeString:
    rows: list[tuple[Any, ...]] = [
        (
            date_format(day.day, "SHORT_DATE_FORMAT"),
            number(day.processed),
            number(day.failed),
            per_cent(day.error_rate) or "-",
        )
        for day in reversed(days)
    ]
    return format_html(
        '<details class="taskq-details"><summary>{}</summary><div class="taskq-scroll"><table>'
        '<thead><tr><th scope="col">{}</th><th scope="col">{}</th><th scope="col">{}</th><th scope="col">{}</th></tr>'
        "</thead><tbody>{}</tbody></table></div></details>",
        _("As a table"),
        _("Day (UTC)"),
        _("Processed"),
        _("Failed"),
        _("Error rate"),
        format_html_join(
            "",
            '<tr><th scope="row">{}</th><td class="taskq-number">{}</td><td class="taskq-number">{}</td>'
            '<td class="taskq-number">{}</td></tr>',
            rows,
        ),
    )
