"""A PostgreSQL server for all tests in this folder that need a database."""

import os
from collections.abc import Iterator

import pytest

from tests.postgres_server import PostgresServer, find_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server. Each test creates a separate database, and a test that stops a server starts another."""
    if find_postgres() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and CI has to have it")
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    with PostgresServer() as server:
        yield server
