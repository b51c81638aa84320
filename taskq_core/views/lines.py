"""Compute the geometry of charts: bars of tasks by state, the highest value of a scale, and lines as SVG paths.

Pages add colors and texts. A line has a gap where values are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from taskq_core.wire import TaskState

Points = Sequence[tuple[datetime, float | None]]
"""Times and values of a line. None: the value is unknown, and the line has a gap."""
WIDTH, HEIGHT = 1000, 100
"""Size of a chart in units of its drawing. The page sets the visible size."""


def scale_top(highest: float, *, most: float | None, is_whole: bool, kilo: int = 1000) -> float:
    """Return the top of a scale: the highest value, rounded up to 1, 2 or 5 times a power of ten in its unit."""
    unit = 1.0
    while highest >= unit * kilo:
        unit *= kilo
    highest /= unit
    if highest <= 0:
        return min(1.0, most or 1.0)
    power = 1.0
    while power > highest:
        power /= 10
    while power * 10 <= highest:
        power *= 10
    top = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= highest)
    if is_whole:
        top = max(1.0, top)
    return unit * top if most is None else min(unit * top, most)


def line_path(points: Points, *, top: float, begin: datetime, end: datetime) -> str:
    """Return the line through points as the `d` of an SVG path. A single point is a dot."""
    width_s = (end - begin).total_seconds()
    words: list[str] = []
    run = 0
    for at, value in points:
        if value is None:
            words += ["h0"] if run == 1 else []
            run = 0
            continue
        x = _units(WIDTH * (at - begin).total_seconds() / width_s)
        y = _units(HEIGHT * (1 - min(1.0, max(0.0, value / top))))
        words.append(f"{'L' if run else 'M'}{x} {y}")
        run += 1
    words += ["h0"] if run == 1 else []
    return "".join(words)


def _units(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True, slots=True)
class Bar:
    """The part of a bar for one state.

    Attributes:
        state: The state.
        count: Number of tasks in the state.
        x: Left edge, in thousandths of the width of the bar.
        width: Width in the same unit.
    """

    state: TaskState
    count: int
    x: float
    width: float


def bars(sizes: Mapping[TaskState, int], largest: int) -> Sequence[Bar]:
    """Return the parts of a bar by state. Small parts are widened to be visible.

    Args:
        sizes: Number of tasks by state.
        largest: Number of tasks that fills the width; at least the sum of `sizes`.
    """
    total = sum(sizes.values())
    if not total:
        return ()
    least = 6.0
    whole = max(1000 * total / max(largest, total), least * sum(1 for count in sizes.values() if count))
    widths = {state: max(least, whole * count / total) for state, count in sizes.items() if count}
    shrink = min(1.0, 1000 / sum(widths.values()))
    found, x = [], 0.0
    for state, width in widths.items():
        found.append(Bar(state, sizes[state], round(x, 2), round(width * shrink, 2)))
        x += width * shrink
    return found
