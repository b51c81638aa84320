"""The base of all screens: title, state and messages, and the way to ask and to change something."""

from collections.abc import Coroutine, Iterator
from typing import Any, ClassVar, Generic, Literal, TypeVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Container, Horizontal
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Static

from taskq_core.cli.base import failure_text
from taskq_core.cli.terminal.dialogs import Confirm, Question
from taskq_core.cli.terminal.figures import shown
from taskq_core.cli.terminal.poller import Poller
from taskq_core.errors import BrokerAuthenticationError, TaskQError

T = TypeVar("T")
Level = Literal["success", "warning", "error"]

MIN_WIDTH, MIN_HEIGHT = 40, 10
"""A smaller terminal shows one line that says so."""
TOPS = ("queues", "tasks", "workers", "schedules", "workflows", "types", "redis", "limits")
"""The screens of the digit keys."""


def front(app: App[Any]) -> "DashScreen[Any] | None":
    """Return the visible screen, also if a dialog is over it."""
    return next((screen for screen in reversed(app.screen_stack) if isinstance(screen, DashScreen)), None)


class Item(Static):
    """A word with an action for a click."""

    def __init__(self, label: Text, action: str, **more: Any) -> None:
        super().__init__(label, **more)
        self._action = action

    async def on_click(self) -> None:
        """Run the action."""
        await self.run_action(self._action)


class DashScreen(Screen[None], Generic[T]):
    """A screen that is read from Redis again and again.

    Attributes:
        found: The last read, None before the first.
        is_ready: Whether its widgets exist.
        turns: Number of requests for another page or filter. Reads from before the last one are not shown.
    """

    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-tight"), (85, "-wide")]  # noqa: RUF012 - as its base has it
    TOP: ClassVar[str] = ""
    """Its entry in `TOPS`."""
    ABOUT: ClassVar[str] = ""
    """Its description in the help."""

    class Go(Message):
        """A request to open another screen."""

        def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
            super().__init__()
            self.name, self.arguments = name, arguments

    def __init__(self, poller: Poller) -> None:
        super().__init__()
        self.poller = poller
        self.found: T | None = None
        self.turns = 0
        self.is_ready = False
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
        """Show a read."""
        raise NotImplementedError

    @property
    def heading(self) -> str:
        """The title."""
        raise NotImplementedError

    # --- the frame ----------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Return all widgets."""
        yield Static(id="small")
        with Horizontal(id="top"):
            yield Static(Text("taskq"), id="brand")
            yield Static(id="where")
            yield Static(id="state")
        with Horizontal(id="nav"):
            for number, name in enumerate(TOPS, 1):
                classes = "item -on" if name == self.TOP else "item"
                label = Text.assemble((f"{number} ", "bold"), name.capitalize())
                yield Item(label, f"app.top('{name}')", classes=classes)
        yield Static(id="trouble")
        with Container(id="body"):
            yield from self.body()
        yield Static(id="notice")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Show the state, and read at once."""
        self.is_ready = True
        self.show_state()
        self._fit(self.size.width, self.size.height)
        self.poller.wake.set()

    def on_screen_resume(self) -> None:
        """Read at once."""
        self.poller.wake.set()

    def on_resize(self, event: events.Resize) -> None:
        """Check the size of the terminal."""
        if self.is_ready:
            self._fit(event.size.width, event.size.height)

    def _fit(self, width: int, height: int) -> None:
        """Show the screen, or that the terminal is too small."""
        is_small = width < MIN_WIDTH or height < MIN_HEIGHT
        self.set_class(is_small, "-small")
        if is_small:
            text = f"taskq dash needs {MIN_WIDTH}x{MIN_HEIGHT}, this is {width}x{height} (q quits)"
            self.query_one("#small", Static).update(Text(text))

    @property
    def has_parts(self) -> bool:
        """Whether the widgets still exist. A closing dashboard removes them before the screen."""
        return self.app.is_running and bool(self.query("#where"))

    def show_state(self) -> None:
        """Show the title and the state of Redis."""
        poller, palette = self.poller, self.poller.palette
        self.query_one("#where", Static).update(
            Text.assemble(shown(self.heading), "   ", shown(poller.taskq.runtime.endpoint.address, palette.quiet))
        )
        parts = []
        if poller.refusal:
            parts.append(("read-only", f"bold {palette.warn}"))
        parts.append((f"every {poller.config.refresh.total_seconds():g} s", palette.quiet))
        clock = "--:--:--" if poller.read_at is None else poller.read_at.strftime("%H:%M:%SZ")
        parts.append((clock, palette.bad if poller.away_since else palette.quiet))
        self.query_one("#state", Static).update(Text("  ").join(Text(*part) for part in parts))
        trouble = self.query_one("#trouble", Static)
        trouble.display = poller.away_since is not None
        if poller.away_since is not None:
            what = "refuses requests" if poller.is_refused else "does not answer"
            since = f"Redis {what} since {poller.away_since:%H:%M:%SZ}. "
            old = "" if poller.read_at is None else f"Data of {poller.read_at:%H:%M:%SZ}. "
            trouble.update(shown(f"{since}{old}Trying again: {poller.trouble}."))
        self.set_class(poller.away_since is not None or self._is_gone, "-stale")
        if poller.may_change is not self._may_change:
            self._may_change = poller.may_change
            self.refresh_bindings()

    def take(self, found: T) -> None:
        """Store and show a read."""
        self.found = found
        self._is_gone = False
        self.show_state()
        self.draw(found)

    def gone(self, error: TaskQError) -> None:
        """Show that the record no longer exists. The last read stays, in grey."""
        self._is_gone = True
        self.show_state()
        self.say(failure_text(error), "error")

    def redraw(self) -> None:
        """Show the last read again."""
        self.show_state()
        if self.found is not None:
            self.draw(self.found)

    def say(self, text: str, level: Level = "success") -> None:
        """Show a message until the next one, on the visible screen."""
        screen = front(self.app)
        if screen is not None and screen is not self:
            screen.say(text, level)
            return
        if not self.has_parts:
            return
        notice = self.query_one("#notice", Static)
        notice.update(shown(text))
        notice.set_classes(f"-{level}")
        notice.display = bool(text)

    @property
    def said(self) -> str:
        """The last message."""
        return str(self.query_one("#notice", Static).render())

    def styled(self, word: str) -> Text:
        """Return a state in its color."""
        return shown(word, self.poller.palette.of(word))

    def first_line(self, error: str) -> Text:
        """Return the first line of an error."""
        return shown(error.strip().partition("\n")[0], self.poller.palette.bad)

    def quiet(self, text: str) -> Text:
        """Return text in a pale color."""
        return shown(text, self.poller.palette.quiet)

    # --- going and changing -------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Read another page or filter at once."""
        self.turns += 1
        self.poller.wake.set()

    def go(self, name: str, *arguments: Any) -> None:
        """Open another screen, by its name."""
        self.post_message(self.Go(name, arguments))

    def leaves(self) -> bool:
        """Return whether the screen may be left; if not, close what has to be closed first."""
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable changes if they are not possible."""
        if action.startswith("change_") and not self.poller.may_change:
            return False
        return super().check_action(action, parameters)

    async def ask(self, question: Question) -> bool:
        """Ask for a confirmation."""
        return await self.app.push_screen_wait(Confirm(question)) is True

    def change(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a change in the background. It continues if the screen is left."""
        self.say("")
        self.app.run_worker(self._changing(work), group="change")

    async def _changing(self, work: Coroutine[Any, Any, None]) -> None:
        self.poller.changes += 1
        self.poller.is_warned = False
        try:
            await work
        except TaskQError as error:
            self.show_failure(error)
        finally:
            self.poller.changes -= 1
        self.poller.wake.set()

    def show_failure(self, error: TaskQError) -> None:
        """Show why a change failed."""
        if isinstance(error, BrokerAuthenticationError) and not self.poller.config.read_only:
            self.poller.refusal = None  # read the rights of this user again
        self.say(failure_text(error), "error")

    def shortcuts(self) -> Iterator[tuple[str, str]]:
        """Return the active keys and their descriptions, those of the screen before those of all screens."""
        seen: set[tuple[str, str]] = set()
        own: list[tuple[str, str]] = []
        of_all: list[tuple[str, str]] = []
        for active in self.active_bindings.values():
            binding = active.binding
            what = (binding.action, binding.tooltip)
            if binding.tooltip and active.enabled and what not in seen:
                seen.add(what)
                line = (self.app.get_key_display(binding), binding.tooltip)
                (of_all if active.node is self.app else own).append(line)
        yield from own
        yield from of_all
