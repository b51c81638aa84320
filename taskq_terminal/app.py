"""The terminal dashboard as a textual app: a stack of screens."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.theme import Theme
from textual.widgets import HelpPanel

from taskq_core import TaskQ
from taskq_terminal.figures import Palette
from taskq_terminal.limits import LimitsScreen
from taskq_terminal.queues import QueuesScreen
from taskq_terminal.redis_facts import RedisScreen
from taskq_terminal.schedules import ScheduleScreen, SchedulesScreen
from taskq_terminal.screen import TOPS, DashScreen, front
from taskq_terminal.state import DashConfig, DashState
from taskq_terminal.task import TaskScreen
from taskq_terminal.tasks import TasksScreen
from taskq_terminal.types import TypesScreen
from taskq_terminal.workers import WorkersScreen
from taskq_terminal.workflows import StepScreen, WorkflowScreen, WorkflowsScreen

_SCREENS: dict[str, Callable[..., DashScreen[Any]]] = {
    "queues": QueuesScreen,
    "tasks": TasksScreen,
    "workers": WorkersScreen,
    "schedules": SchedulesScreen,
    "workflows": WorkflowsScreen,
    "types": TypesScreen,
    "redis": RedisScreen,
    "limits": LimitsScreen,
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
        Binding("question_mark", "help", "Help", key_display="?", tooltip="shows or hides the keys"),
        Binding("escape,q", "go_back", "Back", key_display="q", tooltip="or, at the first screen, quit"),
        *(Binding(str(number), f"top('{name}')", name.capitalize(), show=False) for number, name in enumerate(TOPS, 1)),
        Binding("f5,ctrl+l", "reload", "Reload", show=False, tooltip="now"),
        Binding("ctrl+c,ctrl+q", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(self, taskq: TaskQ, config: DashConfig | None = None) -> None:
        super().__init__()
        self.shared = DashState(taskq, config or DashConfig())
        self.register_theme(_theme(self.shared.palette))
        self.theme = "taskq"

    @property
    def front(self) -> DashScreen[Any] | None:
        """The visible screen. If a dialog is open, the screen under the dialog."""
        return front(self)

    def on_mount(self) -> None:
        """Show the queues."""
        self.push_screen(QueuesScreen(self.shared))
        self.run_worker(self._refresh(), group="refreshing")

    async def on_unmount(self) -> None:
        """Close the connections of this event loop."""
        await self.shared.taskq.runtime.async_runner.aclose()

    async def _refresh(self) -> None:
        """Read the data of the visible screen periodically. A read starts only after the previous one has ended."""
        while True:
            await asyncio.sleep(self.shared.config.refresh.total_seconds())
            screen = self.front
            if screen is None or not screen.has_parts or any(worker.group == "reading" for worker in self.workers):
                continue
            if screen.is_live or self.shared.away_since:
                screen.reload()

    def on_dash_screen_go(self, message: DashScreen.Go) -> None:
        """Open another screen over the visible one."""
        self.push_screen(_SCREENS[message.name](self.shared, *message.arguments))

    def action_top(self, name: str) -> None:
        """Show the screen that a digit key opens."""
        while len(self.screen_stack) > 2:
            self.pop_screen()
        self.switch_screen(_SCREENS[name](self.shared))

    def action_go_back(self) -> None:
        """Go back to the previous screen, or quit on the first one. During a change, only the second press quits."""
        screen = self.screen
        if isinstance(screen, DashScreen) and not screen.leaves():
            return
        if len(self.screen_stack) > 2:
            self.pop_screen()
        elif self.shared.changes and isinstance(screen, DashScreen) and not self.shared.is_warned:
            self.shared.is_warned = True
            screen.show_message("A change is still in progress; press q again to quit anyway.", "warning")
        else:
            self.exit()

    def action_reload(self) -> None:
        """Read the data of the visible screen again."""
        if self.front is not None:
            self.front.reload()

    def action_help(self) -> None:
        """Show or hide the keys and the description of the screen."""
        if self.screen.query(HelpPanel):
            self.action_hide_help_panel()
        elif isinstance(self.screen, DashScreen):
            self.action_show_help_panel()


def _theme(palette: Palette) -> Theme:
    return Theme(
        name="taskq",
        dark=palette.is_dark,
        primary=palette["link"],
        secondary=palette["quiet"],
        accent=palette["link"],
        warning=palette["warn"],
        error=palette["bad"],
        success=palette["good"],
        foreground=palette["front"],
        background=palette["back"],
        surface=palette["bar"],
        panel=palette["bar"],
        variables={
            "bar": palette["bar"],
            "cursor": palette["cursor"],
            "line": palette["cursor"],
            "quiet": palette["quiet"],
            "error-back": palette["error-back"],
        },
    )
