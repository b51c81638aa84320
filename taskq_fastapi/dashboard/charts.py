"""Line charts: paths, labels, tooltips and descriptions for the SVG in `metrics.html`.

A drawing has 1000 x 100 units and stretches with the page. Classes of the style sheet set the colors and dashes. A line
is broken where values are missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskq_core.settings.language import gettext, marked
from taskq_core.views import Points, Sample, line_path, scale_top
from taskq_core.wire import TaskState
from taskq_fastapi.dashboard import labels as wording

COLOURS = 8
"""Number of different lines. More queues reuse them, and the table and the tooltips distinguish them."""
HOVERS = 25
"""Number of columns with tooltips."""
HOVER_WIDTH = 1000 / HOVERS


@dataclass(frozen=True, slots=True)
class Measure:
    """The figure of one chart.

    Attributes:
        key: Its name in addresses and ids.
        title: Its English title.
        shown: Formats a value.
        of: Returns its value in a sample.
        most: Its largest possible value, None without a bound.
        is_whole: Whether it is a whole number, so that the scale ends at one.
        kilo: Number of units in a thousand.
    """

    key: str
    title: str
    shown: Callable[[float], str]
    of: Callable[[Sample], float | None]
    most: float | None = None
    is_whole: bool = False
    kilo: int = 1000


def _count(state: TaskState) -> Callable[[Sample], float]:
    return lambda sample: float(sample.sizes[state])


def _per_s(value: float) -> str:
    return gettext("%(number)s/s", number=f"{value:,.2f}" if value < 100 else f"{value:,.0f}")


def _number(value: float) -> str:
    return wording.number(round(value)) if value == round(value) or value >= 100 else f"{value:.1f}"


def _size(value: float) -> str:
    return wording.size(round(value))


def _seconds(value: float) -> str:
    try:
        return wording.span(timedelta(seconds=value))
    except OverflowError:
        return "∞"


MEASURES = (
    Measure("processed", marked("Processed per second"), _per_s, lambda sample: sample.processed_per_s),
    Measure("failed", marked("Failed per second"), _per_s, lambda sample: sample.failed_per_s),
    Measure("errors", marked("Error rate"), wording.percent, lambda sample: sample.error_rate, most=1.0),
    Measure("size", marked("Queue size"), _number, lambda sample: float(sample.size), is_whole=True),
    Measure("latency", marked("Latency"), _seconds, lambda sample: (sample.latency or timedelta(0)).total_seconds()),
    Measure("memory", marked("Memory"), _size, lambda sample: sample.memory, is_whole=True, kilo=1024),
    Measure("pending", marked("Pending tasks"), _number, _count(TaskState.PENDING), is_whole=True),
    Measure("retry", marked("Retry tasks"), _number, _count(TaskState.RETRY), is_whole=True),
    Measure("archived", marked("Archived tasks"), _number, _count(TaskState.ARCHIVED), is_whole=True),
    Measure("utilisation", marked("Busy worker slots"), wording.percent, lambda sample: sample.utilisation, most=1.0),
)
"""The charts in order: the nine of Asynq's monitor, and how busy the workers are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One queue in a chart.

    Attributes:
        name: Name of the queue.
        number: Number of its color.
        path: The line, or "".
        last: Its last value.
        mean: The mean of its values.
        highest: Its highest value.
    """

    name: str
    number: int
    path: str
    last: str = wording.NONE
    mean: str = wording.NONE
    highest: str = wording.NONE


@dataclass(frozen=True, slots=True)
class Hover:
    """An invisible column of a chart whose tooltip shows the values at its time.

    Attributes:
        x: Its left edge.
        text: The tooltip.
    """

    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart.

    Attributes:
        key: Its name in addresses and ids.
        title: Its title.
        top: The value at the upper end of the scale.
        lines: The queues.
        hovers: Columns with tooltips.
        words: A description for screen readers.
    """

    key: str
    title: str
    top: str
    lines: Sequence[Line]
    hovers: Sequence[Hover]
    words: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(line.path for line in self.lines)


def chart(measure: Measure, lines: Mapping[str, Points], *, begin: datetime, end: datetime) -> Chart:
    """Return the chart of a measure for a period."""
    known = [value for points in lines.values() for _, value in points if value is not None]
    top = scale_top(max(known, default=0.0), most=measure.most, is_whole=measure.is_whole, kilo=measure.kilo)
    title = gettext(measure.title)
    words = gettext("%(title)s: no figures", title=title)
    if known:
        words = gettext("%(title)s: highest %(figure)s", title=title, figure=measure.shown(max(known)))
    return Chart(
        key=measure.key,
        title=title,
        top=measure.shown(top),
        lines=[
            _line(name, number % COLOURS, measure, points, line_path(points, top=top, begin=begin, end=end))
            for number, (name, points) in enumerate(lines.items())
        ],
        hovers=_hovers(measure, lines, begin, (end - begin) / HOVERS),
        words=words,
    )


def _line(name: str, number: int, measure: Measure, points: Points, path: str) -> Line:
    known = [value for _, value in points if value is not None]
    if not known:
        return Line(name=name, number=number, path=path)
    last, mean, highest = (measure.shown(value) for value in (known[-1], sum(known) / len(known), max(known)))
    return Line(name=name, number=number, path=path, last=last, mean=mean, highest=highest)


def _hovers(measure: Measure, lines: Mapping[str, Points], begin: datetime, width: timedelta) -> list[Hover]:
    """Return a column for each part of the period that has values, with the last one of each queue."""
    found: dict[int, dict[str, float]] = {}
    for name, points in lines.items():
        for at, value in points:
            if value is not None:
                found.setdefault(min(HOVERS - 1, int((at - begin) / width)), {})[name] = value
    return [
        Hover(
            x=number * HOVER_WIDTH,
            text="\n".join(
                [f"{wording.moment(begin + number * width)} UTC"]
                + [f"{name}: {measure.shown(value)}" for name, value in values.items()]
            ),
        )
        for number, values in sorted(found.items())
    ]
