"""Show charts of queues for a period of a minute to 31 days, which ends now or at a time in the past."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from taskq_core.errors import WireFormatError
from taskq_core.settings.language import gettext, marked
from taskq_core.views import LONGEST_SPAN, QueueSeries, parse_duration, timedelta_of_ns
from taskq_dashboard.charts import HOVER_WIDTH, MEASURES, Chart, chart
from taskq_dashboard.errors import BadRequestError, NotFoundError
from taskq_dashboard.registry import page
from taskq_dashboard.view import Shown, View

DURATIONS = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "1d": timedelta(days=1),
    "8d": timedelta(days=8),
    "30d": timedelta(days=30),
}
"""Lengths of periods that the page offers, by their value in the address."""
QUEUES_MOST = 10
"""Maximum number of queues if the user chose none."""
CHOSEN_MOST = 20
"""Maximum number of queues that a user can choose."""
POINTS = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The period of the charts.

    Attributes:
        text: Length of the period in the address.
        length: Length of the period.
        until: End of the period. None: now.
    """

    text: str
    length: timedelta
    until: datetime | None


def chosen_span(view: View) -> Span:
    """Return the period in the address.

    Raises:
        BadRequestError: Its length or end is not valid.
    """
    text = view.query.get("duration") or "1h"
    length = DURATIONS.get(text)
    if length is None:
        try:
            length = timedelta_of_ns(parse_duration(text[:50]))
        except WireFormatError:
            length = timedelta(0)
        if not timedelta(minutes=1) <= length <= LONGEST_SPAN:
            raise BadRequestError(
                gettext(
                    "duration must be %(choices)s, or a time such as 90m from a minute to %(days)s days, got %(got)r",
                    choices=", ".join(DURATIONS),
                    days=LONGEST_SPAN.days,
                    got=text[:50],
                )
            )
    return Span(text=text, length=length, until=_moment(view.query.get("end")))


def _moment(text: str) -> datetime | None:
    """Parse a moment. Without a time zone it is in UTC, like the values of the field on the page."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text[:50])
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        moment - 2 * LONGEST_SPAN, moment + 2 * LONGEST_SPAN
    except (ValueError, OverflowError):
        raise BadRequestError(
            gettext("end must be a time such as 2030-01-31T12:00, got %(got)r", got=text[:50])
        ) from None
    return moment


def chosen_queues(view: View, existing: Sequence[str]) -> list[str]:
    """Return the queues in the address. [] if the user chose none.

    Raises:
        BadRequestError: The address has too many queues.
        NotFoundError: A queue does not exist.
    """
    chosen = list(dict.fromkeys(view.query.all("queue")))
    chosen = [name for name in chosen if name]
    if len(chosen) > CHOSEN_MOST:
        raise BadRequestError(
            gettext("at most %(most)s queues can be chosen, got %(got)s", most=CHOSEN_MOST, got=len(chosen))
        )
    for name in chosen:
        if name not in existing:
            raise NotFoundError(gettext("no queue %(queue)r", queue=name[:80]))
    return chosen


@page("metrics", label=marked("Metrics"), update_s=20.0)
async def show(view: View) -> Shown:
    """Show the charts."""
    span = chosen_span(view)
    existing = await view.inspector.queues()
    chosen = chosen_queues(view, existing)
    names = tuple(chosen or existing[:QUEUES_MOST])
    begin, end, charts = await _charts(view, names, span)
    return view.page(
        "metrics.html",
        title=gettext("Metrics"),
        span=span,
        durations=tuple(DURATIONS),
        begin=begin,
        end=end,
        charts=charts,
        hover_width=HOVER_WIDTH,
        existing=existing,
        chosen=chosen,
        names=names,
        earlier=_text(end - span.length / 2),
        later=None if span.until is None else _text(end + span.length / 2),
        frozen=_text(end),
    )


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year >= 1000 else moment.isoformat()


async def _charts(view: View, names: Sequence[str], span: Span) -> tuple[datetime, datetime, list[Chart]]:
    series: Sequence[QueueSeries] = ()
    if names:
        series = await view.dashboard.samples(names, span=span.length, until=span.until, points=POINTS)
    end = span.until or (series[0].end if series else datetime.now(UTC))
    # Round the end up to a full step, so that live updates send nothing before there is a new sample.
    if span.until is None:
        step_s = series[0].step.total_seconds() if series else 10
        end = datetime.fromtimestamp((end.timestamp() // step_s + 1) * step_s, UTC)
    begin = end - span.length
    drawn = [
        chart(measure, {each.name: each.points(measure.of) for each in series}, begin=begin, end=end)
        for measure in MEASURES
    ]
    return begin, end, drawn
