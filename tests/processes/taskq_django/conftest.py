"""The Redis and the project of tests/taskq_django, and one PostgreSQL for all tests here."""

import os
from collections.abc import Iterator

import pytest

from tests.postgres_server import PostgresServer, find_postgres
from tests.taskq_django.conftest import inspector, json_support, redis

__all__ = ["inspector", "json_support", "redis"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL; take a database of your own. A test that stops the server starts its own."""
    if find_postgres() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and CI has to have it")
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    with PostgresServer() as server:
        yield server
