"""The limits of tasks, with running and waiting tasks; override a limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.terminal.dialogs import Ask, Question
from taskq_core.cli.terminal.figures import short, shown
from taskq_core.cli.terminal.frames import ListScreen
from taskq_core.cli.terminal.poller import Poller
from taskq_core.cli.terminal.table import Cell, Column
from taskq_core.errors import BrokerReplyError, ConfigurationError, QueueNotFoundError
from taskq_core.inspector import LimitInfo
from taskq_core.tasks.limits import Concurrency, RateLimit
from taskq_core.wire import TaskState

_HINTS = {
    "rate": "Starts per period, as 100/m or 5/10s",
    "concurrency": "Runs at the same time, for all workers together",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A read of this screen.

    Attributes:
        limits: The limits, each with its queue; those with waiting tasks first.
        damaged: Queues whose limits cannot be read.
    """

    limits: Sequence[tuple[str, LimitInfo]]
    damaged: Sequence[str]


class LimitsScreen(ListScreen[Found, tuple[str, LimitInfo]]):
    """The limits of one queue, or of all.

    Args:
        poller: The shared state.
        queue: The queue; None for all.
    """

    TOP = "limits"
    EMPTY = "No task has a limit."
    OPENS = "tasks"
    COLUMNS = (
        Column(title="Queue", least=6, most=20),
        Column(title="Limit of", least=10, grows=True),
        Column(title="Kind", least=4),
        Column(title="Code", least=5, drop=3),
        Column(title="Set to", least=6, drop=1),
        Column(title="Keys", right=True, drop=4),
        Column(title="Held", right=True, drop=2),
        Column(title="Waiting", right=True),
    )
    ABOUT = (
        "The limits of tasks: the value in the code, the value that overrides it, and how many tasks hold a slot or "
        "wait for one, summed over all values of the key. s overrides a limit for all workers at once, also for "
        "waiting tasks; c removes the override. Enter shows the waiting tasks, which are scheduled."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "change_set", "Set", tooltip="Override the limit of the code"),
        Binding("c", "change_clear", "Clear", tooltip="Remove the override"),
    ]

    def __init__(self, poller: Poller, queue: str | None = None) -> None:
        super().__init__(poller)
        self.queue = queue

    def body(self) -> ComposeResult:
        """Return the table, and a line for damaged queues."""
        yield from super().body()
        yield Static(id="damaged", classes="line bad")

    @property
    def heading(self) -> str:
        """The queue, and the number of waiting tasks."""
        whose = "limits" if self.queue is None else f"limits of queue {self.queue}"
        if self.found is None:
            return whose
        waiting = sum(each.waiting for _, each in self.found.limits)
        return f"{whose}, {waiting:,} task{'' if waiting == 1 else 's'} wait{'s' if waiting == 1 else ''}"

    async def read(self) -> Found:
        """Read the limits, queue by queue."""
        inspector = self.poller.inspector
        found: list[tuple[str, LimitInfo]] = []
        damaged: list[str] = []
        for queue in await inspector.queues() if self.queue is None else [self.queue]:
            try:
                found += [(queue, each) for each in await inspector.limits(queue)]
            except QueueNotFoundError:
                if self.queue is not None:
                    raise  # in a list of all queues, it was deleted in the meantime
            except BrokerReplyError:
                damaged.append(queue)
        found.sort(key=lambda pair: (not pair[1].waiting, pair[0], pair[1].kind, pair[1].name))
        return Found(limits=found, damaged=damaged)

    def draw(self, found: Found) -> None:
        """Show the table, and damaged queues."""
        self.fill(self.COLUMNS if self.queue is None else self.COLUMNS[1:], found)
        self.query_one("#empty").display = not found.limits and not found.damaged
        line = self.query_one("#damaged", Static)
        line.display = bool(found.damaged)
        line.update(shown(f"Limits that cannot be read: {', '.join(found.damaged)}. taskq doctor says why."))
        self.refresh_bindings()

    def records(self, found: Found) -> Sequence[tuple[str, LimitInfo]]:
        """Return the limits."""
        return found.limits

    def key(self, record: tuple[str, LimitInfo]) -> str:
        """Return queue, kind and name of a limit."""
        return f"{record[0]}\0{record[1].kind}\0{record[1].name}"

    def opens(self, record: tuple[str, LimitInfo]) -> tuple[Any, ...]:
        """Return the queue and state of the waiting tasks."""
        return record[0], TaskState.SCHEDULED

    def cells(self, record: tuple[str, LimitInfo]) -> Sequence[Cell]:
        """Return the cells of a limit."""
        (queue, each), palette = record, self.poller.palette
        return [
            *([] if self.queue is not None else [shown(queue)]),
            shown(each.name, "bold") if each.name else Text("the queue", "bold italic"),
            shown(each.kind),
            shown(each.declared or "-", palette.quiet if each.changed else ""),
            shown(each.changed, palette.warn),
            shown(short(each.slots)),
            shown(short(each.held)),
            shown(short(each.waiting), palette.warn if each.waiting else ""),
        ]

    def on_data_table_row_highlighted(self) -> None:
        """Update the available actions."""
        self.refresh_bindings()

    def action_change_set(self) -> None:
        """Override the selected limit."""
        if self.chosen is not None:
            self.change(self._set(*self.chosen))

    def action_change_clear(self) -> None:
        """Remove the override of the selected limit."""
        if self.chosen is not None:
            self.change(self._clear(*self.chosen))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the actions that fit the selected limit: a sequence has no number."""
        if action in ("change_set", "change_clear") and self.is_ready:
            pair = self.chosen
            if pair is None or pair[1].kind not in _HINTS or (action == "change_clear" and not pair[1].changed):
                return False
        return super().check_action(action, parameters)

    async def _set(self, queue: str, limit: LimitInfo) -> None:
        def wrong(text: str) -> str:
            try:
                _numbers(limit, text)
            except ConfigurationError as error:
                return str(error)
            return ""

        named = _named(queue, limit)
        value = (limit.changed or limit.declared).partition(",")[0].strip()
        answer = await self.app.push_screen_wait(
            Ask(f"The {limit.kind} of {named}", hint=_HINTS[limit.kind], check=wrong, value=value)
        )
        if answer is None:
            return
        new = answer.strip()
        code = f"The code says {limit.declared}." if limit.declared else "The value in the code is unknown."
        text = f"Set the {limit.kind} of {named} to {new}? {code} It applies at once, to all workers and waiting tasks."
        if await self.ask(Question(text=text, button="Set")):
            await self.poller.inspector.set_limit(queue, limit.name, **_numbers(limit, new))
            self.say(f"The {limit.kind} of {named} is now {new}.")

    async def _clear(self, queue: str, limit: LimitInfo) -> None:
        named = _named(queue, limit)
        code = f", {limit.declared}" if limit.declared else ""
        text = f"Reset the {limit.kind} of {named} from {limit.changed} to the value in the code{code}?"
        if await self.ask(Question(text=text, button="Clear")):
            was_set = await self.poller.inspector.clear_limit(queue, limit.name)
            result = "has the value of the code again" if was_set else "had no override any more"
            self.say(f"The {limit.kind} of {named} {result}.", "success" if was_set else "warning")


def _named(queue: str, limit: LimitInfo) -> str:
    return f"“{limit.name}” in the queue “{queue}”" if limit.name else f"the queue “{queue}”"


def _numbers(limit: LimitInfo, text: str) -> dict[str, Any]:
    """Return the arguments of `set_limit`.

    Raises:
        ConfigurationError: The text is not a valid limit of this kind.
    """
    text = text.strip()
    if limit.kind == "rate":
        return {"rate": RateLimit(text)}
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"concurrency must be a whole number, got {text!r}")
    return {"concurrency": Concurrency(int(text)).limit}
