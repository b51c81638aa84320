"""What the `taskq` command writes: tables, pairs, lines, JSON, and a progress bar for long work.

On a terminal a table fits its width, as far as it can be read then, and states have colours; anywhere else (a pipe, a
file) columns are padded with blanks and nothing is cut, so that `grep` and `awk` see all of it. Text that came from
Redis is shown with its control characters spelled out: a task's name must not steer the terminal of its reader.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from taskq_core.cli.text import clean

Colour = Literal["auto", "always", "never"]
"""When to use colours: on a terminal, or as told. `NO_COLOR` in the environment means never, where nothing is told."""

STYLES = {
    "active": "green",
    "pending": "cyan",
    "scheduled": "blue",
    "retry": "yellow",
    "archived": "red",
    "completed": "green",
    "aggregating": "magenta",
    "paused": "yellow",
    "no worker": "yellow",
    "stopped": "yellow",
    "damaged": "red",
    "red": "bold red",
}
"""Colour of a word that stands alone in a cell."""
_GAP = 2
"""Blanks between two columns."""
_LEAST_SHOWN = 10
"""Characters of a column that are shown on the narrowest terminal."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        right: Align to the right, as numbers are.
        whole: Is neither cut nor wrapped, so that it can be copied: an id.
        cut: Is cut on a narrow terminal, so that the others stay whole; they are wrapped where that is not enough.
    """

    title: str
    right: bool = False
    whole: bool = False
    cut: bool = False


class Output:
    """Writes for people or as JSON.

    Args:
        stdout: Where answers go.
        stderr: Where progress, questions and complaints go.
        as_json: Answers are JSON documents.
        colour: When to use colours.
    """

    def __init__(
        self,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        *,
        as_json: bool = False,
        colour: Colour = "auto",
    ) -> None:
        self.as_json = as_json
        self.stdout = stdout or sys.stdout
        self._console = _console(self.stdout, colour)
        self._errors = _console(stderr or sys.stderr, colour)

    def json(self, document: Mapping[str, Any]) -> None:
        """Write a document, indented, as the only thing on standard output."""
        encoding = (getattr(self.stdout, "encoding", None) or "utf-8").lower()
        text = json.dumps(document, indent=2, ensure_ascii=not encoding.startswith("utf"))
        if not text.isprintable():
            # JSON escapes the control characters of ASCII alone; others steer terminals as well.
            text = "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)
        # In one piece: Django's stdout ends a line after each.
        self.stdout.write(text + "\n")

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line."""
        self._console.print(Text(clean(text), style=style), soft_wrap=True)

    def complain(self, text: str) -> None:
        """Write one line to standard error."""
        self._errors.print(Text(clean(text), style="red"), soft_wrap=True)

    def note(self, text: str) -> None:
        """Write one line beside the answer, to standard error, so that a pipe carries the answer alone."""
        self._errors.print(Text(clean(text), style="dim"), soft_wrap=True)

    def heading(self, text: str) -> None:
        """Write the title of what follows."""
        self.line(text, style="bold")

    def pairs(self, pairs: Mapping[str, str]) -> None:
        """Write names and values, one pair a line."""
        width = max(map(cell_len, pairs), default=0)
        for name, value in pairs.items():
            line = Text(f"{name:<{width}}  ", style="dim")
            line.append(clean(value), style=STYLES.get(value, "not dim"))
            self._console.print(line, soft_wrap=True)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str) -> None:
        """Write a table; `empty` is said in its place where there are no rows."""
        cleaned = [[clean(cell) for cell in row] for row in rows]
        if not cleaned:
            self.line(empty, style="dim")
        elif self._console.is_terminal:
            width = self._console.width if self.stdout.isatty() else sys.maxsize
            self._console.print(_rich_table(columns, cleaned, width), crop=False)
        else:
            for line in _aligned(columns, cleaned):
                self.stdout.write(line + "\n")

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a bar while long work goes on, if standard error is a terminal.

        Yields a function to be called with the number of tasks done and in all.
        """
        if not self._errors.file.isatty():
            yield lambda done, total: None
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._errors,
            transient=True,
        )
        with bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _console(file: TextIO, colour: Colour) -> Console:
    return Console(
        file=file,
        markup=False,
        emoji=False,
        highlight=False,
        no_color={"never": True, "always": False}.get(colour),
        force_terminal=True if colour == "always" else None,
        color_system="standard" if colour == "always" else "auto",  # which would be none where TERM is dumb
    )


def _rich_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Table:
    natural = [
        max(cell_len(text) for text in (column.title, *cells)) for column, *cells in zip(columns, *rows, strict=True)
    ]
    least = [
        size if column.right or column.whole else min(size, _LEAST_SHOWN)
        for column, size in zip(columns, natural, strict=True)
    ]
    gaps = _GAP * (len(columns) - 1)
    # What does not fit even so is left to the terminal: a line that goes on below is read, one letter a line is not.
    width = min(sum(natural) + gaps, max(width, sum(least) + gaps))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0), width=width)
    for column, size in zip(columns, least, strict=True):
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=column.right or column.whole,
            overflow="fold",
            min_width=size,
        )
    most = _most(columns, natural, width - gaps)
    for row in rows:
        texts = [Text(cell, style=STYLES.get(cell, "")) for cell in row]
        for index, cells in most.items():
            texts[index].truncate(cells, overflow="ellipsis")
        table.add_row(*texts)
    return table


def _most(columns: Sequence[Column], natural: Sequence[int], room: int) -> dict[int, int]:
    """Return how many characters of each column that may be cut are shown: what the others leave."""
    room -= sum(size for column, size in zip(columns, natural, strict=True) if not column.cut)
    cut = sorted((index for index, column in enumerate(columns) if column.cut), key=natural.__getitem__)
    most: dict[int, int] = {}
    for number, index in enumerate(cut):  # a narrow one leaves what it does not need to the wider
        most[index] = min(natural[index], max(_LEAST_SHOWN, room // (len(cut) - number)))
        room -= most[index]
    return most


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    lines = [[column.title for column in columns], *rows]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = []
        for column, width, cell in zip(columns, widths, line, strict=True):
            blanks = " " * (width - cell_len(cell))
            cells.append(blanks + cell if column.right else cell + blanks)
        yield "  ".join(cells).rstrip()


def shown_bytes(data: bytes, *, most: int | None = None) -> str:
    """Return bytes as text, those that are no UTF-8 spelled out; cut after `most` characters."""
    text = data.decode("utf-8", "backslashreplace")
    return text if most is None or len(text) <= most else f"{text[:most]}..."


def shown_moment(moment: datetime | None, *, now: datetime | None = None) -> str:
    """Return a time in UTC to the second, and how far it is from `now`; "-" for none."""
    if moment is None:
        return "-"
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if now is None:
        return f"{text}Z"
    return f"{text}Z ({shown_distance(moment, now)})"


def shown_distance(moment: datetime | None, now: datetime) -> str:
    """Return how far a time is from `now`, as `in 5m` or `5m ago`; "-" for none."""
    if moment is None:
        return "-"
    distance = shown_span(abs(moment - now))
    return f"in {distance}" if moment > now else f"{distance} ago"


def shown_span(span: timedelta | None) -> str:
    """Return a span in its two largest units, as `1h 5m`; "-" for none."""
    if span is None:
        return "-"
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0"))


def shown_size(count: int) -> str:
    """Return a number of bytes in the unit that fits."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def shown_rate(rate: float | None) -> str:
    """Return a share, 0 to 1, as per cent; "-" for none."""
    return "-" if rate is None else f"{100 * rate:.2f} %"
