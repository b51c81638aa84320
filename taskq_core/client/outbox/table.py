"""The interface of an outbox: rows of waiting tasks and parts of workflows, and their table. Adapters implement it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

from msgspec import Struct

from taskq_core.broker.operations.new_tasks import NewTask
from taskq_core.broker.operations.operation import Confirmation
from taskq_core.broker.operations.views import StoredTask
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.tasks.limits import limit_of
from taskq_core.wire import TaskState


class OutboxRow(Struct, frozen=True, kw_only=True):
    """A task, or a part of a workflow, that waits in a database.

    Attributes:
        receipt: Random name of the row, in the table and in Redis.
        queue: Queue of the task, or home queue of the workflow.
        name: Name of the task or the workflow.
        task: The task to store. A start in milliseconds is relative to the time when the row was written. For a part of
            a workflow, it has the workflow's id, and its message is a packed `WorkflowPart`.
        age_s: Seconds since the row was written, by the database's clock. 0 for a new row.
        is_workflow: Whether the row is a part of a workflow.
    """

    receipt: str
    queue: str
    name: str
    task: NewTask
    age_s: float = 0.0
    is_workflow: bool = False

    def columns(self) -> dict[str, Any]:
        """Return the values of the table's columns by column name. All adapters use the same names."""
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
            age_s: Seconds since the row was written, by the database's clock. A negative value counts as 0.
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
        """Return the record of the task as if it were already stored in Redis."""
        task = self.task
        state = TaskState.PENDING if task.start_at_s is task.start_in_ms is None else TaskState.SCHEDULED
        return task_info(StoredTask(task.task_id, state, task.message, b"", task.start_at_s))


class OutboxFigures(Struct, frozen=True, kw_only=True):
    """Number of waiting rows, and the age of the oldest row in seconds (None if there are no rows)."""

    waiting: int
    oldest_s: float | None


class OutboxTable(Protocol):
    """The outbox rows of one database. Every call blocks, runs in its own transaction, and raises database errors."""

    @property
    def name(self) -> str:
        """Name of the database, for logs and for the lease of the relay."""
        ...

    def claim(
        self, claim: str, *, most: int, most_bytes: int, seconds: float, receipts: Sequence[str] | None = None
    ) -> list[OutboxRow]:
        """Claim rows that no sender has claimed, or whose claim has expired, in the order in which they were written.

        Args:
            claim: Random name of the claim.
            most: Maximum number of rows.
            most_bytes: Total message size in bytes at which no further row is claimed. The first row is always claimed.
            seconds: How long the claim is valid, by the database's clock.
            receipts: Claim only these rows. None: any rows.
        """
        ...

    def delete(self, claim: str, receipts: Sequence[str]) -> int:
        """Delete rows of a claim and return their number. Rows that another sender has claimed are not deleted."""
        ...

    def release(self, claim: str, receipts: Sequence[str], *, seconds: float) -> None:
        """End the claim of rows. The rows can be claimed again after `seconds`."""
        ...

    def figures(self) -> OutboxFigures:
        """Count the waiting rows."""
        ...


class Outbox(Protocol):
    """Writes rows of waiting tasks, and provides the tables that relays read."""

    def in_transaction(self) -> bool:
        """Return whether a transaction is open. If so, `write` calls `committed` only after its commit."""
        ...

    async def ain_transaction(self) -> bool:
        """Return whether a transaction is open in the blocking code around a coroutine. See `in_transaction`."""
        ...

    def write(
        self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None], dropped: Callable[[], None]
    ) -> None:
        """Write rows in the surrounding transaction, or in a new transaction.

        After the commit, `committed` is called with the table of the rows. Without a surrounding transaction it is
        called at once. After a rollback `dropped` is called instead.

        Raises:
            ConfigurationError: No relay would read the rows, because the transaction belongs to another database than
                the outbox. Nothing was written.
        """
        ...

    async def awrite(
        self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None], dropped: Callable[[], None]
    ) -> None:
        """Write rows in a transaction. Like `write`, for coroutines. `committed` is called in blocking code."""
        ...

    def find(self, task_id: str) -> TaskInfo | None:
        """Return the task with an id if it waits in one of the tables, otherwise None."""
        ...

    async def afind(self, task_id: str) -> TaskInfo | None:
        """Return a waiting task by its id. Like `find`, for coroutines."""
        ...

    def tables(self) -> Sequence[OutboxTable]:
        """Return the table of each database that has an outbox."""
        ...

    def close(self) -> None:
        """Close connections that the outbox has opened. The next use opens new ones."""
        ...
