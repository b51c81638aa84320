"""Bases of screens: a list of records, a list with a filter, and a long text."""

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from taskq_core.cli.terminal.poller import Poller
from taskq_core.cli.terminal.screen import DashScreen
from taskq_core.cli.terminal.table import Cell, Column, Records, Row
from taskq_core.errors import ConfigurationError

T = TypeVar("T")
R = TypeVar("R")


class ListScreen(DashScreen[T], Generic[T, R]):
    """A screen with one table of records. `T` is the type of a read, `R` that of a record."""

    COLUMNS: ClassVar[Sequence[Column]] = ()
    EMPTY: ClassVar[str] = ""
    """The text instead of an empty table."""
    OPENS: ClassVar[str] = ""
    """Name of the screen that Enter opens; "" if Enter opens no screen."""

    def records(self, found: T) -> Sequence[R]:
        """Return the records of a read."""
        raise NotImplementedError

    def key(self, record: R) -> str:
        """Return the key of a record."""
        raise NotImplementedError

    def cells(self, record: R) -> Sequence[Cell]:
        """Return the cells of a record."""
        raise NotImplementedError

    def opens(self, record: R) -> tuple[Any, ...]:
        """Return the arguments of the screen that Enter opens."""
        raise NotImplementedError

    def body(self) -> ComposeResult:
        """Return the table, and the text for an empty one."""
        yield Records(id="table", opens=bool(self.OPENS))
        yield Static(self.EMPTY, classes="empty", id="empty")

    def draw(self, found: T) -> None:
        """Fill the table."""
        self.fill(self.COLUMNS, found)

    def fill(self, columns: Sequence[Column], found: T) -> None:
        """Fill the table with the records of a read, or show the text for an empty one."""
        records = self.records(found)
        table = self.query_one(Records)
        table.fill(columns, [Row(self.key(each), self.cells(each)) for each in records])
        table.display = bool(records)
        self.query_one("#empty").display = not records

    @property
    def chosen(self) -> R | None:
        """The selected record."""
        key = self.query_one(Records).current
        records = () if self.found is None else self.records(self.found)
        return next((each for each in records if self.key(each) == key), None)

    def on_data_table_row_selected(self) -> None:
        """Open the selected record."""
        record = self.chosen
        if record is not None and self.OPENS:
            self.go(self.OPENS, *self.opens(record))


class FilteredScreen(DashScreen[T]):
    """A screen with a filter.

    Attributes:
        text: The filter; "" if no filter is set.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Filter the list")
    ]
    HINT: ClassVar[str] = ""
    """The syntax of a filter."""

    def __init__(self, poller: Poller) -> None:
        super().__init__(poller)
        self.text = ""

    def field(self) -> Input:
        """Return the input field of the filter, for the end of the body."""
        return Input(placeholder=self.HINT, id="filter")

    def begin(self, text: str) -> None:
        """Show the first page of a filter.

        Raises:
            ConfigurationError: The filter is invalid.
        """
        raise NotImplementedError

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one("#filter", Input)
        field.value = self.text
        field.add_class("-open")
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Apply the filter."""
        try:
            self.begin(event.value.strip())
        except ConfigurationError as error:
            self.say(str(error), "error")
        else:
            self.say("")
            self._close()

    def _close(self) -> None:
        self.query_one("#filter", Input).remove_class("-open")
        self.query_one(Records).focus()

    def leaves(self) -> bool:
        """Close or clear the filter before the screen is left. Return True if there was none."""
        if self.query_one("#filter", Input).has_class("-open"):
            self._close()
            return False
        if self.text:
            self.begin("")
            return False
        return True


class TextScreen(DashScreen[T]):
    """A screen with one long text, which scrolls."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def body(self) -> ComposeResult:
        """Return the text."""
        with VerticalScroll(id="scroll"):
            yield Static(id="text", classes="facts")

    def on_mount(self) -> None:
        """Focus the text, so that keys scroll it."""
        super().on_mount()
        self.query_one("#scroll").focus()

    def action_scroll(self, by: int) -> None:
        """Scroll by a line."""
        self.query_one("#scroll").scroll_relative(y=by, animate=False)
