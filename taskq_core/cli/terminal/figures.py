"""Figures for a terminal: short numbers, bars, and charts in one line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from taskq_core.cli.text import clean
from taskq_core.wire import TaskState

_HEIGHTS = "▁▂▃▄▅▆▇█"
_UNITS = ("", "k", "M", "G", "T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colors for a dark or light background, as in the web dashboard.

    Attributes:
        states: Color of each state of a task.
        quiet: Less important text.
        good: Good states.
        warn: States that need attention.
        bad: Errors.
        link: Links.
        front: Text.
        back: Background.
        bar: Background of the first and last line.
        cursor: Background of the selected line.
    """

    states: Mapping[TaskState, str]
    quiet: str
    good: str
    warn: str
    bad: str
    link: str
    front: str
    back: str
    bar: str
    cursor: str

    def of(self, word: str) -> str:
        """Return the color of a state, "" for other words."""
        if word in tuple(TaskState):
            return self.states[TaskState(word)]
        tone = _TONES.get(word)
        return (
            "" if tone is None else {"good": self.good, "warn": self.warn, "bad": self.bad, "quiet": self.quiet}[tone]
        )


_TONES = {
    "running": "good",
    "started": "good",
    "succeeded": "good",
    "waiting": "quiet",
    "skipped": "quiet",
    "cancelled": "warn",
    "cancelling": "warn",
    "paused": "warn",
    "no worker": "warn",
    "stopped": "warn",
    "failed": "bad",
    "damaged": "bad",
    "orphaned": "bad",
    "overdue": "bad",
}

DARK = Palette(
    states={
        TaskState.ACTIVE: "#51cf66",
        TaskState.PENDING: "#4dabf7",
        TaskState.AGGREGATING: "#da77f2",
        TaskState.SCHEDULED: "#3bc9db",
        TaskState.RETRY: "#ffa94d",
        TaskState.ARCHIVED: "#ff6b6b",
        TaskState.COMPLETED: "#868e96",
    },
    quiet="#8b96a3",
    good="#6fd48a",
    warn="#ffb468",
    bad="#ff8f87",
    link="#7ab8ff",
    front="#e3e8ee",
    back="#12161c",
    bar="#1d2733",
    cursor="#2b3a4d",
)
LIGHT = Palette(
    states={
        TaskState.ACTIVE: "#2b8a3e",
        TaskState.PENDING: "#1971c2",
        TaskState.AGGREGATING: "#9c36b5",
        TaskState.SCHEDULED: "#0b7285",
        TaskState.RETRY: "#c2570a",
        TaskState.ARCHIVED: "#c92a2a",
        TaskState.COMPLETED: "#868e96",
    },
    quiet="#5c6670",
    good="#1e7a34",
    warn="#9a4a00",
    bad="#b42318",
    link="#0a58b8",
    front="#1c2128",
    back="#ffffff",
    bar="#e4e9ef",
    cursor="#cfe0f5",
)


def gauge(palette: Palette, width: int, *parts: tuple[int, str]) -> Text:
    """Return a bar: parts with a width and color each, and the rest in grey."""
    left = width - sum(cells for cells, _ in parts)
    return Text.assemble(*(("█" * cells, colour) for cells, colour in parts), ("░" * left, palette.quiet), end="")


def page_words(skip: int, count: int, total: int) -> str:
    """Return "page X of Y"."""
    return f"page {skip // count + 1:,} of {max(1, -(-total // count)):,}"


def shown(text: str, style: str | Style = "") -> Text:
    """Return foreign text as one line, with control characters escaped and without markup."""
    return Text(clean(text), style=style, no_wrap=True, end="")


def shown_lines(text: str, style: str | Style = "") -> Text:
    """Return text of several lines, each as `shown`; tabs become spaces."""
    lines = text.replace("\r\n", "\n").expandtabs(4).split("\n")
    return Text("\n".join(map(clean, lines)), style=style, end="")


def short(number: float) -> str:
    """Return a number in at most six characters: `12,345`, `123k`, `1.23M`."""
    if number < 100_000:
        return f"{number:,.0f}"
    power = 0
    while number >= 999.5 and power + 1 < len(_UNITS):
        number /= 1000
        power += 1
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f}{_UNITS[power]}"


def per_second(rate: float | None) -> str:
    """Return a rate per second; "-" for None."""
    if rate is None:
        return "-"
    if rate >= 1000:
        return short(rate) if rate >= 100_000 else f"{rate:,.0f}"
    return "0" if rate == 0 else f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 0.05 else f"{rate:.2f}"


def bar(sizes: Mapping[TaskState, int], largest: int, width: int) -> list[tuple[TaskState, int]]:
    """Return the width of each state in a bar, at least one cell each if there is room.

    Args:
        sizes: Tasks by state.
        largest: Number of tasks that fill the whole width.
        width: The whole width, in cells.
    """
    there = [(state, count) for state, count in sizes.items() if count > 0][:width]
    total = sum(count for _, count in there)
    if not there or width <= 0:
        return []
    whole = max(len(there), min(width, round(width * total / max(largest, total))))
    cells = [max(1, int(whole * count / total)) for _, count in there]
    while sum(cells) > whole:
        cells[cells.index(max(cells))] -= 1
    while sum(cells) < whole:  # the state that lacks most of its share gets the next cell
        lacks = [whole * count / total - given for (_, count), given in zip(there, cells, strict=True)]
        cells[lacks.index(max(lacks))] += 1
    return [(state, given) for (state, _), given in zip(there, cells, strict=True)]


def sparkline(values: Sequence[float | None], width: int, *, top: float | None = None) -> str:
    """Return the last `width` values as a line of blocks, right-aligned; a space for None.

    Args:
        values: The values, the oldest first.
        width: Number of values.
        top: Value of the highest block; None for the largest value.
    """
    last = values[-width:] if width > 0 else []
    most = max((value for value in last if value is not None), default=0.0) if top is None else top
    words = [" " if value is None else _height(value, most) for value in last]
    return "".join(words).rjust(max(0, width))


def _height(value: float, top: float) -> str:
    if value <= 0 or top <= 0:
        return _HEIGHTS[0]
    return _HEIGHTS[min(len(_HEIGHTS) - 1, max(1, round(value / top * (len(_HEIGHTS) - 1))))]


_FEW_LETTERS = {
    TaskState.ACTIVE: "act",
    TaskState.PENDING: "pend",
    TaskState.AGGREGATING: "group",
    TaskState.SCHEDULED: "sched",
    TaskState.RETRY: "retry",
    TaskState.ARCHIVED: "arch",
    TaskState.COMPLETED: "compl",
}
ROOMY = 104
"""Least width of a terminal that shows full names of states in one line."""


def state_label(state: TaskState, width: int) -> str:
    """Return the name of a state for a line with all states, on a terminal of this width."""
    return state.value if width >= ROOMY else _FEW_LETTERS[state]
