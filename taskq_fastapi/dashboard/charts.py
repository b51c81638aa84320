"""Line charts as SVG: from the figures of queues to paths, labels and the words for those who do not see them.

A drawing has 1000 x 100 units and stretches with the page. It holds paths only, whose colours and dashes are classes of
the style sheet, so that nothing in it is a style. A line is broken where figures are missing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskq_core.settings.language import gettext, marked
from taskq_core.views import Points, Sample, line_path, scale_top
from taskq_core.wire import TaskState
from taskq_fastapi.dashboard import labels as wording

COLOURS = 8
"""Lines that look different; more queues begin anew, and the table tells them apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What one chart shows.

    Attributes:
        key: Its name in addresses and ids.
        title: What it is called in English.
        shown: A figure as people read it.
        of: What a sample says of it.
        query: What Prometheus is asked for it, with `$range` for the time rates are taken over; "" for nothing.
        most: The largest that it can be, None without a bound.
        is_whole: Whether it counts things, so that a scale ends at no fraction of one.
        kilo: How much is called a thousand of it.
    """

    key: str
    title: str
    shown: Callable[[float], str]
    of: Callable[[Sample], float | None]
    query: str = ""
    most: float | None = None
    is_whole: bool = False
    kilo: int = 1000


def _count(state: TaskState) -> Callable[[Sample], float]:
    return lambda sample: float(sample.sizes[state])


def _per_s(value: float) -> str:
    return gettext("%(number)s/s", number=f"{value:,.2f}" if value < 100 else f"{value:,.0f}")


def _number(value: float) -> str:
    return wording.number(round(value)) if value == round(value) or value >= 100 else f"{value:.1f}"


def _seconds(value: float) -> str:
    try:
        return wording.span(timedelta(seconds=value))
    except OverflowError:
        return "∞"


MEASURES = (
    Measure(
        key="processed",
        title=marked("Processed per second"),
        shown=_per_s,
        of=lambda sample: sample.processed_per_s,
        query="rate(asynq_tasks_processed_total[$range])",
    ),
    Measure(
        key="failed",
        title=marked("Failed per second"),
        shown=_per_s,
        of=lambda sample: sample.failed_per_s,
        query="rate(asynq_tasks_failed_total[$range])",
    ),
    Measure(
        key="errors",
        title=marked("Error rate"),
        shown=wording.percent,
        of=lambda sample: sample.error_rate,
        query="rate(asynq_tasks_failed_total[$range]) / rate(asynq_tasks_processed_total[$range])",
        most=1.0,
    ),
    Measure(
        key="size",
        title=marked("Queue size"),
        shown=_number,
        of=lambda sample: float(sample.size),
        query="asynq_queue_size",
        is_whole=True,
    ),
    Measure(
        key="latency",
        title=marked("Latency"),
        shown=_seconds,
        of=lambda sample: sample.latency.total_seconds() if sample.latency is not None else 0.0,
        query="asynq_queue_latency_seconds",
    ),
    Measure(
        key="memory",
        title=marked("Memory"),
        shown=lambda value: wording.size(round(value)),
        of=lambda sample: None if sample.memory is None else float(sample.memory),
        query="asynq_queue_memory_usage_approx_bytes",
        is_whole=True,
        kilo=1024,
    ),
    *(
        Measure(
            key=state.value,
            title=title,
            shown=_number,
            of=_count(state),
            query=f'asynq_tasks_enqueued_total{{state="{state.value}"}}',
            is_whole=True,
        )
        for state, title in (
            (TaskState.PENDING, marked("Pending tasks")),
            (TaskState.RETRY, marked("Retry tasks")),
            (TaskState.ARCHIVED, marked("Archived tasks")),
        )
    ),
    Measure(
        key="utilisation",
        title=marked("Slots of the workers taken"),
        shown=wording.percent,
        of=lambda sample: sample.utilisation,
        most=1.0,
    ),
)
"""The charts, in their order: the nine of Asynq's monitor, and how busy the workers are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One queue in a chart.

    Attributes:
        name: Name of the queue.
        number: Which colour it has.
        path: The line, "" for none.
        last: Its last figure.
        mean: The mean of its figures.
        highest: The highest of them.
    """

    name: str
    number: int
    path: str
    last: str
    mean: str
    highest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart.

    Attributes:
        key: Its name in addresses and ids.
        title: What it is called.
        top: The figure at the upper end of the scale.
        lines: The queues.
        words: What it shows, in words.
    """

    key: str
    title: str
    top: str
    lines: Sequence[Line]
    words: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(line.path for line in self.lines)


def chart(measure: Measure, lines: Mapping[str, Points], *, begin: datetime, end: datetime) -> Chart:
    """Draw what queues say of a measure between two moments."""
    known = [value for points in lines.values() for _, value in points if value is not None]
    top = scale_top(max(known, default=0.0), most=measure.most, is_whole=measure.is_whole, kilo=measure.kilo)
    drawn = [
        _line(name, number % COLOURS, points, measure, top=top, begin=begin, end=end)
        for number, (name, points) in enumerate(lines.items())
    ]
    title = gettext(measure.title)
    return Chart(
        key=measure.key,
        title=title,
        top=measure.shown(top),
        lines=drawn,
        words=gettext("%(title)s: highest %(figure)s", title=title, figure=measure.shown(max(known)))
        if known
        else gettext("%(title)s: no figures", title=title),
    )


def _line(
    name: str, number: int, points: Points, measure: Measure, *, top: float, begin: datetime, end: datetime
) -> Line:
    known = [value for _, value in points if value is not None]
    return Line(
        name=name,
        number=number,
        path=line_path(points, top=top, begin=begin, end=end),
        last=measure.shown(known[-1]) if known else wording.NONE,
        mean=measure.shown(sum(known) / len(known)) if known else wording.NONE,
        highest=measure.shown(max(known)) if known else wording.NONE,
    )
