"""The limits of tasks, with running and waiting tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from taskq_core import TaskState
from taskq_core.cli.plugin import LIMITS, Column
from taskq_core.errors import BrokerReplyError, QueueNotFoundError
from taskq_core.inspector import LimitInfo
from taskq_terminal.figures import count_of, shown
from taskq_terminal.frames import ListScreen, Page
from taskq_terminal.state import DashState


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """A limit, with its queue."""

    queue: str
    limit: LimitInfo


@dataclass(frozen=True, slots=True)
class Found:
    """The data that `read` of this screen returns.

    Attributes:
        limits: The limits. Limits with waiting tasks come first.
        damaged: Queues whose limits cannot be read.
    """

    limits: Sequence[QueueLimit]
    damaged: Sequence[str]


class LimitsScreen(ListScreen[Found, QueueLimit]):
    """Shows the limits of one queue or of all queues.

    Args:
        shared: The shared state.
        queue: The queue; None for all.
    """

    TOP = "limits"
    HELP = (
        "The limits of tasks: the value in the code, the value that overrides it, and how many tasks hold a permit or "
        "wait for one, summed over all values of the key. Enter shows the waiting tasks, which are scheduled. "
        "taskq limit set and clear change the override."
    )

    def __init__(self, shared: DashState, queue: str | None = None) -> None:
        super().__init__(shared)
        self.queue = queue

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
                # Skip a queue that was deleted after the names of all queues were read.
            except BrokerReplyError:
                damaged.append(queue)
        found.sort(key=lambda each: (not each.limit.waiting, each.queue, each.limit.kind, each.limit.name))
        return Found(found, damaged)

    def page_of(self, found: Found) -> Page[QueueLimit]:
        """Return the limits, below the queues whose limits cannot be read."""
        whose = "limits" if self.queue is None else f"limits of queue {self.queue}"
        waiting = sum(each.limit.waiting for each in found.limits)
        damaged = f"Limits that cannot be read: {', '.join(found.damaged)}. taskq doctor says why."
        columns = [replace(each, cell=partial(_cell, each)) for each in LIMITS]
        return Page(
            heading=f"{whose}, {count_of(waiting, 'task')} wait{'s' if waiting == 1 else ''}",
            columns=[*([] if self.queue else [Column("Queue", lambda each: each.queue, least=6)]), *columns],
            records=found.limits,
            key=lambda each: f"{each.queue}\0{each.limit.kind}\0{each.limit.name}",
            facts=shown(damaged, self.palette["bad"]) if found.damaged else None,
            empty="" if found.damaged else "No task has a limit.",
        )

    def open(self, record: QueueLimit) -> None:
        """Show the scheduled tasks of the queue. They include the tasks that wait for the limit."""
        self.go("tasks", record.queue, TaskState.SCHEDULED)


def _cell(column: Column, each: QueueLimit) -> Any:
    assert column.cell is not None
    return column.cell(each.limit)
