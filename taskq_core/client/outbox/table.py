"""What an adapter brings: a table whose rows are tasks, and parts of workflows, that wait."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.broker.operations.operation import Confirmation
from taskq_core.broker.operations.views import StoredTask
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.tasks.limits import limit_of
from taskq_core.wire import TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A task, or part of a workflow, that waits in a database.

    Attributes:
        receipt: Random name of the row, in the table and in Redis.
        queue: Queue the task goes to; of a workflow its home.
        name: Name of the task or the workflow.
        task: What to store. Its start in so many milliseconds counts from when the row was written. Of a workflow its
            id, and a packed `WorkflowPart` as the message.
        age_s: Seconds since the row was written, by the database's clock; 0 for one that is yet to be written.
        is_workflow: Whether it is part of a workflow.
    """

    receipt: str
    queue: str
    name: str
    task: NewTask
    age_s: float = 0.0
    is_workflow: bool = False

    def columns(self) -> dict[str, Any]:
        """Return the values that a table stores, by the names that its columns have in every adapter."""
        task = self.task
        return {
            "receipt": self.receipt,
            "queue": self.queue,
            "name": self.name,
            "task_id": task.task_id,
            "message": task.message,
            "size": len(task.message),
            "start_at_s": task.start_at_s,
            "start_in_ms": task.start_in_ms,
            "unique_key": task.unique_key,
            "unique_s": task.unique_s,
            "unique_rule": task.unique_rule,
            "group": task.group,
            "replicas": None if task.confirm is None else task.confirm.replicas,
            "fsynced": task.confirm is not None and task.confirm.fsynced,
            "is_workflow": self.is_workflow,
        }

    @classmethod
    def from_columns(cls, stored: Any, age_s: float) -> Self:
        """Build a row from an object whose attributes are the columns.

        Args:
            stored: A row as the database's library returns it.
            age_s: Seconds since the row was written, by the database's clock. Less than 0 counts as 0.
        """
        message = bytes(stored.message)
        task = NewTask(
            stored.task_id,
            message,
            stored.start_at_s,
            stored.start_in_ms,
            stored.unique_key,
            stored.unique_s,
            stored.group,
            "" if stored.is_workflow else limit_of(message),
            None if stored.replicas is None else Confirmation(stored.replicas, stored.fsynced),
            unique_rule=stored.unique_rule,
        )
        return cls(
            receipt=stored.receipt,
            queue=stored.queue,
            name=stored.name,
            task=task,
            age_s=max(0.0, age_s),
            is_workflow=stored.is_workflow,
        )

    def info(self) -> TaskInfo:
        """Return the task as it will be in Redis."""
        task = self.task
        state = TaskState.PENDING if task.start_at_s is task.start_in_ms is None else TaskState.SCHEDULED
        return task_info(StoredTask(task.task_id, state, task.message, b"", task.start_at_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxFigures:
    """How many rows wait, and for how many seconds the oldest has (None if none waits)."""

    waiting: int
    oldest_s: float | None


class OutboxTable(Protocol):
    """The rows of one database. Every call blocks, is a transaction of its own, and raises what the database raises."""

    @property
    def name(self) -> str:
        """Name of the database, for logs and for the lease of the relay."""
        ...

    def claim(
        self, claim: str, *, most: int, most_bytes: int, seconds: float, receipts: Sequence[str] | None = None
    ) -> list[OutboxRow]:
        """Claim rows that nobody claims, in the order they were written.

        Args:
            claim: Random name of the claim.
            most: Most rows.
            most_bytes: Bytes of messages after which no further row is taken; the first always is.
            seconds: How long the claim holds, by the database's clock.
            receipts: Only these rows; None: whichever wait.
        """
        ...

    def delete(self, claim: str, receipts: Sequence[str]) -> int:
        """Delete rows of a claim, and return how many. Rows that another sender has claimed since stay."""
        ...

    def release(self, claim: str, receipts: Sequence[str], *, seconds: float) -> None:
        """Give up the claim on rows; they can be claimed again after so many seconds."""
        ...

    def figures(self) -> OutboxFigures:
        """Count what waits."""
        ...


class Outbox(Protocol):
    """What an adapter brings: where rows are written, and which tables a relay looks through."""

    def in_transaction(self) -> bool:
        """Whether a transaction is open, so that `keep` postpones `committed`."""
        ...

    async def ain_transaction(self) -> bool:
        """As `in_transaction`, for the blocking code around a coroutine."""
        ...

    def keep(self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None]) -> None:
        """Write rows in the surrounding transaction, or in one of their own.

        `committed` is called with their table once they are committed: at once where no transaction is open, and never
        when it is rolled back.
        """
        ...

    async def akeep(self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None]) -> None:
        """As `keep`, from a coroutine. `committed` is called in blocking code."""
        ...

    def find(self, task_id: str) -> TaskInfo | None:
        """Return a task that waits in one of the tables, None if none has it."""
        ...

    async def afind(self, task_id: str) -> TaskInfo | None:
        """As `find`, from a coroutine."""
        ...

    def tables(self) -> Sequence[OutboxTable]:
        """Return the table of each database that has one."""
        ...

    def close(self) -> None:
        """Close connections that the outbox opened for itself. The next use opens new ones."""
        ...
