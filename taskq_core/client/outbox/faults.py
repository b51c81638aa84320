"""Recognize database errors that last until a person changes the database: a table or the rights on it are missing.

The drivers of databases have no common classes for them. PostgreSQL has codes, MySQL has numbers, and SQLite and Oracle
have only texts.
"""

from taskq_core.errors import ConfigurationError

_MISSING_CODES = {"42P01", "42703", "3F000", 1146, 1054}
_MISSING_TEXTS = ("no such table", "no such column", "has no column named", "ORA-00942", "ORA-00904")
_FORBIDDEN_CODES = {"42501", 1044, 1142, 1143}
_FORBIDDEN_TEXTS = ("readonly database", "ORA-01031")


def table_fault(error: BaseException, *, database: str, table: str, remedy: str) -> ConfigurationError | None:
    """Return the error for a table that is missing, outdated or forbidden. None: the error has another cause.

    Args:
        error: The error of a query of the table. The driver's error may be its cause or its attribute `orig`.
        database: Name of the database.
        table: Name of the table.
        remedy: What creates or updates the table, for the message.
    """
    reason = str(error).partition("\n")[0]
    codes = {_code(each) for each in (error, error.__cause__, getattr(error, "orig", None))}
    if codes & _MISSING_CODES or any(text in str(error) for text in _MISSING_TEXTS):
        return ConfigurationError(
            f"database {database!r} has no table {table!r}, or an outdated one ({reason}); {remedy}"
        )
    if codes & _FORBIDDEN_CODES or any(text in str(error) for text in _FORBIDDEN_TEXTS):
        return ConfigurationError(
            f"the user of database {database!r} may not use the table {table!r} ({reason}); grant SELECT, INSERT, "
            "UPDATE and DELETE on it"
        )
    return None


def _code(error: object) -> object:
    """Return PostgreSQL's code or MySQL's number of a driver's error."""
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code or next((each for each in getattr(error, "args", ())[:1] if isinstance(each, int)), None)
