"""How queues fared: ten charts over an hour to a month, up to now or to any moment of the past."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from taskq_core.errors import WireFormatError
from taskq_core.settings.language import gettext, marked
from taskq_core.views import LONGEST_SPAN, Points, QueueSeries
from taskq_core.wire import parse_duration, timedelta_of_ns
from taskq_fastapi.dashboard.charts import MEASURES, Chart, chart
from taskq_fastapi.dashboard.errors import BadRequestError, NotFoundError
from taskq_fastapi.dashboard.prometheus import Prometheus, PrometheusError
from taskq_fastapi.dashboard.registry import Page
from taskq_fastapi.dashboard.view import Shown, View

logger = logging.getLogger("taskq.fastapi")

DURATIONS = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "1d": timedelta(days=1),
    "8d": timedelta(days=8),
    "30d": timedelta(days=30),
}
"""Spans of time that are offered."""
QUEUES_MOST = 10
"""Most queues that are drawn where nobody chooses."""
CHOSEN_MOST = 20
"""Most queues that can be chosen."""
POINTS = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which time is shown.

    Attributes:
        word: The duration as the address names it.
        length: How long it is.
        until: Where it ends, None for now.
    """

    word: str
    length: timedelta
    until: datetime | None


def asked_span(view: View) -> Span:
    """Return which time the address asks for.

    Raises:
        BadRequestError: A part of it cannot be used.
    """
    word = view.query.get("duration") or "1h"
    length = DURATIONS.get(word)
    if length is None:
        try:
            length = timedelta_of_ns(parse_duration(word[:50]))
        except WireFormatError:
            length = timedelta(0)
        if not timedelta(minutes=1) <= length <= LONGEST_SPAN:
            raise BadRequestError(
                gettext(
                    "duration must be %(choices)s or as 90m, a minute to %(days)s days, got %(got)r",
                    choices=", ".join(DURATIONS),
                    days=LONGEST_SPAN.days,
                    got=word[:50],
                )
            )
    return Span(word=word, length=length, until=_moment(view.query.get("end")))


def _moment(text: str) -> datetime | None:
    """Read a moment; without a time zone it is UTC, as the field of the page sends it."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text[:50])
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        moment - 2 * LONGEST_SPAN, moment + 2 * LONGEST_SPAN
    except (ValueError, OverflowError):
        raise BadRequestError(gettext("end must be a time as 2030-01-31T12:00, got %(got)r", got=text[:50])) from None
    return moment


def asked_queues(view: View, there: Sequence[str]) -> list[str]:
    """Return which queues the address asks for, [] for those that are shown where nobody chooses.

    Raises:
        BadRequestError: Too many are chosen.
        NotFoundError: One is not there.
    """
    chosen = list(dict.fromkeys(view.query.all("queue")))
    chosen = [name for name in chosen if name]
    if len(chosen) > CHOSEN_MOST:
        raise BadRequestError(
            gettext("at most %(most)s queues can be chosen, got %(got)s", most=CHOSEN_MOST, got=len(chosen))
        )
    for name in chosen:
        if name not in there:
            raise NotFoundError(gettext("no queue %(queue)r", queue=name[:80]))
    return chosen


async def show(view: View) -> Shown:
    """Show the charts."""
    span = asked_span(view)
    there = await view.shared("queue names", view.inspector.queues)
    chosen = asked_queues(view, there)
    names = tuple(chosen or there[:QUEUES_MOST])
    prometheus = view.services.prometheus
    is_asked = prometheus is not None and view.query.get("source", "prometheus") == "prometheus"
    begin, end, charts, trouble = await _charts(view, names, span, prometheus if is_asked else None)
    return view.page(
        "metrics.html",
        title=gettext("Metrics"),
        span=span,
        durations=tuple(DURATIONS),
        begin=begin,
        end=end,
        charts=charts,
        there=there,
        chosen=chosen,
        names=names,
        has_prometheus=prometheus is not None,
        is_asked=is_asked,
        trouble=trouble,
        earlier=_text(end - span.length / 2),
        later=None if span.until is None else _text(end + span.length / 2),
        frozen=_text(end),
    )


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year >= 1000 else moment.isoformat()


async def _charts(
    view: View, names: Sequence[str], span: Span, prometheus: Prometheus | None
) -> tuple[datetime, datetime, list[Chart], str]:
    read = partial(view.dashboard.samples, names, span=span.length, until=span.until, points=POINTS)
    series: Sequence[QueueSeries] = ()
    if names:
        # Who keeps looking gets what has come since the last step, not the same again every few seconds.
        age_s = span.length.total_seconds() / POINTS / 2 if view.is_stream else 0.0
        series = await view.services.reads.get(("samples", names, span), read, age_s=age_s)
    trouble = ""
    end = span.until or (series[0].end if series else datetime.now(UTC))
    step = series[0].step if series else timedelta(seconds=10)
    if span.until is None:  # a page stays as it is until a sample has come
        end = datetime.fromtimestamp(end.timestamp() // step.total_seconds() * step.total_seconds(), UTC) + step
    begin = end - span.length
    lines: dict[str, Mapping[str, Points]] = {
        measure.key: {each.name: each.points(measure.of) for each in series} for measure in MEASURES
    }
    if prometheus is not None and names:
        try:
            asked = [measure for measure in MEASURES if measure.query]
            answers = await asyncio.gather(
                *(
                    view.shared(
                        ("prometheus", measure.key, names, begin, end),
                        partial(prometheus.series, measure, names, begin=begin, end=end, step=step),
                    )
                    for measure in asked
                )
            )
            lines |= {measure.key: answer for measure, answer in zip(asked, answers, strict=True)}
        except PrometheusError as error:
            logger.warning("the charts of the dashboard are drawn from samples: %s", error)
            trouble = gettext("%(error)s. What is drawn are the samples that workers take.", error=error.told)
            lines = {measure.key: {each.name: each.points(measure.of) for each in series} for measure in MEASURES}
    drawn = [chart(measure, lines[measure.key], begin=begin, end=end) for measure in MEASURES]
    return begin, end, drawn, trouble


PAGE = Page(path="metrics", label=marked("Metrics"), show=show, is_costly=True)
