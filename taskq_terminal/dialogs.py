"""Dialogs over a screen: a confirmation, an input field, and progress."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Static

from taskq_core.errors import ConfigurationError
from taskq_terminal.figures import shown, shown_lines

T = TypeVar("T")
NAMES_MAX = 5
"""Maximum number of object names that a dialog lists."""


class Dialog(ModalScreen[T | None]):
    """A box over a screen. Escape closes it without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False)]
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-narrow"), (64, "-roomy")]  # noqa: RUF012 - declared like this in textual

    def action_leave(self) -> None:
        """Close the dialog without an answer."""
        self.dismiss(None)


class Confirm(Dialog[bool]):
    """A confirmation before a change. `y` confirms, `n` and Escape do not; Enter presses the focused button.

    Args:
        text: The question. It names the objects and their number.
        button: The label of the button that confirms.
        is_destructive: Whether the change cannot be undone.
        names: The objects. The dialog lists the first ones.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes", show=False),
        Binding("n", "leave", "No", show=False),
        Binding("left,right,h,l", "app.focus_next", "Other button", show=False),
    ]

    def __init__(self, text: str, button: str, *, is_destructive: bool = False, names: Sequence[str] = ()) -> None:
        super().__init__()
        self._text, self._button, self._is_destructive, self._names = text, button, is_destructive, names

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        more = len(self._names) - NAMES_MAX
        with Vertical(classes="box -bad" if self._is_destructive else "box"):
            yield Static(shown_lines(self._text), id="question")
            for name in self._names[:NAMES_MAX]:
                yield Static(Text.assemble("  ", shown(name)), classes="name")
            if more > 0:
                yield Static(Text(f"  and {more:,} more"), classes="name quiet")
            with Horizontal(classes="buttons"):
                variant: Literal["error", "primary"] = "error" if self._is_destructive else "primary"
                yield Button(f"{self._button} (y)", id="yes", variant=variant)
                yield Button("Cancel (n)", id="no")

    def on_mount(self) -> None:
        """Focus the button that changes nothing."""
        self.query_one("#no" if self._is_destructive else "#yes").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Close the dialog with the answer of the pressed button."""
        self.dismiss(event.button.id == "yes")


class Ask(Dialog[Any]):
    """An input field. The answer is the parsed text.

    Args:
        title: The question.
        hint: The expected input.
        parse: Returns the value of a text. It raises `ConfigurationError` for an invalid one.
        value: The initial text.
        choices: Texts for completion.
    """

    def __init__(
        self, title: str, *, hint: str, parse: Callable[[str], Any], value: str = "", choices: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._title, self._hint, self._parse, self._value, self._choices = title, hint, parse, value, choices

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        suggester = SuggestFromList(self._choices) if self._choices else None
        with Vertical(classes="box"):
            yield Static(shown_lines(self._title), id="question")
            yield Input(value=self._value, suggester=suggester, id="answer")
            yield Static(shown_lines(self._hint), classes="quiet", id="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Close the dialog with the parsed input. If the input is not valid, show why."""
        try:
            value = self._parse(event.value.strip())
        except ConfigurationError as error:
            hint = self.query_one("#hint", Static)
            hint.update(shown_lines(str(error)))
            hint.set_classes("bad")
        else:
            self.dismiss(value)


class Working(Dialog[None]):
    """Progress of work in steps. Escape stops it after the current step."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self.is_stopped = False
        """Whether the user wants to stop."""

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        with Vertical(classes="box"):
            yield Static(shown_lines(self._title), id="question")
            yield Static("Escape stops it.", id="progress")

    def show(self, text: str) -> None:
        """Show the progress."""
        self.query_one("#progress", Static).update(shown(f"{text}. Escape stops it."))

    def action_leave(self) -> None:
        """Stop after the current step."""
        self.is_stopped = True
