"""Line charts: paths, labels, tooltips and descriptions for the SVG in `metrics.html`.

A chart has 1000 x 100 units and is as wide as the page. Classes of the style sheet set colors and dashes. A line has a
gap where values are missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskq_core import TaskState
from taskq_core.settings.language import gettext, marked
from taskq_core.views import Points, Sample, line_path, scale_top
from taskq_dashboard import labels as wording

COLORS = 8
"""Number of different colors of lines. Further queues reuse the colors; tables and tooltips have the names."""
HOVERS = 25
"""Number of columns with tooltips in a chart."""
HOVER_WIDTH = 1000 / HOVERS


@dataclass(frozen=True, slots=True)
class Measure:
    """A value, such as runs per second, that a chart shows over time.

    Attributes:
        key: Name of the measure in addresses and ids.
        title: English title of the chart.
        shown: Formats a value.
        of: Returns the value of a sample.
        most: Largest possible value. None: no bound.
        is_whole: Whether values are whole numbers, so that the scale ends at 1 or more.
        kilo: Factor between two units of the scale: 1000, or 1024 for bytes.
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
"""The charts in order: the nine charts of asynqmon, and the share of busy worker slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The line of a queue in a chart.

    Attributes:
        name: Name of the queue.
        number: Number of the color.
        path: The line as the `d` of an SVG path, or "" without values.
        last: The last value.
        mean: The mean of the values.
        highest: The highest value.
    """

    name: str
    number: int
    path: str
    last: str = wording.NONE
    mean: str = wording.NONE
    highest: str = wording.NONE


@dataclass(frozen=True, slots=True)
class Hover:
    """A transparent column of a chart. Its tooltip shows the values of its part of the period.

    Attributes:
        x: Position of the left edge of the column.
        text: The tooltip.
    """

    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart of a measure: its lines, its scale and its texts.

    Attributes:
        key: Name of the measure in addresses and ids.
        title: The title.
        top: The value at the upper end of the scale.
        lines: The queues.
        hovers: Columns with tooltips.
        description: A description for screen readers.
    """

    key: str
    title: str
    top: str
    lines: Sequence[Line]
    hovers: Sequence[Hover]
    description: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(line.path for line in self.lines)


def chart(measure: Measure, lines: Mapping[str, Points], *, begin: datetime, end: datetime) -> Chart:
    """Return the chart of a measure for a period, with a line for each queue."""
    known = [value for points in lines.values() for _, value in points if value is not None]
    top = scale_top(max(known, default=0.0), most=measure.most, is_whole=measure.is_whole, kilo=measure.kilo)
    title = gettext(measure.title)
    description = gettext("%(title)s: no data", title=title)
    if known:
        description = gettext("%(title)s: highest %(figure)s", title=title, figure=measure.shown(max(known)))
    return Chart(
        key=measure.key,
        title=title,
        top=measure.shown(top),
        lines=[
            _line(name, number % COLORS, measure, points, line_path(points, top=top, begin=begin, end=end))
            for number, (name, points) in enumerate(lines.items())
        ],
        hovers=_hovers(measure, lines, begin, (end - begin) / HOVERS),
        description=description,
    )


def _line(name: str, number: int, measure: Measure, points: Points, path: str) -> Line:
    known = [value for _, value in points if value is not None]
    if not known:
        return Line(name=name, number=number, path=path)
    last, mean, highest = (measure.shown(value) for value in (known[-1], sum(known) / len(known), max(known)))
    return Line(name=name, number=number, path=path, last=last, mean=mean, highest=highest)


def _hovers(measure: Measure, lines: Mapping[str, Points], begin: datetime, width: timedelta) -> list[Hover]:
    """Return a column for each part of the period that has values, with the last value of each queue in it."""
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
