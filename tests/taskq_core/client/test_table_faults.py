"""Test which errors of a database are explained: those of a missing, outdated or forbidden table."""

from typing import Any

from taskq_core.client.outbox import table_fault
from tests.rows import rows


class DriverError(Exception):
    """An error as a driver of a database raises it."""

    def __init__(self, *args: object, sqlstate: str | None = None) -> None:
        super().__init__(*args)
        self.sqlstate = sqlstate


def explained(error: Exception) -> str:
    return str(table_fault(error, database="shop", table="outbox", remedy="run migrate") or "")


@rows(
    ("error", "expected"),
    [
        (DriverError('relation "outbox" does not exist\nLINE 1: INSERT', sqlstate="42P01"), 'relation "outbox" does'),
        (DriverError('column "claim" does not exist', sqlstate="42703"), "run migrate"),
        (DriverError(1146, "Table 'shop.outbox' doesn't exist"), "run migrate"),
        (DriverError("no such table: outbox"), "run migrate"),
        (
            DriverError("permission denied for table outbox", sqlstate="42501"),
            "grant SELECT, INSERT, UPDATE and DELETE",
        ),
        (DriverError(1142, "INSERT command denied to user"), "grant SELECT, INSERT, UPDATE and DELETE"),
        (DriverError("attempt to write a readonly database"), "grant SELECT, INSERT, UPDATE and DELETE"),
    ],
)
def test_a_missing_or_forbidden_table_is_explained_in_one_line(error: Exception, expected: str) -> None:
    wrapped: Any = RuntimeError(*error.args)
    wrapped.__cause__ = error  # as in Django

    for each in (error, wrapped):
        assert expected in explained(each)
        assert "\n" not in explained(each)


def test_other_errors_are_not_explained() -> None:
    for error in (DriverError("deadlock detected", sqlstate="40P01"), DriverError(2006, "server has gone away")):
        assert explained(error) == ""
