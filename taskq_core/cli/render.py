"""Output of the `taskq` command: tables, pairs, lines, JSON, and a progress bar.

On a terminal, long texts are cut to the width of the table, and states have colors. In a pipe or file nothing is cut,
for `grep` and `awk`. Control characters in texts from Redis are escaped, because the name of a task must not control
the terminal.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from taskq_core.cli.documents import document
from taskq_core.cli.table import GAP, Column, fitted
from taskq_core.wire.quoting import clean

Colour = Literal["auto", "always", "never"]
"""When to use colors; `auto` uses them on a terminal, unless `NO_COLOR` is set."""

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
"""Color of a table cell, by the exact text of the cell."""
LISTED_CHARS = 120
"""Maximum number of characters of a payload or result in a table."""


class Output:
    """Writes text or JSON.

    Args:
        stdout: Receives results.
        stderr: Receives progress, questions and errors.
        as_json: Whether results are JSON documents.
        colour: When to use colors.
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
        """Write a document, indented. It is the only text on standard output."""
        encoding = (getattr(self.stdout, "encoding", None) or "utf-8").lower()
        text = json.dumps(document, indent=2, ensure_ascii=not encoding.startswith("utf"))
        if not text.isprintable():
            # `json.dumps` escapes only ASCII control characters. Other control characters also affect a terminal.
            text = "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)
        # Write text and line break in one call, because Django's stdout adds a line break to each call.
        self.stdout.write(text + "\n")

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line."""
        self._console.print(Text(clean(text), style=style), soft_wrap=True)

    def error(self, text: str) -> None:
        """Write one line to standard error."""
        self._errors.print(Text(clean(text), style="red"), soft_wrap=True)

    def note(self, text: str) -> None:
        """Write one line about the result to standard error.

        A pipe from standard output then contains only the result.
        """
        self._errors.print(Text(clean(text), style="dim"), soft_wrap=True)

    def heading(self, text: str) -> None:
        """Write a title."""
        self.line(text, style="bold")

    def pairs(self, pairs: Mapping[str, str]) -> None:
        """Write names and values, one pair per line, with the values aligned."""
        names = [clean(name) for name in pairs]
        width = max(map(cell_len, names), default=0)
        for name, value in zip(names, pairs.values(), strict=True):
            line = Text(f"{name:<{width}}  ", style="dim")
            line.append(clean(value), style=STYLES.get(value, "not dim"))
            self._console.print(line, soft_wrap=True)

    def listing(
        self,
        key: str,
        records: Sequence[Any],
        columns: Sequence[Column],
        *,
        empty: str,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Write records as a table, or as a JSON list under `key`.

        Args:
            key: Name of the list in the JSON document.
            records: The records.
            columns: The columns of the table.
            empty: The text instead of an empty table.
            more: Further fields of the document.
        """
        if self.as_json:
            self.json({**(more or {}), key: [document(each) for each in records]})
        else:
            self.table(columns, records, empty=empty)

    def table(self, columns: Sequence[Column], records: Sequence[Any], *, empty: str) -> None:
        """Write a table of records, or `empty` if there are none."""
        if not records:
            self.line(empty, style="dim")
            return
        rows = [[column.title.upper() for column in columns]]
        for record in records:
            found = [record[index] if each.cell is None else each.cell(record) for index, each in enumerate(columns)]
            rows.append([clean(str(cell)) for cell in found])
        natural = [max(cell_len(row[index]) for row in rows) for index in range(len(columns))]
        room = self._console.width + GAP if self.stdout.isatty() else sys.maxsize
        widths = fitted(columns, natural, room, is_live=False)
        for number, row in enumerate(rows):
            cells = []
            for index, column in enumerate(columns):
                text = Text(row[index], style="bold" if number == 0 else STYLES.get(row[index], ""))
                text.truncate(widths[index], overflow="ellipsis")
                blanks = widths[index] - text.cell_len
                text.pad_left(blanks) if column.right else text.pad_right(blanks)
                cells.append(text)
            line = Text(" " * GAP).join(cells)
            line.rstrip()
            self._console.print(line, soft_wrap=True)

    def tables(self, tables: Mapping[str, tuple[Sequence[Column], Sequence[Any]]], *, empty: str) -> None:
        """Write several tables, each below its title. Write the text `empty` instead of a table without records."""
        for number, (title, (columns, records)) in enumerate(tables.items()):
            if number:
                self.line()
            self.heading(title)
            self.table(columns, records, empty=empty)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a progress bar during a `with` block, if standard error is a terminal.

        Yields a function that takes the number of finished tasks and of all tasks.
        """
        if not self._errors.file.isatty():
            yield lambda done, total: None
            return
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._errors,
            transient=True,
        )
        with bar:
            task = bar.add_task(clean(what), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _console(file: TextIO, colour: Colour) -> Console:
    return Console(
        file=file,
        markup=False,
        emoji=False,
        highlight=False,
        no_color={"never": True, "always": False}.get(colour),
        force_terminal=True if colour == "always" else None,
        color_system="standard" if colour == "always" else "auto",  # "auto" shows no colors if $TERM is "dumb"
    )


def shown_bytes(data: bytes, *, most: int | None = None) -> str:
    """Return at most `most` characters of bytes as text. Invalid UTF-8 is escaped."""
    text = data.decode("utf-8", "backslashreplace")
    return text if most is None or len(text) <= most else f"{text[:most]}..."


def listed_bytes(data: bytes, *, hide: bool = False) -> str:
    """Return the beginning of a payload or result for a table, or a placeholder if `hide` is set."""
    if hide:
        return "hidden" if data else ""
    return shown_bytes(data[: 4 * LISTED_CHARS], most=LISTED_CHARS)


def shown_moment(moment: datetime | None, *, now: datetime | None = None) -> str:
    """Return a time in UTC, and how long ago or ahead it is; "-" for None."""
    if moment is None:
        return "-"
    text = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if now is None:
        return f"{text}Z"
    return f"{text}Z ({shown_distance(moment, now)})"


def shown_distance(moment: datetime | None, now: datetime) -> str:
    """Return how far `moment` is from `now`, as `in 5m` or `5m ago`; "-" if `moment` is None."""
    if moment is None:
        return "-"
    distance = shown_span(abs(moment - now))
    return f"in {distance}" if moment > now else f"{distance} ago"


def shown_span(span: timedelta | None) -> str:
    """Return a duration in its two largest units, as `1h 5m`; "-" for None."""
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
    """Return a number of bytes with a unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def shown_rate(rate: float | None) -> str:
    """Return a share between 0 and 1 in percent; "-" for None."""
    return "-" if rate is None else f"{100 * rate:.2f} %"


def shown_per_s(rate: float | None) -> str:
    """Return a number per second; "-" for None."""
    return "-" if rate is None else f"{rate:.1f}"
