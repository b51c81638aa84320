"""Dialogs over a screen: a confirmation, an input field, an editor, a choice, progress, and the help."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, OptionList, Static, TextArea
from textual.widgets.option_list import Option

from taskq_core.cli.terminal.figures import shown, shown_lines

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A confirmation before a change.

    Attributes:
        text: The question. It names the objects and their number.
        button: The label of the button that confirms.
        is_destructive: Whether the change cannot be undone.
        names: The objects. The dialog lists the first ones.
    """

    text: str
    button: str
    is_destructive: bool = False
    names: Sequence[str] = field(default=())


NAMES_MAX = 5
"""Most objects that a dialog lists."""


class Dialog(ModalScreen[T | None]):
    """A box over a screen. Escape closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False)]
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-narrow"), (64, "-roomy")]  # noqa: RUF012 - as its base has it

    def action_leave(self) -> None:
        """Close it without an answer."""
        self.dismiss(None)


class Confirm(Dialog[bool]):
    """A confirmation. `y` confirms, `n` and Escape do not; Enter presses the focused button."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", show=False),
        Binding("n", "answer(False)", "No", show=False),
        Binding("left,right,h,l", "other", "Other button", show=False),
    ]

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        question = self.question
        more = len(question.names) - NAMES_MAX
        with Vertical(classes="box" + (" -bad" if question.is_destructive else "")):
            yield Static(shown_lines(question.text), id="question")
            for name in question.names[:NAMES_MAX]:
                yield Static(Text.assemble("  ", shown(name)), classes="name")
            if more > 0:
                yield Static(Text(f"  and {more:,} more"), classes="name quiet")
            with Horizontal(classes="buttons"):
                yield Button(
                    f"{question.button} (y)", id="yes", variant="error" if question.is_destructive else "primary"
                )
                yield Button("Cancel (n)", id="no")

    def on_mount(self) -> None:
        """Focus the harmless button."""
        self.query_one("#no" if self.question.is_destructive else "#yes").focus()

    def action_answer(self, is_yes: bool) -> None:
        """Answer."""
        self.dismiss(is_yes)

    def action_leave(self) -> None:
        """Answer no."""
        self.dismiss(False)

    def action_other(self) -> None:
        """Focus the other button."""
        self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer."""
        self.dismiss(event.button.id == "yes")


class Ask(Dialog[str]):
    """An input field.

    Args:
        title: The question.
        hint: The expected input.
        check: Returns the problem of an answer, "" if it is valid.
        value: The initial value.
        choices: Values for completion.
    """

    def __init__(
        self, title: str, *, hint: str, check: Callable[[str], str], value: str = "", choices: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._title, self._hint, self._check, self._value, self._choices = title, hint, check, value, choices

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        suggester = SuggestFromList(self._choices) if self._choices else None
        with Vertical(classes="box"):
            yield Static(shown_lines(self._title), id="question")
            yield Input(value=self._value, suggester=suggester, id="answer")
            yield Static(shown_lines(self._hint), classes="quiet", id="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer, if the input is valid."""
        problem = self._check(event.value)
        if problem:
            hint = self.query_one("#hint", Static)
            hint.update(shown_lines(problem))
            hint.set_classes("bad")
        else:
            self.dismiss(event.value)


class Edit(Dialog[str]):
    """A text editor. Ctrl-S saves. Escape closes it, if the text was changed only the second time.

    Args:
        title: The title.
        text: The original text.
        hint: The expected input.
        check: Returns the problem of a text, "" if it is valid.
        typed: The text from an earlier edit.
        problem: Why the earlier edit was not saved.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "save", "Save", show=False)]
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-low"), (18, "-high")]  # noqa: RUF012 - as its base has it

    def __init__(
        self,
        title: str,
        text: str,
        *,
        hint: str,
        check: Callable[[str], str],
        typed: str | None = None,
        problem: str = "",
    ) -> None:
        super().__init__()
        self._title, self._text, self._hint, self._check = title, text, hint, check
        self._typed = text if typed is None else typed
        self._problem = problem
        self._left_as: str | None = None

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        with Vertical(classes="box -editor"):
            yield Static(shown_lines(self._title), id="question")
            yield TextArea(self._typed, id="text", soft_wrap=True, tab_behavior="focus")
            yield Static(
                shown_lines(self._problem or self._hint), classes="bad" if self._problem else "quiet", id="hint"
            )
            with Horizontal(classes="buttons"):
                yield Button("Save (Ctrl-S)", id="save", variant="primary")
                yield Button("Cancel (Esc)", id="leave")

    def action_save(self) -> None:
        """Answer, if the input is valid."""
        text = self.query_one(TextArea).text
        problem = self._check(text)
        if problem:
            self._complain(problem)
        else:
            self.dismiss(text)

    def action_leave(self) -> None:
        """Close it. A changed text needs a second Escape."""
        text = self.query_one(TextArea).text
        if text in (self._text, self._left_as):
            self.dismiss(None)
        else:
            self._left_as = text
            self._complain("You changed the text: press Escape again to discard the changes.")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Save or close."""
        if event.button.id == "save":
            self.action_save()
        else:
            self.action_leave()

    def _complain(self, problem: str) -> None:
        hint = self.query_one("#hint", Static)
        hint.update(shown_lines(problem))
        hint.set_classes("bad")


class Choose(Dialog[str]):
    """A choice between several options."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "move(1)", "Down", show=False),
        Binding("k", "move(-1)", "Up", show=False),
    ]

    def __init__(self, title: str, choices: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._choices = title, choices

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        with Vertical(classes="box"):
            yield Static(shown_lines(self._title), id="question")
            yield OptionList(*(Option(shown(label), id=key) for key, label in self._choices))

    def action_move(self, by: int) -> None:
        """Move the selection."""
        options = self.query_one(OptionList)
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer."""
        self.dismiss(event.option.id)


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
            yield Static("", id="progress")
            with Horizontal(classes="buttons"):
                yield Button("Stop (Esc)", id="stop")

    def show(self, text: str) -> None:
        """Show the progress."""
        self.query_one("#progress", Static).update(shown(text))

    def action_leave(self) -> None:
        """Stop after the current step."""
        self.is_stopped = True
        self.show("Stopping…")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Stop after the current step."""
        self.action_leave()


class Help(Dialog[None]):
    """The keys and the description of a screen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,question_mark", "leave", "Leave", show=False)]

    def __init__(self, title: str, about: str, keys: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._about, self._keys = title, about, list(keys)

    def compose(self) -> ComposeResult:
        """Return the widgets."""
        width = max((len(key) for key, _ in self._keys), default=0)
        text = Text()
        for key, what in self._keys:
            text.append(f"{key:>{width}}  ", style="bold").append(f"{what}\n")
        with VerticalScroll(classes="box -wide"):
            yield Static(Text(self._title, style="bold"))
            yield Static(Text(self._about), classes="about")
            yield Static(text)
            yield Static(Text("Escape closes this"), classes="quiet")
