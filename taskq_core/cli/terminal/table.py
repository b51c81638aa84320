"""A table of records that fits its terminal and keeps the selection and scroll position when it is updated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable

_PADDING = 1

STATE_KEYS = (
    Binding("right,l", "state(1)", "Next state", show=False, key_display="→ l", tooltip="Next state"),
    Binding("left,h", "state(-1)", "Previous state", show=False, key_display="← h", tooltip="Previous state"),
)
"""Keys to select a state."""

Cell = Text | Callable[[int], Text]
"""The content of a cell, or a function from its width to the content."""


def page_keys(*, show: bool = True) -> tuple[Binding, Binding]:
    """Return the keys for pages; `show` adds them to the footer."""
    return (
        Binding("n,right_square_bracket", "page(1)", "Next", key_display="n", show=show, tooltip="Next page"),
        Binding("p,left_square_bracket", "page(-1)", "Back", key_display="p", show=show, tooltip="Previous page"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        right: Align to the right, for numbers.
        least: Least width, unless title and cells are shorter.
        most: Largest width, None for the width of the widest cell.
        width: Desired width of a column of functions.
        drop: If space is short, columns with a larger number are dropped first; columns with 0 are always shown.
        grows: Whether it takes the remaining width.
    """

    title: str
    right: bool = False
    least: int = 6
    most: int | None = None
    width: int = 0
    drop: int = 0
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row: the key of its record, and its cells."""

    key: str
    cells: Sequence[Cell]


def fitted(columns: Sequence[Column], natural: Sequence[int], room: int) -> dict[int, int]:
    """Return the width of each visible column, by index.

    Args:
        columns: The columns.
        natural: The width of the content of each.
        room: The available width, including padding.
    """
    wanted = [size if each.most is None else min(size, each.most) for each, size in zip(columns, natural, strict=True)]
    least = [size if each.right else min(size, each.least) for each, size in zip(columns, wanted, strict=True)]
    shown = list(range(len(columns)))

    def taken(sizes: Sequence[int]) -> int:
        return sum(sizes[index] + 2 * _PADDING for index in shown)

    for index in sorted(range(len(columns)), key=lambda index: -columns[index].drop):
        if taken(least) <= room or not columns[index].drop:
            break
        shown.remove(index)
    widths = {index: wanted[index] for index in shown}
    over = taken(wanted) - room
    while over > 0:
        index = max(shown, key=lambda index: widths[index] - least[index])
        if widths[index] <= least[index]:
            break  # still too wide: the user scrolls
        widths[index] -= 1
        over -= 1
    growing = next((index for index in shown if columns[index].grows), None)
    if over < 0 and growing is not None:
        widths[growing] -= over
    return widths


class Records(DataTable[Text]):
    """A table of records. A click on a first column of marks sets the mark."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", tooltip="Open the selected line"),
        Binding("j", "cursor_down", "Down", show=False, key_display="↓ j", tooltip="Next line"),
        Binding("k", "cursor_up", "Up", show=False, key_display="↑ k", tooltip="Previous line"),
        Binding("g", "scroll_top", "First", show=False, tooltip="First line"),
        Binding("G", "scroll_bottom", "Last", show=False, tooltip="Last line"),
    ]

    class Marked(Message):
        """The user clicked the mark of a record."""

        def __init__(self, table: "Records", key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

    class Refit(Message):
        """The number of rows that fit has changed."""

    def __init__(self, *, has_marks: bool = False, opens: bool = True, **more: Any) -> None:
        super().__init__(cursor_type="row", cursor_foreground_priority="renderable", cell_padding=_PADDING, **more)
        self._has_marks, self._opens = has_marks, opens
        self._wanted: tuple[Sequence[Column], Sequence[Row]] = ((), ())
        self._layout: tuple[Any, ...] = ()
        self._fitted = 0
        self.keys: list[str] = []
        """The keys of the rows, in order."""

    @property
    def current(self) -> str | None:
        """The key of the selected record, None without one."""
        return self.keys[self.cursor_row] if 0 <= self.cursor_row < len(self.keys) else None

    @property
    def fits(self) -> int:
        """The number of rows that fit."""
        return max(1, self.size.height - self.header_height)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable opening if it shows nothing."""
        if action == "select_cursor" and not self._opens:
            return False
        return super().check_action(action, parameters)

    def fill(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """Show these records, and keep the selection."""
        self._wanted = (columns, rows)
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        """Fit the new size."""
        self._fill()
        if self._fitted not in (0, self.fits):
            self.post_message(self.Refit())
        self._fitted = self.fits

    def _fill(self) -> None:
        columns, all_rows = self._wanted
        if not columns or not self.size.width:
            return
        rows = list({row.key: row for row in all_rows}.values())
        has_bar = len(rows) > self.fits
        natural = [
            max(
                len(column.title),
                column.width,
                *(cell.cell_len for row in rows if isinstance(cell := row.cells[index], Text)),
            )
            for index, column in enumerate(columns)
        ]
        widths = fitted(columns, natural, self.size.width - has_bar)
        keys = [row.key for row in rows]
        cells = [[_cell(row.cells[index], columns[index], width) for index, width in widths.items()] for row in rows]
        layout = (tuple((columns[index].title, width) for index, width in widths.items()), keys)
        if layout == self._layout:
            for number, line in enumerate(cells):
                for place, cell in enumerate(line):
                    if self.get_cell_at((number, place)) != cell:  # type: ignore[arg-type]  # a coordinate is a pair
                        self.update_cell_at((number, place), cell)  # type: ignore[arg-type]
            return
        selected, row_before = self.current, self.cursor_row
        top = self.scroll_y
        self.clear(columns=True)
        for index, width in widths.items():
            title = Text(columns[index].title, justify="right" if columns[index].right else "left")
            self.add_column(title, width=width)
        for line in cells:
            self.add_row(*line)
        self._layout, self.keys = layout, keys
        if keys:
            place = keys.index(selected) if selected in keys else min(row_before, len(keys) - 1)
            self.move_cursor(row=place, animate=False, scroll=False)
            self.call_after_refresh(self._stay, top, place)

    def _stay(self, top: float, place: int) -> None:
        self.scroll_to(y=top, animate=False)
        if not top <= place < top + self.fits:
            self.move_cursor(row=place, animate=False)

    def on_click(self, event: events.Click) -> None:
        """Mark the record whose mark was clicked, instead of opening it."""
        meta = event.style.meta
        row = meta.get("row", -1)
        if self._has_marks and meta.get("column") == 0 and 0 <= row < len(self.keys):
            event.prevent_default()
            event.stop()
            self.move_cursor(row=row, animate=False)
            self.post_message(self.Marked(self, self.keys[row]))


def _cell(cell: Cell, column: Column, width: int) -> Text:
    text = cell.copy() if isinstance(cell, Text) else cell(width)
    text.truncate(width, overflow="ellipsis")
    if column.right:
        text.pad_left(max(0, width - text.cell_len))
    return text
