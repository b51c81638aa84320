"""Bases of screens: a list of records in pages, and a long text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from taskq_core.cli.plugin import Column
from taskq_core.errors import ConfigurationError
from taskq_terminal.figures import shown
from taskq_terminal.records import Records
from taskq_terminal.screen import DashScreen, Links, clickable, front
from taskq_terminal.state import DashState

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[R]):
    """The content of a list screen for one page of records.

    Attributes:
        heading: The title.
        columns: The columns of the table.
        records: The records.
        key: Returns the key of a record.
        next: Position of the next page: a number of records or a cursor. None if this is the last page.
        facts: The texts of the lines that are shown above the table.
        choices: The values that can be selected, with labels.
        below: The text of the line that is shown below the table.
        empty: The text instead of an empty table.
    """

    heading: str
    columns: Sequence[Column]
    records: Sequence[R]
    key: Callable[[R], str]
    next: Any = None
    facts: Text | None = None
    choices: Sequence[tuple[Any, Text]] = ()
    below: str = ""
    empty: str = ""


class ListScreen(DashScreen[T], Generic[T, R]):
    """A screen with a table of records. It can have pages, a choice (for example of a state), and a filter.

    `T` is the type of the data that `read` returns, `R` that of a record.

    Attributes:
        text: The text of the filter; "" if no filter is set.
        choice: The selected value of `choices`.
        table: The table.
        page: The visible page, None before the first read.
        shown_position: Position of the visible page. It differs from `position` while another page is being read.
        positions: Position of the current page and of each page before it; 0 is the first page.
    """

    OPENS: ClassVar[bool] = True
    """Whether the Enter key opens the selected record."""
    FILTER: ClassVar[str] = ""
    """The syntax of the filter; "" without a filter."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="the list"),
        Binding("n,right_square_bracket", "page(1)", "Next", key_display="n", show=False, tooltip="page"),
        Binding("p,left_square_bracket", "page(-1)", "Back", key_display="p", show=False, tooltip="to the page before"),
        Binding(
            "right,l",
            "choose(1)",
            "Choose",
            show=False,
            key_display="→ l",
            tooltip="the next value of the list above the table",
        ),
        Binding("left,h", "choose(-1)", "Choose", show=False, key_display="← h", tooltip="the previous value"),
    ]

    def __init__(self, shared: DashState, choice: Any = None) -> None:
        super().__init__(shared)
        self.text = ""
        self.choice = choice
        self.positions: list[Any] = [0]
        self.table = Records(self.palette, opens=self.OPENS, id="table")
        self.page: Page[R] | None = None
        self.shown_position: Any = None

    # --- defined by each screen ---------------------------------------------------------------------------------------

    def page_of(self, found: T) -> Page[R]:
        """Convert the data that `read` returned to a page of this screen."""
        raise NotImplementedError

    def open(self, record: R) -> None:
        """Open a record."""
        raise NotImplementedError

    def panel(self) -> Text | None:
        """Return details of the selected record, which are shown below the table."""
        return None

    def filtered(self, text: str) -> None:
        """Parse the filter that the user entered. The next `read` uses it.

        Raises:
            ConfigurationError: The filter is invalid.
        """

    # --- drawing ------------------------------------------------------------------------------------------------------

    def body(self) -> ComposeResult:
        """Return the table, and the widgets above and below it."""
        yield Static(id="facts", classes="facts")
        yield Links(id="choices", classes="line")
        yield self.table
        yield Static(classes="empty", id="empty")
        yield Static(id="pages", classes="line quiet")
        yield Static(id="panel")
        yield Input(placeholder=self.FILTER, id="filter")

    @property
    def heading(self) -> str:
        """The title of the page. Before the first read, it is the name of the screen."""
        return self.TOP if self.page is None else self.page.heading

    def draw(self, found: T) -> None:
        """Show the data of a read."""
        page = self.page = self.page_of(found)
        self.shown_position = self.position
        # The list has become shorter and the page is empty, so go back one page.
        if not page.records and isinstance(self.position, int) and self.position:
            self.positions.pop()
            self.reload()
            return
        self.show("#facts", page.facts)
        labels = [
            clickable(label, f"screen.choose_number({number})", is_on=choice == self.choice)
            for number, (choice, label) in enumerate(page.choices)
        ]
        self.show("#choices", Text("  ").join(labels))
        self.table.fill(page.columns, page.records, page.key)
        self.show("#empty", None if page.records else shown(page.empty))
        self.show("#pages", shown(page.below))
        self.show("#panel", self.panel())

    def show(self, selector: str, text: Text | None) -> None:
        """Show a text in a widget; hide the widget if the text is empty."""
        widget = self.query_one(selector, Static)
        widget.update(text or "")
        widget.display = bool(text)

    @property
    def chosen(self) -> R | None:
        """The record in the selected line of the table, None if no line is selected."""
        found: R | None = self.table.chosen
        return found

    def on_data_table_row_highlighted(self) -> None:
        """Show the details of the selected record, and the actions that fit it."""
        if self.found is not None and self.has_parts:
            self.show("#panel", self.panel())
            self.refresh_bindings()

    def on_data_table_row_selected(self, event: Records.RowSelected) -> None:
        """Open the selected record."""
        record = self.chosen
        if record is not None and self.OPENS and event.data_table is self.table:
            self.open(record)

    # --- pages, choices and filters -----------------------------------------------------------------------------------

    @property
    def position(self) -> Any:
        """The position of the page in the list: the number of records before it, or a cursor."""
        return self.positions[-1]

    def next_number(self, total: int) -> int | None:
        """Return the number of records before the next page, None on the last page.

        `total` is the length of the list.
        """
        after: int = self.position + self.table.fits
        return after if after < total else None

    def page_text(self, total: int) -> str:
        """Return "page X of Y" for a list with `total` records."""
        count = self.table.fits
        return f"page {self.position // count + 1:,} of {max(1, -(-total // count)):,}   n next, p back"

    def action_page(self, by: int) -> None:
        """Show the next or previous page."""
        position = None if self.page is None or self.shown_position != self.position else self.page.next
        if by > 0 and position is not None:
            self.positions.append(position)
        elif by < 0 and len(self.positions) > 1:
            self.positions.pop()
        else:
            return
        self.reload()

    def begin(self) -> None:
        """Show the first page."""
        self.positions = [0]
        self.reload()

    def on_records_refit(self) -> None:
        """Read the page again, with as many records as now fit."""
        if front(self.app) is self:
            self.reload()

    def action_choose(self, by: int) -> None:
        """Select the next or previous value of `choices`."""
        choices = [] if self.page is None else [choice for choice, _ in self.page.choices]
        if self.choice in choices:
            self.action_choose_number((choices.index(self.choice) + by) % len(choices))

    def action_choose_number(self, number: int) -> None:
        """Select a value of `choices` by its number."""
        if self.page is not None:
            self.choice = self.page.choices[number][0]
            self.filtered(self.text)
            self.begin()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable the keys for the filter, the pages and the choice on a screen that does not have them."""
        if action == "filter" and not self.FILTER:
            return False
        if action == "page" and len(self.positions) == 1:
            return self.page is not None and self.page.next is not None
        if action == "choose" and (self.page is None or not self.page.choices):
            return False
        return super().check_action(action, parameters)

    @property
    def _field(self) -> Input:
        return self.query_one("#filter", Input)

    def action_filter(self) -> None:
        """Open the filter."""
        self._field.value = self.text
        self._field.add_class("-open")
        self._field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Apply the filter."""
        try:
            self._filter(event.value.strip())
        except ConfigurationError as error:
            self.show_message(str(error), "error")
        else:
            self.show_message("")
            self._close_filter()

    def _filter(self, text: str) -> None:
        self.filtered(text)
        self.text = text
        self.begin()

    def _close_filter(self) -> None:
        self._field.remove_class("-open")
        self.table.focus()

    def leaves(self) -> bool:
        """Return whether the user may leave the screen.

        If a filter is open or set, close or clear the filter instead.
        """
        if self._field.has_class("-open"):
            self._close_filter()
        elif self.text:
            self._filter("")
        else:
            return super().leaves()
        return False


class TextScreen(DashScreen[T]):
    """A screen with one long text, which scrolls."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def text(self, found: T) -> Text:
        """Convert the data that `read` returned to the text of this screen."""
        raise NotImplementedError

    def body(self) -> ComposeResult:
        """Return the text."""
        with VerticalScroll(id="scroll"):
            yield Static(id="text", classes="facts")

    def draw(self, found: T) -> None:
        """Show the text."""
        self.query_one("#text", Static).update(self.text(found))

    def on_mount(self) -> None:
        """Focus the text, so that keys scroll it."""
        self.query_one("#scroll").focus()

    def action_scroll(self, by: int) -> None:
        """Scroll by a line."""
        self.query_one("#scroll").scroll_relative(y=by, animate=False)

    def section(self, text: Text, title: str) -> None:
        """Add the title of a section to a text."""
        text.append(f"\n{title}\n", f"bold {self.palette['quiet']}")

    def pairs(self, text: Text, pairs: dict[str, str]) -> None:
        """Add names and values to a text."""
        width = max(map(len, pairs), default=0)
        for name, value in pairs.items():
            text.append_text(shown(f"{name:<{width}}  ", self.palette["quiet"]))
            text.append_text(shown(value, self.palette.of(value))).append("\n")
