"""What all screens have: a line that says where one is, one that says what is wrong, and a way to ask and to change."""

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
from taskq_core.cli.terminal.places import Place
from taskq_core.cli.terminal.poller import Desk
from taskq_core.errors import BrokerAuthenticationError, TaskQError

T = TypeVar("T")
Level = Literal["success", "warning", "error"]

LEAST_WIDTH, LEAST_HEIGHT = 40, 10
"""A terminal that is smaller shows one line that says so."""
TOPS = (
    ("queues", "Queues"),
    ("tasks", "Tasks"),
    ("workers", "Workers"),
    ("schedules", "Schedules"),
    ("workflows", "Workflows"),
    ("types", "Types"),
    ("redis", "Redis"),
    ("limits", "Limits"),
)
"""The screens that a digit leads to."""


def front(app: App[Any]) -> "Look[Any] | None":
    """Return the screen that is shown, under a question too."""
    return next((screen for screen in reversed(app.screen_stack) if isinstance(screen, Look)), None)


class Item(Static):
    """A word that does something when it is clicked."""

    def __init__(self, label: Text, action: str, **more: Any) -> None:
        super().__init__(label, **more)
        self._action = action

    async def on_click(self) -> None:
        """Do it."""
        await self.run_action(self._action)


class Look(Screen[None], Generic[T]):
    """A screen that shows what is read from Redis, again and again.

    Attributes:
        found: What was read last, None before.
        is_ready: Whether it can be drawn on: its parts are there.
        turns: How often something else was wanted of it; what was being read until then is not shown.
    """

    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-tight"), (85, "-wide")]  # noqa: RUF012 - as its base has it
    TOP: ClassVar[str] = ""
    """Which of `TOPS` it belongs to."""
    ABOUT: ClassVar[str] = ""
    """What it shows, for the help."""

    class Go(Message):
        """Somebody wants to see something else."""

        def __init__(self, place: Place) -> None:
            super().__init__()
            self.place = place

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self.found: T | None = None
        self.turns = 0
        self.is_ready = False
        self._is_gone = False
        self._may_change: bool | None = None

    # --- what each screen has of its own ------------------------------------------------------------------------------

    def body(self) -> ComposeResult:
        """Put together what stands between the lines above and below."""
        raise NotImplementedError

    async def read(self) -> T:
        """Read what is shown.

        Raises:
            TaskQError: It is not there, or Redis does not answer.
        """
        raise NotImplementedError

    def draw(self, found: T) -> None:
        """Show what was read."""
        raise NotImplementedError

    @property
    def heading(self) -> str:
        """What is shown, in a few words."""
        raise NotImplementedError

    # --- the frame ----------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Put the screen together."""
        yield Static(id="small")
        with Horizontal(id="top"):
            yield Static(Text("taskq"), id="brand")
            yield Static(id="where")
            yield Static(id="state")
        with Horizontal(id="nav"):
            for number, (name, label) in enumerate(TOPS, 1):
                classes = "item -on" if name == self.TOP else "item"
                yield Item(Text.assemble((f"{number} ", "bold"), label), f"app.top('{name}')", classes=classes)
        yield Static(id="trouble")
        with Container(id="body"):
            yield from self.body()
        yield Static(id="notice")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin with what is known; from now on it can be drawn on."""
        self.is_ready = True
        self.tell_state()
        self.fit(self.size.width, self.size.height)
        self.desk.wake.set()

    def on_screen_resume(self) -> None:
        """Look at once."""
        self.desk.wake.set()

    def on_resize(self, event: events.Resize) -> None:
        """Say that a terminal is too small, in its first line."""
        if self.is_ready:
            self.fit(event.size.width, event.size.height)

    def fit(self, width: int, height: int) -> None:
        """Show the screen, or that there is no room for it."""
        is_small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        self.set_class(is_small, "-small")
        if is_small:
            text = f"taskq dash needs {LEAST_WIDTH}x{LEAST_HEIGHT}, this is {width}x{height} (q quits)"
            self.query_one("#small", Static).update(Text(text))

    @property
    def has_parts(self) -> bool:
        """Whether the widgets of this screen still exist. A dashboard that closes removes them before the screen."""
        return self.app.is_running and bool(self.query("#where"))

    def tell_state(self) -> None:
        """Say where one is and how Redis is doing."""
        desk, palette = self.desk, self.desk.palette
        self.query_one("#where", Static).update(
            Text.assemble(shown(self.heading), "   ", shown(desk.taskq.runtime.endpoint.address, palette.quiet))
        )
        parts = []
        if desk.refusal:
            parts.append(("read-only", f"bold {palette.warn}"))
        parts.append((f"every {desk.config.refresh.total_seconds():g} s", palette.quiet))
        clock = "--:--:--" if desk.read_at is None else desk.read_at.strftime("%H:%M:%SZ")
        parts.append((clock, palette.bad if desk.away_since else palette.quiet))
        self.query_one("#state", Static).update(Text("  ").join(Text(*part) for part in parts))
        trouble = self.query_one("#trouble", Static)
        trouble.display = desk.away_since is not None
        if desk.away_since is not None:
            what = "refuses what is asked" if desk.is_refused else "does not answer"
            since = f"Redis {what} since {desk.away_since:%H:%M:%SZ}. "
            old = "" if desk.read_at is None else f"What is shown is of {desk.read_at:%H:%M:%SZ}. "
            trouble.update(shown(f"{since}{old}It is tried again: {desk.trouble}."))
        self.set_class(desk.away_since is not None or self._is_gone, "-stale")
        if desk.may_change is not self._may_change:
            self._may_change = desk.may_change
            self.refresh_bindings()

    def take(self, found: T) -> None:
        """Show what was read."""
        self.found = found
        self._is_gone = False
        self.tell_state()
        self.draw(found)

    def gone(self, error: TaskQError) -> None:
        """Say that what is shown is not there any more; what it was stays, greyed."""
        self._is_gone = True
        self.tell_state()
        self.say(failure_text(error), "error")

    def redraw(self) -> None:
        """Show what was read once more, as after a change of colours."""
        self.tell_state()
        if self.found is not None:
            self.draw(self.found)

    def say(self, text: str, level: Level = "success") -> None:
        """Say what an action came to, until the next one; on the screen that is shown by then, where it is another."""
        look = front(self.app)
        if look is not None and look is not self:
            look.say(text, level)
            return
        if not self.has_parts:
            return
        notice = self.query_one("#notice", Static)
        notice.update(shown(text))
        notice.set_classes(f"-{level}")
        notice.display = bool(text)

    @property
    def said(self) -> str:
        """What was said last."""
        return str(self.query_one("#notice", Static).render())

    def styled(self, word: str) -> Text:
        """Return a word that says how something stands, in its colour."""
        return shown(word, self.desk.palette.of(word))

    def first_line(self, error: str) -> Text:
        """Return the first line of what something failed with."""
        return shown(error.strip().partition("\n")[0], self.desk.palette.bad)

    def quiet(self, text: str) -> Text:
        """Return text that matters less."""
        return shown(text, self.desk.palette.quiet)

    # --- going and changing -------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Read at once what is wanted now."""
        self.turns += 1
        self.desk.wake.set()

    def go(self, place: Place) -> None:
        """Show something else."""
        self.post_message(self.Go(place))

    def leaves(self) -> bool:
        """Return whether the screen may be left, or has to close something first, which it does."""
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer no change where none can be made."""
        if action.startswith("change_") and not self.desk.may_change:
            return False
        return super().check_action(action, parameters)

    async def ask(self, question: Question) -> bool:
        """Ask before something is changed."""
        return await self.app.push_screen_wait(Confirm(question)) is True

    def change(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that asks, changes and tells, while the screen goes on, and also once it is left."""
        self.say("")
        self.app.run_worker(self._changing(work), group="change")

    async def _changing(self, work: Coroutine[Any, Any, None]) -> None:
        self.desk.changes += 1
        self.desk.is_warned = False
        try:
            await work
        except TaskQError as error:
            self.tell_failure(error)
        finally:
            self.desk.changes -= 1
        self.desk.wake.set()

    def tell_failure(self, error: TaskQError) -> None:
        """Say why something was not done."""
        if isinstance(error, BrokerAuthenticationError) and not self.desk.config.read_only:
            self.desk.refusal = None  # what this user may do is asked anew
        self.say(failure_text(error), "error")

    def shortcuts(self) -> Iterator[tuple[str, str]]:
        """Return the keys that do something here, and what, those of the screen before those of all screens."""
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
