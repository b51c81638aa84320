"""The terminal dashboard as a textual app: a stack of screens."""

from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.theme import Theme

from taskq_core.app import TaskQ
from taskq_core.cli.terminal.dialogs import Help
from taskq_core.cli.terminal.figures import DARK, LIGHT, Palette
from taskq_core.cli.terminal.limits import LimitsScreen
from taskq_core.cli.terminal.poller import DashConfig, Poller
from taskq_core.cli.terminal.queues import QueuesScreen
from taskq_core.cli.terminal.schedules import ScheduleScreen, SchedulesScreen
from taskq_core.cli.terminal.screen import DashScreen, front
from taskq_core.cli.terminal.store import StoreScreen
from taskq_core.cli.terminal.task import TaskScreen
from taskq_core.cli.terminal.tasks import TasksScreen
from taskq_core.cli.terminal.types import TypesScreen
from taskq_core.cli.terminal.workers import WorkersScreen
from taskq_core.cli.terminal.workflow import StepScreen, WorkflowScreen
from taskq_core.cli.terminal.workflows import WorkflowsScreen

_TOPS: dict[str, Callable[..., DashScreen[Any]]] = {
    "queues": QueuesScreen,
    "tasks": TasksScreen,
    "workers": WorkersScreen,
    "schedules": SchedulesScreen,
    "workflows": WorkflowsScreen,
    "types": TypesScreen,
    "redis": StoreScreen,
    "limits": LimitsScreen,
}
"""The screens of the digit keys."""
_SCREENS: dict[str, Callable[..., DashScreen[Any]]] = {
    **_TOPS,
    "task": TaskScreen,
    "schedule": ScheduleScreen,
    "workflow": WorkflowScreen,
    "step": StepScreen,
}


class DashApp(App[None]):
    """The terminal dashboard.

    Args:
        taskq: The queue application.
        config: Configuration of the dashboard.
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
        Binding("f5,ctrl+l", "reload", "Reload", show=False, tooltip="Read again now"),
        Binding("ctrl+c,ctrl+q", "quit", "Quit", show=False, priority=True, tooltip="Quit"),
    ]

    def __init__(self, taskq: TaskQ, config: DashConfig | None = None) -> None:
        super().__init__()
        self.poller = Poller(taskq, config or DashConfig())
        is_dark = self.poller.config.theme == "dark"
        self.register_theme(_theme(DARK if is_dark else LIGHT, is_dark=is_dark))
        self.theme = "taskq"

    @property
    def front(self) -> DashScreen[Any] | None:
        """The visible screen, also if a dialog is over it."""
        return front(self)

    def on_mount(self) -> None:
        """Show the queues."""
        self.push_screen(QueuesScreen(self.poller))
        self.run_worker(self.poller.run(lambda: self.front), group="reading")

    async def on_unmount(self) -> None:
        """Close the connections of this event loop."""
        await self.poller.taskq.runtime.async_runner.aclose()

    def on_dash_screen_go(self, message: DashScreen.Go) -> None:
        """Open another screen over the visible one."""
        self.push_screen(_SCREENS[message.name](self.poller, *message.arguments))
        self.poller.restart()

    def action_top(self, name: str) -> None:
        """Show the screen of a digit key."""
        while len(self.screen_stack) > 2:
            self.pop_screen()
        self.switch_screen(_TOPS[name](self.poller))
        self.poller.restart()

    def action_go_back(self) -> None:
        """Go back to the previous screen; from the first one, quit. A change in progress needs a second key press."""
        screen = self.screen
        if isinstance(screen, DashScreen) and not screen.leaves():
            return
        if len(self.screen_stack) > 2:
            self.pop_screen()
            self.poller.restart()
        elif self.poller.changes and isinstance(screen, DashScreen) and not self.poller.is_warned:
            self.poller.is_warned = True
            screen.say("A change is still in progress; press q again to quit anyway.", "warning")
        else:
            self.exit()

    def action_reload(self) -> None:
        """Read the visible screen again."""
        if isinstance(self.screen, TasksScreen):
            self.screen.search_again()
        self.poller.restart()

    def action_help(self) -> None:
        """Show the keys and the description of the screen."""
        screen = self.screen
        if isinstance(screen, DashScreen):
            self.push_screen(Help(f"taskq dash: {screen.heading}", screen.ABOUT, screen.shortcuts()))


def _theme(palette: Palette, *, is_dark: bool) -> Theme:
    return Theme(
        name="taskq",
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
