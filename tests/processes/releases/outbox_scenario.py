"""A scenario that enqueues every kind of task in one transaction, and functions to dump and restore the outbox rows.

Ids, arguments and times are fixed, so that two runs differ only in random values. A dump has all columns of a row,
except the row number, the time of writing and the claim.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from taskq_core import TaskQ, Unique, chain, group
from taskq_core.workflow import step
from taskq_django.models import OutboxTask
from tests.processes.releases.dump import as_bytes, masked, text_of

Rows = Sequence[Mapping[str, Any]]
FAR = datetime(2099, 12, 31, 12, tzinfo=UTC)
DECADES_S = 50 * 365 * 86_400
AWAY = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE": "outbox", "ENQUEUE_TIMEOUT": 0.2}
"""Settings with which all rows stay in the outbox."""
TABLE = OutboxTask._meta.db_table
OF_THE_DATABASE = {"id", "created_at", "claim", "claimed_until"}


def play(taskq: TaskQ) -> None:
    """Enqueue every kind of row in one transaction. The application sends through the outbox."""
    send = taskq.remote("mail:send", queue="default", timeout=60)
    with transaction.atomic():
        send.using(task_id="plain-1").delay(to="a@example.com", subject="é")
        send.using(
            task_id="options-1",
            queue="low",
            max_retry=7,
            deadline=FAR,
            expires=FAR,
            on_expiry="discard",
            dead_letter="mail:lost",
            priority=3,
            retention=DECADES_S,
            headers={"tenant": "north"},
        ).delay(to="b@example.com")
        send.using(task_id="at-1", run_after=FAR).delay(to="c@example.com")
        send.using(task_id="in-1", run_after=90).delay(to="d@example.com")
        send.using(task_id="locked-1", unique_for=DECADES_S).delay(to="e@example.com")
        send.using(task_id="unique-1", unique=Unique(args=["to"])).delay(to="f@example.com")
        send.using(task_id="grouped-1", aggregate="user:7").delay(to="g@example.com")
        send.using(task_id="limited-1", rate_limit="1/h").delay(to="h@example.com")
        send.using(task_id="safe-1", fsynced=True).delay(to="i@example.com")
        add = taskq.remote("sum:add", queue="default", timeout=60, retention=DECADES_S)
        twice = taskq.remote("sum:twice", queue="low", timeout=60)
        chain(add.s(a=1, b=2), step(twice.s(), into="number")).delay()
        group(add.s(a=number, b=1) for number in range(3)).delay()


def written() -> list[dict[str, Any]]:
    """Return the rows of the table, in their order."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {TABLE} ORDER BY id")
        columns = [each[0] for each in cursor.description]
        return [
            {
                name: text_of(bytes(value)) if name == "message" else value
                for name, value in zip(columns, row, strict=True)
                if name not in OF_THE_DATABASE
            }
            for row in cursor.fetchall()
        ]


def put_back(rows: Rows) -> None:
    """Write rows as an earlier release does, only with the columns that it knows."""
    with transaction.atomic(), connection.cursor() as cursor:
        for row in rows:
            names = [*row, "claim"]
            columns = ", ".join(f'"{name}"' for name in names)
            values = [as_bytes(value) if name == "message" else value for name, value in row.items()]
            places = ", ".join("%s" for _ in names)
            cursor.execute(f"INSERT INTO {TABLE} ({columns}) VALUES ({places})", [*values, ""])


def comparable(rows: Rows) -> list[str]:
    """Return a line for each row and column, with random values masked, to compare two runs."""
    lines = []
    for number, row in enumerate(rows):
        for name, value in sorted(row.items()):
            if name == "receipt":
                continue  # a random name
            text = as_bytes(value).decode("utf-8", "backslashreplace") if name == "message" else str(value)
            lines.append(f"{number} {name} = {masked(text)}")
    return lines
