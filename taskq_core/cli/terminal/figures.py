"""Figures as a terminal shows them: short numbers, bars by state, and the past in one line."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.style import Style
from rich.text import Text

from taskq_core.cli.text import clean
from taskq_core.inspector import QueueInfo
from taskq_core.views import QueueSeries
from taskq_core.wire import TaskState

_HEIGHTS = "▁▂▃▄▅▆▇█"
_UNITS = ("", "k", "M", "G", "T")
LEAST_APART_S = 0.5
"""Two looks that are nearer tell no pace."""
PACES_KEPT = 120
"""Most differences between two looks that are kept of a queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours on a dark or a light background: those of the web dashboard.

    Attributes:
        states: Colour of each state of a task.
        quiet: What matters less.
        good: What is well.
        warn: What somebody should look at.
        bad: What is wrong.
        link: What leads somewhere.
        front: Text.
        back: The background.
        bar: The background of the first and the last line.
        cursor: The background of the line that is chosen.
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
        """Return the colour of a word that says how something stands, "" for none."""
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
    """Return a bar of so many cells: parts of it, each with its colour, and what is left of it."""
    left = width - sum(cells for cells, _ in parts)
    return Text.assemble(*(("█" * cells, colour) for cells, colour in parts), ("░" * left, palette.quiet), end="")


def page_words(skip: int, count: int, total: int) -> str:
    """Return which page begins after so many, of so many in all."""
    return f"page {skip // count + 1:,} of {max(1, -(-total // count)):,}"


def shown(text: str, style: str | Style = "") -> Text:
    """Return text of whatever origin in one line, with nothing in it that a terminal or a reader of markup obeys."""
    return Text(clean(text), style=style, no_wrap=True, end="")


def shown_lines(text: str, style: str | Style = "") -> Text:
    """Return text of several lines, each as `shown`; tabs become blanks."""
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
    """Return how often something happens in a second; a dash for what is not known."""
    if rate is None:
        return "-"
    if rate >= 1000:
        return short(rate) if rate >= 100_000 else f"{rate:,.0f}"
    return "0" if rate == 0 else f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 0.05 else f"{rate:.2f}"


def bar(sizes: Mapping[TaskState, int], largest: int, width: int) -> list[tuple[TaskState, int]]:
    """Return how many cells of a bar each state takes. What is there takes one at least, if there is room.

    Args:
        sizes: Tasks by state.
        largest: How many tasks take the whole width.
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
    while sum(cells) < whole:  # what is missing most of its share gets the next one
        lacks = [whole * count / total - given for (_, count), given in zip(there, cells, strict=True)]
        cells[lacks.index(max(lacks))] += 1
    return [(state, given) for (state, _), given in zip(there, cells, strict=True)]


def sparkline(values: Sequence[float | None], width: int, *, top: float | None = None) -> str:
    """Return the last `width` values as a line of blocks, right-aligned; a blank for what is not known.

    Args:
        values: The values, the oldest first.
        width: How many of them, in cells.
        top: What the highest block stands for; None for the largest of them.
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
"""Cells that a terminal has in which states in one line are written out."""


def state_label(state: TaskState, width: int) -> str:
    """Return what a state is called where all of them stand in one line of a terminal that is so wide."""
    return state.value if width >= ROOMY else _FEW_LETTERS[state]


class Paces:
    """How many tasks of each queue ran per second, from one look to the next.

    Workers of this library take samples, which reach back; of queues that only others serve this is all there is.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[datetime, int]] = {}
        self._seen: dict[str, deque[float | None]] = {}

    def note(self, rows: Sequence[QueueInfo]) -> None:
        """Note how queues stand."""
        for row in rows:
            before = self._last.get(row.name)
            passed_s = 0.0 if before is None else (row.as_of - before[0]).total_seconds()
            if before is not None and passed_s <= LEAST_APART_S:
                continue
            self._last[row.name] = (row.as_of, row.processed)
            if before is not None:
                ran = max(0, row.processed - before[1])  # a counter that is smaller began anew
                self._seen.setdefault(row.name, deque(maxlen=PACES_KEPT)).append(ran / passed_s)
        there = {row.name for row in rows}
        for name in [name for name in self._last if name not in there]:
            del self._last[name]
            self._seen.pop(name, None)

    def of(self, name: str, series: QueueSeries | None) -> list[float | None]:
        """Return how many tasks of a queue ran per second, the oldest first; a gap is None."""
        if series is None or not series.samples:
            return list(self._seen.get(name, ()))
        found: list[float | None] = []
        for sample in series.samples:
            found += [None] if sample.is_after_gap else []
            found.append(sample.processed_per_s)
        return found
