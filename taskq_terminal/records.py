"""A table of records that fits its terminal and keeps the selection and scroll position when it is updated."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable

from taskq_core.cli.plugin import GAP, Column, fitted
from taskq_terminal.figures import Palette, short, shown


class Records(DataTable[Text], inherit_bindings=False):
    """A table of records. If several records have the same key, only one of them is shown."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", tooltip="the selected line"),
        Binding("down,j", "cursor_down", "Next line", show=False),
        Binding("up,k", "cursor_up", "Previous line", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("home,g", "scroll_top", "First line", show=False),
        Binding("end,G", "scroll_bottom", "Last line", show=False),
    ]

    class Refit(Message):
        """The number of rows that fit has changed."""

    def __init__(self, palette: Palette, *, opens: bool = True, **more: Any) -> None:
        super().__init__(cursor_type="row", cursor_foreground_priority="renderable", cell_padding=GAP // 2, **more)
        self._palette, self._opens = palette, opens
        self._columns: Sequence[Column] = ()
        self._records: dict[str, Any] = {}
        self._layout: tuple[Any, ...] = ()
        self._fitted = 0
        self.keys: list[str] = []
        """The keys of the records, in the order of the rows."""

    @property
    def chosen(self) -> Any:
        """The selected record, None if no record is selected."""
        return self._records[self.keys[self.cursor_row]] if 0 <= self.cursor_row < len(self.keys) else None

    @property
    def fits(self) -> int:
        """Number of rows that fit. An empty table shrinks to its headings. It returns the number from before."""
        return max(1, self._fitted if self.has_class("-empty") else self.size.height - self.header_height)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable the Enter key if records of this table cannot be opened."""
        if action == "select_cursor" and not self._opens:
            return False
        return super().check_action(action, parameters)

    def fill(self, columns: Sequence[Column], records: Sequence[Any], key: Callable[[Any], str]) -> None:
        """Show these records, and keep the selection."""
        self._columns, self._records = columns, {key(each): each for each in records}
        self._fitted = self._fitted or self.fits
        self.set_class(not records, "-empty")
        self._fill()

    def on_resize(self, event: events.Resize) -> None:
        """Fit the columns to the new width, and report if another number of rows fits."""
        self._fill()
        if self._fitted not in (0, self.fits):
            self.post_message(self.Refit())
        self._fitted = self.fits

    def _fill(self) -> None:
        columns = self._columns
        if not columns or not self.size.width:
            return
        rows = [[self._shown(column, record) for column in columns] for record in self._records.values()]
        natural = [
            max(
                len(column.title),
                column.width,
                *(cell.cell_len for row in rows if isinstance(cell := row[index], Text)),
            )
            for index, column in enumerate(columns)
        ]
        widths = fitted(columns, natural, self.size.width - (len(rows) > self.fits))
        keys = list(self._records)
        cells = [[_cell(row[index], columns[index], width) for index, width in widths.items()] for row in rows]
        layout = (tuple((columns[index].title, width) for index, width in widths.items()), keys)
        if layout == self._layout:
            for number, line in enumerate(cells):
                for place, cell in enumerate(line):
                    if self.get_cell_at((number, place)) != cell:  # type: ignore[arg-type]  # a coordinate is a pair
                        self.update_cell_at((number, place), cell)  # type: ignore[arg-type]
            return
        selected, row_before = self.keys[self.cursor_row : self.cursor_row + 1], self.cursor_row
        top = self.scroll_y
        self.clear(columns=True)
        for index, width in widths.items():
            title = Text(columns[index].title, justify="right" if columns[index].right else "left")
            self.add_column(title, width=width)
        for line in cells:
            self.add_row(*line)
        self._layout, self.keys = layout, keys
        if keys:
            place = keys.index(selected[0]) if selected and selected[0] in keys else min(row_before, len(keys) - 1)
            self.move_cursor(row=place, animate=False, scroll=False)
            self.call_after_refresh(self._stay, top, place)

    def _stay(self, top: float, place: int) -> None:
        self.scroll_to(y=top, animate=False)
        if not top <= place < top + self.fits:
            self.move_cursor(row=place, animate=False)

    def _shown(self, column: Column, record: Any) -> Text | Callable[[int], Text]:
        cell: Any = record if column.cell is None else column.cell(record)
        if isinstance(cell, Text) or callable(cell):
            found: Text | Callable[[int], Text] = cell
            return found
        text = short(cell) if isinstance(cell, int) else str(cell)
        return shown(text, self._palette.style(column.style) or self._palette.of(text))


def _cell(cell: Text | Callable[[int], Text], column: Column, width: int) -> Text:
    text = cell.copy() if isinstance(cell, Text) else cell(width)
    text.truncate(width, overflow="ellipsis")
    if column.right:
        text.pad_left(max(0, width - text.cell_len))
    return text
