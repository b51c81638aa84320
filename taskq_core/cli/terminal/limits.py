"""The limits of tasks, with running and waiting tasks; override a limit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from taskq_core.cli.limit import COLUMNS
from taskq_core.cli.table import Column
from taskq_core.cli.terminal.dialogs import Ask
from taskq_core.cli.terminal.figures import count_of, shown
from taskq_core.cli.terminal.frames import ListScreen
from taskq_core.cli.terminal.state import DashState
from taskq_core.errors import BrokerReplyError, ConfigurationError, QueueNotFoundError
from taskq_core.inspector import LimitInfo
from taskq_core.tasks.limits import Concurrency, RateLimit
from taskq_core.wire import TaskState

_HINTS = {
    "rate": "Starts per period, as 100/m or 5/10s",
    "concurrency": "Runs at the same time, for all workers together",
}


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """A limit, with its queue."""

    queue: str
    limit: LimitInfo

    @property
    def label(self) -> str:
        """The limit in a sentence."""
        return f"“{self.limit.name}” in the queue “{self.queue}”" if self.limit.name else f"the queue “{self.queue}”"


@dataclass(frozen=True, slots=True)
class Found:
    """The data of one read of this screen.

    Attributes:
        limits: The limits; those with waiting tasks first.
        damaged: Queues whose limits cannot be read.
    """

    limits: Sequence[QueueLimit]
    damaged: Sequence[str]


class LimitsScreen(ListScreen[Found, QueueLimit]):
    """The limits of one queue, or of all.

    Args:
        shared: The shared state.
        queue: The queue; None for all.
    """

    TOP = "limits"
    EMPTY = "No task has a limit."
    HELP = (
        "The limits of tasks: the value in the code, the value that overrides it, and how many tasks hold a slot or "
        "wait for one, summed over all values of the key. s overrides a limit for all workers at once, also for "
        "waiting tasks; c removes the override. Enter shows the waiting tasks, which are scheduled."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "change_set", "Set", tooltip="a value that overrides the code"),
        Binding("c", "change_clear", "Clear", tooltip="the override"),
    ]

    def __init__(self, shared: DashState, queue: str | None = None) -> None:
        super().__init__(shared)
        self.queue = queue

    @property
    def heading(self) -> str:
        """The queue, and the number of waiting tasks."""
        whose = "limits" if self.queue is None else f"limits of queue {self.queue}"
        if self.found is None:
            return whose
        waiting = sum(each.limit.waiting for each in self.found.limits)
        return f"{whose}, {count_of(waiting, 'task')} wait{'s' if waiting == 1 else ''}"

    async def read(self) -> Found:
        """Read the limits, queue by queue."""
        inspector = self.shared.inspector
        found: list[QueueLimit] = []
        damaged: list[str] = []
        for queue in await inspector.queues() if self.queue is None else [self.queue]:
            try:
                found += [QueueLimit(queue, each) for each in await inspector.limits(queue)]
            except QueueNotFoundError:
                if self.queue is not None:
                    raise
                # It was deleted while all queues were read.
            except BrokerReplyError:
                damaged.append(queue)
        found.sort(key=lambda each: (not each.limit.waiting, each.queue, each.limit.kind, each.limit.name))
        return Found(found, damaged)

    def columns(self, found: Found) -> Sequence[Column]:
        """Return the columns of the table."""
        columns = [replace(each, cell=partial(_cell, each)) for each in COLUMNS]
        return [*([] if self.queue else [Column("Queue", lambda each: each.queue, least=6)]), *columns]

    def records(self, found: Found) -> Sequence[QueueLimit]:
        """Return the limits."""
        return found.limits

    def key(self, record: QueueLimit) -> str:
        """Return queue, kind and name of a limit."""
        return f"{record.queue}\0{record.limit.kind}\0{record.limit.name}"

    def open(self, record: QueueLimit) -> None:
        """Show the waiting tasks."""
        self.go("tasks", record.queue, TaskState.SCHEDULED)

    def nothing(self, found: Found) -> str:
        """Return the text for an empty list, unless some limits cannot be read."""
        return "" if found.damaged else self.EMPTY

    def facts(self, found: Found) -> Text | None:
        """Return the damaged queues."""
        if not found.damaged:
            return None
        text = f"Limits that cannot be read: {', '.join(found.damaged)}. taskq doctor says why."
        return shown(text, self.palette["bad"])

    def action_change_set(self) -> None:
        """Override the selected limit."""
        if self.chosen is not None:
            self.change(self._set(self.chosen))

    def action_change_clear(self) -> None:
        """Remove the override of the selected limit."""
        if self.chosen is not None:
            self.change(self._clear(self.chosen))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the actions that fit the selected limit: a sequence has no number."""
        if action in ("change_set", "change_clear"):
            limit = None if self.chosen is None else self.chosen.limit
            if limit is None or limit.kind not in _HINTS or (action == "change_clear" and not limit.changed):
                return False
        return super().check_action(action, parameters)

    async def _set(self, chosen: QueueLimit) -> None:
        limit = chosen.limit
        value = (limit.changed or limit.declared).partition(",")[0].strip()
        title = f"The {limit.kind} of {chosen.label}"
        parse = partial(_parsed, limit.kind)
        new: str | None = await self.app.push_screen_wait(Ask(title, hint=_HINTS[limit.kind], parse=parse, value=value))
        if new is None:
            return
        code = f"The value in the code is {limit.declared}." if limit.declared else "The value in the code is unknown."
        text = f"Set the {limit.kind} of {chosen.label} to {new}? {code} It applies at once, to all workers and "
        if await self.ask(f"{text}waiting tasks.", "Set"):
            number: Any = {"rate": new} if limit.kind == "rate" else {"concurrency": int(new)}
            await self.shared.inspector.set_limit(chosen.queue, limit.name, **number)
            self.say(f"{title} is now {new}.")

    async def _clear(self, chosen: QueueLimit) -> None:
        limit = chosen.limit
        code = f", {limit.declared}" if limit.declared else ""
        text = f"Reset the {limit.kind} of {chosen.label} from {limit.changed} to the value in the code{code}?"
        if await self.ask(text, "Clear"):
            was_set = await self.shared.inspector.clear_limit(chosen.queue, limit.name)
            result = "has the value from the code again" if was_set else "no longer had an override"
            self.say(f"The {limit.kind} of {chosen.label} {result}.", "success" if was_set else "warning")


def _cell(column: Column, each: QueueLimit) -> Any:
    assert column.cell is not None
    return column.cell(each.limit)


def _parsed(kind: str, text: str) -> str:
    """Return a text that is a valid limit of this kind.

    Raises:
        ConfigurationError: The text is not a valid limit.
    """
    if kind == "rate":
        RateLimit(text)
    elif text.isascii() and text.isdigit():
        Concurrency(int(text))
    else:
        raise ConfigurationError(f"concurrency must be a whole number, got {text!r}")
    return text
