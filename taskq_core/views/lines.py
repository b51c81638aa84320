"""The geometry of charts: bars of tasks by state, the upper end of a scale, and lines through figures as SVG paths.

Colors and texts belong to the page that shows a chart. A line is broken where figures are missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from taskq_core.wire import TaskState

Points = Sequence[tuple[datetime, float | None]]
"""When, and what; None where it is not known, which breaks the line."""
WIDTH, HEIGHT = 1000, 100
"""Units of a drawing: they say where something is, the page says how large."""


def scale_top(highest: float, *, most: float | None, is_whole: bool, kilo: int = 1000) -> float:
    """Return the upper end of a scale: 1, 2 or 5 times a power of ten, of the unit that fits, from the highest on."""
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
    """Return the line through points, as the attribute `d` of a path. A point alone is a dot."""
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
    """One part of a bar.

    Attributes:
        state: The state of its tasks.
        count: How many.
        x: Where it begins, in thousandths of the whole width.
        width: How wide it is, in the same.
    """

    state: TaskState
    count: int
    x: float
    width: float


def bars(sizes: Mapping[TaskState, int], largest: int) -> Sequence[Bar]:
    """Return the parts of a bar by state. Even a small part is visible.

    Args:
        sizes: Tasks by state.
        largest: How many tasks take the whole width; at least their sum.
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
