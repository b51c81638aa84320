"""The base class of all screens.

It shows title, state and messages, reads from Redis, asks for confirmations and runs changes.
"""

from collections.abc import Coroutine
from typing import Any, ClassVar, Generic, Literal, TypeVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Container, Horizontal
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, HelpPanel, Static
from textual.worker import Worker

from taskq_core.cli.plugin import failure_text
from taskq_core.errors import BrokerAuthenticationError, BrokerError, TaskQError
from taskq_terminal.dialogs import Confirm
from taskq_terminal.figures import shown
from taskq_terminal.state import DashState

T = TypeVar("T")
Level = Literal["success", "warning", "error"]

MIN_WIDTH, MIN_HEIGHT = 40, 10
"""Minimum size of the terminal in cells. A smaller one shows only a line that says that it is too small."""
TOPS = ("queues", "tasks", "workers", "schedules", "workflows", "types", "redis", "limits")
"""Names of the screens that the digit keys open, beginning with key 1."""


def front(app: App[Any]) -> "DashScreen[Any] | None":
    """Return the visible screen. If a dialog is open, return the screen under the dialog."""
    return next((screen for screen in reversed(app.screen_stack) if isinstance(screen, DashScreen)), None)


class Links(Static):
    """A widget for texts that run an action when they are clicked.

    The widget does not change the colors of the texts.
    """

    auto_links = False


def clickable(label: Text, action: str, *, is_on: bool) -> Text:
    """Return a text that runs an action when it is clicked. The text is highlighted if `is_on`."""
    label = label.copy()
    label.stylize(Style(meta={"@click": action}, reverse=is_on, bold=is_on))
    return label


class DashScreen(Screen[None], Generic[T], inherit_bindings=False):
    """Base class of the screens. It reads the data of the screen periodically. `HELP` is the text that describes it.

    Attributes:
        found: The data of the last read, None before the first read.
    """

    TOP: ClassVar[str] = ""
    """Name of this screen, or of the screen from which it was opened, in `TOPS`."""

    class Go(Message):
        """A request to open another screen."""

        def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
            super().__init__()
            self.name, self.arguments = name, arguments

    def __init__(self, shared: DashState) -> None:
        super().__init__()
        self.shared = shared
        self.palette = shared.palette
        self.found: T | None = None
        self._is_gone = False
        self._may_change: bool | None = None

    # --- defined by each screen ---------------------------------------------------------------------------------------

    def body(self) -> ComposeResult:
        """Return the widgets between title and footer."""
        raise NotImplementedError

    async def read(self) -> T:
        """Read the records from Redis.

        Raises:
            TaskQError: The record does not exist, or Redis does not answer.
        """
        raise NotImplementedError

    def draw(self, found: T) -> None:
        """Show the data of a read."""
        raise NotImplementedError

    @property
    def heading(self) -> str:
        """The title."""
        raise NotImplementedError

    @property
    def is_live(self) -> bool:
        """Whether the data of the screen is read periodically. Otherwise it is read only on the user's request."""
        return True

    # --- the frame ----------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Return all widgets."""
        yield Static(id="small")
        with Horizontal(id="top"):
            yield Static(Text("taskq"), id="brand")
            yield Static(id="where")
            yield Static(id="status")
        tops = [
            clickable(Text(f"{number} {name.capitalize()}"), f"app.top('{name}')", is_on=name == self.TOP)
            for number, name in enumerate(TOPS, 1)
        ]
        yield Links(Text(" ").join(tops), id="nav")
        yield Static(id="trouble")
        with Container(id="body"):
            yield from self.body()
        yield Static(id="notice")
        yield Footer(compact=True, show_command_palette=False)

    def on_screen_resume(self) -> None:
        """Read at once."""
        self.show_state()
        self._fit(self.size.width, self.size.height)
        if self.found is None or self.is_live:
            self.reload()

    def on_resize(self, event: events.Resize) -> None:
        """Check whether the terminal is large enough."""
        if self.has_parts:
            self._fit(event.size.width, event.size.height)

    def _fit(self, width: int, height: int) -> None:
        """Show the screen, or a message that the terminal is too small."""
        is_small = width < MIN_WIDTH or height < MIN_HEIGHT
        self.set_class(is_small, "-small")
        if is_small:
            text = f"taskq dash needs {MIN_WIDTH}x{MIN_HEIGHT}, this is {width}x{height} (q quits)"
            self.query_one("#small", Static).update(Text(text))

    @property
    def has_parts(self) -> bool:
        """Whether the widgets of the screen exist. Textual removes them before the screen when the dashboard closes."""
        return self.app.is_running and bool(self.query("#notice"))

    def show_state(self) -> None:
        """Show the title and the state of Redis."""
        shared, palette = self.shared, self.palette
        self.query_one("#where", Static).update(
            Text.assemble(shown(self.heading), "   ", shown(shared.taskq.runtime.endpoint.address, palette["quiet"]))
        )
        clock = "--:--:--" if shared.read_at is None else shared.read_at.strftime("%H:%M:%SZ")
        self.query_one("#status", Static).update(
            Text.assemble(
                ("read-only  " if shared.refusal else "", f"bold {palette['warn']}"),
                (f"every {shared.config.refresh.total_seconds():g} s  ", palette["quiet"]),
                (clock, palette["bad" if shared.away_since else "quiet"]),
            )
        )
        trouble = self.query_one("#trouble", Static)
        trouble.display = shared.away_since is not None
        if shared.away_since is not None:
            what = "refuses requests" if shared.is_refused else "does not answer"
            since = f"Redis {what} since {shared.away_since:%H:%M:%SZ}. "
            old = "" if shared.read_at is None else f"Data of {shared.read_at:%H:%M:%SZ}. "
            trouble.update(shown(f"{since}{old}Trying again: {shared.trouble}."))
        self.set_class(shared.away_since is not None or self._is_gone, "-stale")
        if shared.may_change is not self._may_change:
            self._may_change = shared.may_change
            self.refresh_bindings()

    def show_message(self, text: str, level: Level = "success") -> None:
        """Show a message on the visible screen, until the next message replaces it."""
        screen = front(self.app)
        if screen is not None and screen is not self:
            screen.show_message(text, level)
        elif self.has_parts:
            notice = self.query_one("#notice", Static)
            notice.update(shown(text))
            notice.set_classes(f"-{level}")
            notice.display = bool(text)

    # --- reading ------------------------------------------------------------------------------------------------------

    def reload(self) -> Worker[None]:
        """Read the data of this screen at once. Cancel the read in progress, which another screen may have started."""
        return self.app.run_worker(self._load, group="reading", exclusive=True)

    async def _load(self) -> None:
        try:
            await self.shared.check_rights()
            found = await self.read()
        except BrokerError as error:
            self.shared.failed(error)
            if self.has_parts:
                self.show_state()
        except TaskQError as error:
            self.shared.answered()
            self._is_gone = True  # the record was deleted; its last data are shown in gray
            if self.has_parts:
                self.show_state()
                self.show_message(failure_text(error), "error")
        else:
            self.shared.answered()
            self._is_gone = False
            self.found = found
            self.redraw()

    def redraw(self) -> None:
        """Draw the data of the last read again."""
        if self.found is not None and self.has_parts:
            self.draw(self.found)
            self.show_state()
            self.refresh_bindings()

    # --- going and changing -------------------------------------------------------------------------------------------

    def go(self, name: str, *arguments: Any) -> None:
        """Open another screen, by its name."""
        self.post_message(self.Go(name, arguments))

    def leaves(self) -> bool:
        """Return whether the user may leave the screen. If not, close the widget that must be closed first."""
        if self.query(HelpPanel):
            self.app.action_hide_help_panel()
            return False
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable the keys for changes if the user may not make changes."""
        if action.startswith("change_") and not self.shared.may_change:
            return False
        return super().check_action(action, parameters)

    async def ask(self, text: str, button: str, *, is_destructive: bool = False, **more: Any) -> bool:
        """Ask for a confirmation with the dialog `Confirm`, and return the answer."""
        return await self.app.push_screen_wait(Confirm(text, button, is_destructive=is_destructive, **more)) is True

    def change(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a change in the background. The change continues if the user leaves the screen."""
        self.show_message("")
        self.app.run_worker(self._change(work), group="change")

    async def _change(self, work: Coroutine[Any, Any, None]) -> None:
        self.shared.changes += 1
        self.shared.is_warned = False
        try:
            await work
        except TaskQError as error:
            self.show_failure(error)
        finally:
            self.shared.changes -= 1
        screen = front(self.app)
        if screen is not None:
            screen.reload()

    def show_failure(self, error: TaskQError) -> None:
        """Show why a change failed."""
        if isinstance(error, BrokerAuthenticationError):
            self.shared.forget_rights()
        self.show_message(failure_text(error), "error")
