"""Colors and figures for a terminal: short numbers, bars, and charts in one line."""

from collections.abc import Mapping, Sequence

from rich.style import Style
from rich.text import Text

from taskq_core import TaskState
from taskq_core.cli.plugin import clean

_HEIGHTS = "▁▂▃▄▅▆▇█"
_UNITS = ("", "k", "M", "G", "T")


_COLOURS = {
    TaskState.ACTIVE.value: ("#51cf66", "#2b8a3e"),
    TaskState.PENDING.value: ("#4dabf7", "#1971c2"),
    TaskState.AGGREGATING.value: ("#da77f2", "#9c36b5"),
    TaskState.SCHEDULED.value: ("#3bc9db", "#0b7285"),
    TaskState.RETRY.value: ("#ffa94d", "#c2570a"),
    TaskState.ARCHIVED.value: ("#ff6b6b", "#c92a2a"),
    TaskState.COMPLETED.value: ("#868e96", "#868e96"),
    "quiet": ("#8b96a3", "#5c6670"),
    "good": ("#6fd48a", "#1e7a34"),
    "warn": ("#ffb468", "#9a4a00"),
    "bad": ("#ff8f87", "#b42318"),
    "link": ("#7ab8ff", "#0a58b8"),
    "front": ("#e3e8ee", "#1c2128"),
    "back": ("#12161c", "#ffffff"),
    "bar": ("#1d2733", "#e4e9ef"),
    "cursor": ("#2b3a4d", "#cfe0f5"),
    "error-back": ("#3d1a18", "#fde8e6"),
}
"""Colors for a dark and a light background, as in the web dashboard."""
_TONES = {
    **{state.value: state.value for state in TaskState},
    **dict.fromkeys(("running", "started", "succeeded"), "good"),
    **dict.fromkeys(("waiting", "skipped"), "quiet"),
    **dict.fromkeys(("cancelled", "paused", "no worker", "stopped"), "warn"),
    **dict.fromkeys(("failed", "damaged", "orphaned", "overdue"), "bad"),
}
"""Name of the color in `_COLOURS` for each word that describes the state of a task or queue."""


class Palette:
    """Colors for a dark or light background, by name."""

    def __init__(self, *, is_dark: bool) -> None:
        self.is_dark = is_dark
        self.colours = {name: dark if is_dark else light for name, (dark, light) in _COLOURS.items()}

    def __getitem__(self, name: str) -> str:
        return self.colours[name]

    def style(self, name: str) -> str:
        """Return the color with this name. Return the name itself if it is a style of textual, such as `bold`."""
        return self.colours.get(name, name)

    def of(self, word: str) -> str:
        """Return the color for a word that describes a state, "" for other words."""
        return self.colours[_TONES[word]] if word in _TONES else ""


def count_of(number: int, word: str) -> str:
    """Return a number with its noun, such as "1 queue" or "2 queues"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def shown(text: str, style: str | Style = "") -> Text:
    """Return text from Redis as one line. Control characters are escaped, and markup has no effect."""
    return Text(clean(text), style=style, no_wrap=True, end="")


def shown_lines(text: str, style: str | Style = "") -> Text:
    """Return text from Redis with its line breaks. Escape control characters, and replace tabs by spaces."""
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
    """Return the width of each state in a bar, in cells. Each state has at least one cell if there is room.

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
    while sum(cells) < whole:  # give the next cell to the state that is furthest below its share
        lacks = [whole * count / total - given for (_, count), given in zip(there, cells, strict=True)]
        cells[lacks.index(max(lacks))] += 1
    return [(state, given) for (state, _), given in zip(there, cells, strict=True)]


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return the last `width` values as a line of blocks, right-aligned; a space for None."""
    last = values[-width:] if width > 0 else []
    most = max((value for value in last if value is not None), default=0.0)
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
"""Minimum width of a terminal that shows the full names of all states in one line."""


def state_label(state: TaskState, width: int) -> str:
    """Return the name of a state for a line with all states, on a terminal of this width."""
    return state.value if width >= ROOMY else _FEW_LETTERS[state]
