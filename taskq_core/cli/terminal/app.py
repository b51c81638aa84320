"""The terminal dashboard as a program: one screen at a time is read, shown, and left for another."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.theme import Theme

from taskq_core.app import TaskQ
from taskq_core.cli.terminal.dialogs import Help
from taskq_core.cli.terminal.figures import DARK, LIGHT, Palette
from taskq_core.cli.terminal.limits import LimitsLook
from taskq_core.cli.terminal.places import LimitsPlace, Place, SchedulePlace, StepPlace, TaskPlace, TasksPlace
from taskq_core.cli.terminal.poller import DashConfig, Desk
from taskq_core.cli.terminal.queues import QueuesLook
from taskq_core.cli.terminal.schedules import ScheduleLook, SchedulesLook
from taskq_core.cli.terminal.screen import Look, front
from taskq_core.cli.terminal.store import StoreLook
from taskq_core.cli.terminal.task import TaskLook
from taskq_core.cli.terminal.tasks import TasksLook
from taskq_core.cli.terminal.types import TypesLook
from taskq_core.cli.terminal.workers import WorkersLook
from taskq_core.cli.terminal.workflow import StepLook, WorkflowLook
from taskq_core.cli.terminal.workflows import WorkflowsLook
from taskq_core.errors import BrokerError, TaskQError

_TOPS: dict[str, Callable[[Desk], Look[Any]]] = {
    "queues": QueuesLook,
    "tasks": TasksLook,
    "workers": WorkersLook,
    "schedules": SchedulesLook,
    "workflows": WorkflowsLook,
    "types": TypesLook,
    "redis": StoreLook,
    "limits": LimitsLook,
}


def screen_of(desk: Desk, place: Place) -> Look[Any]:
    """Return the screen that shows a place."""
    match place:
        case TasksPlace():
            return TasksLook(desk, place.queue, state=place.state, group=place.group)
        case LimitsPlace():
            return LimitsLook(desk, place.queue)
        case TaskPlace():
            return TaskLook(desk, place.queue, place.task_id)
        case SchedulePlace():
            return ScheduleLook(desk, place.entry_id)
        case StepPlace():
            return StepLook(desk, place.queue, place.workflow_id, place.step)
    return WorkflowLook(desk, place.queue, place.workflow_id)


class DashApp(App[None]):
    """The terminal dashboard.

    Args:
        taskq: The queue application that is looked at.
        config: How it runs.
    """

    CSS_PATH = "dash.tcss"
    TITLE = "taskq"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Help", key_display="?", tooltip="Show the keys"),
        Binding("escape,q", "go_back", "Back", key_display="q", tooltip="Go back; at the top, quit"),
        *(
            Binding(str(number), f"top('{name}')", name.capitalize(), show=False, tooltip=f"Show {name}")
            for number, name in enumerate(_TOPS, 1)
        ),
        Binding("f5,ctrl+l", "look", "Look", show=False, tooltip="Look again now"),
        Binding("D", "theme", "Light/dark", show=False, tooltip="Colours for a light or a dark background"),
        Binding("ctrl+c,ctrl+q", "quit", "Quit", show=False, priority=True, tooltip="Quit"),
    ]

    def __init__(self, taskq: TaskQ, config: DashConfig | None = None) -> None:
        super().__init__()
        self.desk = Desk(taskq, config or DashConfig())
        for name, palette, is_dark in (("taskq-dark", DARK, True), ("taskq-light", LIGHT, False)):
            self.register_theme(_theme(name, palette, is_dark=is_dark))
        self.theme = f"taskq-{self.desk.theme}"
        self._reading: asyncio.Task[Any] | None = None

    def on_mount(self) -> None:
        """Begin with the queues."""
        self.push_screen(QueuesLook(self.desk))
        self.run_worker(self._keep_looking(), group="looking")

    async def on_unmount(self) -> None:
        """Close the connections of this event loop."""
        await self.desk.taskq.runtime.async_runner.aclose()

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def look(self) -> Look[Any] | None:
        """The screen that is shown, under a question too."""
        return front(self)

    async def _keep_looking(self) -> None:
        """Read the screen that is shown, again and again; the next time once the time before has ended."""
        pause_s = self.desk.config.refresh.total_seconds()
        while True:
            self.desk.wake.clear()
            look = self.look
            if look is not None and look.is_ready:
                await self._read(look)
            try:
                async with asyncio.timeout(pause_s):
                    await self.desk.wake.wait()
            except TimeoutError:
                pass

    async def _read(self, look: Look[Any]) -> None:
        """Read a screen and show it; give up when another one is shown meanwhile."""
        turns = look.turns
        reading = self._reading = asyncio.create_task(self._asked(look))
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            self._reading = None
        if reading.cancelled() or look is not self.look or look.turns != turns or not look.has_parts:
            return
        error = reading.exception()
        if isinstance(error, BrokerError):
            self.desk.failed(error)
            look.tell_state()
        elif isinstance(error, TaskQError):
            self.desk.answered()
            look.gone(error)
        elif error is not None:
            raise error
        else:
            self.desk.answered()
            look.take(reading.result())

    async def _asked(self, look: Look[Any]) -> Any:
        await self.desk.learn_rights()
        return await look.read()

    def _turn(self) -> None:
        """Read what is shown now, and give up what was being read."""
        if self._reading is not None:
            self._reading.cancel()
        self.desk.wake.set()

    # --- going --------------------------------------------------------------------------------------------------------

    def on_look_go(self, message: Look.Go) -> None:
        """Show something else over what is shown."""
        self.push_screen(screen_of(self.desk, message.place))
        self._turn()

    def action_top(self, name: str) -> None:
        """Show one of the first screens."""
        while len(self.screen_stack) > 2:
            self.pop_screen()
        self.switch_screen(_TOPS[name](self.desk))
        self._turn()

    def action_go_back(self) -> None:
        """Go back to the screen before; from the first one, quit, at the second time if something is being changed."""
        look = self.screen
        if isinstance(look, Look) and not look.leaves():
            return
        if len(self.screen_stack) > 2:
            self.pop_screen()
            self._turn()
        elif self.desk.changes and isinstance(look, Look) and not self.desk.is_warned:
            self.desk.is_warned = True
            look.say("Something is still being changed; q once more quits in the middle of it.", "warning")
        else:
            self.exit()

    def action_look(self) -> None:
        """Look again now."""
        look = self.screen
        if isinstance(look, TasksLook):
            look.look_again()
        self._turn()

    def action_theme(self) -> None:
        """Take the colours for the other background."""
        self.desk.theme = "light" if self.desk.theme == "dark" else "dark"
        self.theme = f"taskq-{self.desk.theme}"
        for screen in self.screen_stack:
            if isinstance(screen, Look) and screen.is_ready:
                screen.redraw()

    def action_help(self) -> None:
        """Show the keys of the screen, and what it shows."""
        look = self.screen
        if isinstance(look, Look):
            self.push_screen(Help(f"taskq dash: {look.heading}", look.ABOUT, look.shortcuts()))


def _theme(name: str, palette: Palette, *, is_dark: bool) -> Theme:
    return Theme(
        name=name,
        dark=is_dark,
        primary=palette.link,
        secondary=palette.quiet,
        accent=palette.link,
        warning=palette.warn,
        error=palette.bad,
        success=palette.good,
        foreground=palette.front,
        background=palette.back,
        surface=palette.bar,
        panel=palette.bar,
        variables={
            "bar": palette.bar,
            "cursor": palette.cursor,
            "line": palette.cursor,
            "quiet": palette.quiet,
            "error-back": "#3d1a18" if is_dark else "#fde8e6",
        },
    )
