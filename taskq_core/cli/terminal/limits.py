"""Limits of tasks: what each is, what holds a place and what waits for one, and another number for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from taskq_core.cli.terminal.dialogs import Ask, Question
from taskq_core.cli.terminal.figures import short, shown
from taskq_core.cli.terminal.places import TasksPlace
from taskq_core.cli.terminal.poller import Desk
from taskq_core.cli.terminal.screen import Look
from taskq_core.cli.terminal.table import Column, Records, Row
from taskq_core.errors import BrokerReplyError, ConfigurationError, QueueNotFoundError
from taskq_core.inspector import LimitInfo
from taskq_core.tasks.limits import Concurrency, RateLimit
from taskq_core.wire import TaskState

_QUEUE = Column(title="Queue", least=6, most=20)
_COLUMNS = (
    Column(title="Limit of", least=10, grows=True),
    Column(title="Kind", least=4),
    Column(title="Code", least=5, drop=3),
    Column(title="Set to", least=6, drop=1),
    Column(title="Keys", right=True, drop=4),
    Column(title="Held", right=True, drop=2),
    Column(title="Waiting", right=True),
)
_HINTS = {
    "rate": "So many starts in a period, as 100/m or 5/10s",
    "concurrency": "So many runs at once, for all workers together",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was read.

    Attributes:
        limits: The limits, each with its queue; those for which something waits first.
        damaged: Queues whose limits cannot be read.
    """

    limits: Sequence[tuple[str, LimitInfo]]
    damaged: Sequence[str]


class LimitsLook(Look[Found]):
    """Limits of the tasks of one queue, or of all.

    Args:
        desk: What screens share.
        queue: The queue; None for all.
    """

    TOP = "limits"
    ABOUT = (
        "How often and how many at once tasks may run: what the code says of each limit, what somebody has set over "
        "it, how many hold a place of it and how many wait for one, of all values of its key. s sets another number "
        "for all workers at once, and for what waits already; c takes it back. Enter shows the tasks that wait, which "
        "are scheduled."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "change_set", "Set", tooltip="Set another number over what the code says"),
        Binding("c", "change_clear", "Clear", tooltip="Let the limit be again what the code says"),
    ]

    def __init__(self, desk: Desk, queue: str | None = None) -> None:
        super().__init__(desk)
        self.queue = queue

    def body(self) -> ComposeResult:
        """Put the table together."""
        yield Records(id="table")
        yield Static("No task has a limit.", classes="empty", id="empty")
        yield Static(id="damaged", classes="line bad")

    @property
    def heading(self) -> str:
        """Whose limits, and what waits for them."""
        whose = "limits" if self.queue is None else f"limits of queue {self.queue}"
        if self.found is None:
            return whose
        waiting = sum(each.waiting for _, each in self.found.limits)
        return f"{whose}, {waiting:,} task{'' if waiting == 1 else 's'} wait{'s' if waiting == 1 else ''}"

    async def read(self) -> Found:
        """Read them, queue by queue."""
        inspector = self.desk.inspector
        found: list[tuple[str, LimitInfo]] = []
        damaged: list[str] = []
        for queue in await inspector.queues() if self.queue is None else [self.queue]:
            try:
                found += [(queue, each) for each in await inspector.limits(queue)]
            except QueueNotFoundError:
                if self.queue is not None:
                    raise  # of all queues, one that somebody has deleted meanwhile is missing
            except BrokerReplyError:
                damaged.append(queue)
        found.sort(key=lambda pair: (not pair[1].waiting, pair[0], pair[1].kind, pair[1].name))
        return Found(limits=found, damaged=damaged)

    def draw(self, found: Found) -> None:
        """Show them."""
        table = self.query_one(Records)
        whose = [] if self.queue is not None else [_QUEUE]
        table.fill([*whose, *_COLUMNS], [Row(_key(*pair), self._cells(*pair)) for pair in found.limits])
        table.display = bool(found.limits)
        self.query_one("#empty").display = not found.limits and not found.damaged
        told = self.query_one("#damaged", Static)
        told.display = bool(found.damaged)
        told.update(shown(f"Limits that cannot be read: {', '.join(found.damaged)}. taskq doctor says why."))
        self.refresh_bindings()

    def _cells(self, queue: str, each: LimitInfo) -> list[Text]:
        palette = self.desk.palette
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

    @property
    def chosen(self) -> tuple[str, LimitInfo] | None:
        """The limit that is chosen, with its queue."""
        key = self.query_one(Records).current
        pairs = () if self.found is None else self.found.limits
        return next((pair for pair in pairs if _key(*pair) == key), None)

    def on_data_table_row_selected(self) -> None:
        """Show the tasks that wait."""
        pair = self.chosen
        if pair is not None:
            self.go(TasksPlace(pair[0], TaskState.SCHEDULED))

    def on_data_table_row_highlighted(self) -> None:
        """Offer what can be done to it."""
        self.refresh_bindings()

    def action_change_set(self) -> None:
        """Set another number."""
        if self.chosen is not None:
            self.change(set_number(self, *self.chosen))

    def action_change_clear(self) -> None:
        """Take back what was set."""
        if self.chosen is not None:
            self.change(clear_number(self, *self.chosen))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer what can be done to the limit that is chosen: a sequence has no number."""
        if action in ("change_set", "change_clear") and self.is_ready:
            pair = self.chosen
            if pair is None or pair[1].kind not in _HINTS or (action == "change_clear" and not pair[1].changed):
                return False
        return super().check_action(action, parameters)


async def set_number(look: Look[Any], queue: str, limit: LimitInfo) -> None:
    """Ask for a number and whether it is meant, then set it over what the code says."""

    def wrong(text: str) -> str:
        try:
            _numbers(limit, text)
        except ConfigurationError as error:
            return str(error)
        return ""

    before = limit.changed or limit.declared
    value = before.partition(",")[0]
    asked = Ask(
        f"The {limit.kind} of {_named(queue, limit)}", hint=_HINTS[limit.kind], check=wrong, value=value.strip()
    )
    answer = await look.app.push_screen_wait(asked)
    if answer is None:
        return
    new = answer.strip()
    code = f"The code says {limit.declared}." if limit.declared else "No worker has told what the code says."
    text = (
        f"Set the {limit.kind} of {_named(queue, limit)} to {new}? {code} It holds at once, for all workers and for "
        "what waits already."
    )
    if await look.ask(Question(text=text, button="Set")):
        await look.desk.inspector.set_limit(queue, limit.name, **_numbers(limit, new))
        look.say(f"The {limit.kind} of {_named(queue, limit)} is {new} from now on.")


async def clear_number(look: Look[Any], queue: str, limit: LimitInfo) -> None:
    """Ask, then let a limit be again what the code says."""
    code = f", {limit.declared}" if limit.declared else ""
    text = (
        f"Let the {limit.kind} of {_named(queue, limit)} be again what the code says{code}? It is set to "
        f"{limit.changed}."
    )
    if await look.ask(Question(text=text, button="Clear")):
        was_set = await look.desk.inspector.clear_limit(queue, limit.name)
        told = "is again what the code says" if was_set else "was not set to anything any more"
        look.say(f"The {limit.kind} of {_named(queue, limit)} {told}.", "success" if was_set else "warning")


def _named(queue: str, limit: LimitInfo) -> str:
    return f"“{limit.name}” in the queue “{queue}”" if limit.name else f"the queue “{queue}”"


def _numbers(limit: LimitInfo, text: str) -> dict[str, Any]:
    """Return what `set_limit` takes.

    Raises:
        ConfigurationError: It is no number of this kind.
    """
    text = text.strip()
    if limit.kind == "rate":
        return {"rate": RateLimit(text)}
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"concurrency must be a whole number, got {text!r}")
    return {"concurrency": Concurrency(int(text)).limit}


def _key(queue: str, limit: LimitInfo) -> str:
    return f"{queue}\0{limit.kind}\0{limit.name}"
