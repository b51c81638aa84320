"""Store tasks in Django's databases, in the user's transaction. `taskq_core.client.outbox` defines the rules.

Every database that the router lets `OutboxTask` migrate to has a table. A task is written to the database whose
transaction is open. All times come from the database, so that the clocks of web servers do not matter.
"""

import functools
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections, router, transaction
from django.db.models import DurationField, ExpressionWrapper, F, Min, Q, QuerySet
from django.db.models.aggregates import Count
from django.db.models.functions import Now

from taskq_core import ConfigurationError, TaskInfo
from taskq_core.client.outbox import OutboxFigures, OutboxRow, OutboxTable
from taskq_django import transaction as transactions
from taskq_django.middleware import on_healthy_connections
from taskq_django.models import OutboxTask
from taskq_django.tables import explained
from taskq_django.transaction import after_commit

P = ParamSpec("P")
T = TypeVar("T")

WRITTEN_AT_ONCE = 500
"""Maximum number of rows in one INSERT statement."""
WRITTEN_BYTES = 8 << 20
"""Maximum bytes of messages in one INSERT statement of several rows. MariaDB accepts 16 MiB by default."""


def _explained(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method of a table raise the errors of `explained`."""

    @functools.wraps(method)
    def explaining(*args: P.args, **kwargs: P.kwargs) -> T:
        table: Any = args[0]
        with explained(table.name, OutboxTask):
            return method(*args, **kwargs)

    return explaining


class DatabaseTable:
    """The outbox table of one database. Implements the core's `OutboxTable`."""

    def __init__(self, alias: str) -> None:
        self.name = alias

    def __repr__(self) -> str:
        return f"<outbox of database {self.name!r}>"

    @property
    def _rows(self) -> "QuerySet[OutboxTask]":
        return OutboxTask.objects.using(self.name)

    @_explained
    def write(self, rows: Sequence[OutboxRow]) -> None:
        """Write rows in the open transaction, or in a new one."""
        largest = max((len(row.task.message) for row in rows), default=0) or 1
        self._rows.bulk_create(
            [OutboxTask(**row.columns()) for row in rows],
            batch_size=max(1, min(WRITTEN_AT_ONCE, WRITTEN_BYTES // largest)),
        )

    @_explained
    def claim(
        self, claim: str, *, most: int, most_bytes: int, seconds: float, receipts: Sequence[str] | None = None
    ) -> list[OutboxRow]:
        """Claim waiting rows for one sender. Two senders never get the same row.

        If the database supports it, a sender skips the rows that another one has locked.
        """
        waiting = self._rows.filter(Q(claimed_until=None) | Q(claimed_until__lt=Now()))
        if receipts is not None:
            waiting = waiting.filter(receipt__in=receipts[:most])
        ordered = waiting.order_by("pk")
        ends = Now() + timedelta(seconds=seconds)
        if connections[self.name].features.has_select_for_update_skip_locked:
            with transaction.atomic(using=self.name):
                chosen = _fitting(ordered.select_for_update(skip_locked=True), most, most_bytes)
                claimed = self._rows.filter(pk__in=chosen).update(claim=claim, claimed_until=ends) if chosen else 0
        else:
            # The UPDATE repeats the condition that rows are free, so no transaction is needed.
            chosen = _fitting(ordered, most, most_bytes)
            claimed = waiting.filter(pk__in=chosen).update(claim=claim, claimed_until=ends) if chosen else 0
        if not claimed:
            return []
        age = ExpressionWrapper(Now() - F("created_at"), output_field=DurationField())
        mine = self._rows.filter(pk__in=chosen, claim=claim).annotate(age=age).order_by("pk")
        return [OutboxRow.from_columns(each, each.age.total_seconds()) for each in mine]

    @_explained
    def delete(self, claim: str, receipts: Sequence[str]) -> int:
        """Delete rows of a claim. Return their number."""
        count, _ = self._rows.filter(receipt__in=receipts, claim=claim).delete()
        return count

    @_explained
    def release(self, claim: str, receipts: Sequence[str], *, seconds: float) -> None:
        """Release claimed rows. Other senders can claim them after this many seconds."""
        until = Now() + timedelta(seconds=seconds) if seconds > 0 else None
        self._rows.filter(receipt__in=receipts, claim=claim).update(claim="", claimed_until=until)

    @_explained
    def figures(self) -> OutboxFigures:
        """Return the number of waiting rows and the age of the oldest."""
        found = self._rows.aggregate(
            waiting=Count("pk"),
            oldest=ExpressionWrapper(Now() - Min("created_at"), output_field=DurationField()),
        )
        oldest = found["oldest"]
        return OutboxFigures(
            waiting=found["waiting"], oldest_s=None if oldest is None else max(0.0, oldest.total_seconds())
        )


class RelayedTable(DatabaseTable):
    """The table as services of a worker use it. Each call closes broken and expired connections before and after."""

    claim = on_healthy_connections(DatabaseTable.claim)
    delete = on_healthy_connections(DatabaseTable.delete)
    release = on_healthy_connections(DatabaseTable.release)
    figures = on_healthy_connections(DatabaseTable.figures)


def _fitting(rows: "QuerySet[OutboxTask]", most: int, most_bytes: int) -> list[int]:
    """Return the keys of the first rows, up to a maximum number and a maximum total size."""
    chosen: list[int] = []
    total = 0
    for key, size in rows.values_list("pk", "size")[:most]:
        chosen.append(key)
        total += size
        if total >= most_bytes:
            break
    return chosen


class DatabaseOutbox:
    """Writes tasks to the outbox tables of Django's databases. Implements the core's `Outbox`."""

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, so that `write` would call `committed` later."""
        return is_open(writing_alias())

    async def ain_transaction(self) -> bool:
        """Return whether the code that called this coroutine with `async_to_sync` has an open transaction."""
        return await sync_to_async(self.in_transaction, thread_sensitive=True)()

    def write(
        self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None], dropped: Callable[[], None]
    ) -> None:
        """Write rows. Call `committed` after the commit or at once without a transaction, `dropped` after a rollback.

        Raises:
            ConfigurationError: The database of the transaction has no outbox.
        """
        alias = writing_alias()
        table = DatabaseTable(alias)
        table.write(rows)
        if is_open(alias):
            after_commit([connections[alias]], partial(committed, table), dropped)
        else:
            committed(table)

    async def awrite(
        self, rows: Sequence[OutboxRow], committed: Callable[[OutboxTable], None], dropped: Callable[[], None]
    ) -> None:
        """Write rows as `write` does, in the thread of the blocking code that called this coroutine."""
        await sync_to_async(self.write, thread_sensitive=True)(rows, committed, dropped)

    def find(self, task_id: str) -> TaskInfo | None:
        """Return a task that waits in an outbox, or None. This scans the tables, which have no index of task ids."""
        for alias in outbox_aliases():
            with explained(alias, OutboxTask):
                row = OutboxTask.objects.using(alias).filter(task_id=task_id, is_workflow=False).first()
            if row is not None:
                return OutboxRow.from_columns(row, 0.0).info()
        return None

    async def afind(self, task_id: str) -> TaskInfo | None:
        """Return a task that waits in an outbox, as `find` does, from a coroutine."""
        return await sync_to_async(self.find, thread_sensitive=True)(task_id)

    def tables(self) -> list[DatabaseTable]:
        """Return the table of each database that has an outbox, for use outside of requests and tasks."""
        return [RelayedTable(alias) for alias in outbox_aliases()]

    def close(self) -> None:
        """Do nothing, because Django manages the connections."""


def outbox_aliases() -> list[str]:
    """Return the databases in which the router allows an outbox."""
    return [alias for alias in connections if router.allow_migrate_model(alias, OutboxTask)]


def is_open(alias: str) -> bool:
    """Return whether this thread has an open transaction on a database. A `TestCase`'s transaction may not count."""
    return any(each.alias == alias for each in transactions.open_transactions())


def writing_alias() -> str:
    """Return the database in which to write a row. It has an outbox and an open transaction of this thread.

    If there are several, prefer the router's choice, then the default database. Without an open transaction, return the
    router's choice.

    Raises:
        ConfigurationError: No worker would read the row, because transactions are open only on databases without an
            outbox, or the router chooses a database without an outbox.
    """
    preferred: str = router.db_for_write(OutboxTask)
    opened = [each.alias for each in transactions.open_transactions()]
    known = outbox_aliases()
    usable = [alias for alias in (preferred, DEFAULT_DB_ALIAS, *opened) if alias in (opened or [preferred])]
    for alias in usable:
        if alias in known:
            return alias
    where = f"a transaction is open on database {opened[0]!r}" if opened else f"the router writes to {preferred!r}"
    raise ConfigurationError(
        f"{where}, which has no outbox, so no worker would send the task; let the router migrate "
        "taskq_django.OutboxTask there, or enqueue in a transaction of one of: " + ", ".join(known)
    )
