"""Two kinds of screens: one with a filter above its last line, and one that is a long text."""

from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from taskq_core.cli.terminal.poller import Desk
from taskq_core.cli.terminal.screen import Look
from taskq_core.cli.terminal.table import Records
from taskq_core.errors import ConfigurationError

T = TypeVar("T")


class FilteredLook(Look[T]):
    """A screen whose records are found by a filter.

    Attributes:
        text: The filter, "" for none.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", tooltip="Find some by a filter")
    ]
    HINT: ClassVar[str] = ""
    """What a filter may say."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.text = ""

    def field(self) -> Input:
        """Return the field of the filter, to be put at the end of the body."""
        return Input(placeholder=self.HINT, id="filter")

    def begin(self, text: str) -> None:
        """Begin at the first page of what a filter finds.

        Raises:
            ConfigurationError: It cannot be read.
        """
        raise NotImplementedError

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one("#filter", Input)
        field.value = self.text
        field.add_class("-open")
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the filter."""
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
        """Close the filter, or take it away, before the screen is left; return whether there was nothing to close."""
        if self.query_one("#filter", Input).has_class("-open"):
            self._close()
            return False
        if self.text:
            self.begin("")
            return False
        return True


class TextLook(Look[T]):
    """A screen that is one text, which scrolls."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def body(self) -> ComposeResult:
        """Put the text together."""
        with VerticalScroll(id="scroll"):
            yield Static(id="text", classes="facts")

    def on_mount(self) -> None:
        """Let the keys scroll."""
        super().on_mount()
        self.query_one("#scroll").focus()

    def action_scroll(self, by: int) -> None:
        """Go up or down."""
        self.query_one("#scroll").scroll_relative(y=by, animate=False)
