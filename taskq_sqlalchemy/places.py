"""Compare the databases to which engines write a table.

This module does no I/O, because a plain function cannot use the connections of an asynchronous session.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, Table

_LOCAL = frozenset(("", "localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, slots=True)
class Place:
    """The database and the schema in which a table is. The text contains no user and no password.

    Attributes:
        database: Address or path of the database.
        schema: Name of the schema, "" for the default schema.
    """

    database: str
    schema: str

    def __str__(self) -> str:
        return f"{self.database}, schema {self.schema!r}" if self.schema else self.database


def place_of(bind: Engine | Connection, table: Table) -> Place:
    """Return where an engine or a connection writes a table.

    Addresses are compared as text: all addresses of this host are the same, and drivers do not matter. Each engine has
    its own in-memory database.
    """
    translated = bind.get_execution_options().get("schema_translate_map") or {}
    schema = translated.get(table.schema, table.schema) or ""
    engine = bind.engine
    if is_private(engine.url):
        return Place(f"the in-memory database of the SQLite engine with the pool {id(engine.pool):#x}", schema)
    return Place(_address(engine.url), schema)


def is_private(url: URL) -> bool:
    """Return whether only one engine can use a database, because SQLite keeps it in the memory of the engine's pool."""
    if url.get_backend_name() != "sqlite":
        return False
    name = url.database or ""
    in_memory = name in ("", ":memory:", "file::memory:") or url.query.get("mode") == "memory"
    return in_memory and url.query.get("cache") != "shared"


def _address(url: URL) -> str:
    kind, name = url.get_backend_name(), url.database or ""
    if kind == "sqlite":
        is_file = url.query.get("mode") != "memory" and name != "file::memory:"
        return f"sqlite:///{Path(name.removeprefix('file:')).resolve()}" if is_file else f"sqlite:///{name}"
    hosts = url.host or url.query.get("host", "")
    host = hosts if isinstance(hosts, str) else ",".join(hosts)
    if host in _LOCAL or host.startswith("/"):
        host = "localhost"
    port = url.port or url.query.get("port") or 5432
    return f"{kind}://{host}:{port}/{name or url.query.get('dbname') or url.username or ''}"
