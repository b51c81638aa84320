"""Check the tables of taskq's models, and explain errors of their queries."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.models import Model

from taskq_core.client.outbox import table_fault


def has_table(alias: str, model: type[Model]) -> bool:
    """Return whether the table of a model exists."""
    with connections[alias].cursor() as cursor:
        return model._meta.db_table in connections[alias].introspection.table_names(cursor)


def migrate_command(alias: str) -> str:
    """Return the command that creates and updates taskq's tables in a database."""
    return "manage.py migrate taskq_django" + ("" if alias == DEFAULT_DB_ALIAS else f" --database {alias}")


@contextmanager
def explained(alias: str, model: type[Model]) -> Iterator[None]:
    """Raise `ConfigurationError` if a query in this block fails because the table of a model is missing or forbidden.

    The message says what to do.
    """
    try:
        yield
    except DatabaseError as error:
        remedy = f"run {migrate_command(alias)}"
        fault = table_fault(error, database=alias, table=model._meta.db_table, remedy=remedy)
        if fault is None:
            raise
        raise fault from error
