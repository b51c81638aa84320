"""Draw results as SVG.

A picture has one bar for each row: the bar shows the median, and a whisker shows the lowest and the highest run. The
browser of the reader chooses light or dark colors. Bars of figures that were measured earlier are hollow and labeled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from benchmarks.aims import Verdict
from benchmarks.results import Results, Row, shown

EARLIER = "measured earlier, not in this run"
OURS = "taskq"
NOISY_PERCENT = 10.0
"""CPU use of foreign processes, in percent of one CPU, above which the page and the pictures mention the noise."""

_WIDTH, _LABELS, _FIGURES, _EDGE = 960, 410, 96, 20
_LABELS_OF_OURS = 560
_BAR, _STEP, _HEAD, _FOOT = 14, 24, 66, 44
_STYLE = """
svg { color-scheme: light dark; font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.paper { fill: #ffffff; } .ink { fill: #1f2328; } .soft { fill: #59636e; } .axis { stroke: #d1d9e0; }
.whisker { stroke: #1f2328; } .ours { fill: #1a7f64; } .peer { fill: #7c8ea0; }
.earlier { fill: none; stroke: #7c8ea0; stroke-dasharray: 3 2; }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117; } .ink { fill: #f0f6fc; } .soft { fill: #9198a1; } .axis { stroke: #3d444d; }
.whisker { stroke: #f0f6fc; } .ours { fill: #3fb68b; } .peer { fill: #6e7f92; }
.earlier { fill: none; stroke: #8b9db0; stroke-dasharray: 3 2; }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture of one or several measures with the same unit.

    Args:
        name: Name of the file, without its suffix.
        measures: Measures whose rows are drawn.
        is_logarithmic: Whether the axis is logarithmic, for figures that are far apart.
        is_ours: Whether all rows are of taskq. They are labeled with their titles and keep their order.
    """

    name: str
    title: str
    measures: tuple[str, ...]
    is_logarithmic: bool = False
    is_ours: bool = False


PICTURES_OF_PEERS: Sequence[Picture] = (
    Picture(name="drain-50", title="Tasks that do nothing, one process, concurrency 50", measures=("drain 50",)),
    Picture(name="drain-10", title="Tasks that do nothing, one process, concurrency 10", measures=("drain 10",)),
    Picture(name="drain-two", title="Tasks that do nothing, two processes", measures=("drain two",)),
    Picture(name="io", title="Tasks that wait for 10 ms, concurrency 50 (ideal 5,000/s)", measures=("io",)),
    Picture(
        name="enqueue",
        title="Enqueue one after another",
        measures=("enqueue sync", "enqueue async"),
    ),
    Picture(name="enqueue-bulk", title="Enqueue many", measures=("enqueue bulk",)),
    Picture(
        name="latency-p50",
        title="From enqueue to start at 200/s, median",
        measures=("latency p50",),
        is_logarithmic=True,
    ),
    Picture(
        name="latency-p99",
        title="From enqueue to start at 200/s, 99th percentile",
        measures=("latency p99",),
        is_logarithmic=True,
    ),
    Picture(name="start-up", title="From the start of a worker to its first task", measures=("start-up",)),
    Picture(name="idle-memory", title="Resident memory of an idle worker", measures=("idle RSS",)),
    Picture(
        name="idle-commands",
        title="Redis commands of an idle worker per second",
        measures=("idle commands",),
    ),
)


_AIMED = "of the aim"
_MISSED = "missed"
_MOST_SHARE = 1000.0

PICTURES_OF_AIMS: Sequence[Picture] = (
    Picture(
        name="aims",
        title="Measured values in percent of their aims (green: the aim is met)",
        measures=(_AIMED,),
        is_logarithmic=True,
        is_ours=True,
    ),
    Picture(
        name="rates",
        title="Tasks per second",
        measures=(
            "enqueue: enqueue_many()",
            "drain: coroutine, concurrency 1,000",
            "drain: coroutine, concurrency 50",
            "drain: plain, concurrency 50",
            "drain: coroutine, concurrency 10",
            "drain: coroutine, concurrency 50, a span and metrics a task",
            "processes: two of 50 coroutines",
            "processes: one of 50 coroutines",
        ),
        is_ours=True,
    ),
    Picture(
        name="latency",
        title="From enqueue to start at 200/s",
        measures=(
            "latency at 200 tasks/s, median",
            "latency at 200 tasks/s, 99th percentile",
            "latency with 200 workers in 8 processes, median",
            "latency with 200 workers in 8 processes, 99th percentile",
            "latency of tasks from Go, median",
            "latency of tasks from Go, 99th percentile",
            "latency of tasks from Go with 200 workers in 8 processes, median",
            "latency of tasks from Go with 200 workers in 8 processes, 99th percentile",
        ),
        is_logarithmic=True,
        is_ours=True,
    ),
)


PICTURES_OF_GROWTH: Mapping[str, str] = {
    "queues": "Speed of a worker, by its queues",
    "queues-commands": "Redis commands of an idle worker per second, by its queues",
    "queues-connections": "Connections of an idle worker, by its queues",
    "processes": "Speed of all worker processes on one Redis",
    "processes-redis": "Redis's CPU time for one task, by worker processes",
    "waiting": "Speed of a worker, by waiting tasks",
    "bytes": "Speed of a worker, by size of an argument",
    "bytes-enqueued": "Speed of enqueue_many(), by size of an argument",
}
"""Titles of the pictures of `benchmarks.growth`, by name. Each row's title is that of its picture, `: ` and its bar."""


def pictures_of_growth(results: Results) -> tuple[Results, Sequence[Picture]]:
    """Return the results of `benchmarks.growth` with the bars as titles of their rows, and the pictures."""
    bars = replace(results, rows=[replace(row, title=row.title.partition(": ")[2]) for row in results.rows])
    drawn = []
    for name, title in PICTURES_OF_GROWTH.items():
        if measures := tuple(row.measure for row in results.rows if row.measure.startswith(f"{title}: ")):
            far = name.startswith("bytes")
            drawn.append(Picture(name=name, title=title, measures=measures, is_logarithmic=far, is_ours=True))
    return bars, drawn


def of_aims(results: Results, found: Sequence[Verdict]) -> Results:
    """Return results whose rows are the values in percent of the aims, at most 1000."""
    rows = []
    for each in found:
        if each.share is None:
            continue
        share = min(each.share, _MOST_SHARE)
        rows.append(
            Row(
                system=OURS if each.is_met else _MISSED,
                measure=_AIMED,
                setting=each.aim.bound,
                title=each.aim.what,
                unit="%",
                higher_is_better=True,
                placement="",
                runs=[share],
                median=share,
                lowest=share,
                highest=share,
            )
        )
    return replace(results, rows=rows)


def rows_of(results: Results, picture: Picture) -> list[Row]:
    """Return the rows of a picture, the best one first. If all rows are of taskq, keep the order of the measures."""
    rows = [row for row in results.rows if row.measure in picture.measures]
    if picture.is_ours:
        return sorted(rows, key=lambda row: picture.measures.index(row.measure))
    return sorted(rows, key=lambda row: -row.median if row.higher_is_better else row.median)


def draw(results: Results, picture: Picture) -> str:
    """Return a picture as SVG.

    Raises:
        ValueError: There is nothing to draw.
    """
    rows = rows_of(results, picture)
    if not rows:
        raise ValueError(f"no row has a measure of {picture.measures!r}")
    edge = _LABELS_OF_OURS if picture.is_ours else _LABELS
    scale = _Scale(rows, is_logarithmic=picture.is_logarithmic, labels=edge)
    height = _HEAD + _STEP * len(rows) + _FOOT
    unit = rows[0].unit
    better = "more is better" if rows[0].higher_is_better else "less is better"
    placements = "; ".join(
        dict.fromkeys(results.placements[row.placement] for row in rows if row.placement in results.placements)
    )
    if is_noisy(results):
        placements = "; ".join(filter(None, (placements, "other processes used the machine")))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(described(picture, rows))}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="6"/>',
        f'<text class="ink" x="{_EDGE}" y="28" font-size="16" font-weight="600">{escape(picture.title)}</text>',
        f'<text class="soft" x="{_EDGE}" y="48" font-size="12">{escape(unit)}, {better}; {_said(results)}'
        f"{', logarithmic' if picture.is_logarithmic else ''}</text>",
    ]
    bottom = _HEAD + _STEP * len(rows)
    for value in scale.ticks():
        x = scale.x(value)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD - 6}" y2="{bottom}"/>')
        text = f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:g}"
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{bottom + 14}" font-size="11" text-anchor="middle">{text}</text>'
        )
    for index, row in enumerate(rows):
        parts += _bar(row, scale, _HEAD + _STEP * index, is_ours=picture.is_ours)
    parts.append(
        f'<text class="soft" x="{_EDGE}" y="{height - 10}" font-size="11">{escape(placements)}</text>',
    )
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, scale: "_Scale", top: int, *, is_ours: bool = False) -> list[str]:
    middle = top + _STEP / 2
    is_earlier = row.source != "measured"
    kind = "earlier" if is_earlier else "ours" if row.system == OURS else "peer"
    zero, x = scale.x(scale.low), scale.x(row.median)
    weight = ' font-weight="600"' if row.system == OURS else ""
    detail = detail_of(row)
    size = 11 if is_ours else 12
    words = f'{escape(row.system)}<tspan class="soft" font-size="11" font-weight="400">  {escape(detail)}</tspan>'
    if is_ours:
        weight, words = "", escape(row.title)
    parts = [
        f'<text class="ink" x="{scale.labels - 8}" y="{middle + 4:.1f}" font-size="{size}" text-anchor="end"{weight}>'
        f"{words}</text>",
        f'<rect class="{kind}" x="{zero:.1f}" y="{middle - _BAR / 2:.1f}" width="{max(1.0, x - zero):.1f}" '
        f'height="{_BAR}" rx="2"/>',
    ]
    end = x
    if row.highest > row.lowest:
        low, high = scale.x(row.lowest), scale.x(row.highest)
        end = max(end, high)
        parts.append(
            f'<path class="whisker" fill="none" d="M{low:.1f} {middle - 4:.1f}v8M{low:.1f} {middle:.1f}H{high:.1f}'
            f'M{high:.1f} {middle - 4:.1f}v8"/>'
        )
    parts.append(
        f'<text class="ink" x="{end + 6:.1f}" y="{middle + 4:.1f}" font-size="12"{weight}>'
        f"{shown(row.median, row.unit)}</text>"
    )
    return parts


class _Scale:
    """The axis of a picture: converts figures to positions."""

    def __init__(self, rows: Sequence[Row], *, is_logarithmic: bool, labels: int = _LABELS) -> None:
        self._is_logarithmic = is_logarithmic
        self.labels = labels
        highest = max(row.highest for row in rows) or 1.0
        if is_logarithmic:
            lowest = min(value for row in rows if (value := row.lowest) > 0)
            self.low = 10 ** math.floor(math.log10(lowest))
            self.high = max(highest, self.low * 10)
        else:
            self.low, self.high = 0.0, highest

    def x(self, value: float) -> float:
        """Return the position of a value on the axis."""
        if self._is_logarithmic:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return self.labels + share * (_WIDTH - self.labels - _FIGURES)

    def ticks(self) -> list[float]:
        """Return the figures at which the axis has a label."""
        if self._is_logarithmic:
            exponents = range(round(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**exponent for exponent in exponents]
        rough = self.high / 4
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
        return [step * number for number in range(int(self.high / step) + 1)]


def _said(results: Results) -> str:
    runs = results.conditions["runs"]
    return f"median, lowest and highest of {runs} runs" if runs > 1 else "one run"


def detail_of(row: Row) -> str:
    """Return the text of a row after the name of its system: its setting."""
    if row.source != "measured":
        return f"polls every 10 ms; {EARLIER}" if "poll" in row.title else EARLIER
    if row.measure.startswith("enqueue"):  # the setting of workers does not affect it
        return row.title.removeprefix("enqueue, ").removeprefix("one after another, ")
    return row.setting


def is_noisy(results: Results) -> bool:
    """Return whether foreign processes used so much CPU that the figures are not reliable."""
    return (results.noise.get("foreign_percent_median") or 0.0) > NOISY_PERCENT


def described(picture: Picture, rows: Sequence[Row]) -> str:
    """Return the alternative text of a picture."""
    text, best = f"Bar chart with {len(rows)} bars: {picture.title}", rows[0]
    return (
        text if picture.is_ours else f"{text}. The best is {best.system}, {shown(best.median, best.unit)} {best.unit}"
    )
