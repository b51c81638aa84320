"""Kill or freeze a process that uses an outbox at each step. No task may be lost or be sent without its data.

Each step is tested with each adapter, on PostgreSQL if it is installed, or else on SQLite; nightly on both. Afterwards
the test compares the user's data, the rows, Redis, and the effects of the tasks.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from taskq_core.broker.operations.outbox import DELIVERED_KEPT_S
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.relay import Relay

pytestmark = pytest.mark.redis
POINTS = ("row written", "committed", "claimed", "sent", "row deleted", "receipt given back")
AWAY: dict[str, Any] = {"redis": "unix:///nowhere/at/all.sock", "patience_s": 0.1}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter: arguments of the processes, and names of its tables."""

    plan: dict[str, Any]
    orders: str
    rows: str
    end_claims: str


DJANGO = Adapter(
    plan={"adapter": "django_shop"},
    orders="auth_group",
    rows="taskq_django_outboxtask",
    end_claims="claimed_until = '2020-01-01 00:00:00'",
)
SQLALCHEMY = Adapter(
    plan={"adapter": "sqlalchemy_shop", "is_async": False},
    orders="orders",
    rows="taskq_outbox",
    end_claims="claimed_until_s = 0",
)
SQLALCHEMY_ASYNC = replace(SQLALCHEMY, plan={"adapter": "sqlalchemy_shop", "is_async": True})


class Shop:
    """A database and the processes that use it."""

    def __init__(self, adapter: Adapter, database: dict[str, Any], redis: RedisServer, folder: Path) -> None:
        self.adapter = adapter
        self.database = database
        self.redis = redis
        self.effects = folder / "effects"
        self.call("migrate")

    def start(self, action: str, **plan: Any) -> "subprocess.Popen[str]":
        where = {"database": self.database, "redis": self.redis.unix_url, "effects": str(self.effects)}
        plan = {**self.adapter.plan, **where, **plan}
        command = [sys.executable, "-m", "tests.processes.outbox.program", action, json.dumps(plan)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def call(self, action: str, *, status: int = 0, **plan: Any) -> str:
        with self.start(action, **plan) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == status, output
        return output

    def query(self, statement: str) -> list[Any]:
        """Run a statement in a separate connection."""
        if "sqlite3" in self.database["ENGINE"]:
            import sqlite3

            with closing(sqlite3.connect(self.database["NAME"], timeout=20, isolation_level=None)) as file:
                return file.execute(statement).fetchall()
        import psycopg

        where = {"host": self.database["HOST"], "user": self.database["USER"], "dbname": self.database["NAME"]}
        with psycopg.connect(**where, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def end_claims(self) -> None:
        """End all claims of rows, as if their time had passed."""
        self.query(f"UPDATE {self.adapter.rows} SET {self.adapter.end_claims}")

    def orders(self) -> list[str]:
        return sorted(name for (name,) in self.query(f"SELECT name FROM {self.adapter.orders}"))

    def rows(self) -> int:
        return int(self.query(f"SELECT count(*) FROM {self.adapter.rows}")[0][0])

    def shipped(self) -> list[str]:
        return sorted(self.effects.read_text().split()) if self.effects.exists() else []

    def receipts(self) -> int:
        return int(self.redis.client.zcard("taskq:{default}:delivered"))


def in_file(folder: Path) -> dict[str, Any]:
    """Return Django's settings for an SQLite database."""
    name = str(folder / "shop.sqlite3")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": {"timeout": 20}}


@pytest.fixture(
    params=[
        pytest.param((DJANGO, "sqlite"), id="django-sqlite"),
        pytest.param((DJANGO, "postgresql"), id="django-postgresql", marks=pytest.mark.nightly),
        pytest.param((SQLALCHEMY, "sqlite"), id="sqlalchemy-sqlite", marks=pytest.mark.nightly),
        pytest.param((SQLALCHEMY_ASYNC, "postgresql"), id="sqlalchemy-async-postgresql"),
    ]
)
def shop(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Shop:
    adapter, kind = request.param
    if kind == "sqlite":
        return Shop(adapter, in_file(tmp_path), redis_server, tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Shop(adapter, server.create(f"shop_{os.getpid()}_{time.monotonic_ns()}"), redis_server, tmp_path)


@pytest.mark.parametrize("point", POINTS)
def test_a_view_is_killed(shop: Shop, point: str) -> None:
    """The process that enqueues is killed at each step, from the uncommitted row to the deletion of the receipt."""
    shop.call("place", orders=["o-1"], point=point, status=-signal.SIGKILL)
    shop.end_claims()

    shop.call("work")

    expected = [] if point == "row written" else ["o-1"]
    assert shop.orders() == expected
    assert shop.shipped() == expected
    assert shop.rows() == 0
    assert shop.redis.client.keys("asynq:{default}:t:*") == []
    # A receipt that no process deleted expires after 30 days.
    assert shop.receipts() == (1 if point == "row deleted" else 0)
    assert DELIVERED_KEPT_S == 30 * 86_400


@pytest.mark.parametrize("point", POINTS[2:])
def test_a_relay_is_killed(shop: Shop, point: str) -> None:
    """Redis was unavailable at the commit. The relay of the first worker dies, and the second worker continues."""
    shop.call("place", orders=["o-1"], **AWAY)
    assert shop.rows() == 1
    shop.call("relay", point=point, status=-signal.SIGKILL)
    shop.end_claims()

    shop.call("work")

    assert shop.orders() == shop.shipped() == ["o-1"]
    assert shop.rows() == 0
    assert shop.redis.client.keys("asynq:{default}:t:*") == []


@pytest.fixture(params=[DJANGO, SQLALCHEMY], ids=["django", "sqlalchemy"])
def file_shop(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Shop:
    """Use only SQLite, because the database treats rows of any kind the same."""
    return Shop(request.param, in_file(tmp_path), redis_server, tmp_path)


@pytest.mark.parametrize(
    ("who", "point"), [("view", "committed"), ("view", "sent"), ("relay", "sent"), ("relay", "row deleted")]
)
def test_a_sender_of_a_workflow_is_killed(file_shop: Shop, who: str, point: str) -> None:
    """The sender dies after it sent the first, all or none of several rows. Each step runs once."""
    shop = file_shop
    if who == "view":
        shop.call("place", orders=["o"], members=60, point=point, status=-signal.SIGKILL)
    else:
        shop.call("place", orders=["o"], members=60, **AWAY)
        shop.call("relay", point=point, status=-signal.SIGKILL)
    shop.end_claims()

    shop.call("work")

    assert shop.orders() == ["o"]
    assert shop.shipped() == sorted(["o", *(f"o.{number}" for number in range(60))])
    assert shop.rows() == 0
    assert shop.redis.client.keys("asynq:{default}:t:*") == []


@pytest.mark.parametrize("is_fence_off", [False, True])
def test_a_relay_is_frozen_for_longer_than_its_claim(shop: Shop, is_fence_off: bool) -> None:
    """Another relay sends the row, the task runs, row and receipt are deleted. Then the first relay sends it again.

    Redis refuses this because the claim has ended. Without that check the task runs twice, so this test can fail.
    """
    shop.call("place", orders=["o-1"], **AWAY)
    with shop.start("relay", point="claimed", signal=signal.SIGSTOP, claim_s=0.5, is_fence_off=is_fence_off) as sleeper:
        _, status = os.waitpid(sleeper.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        fell_asleep = shop.redis.client.time()[0]
        shop.end_claims()
        shop.call("work")
        assert shop.shipped() == ["o-1"]
        assert (shop.rows(), shop.receipts()) == (0, 0)
        while shop.redis.client.time()[0] < fell_asleep + 2:
            time.sleep(0.05)  # until the claim has ended by Redis's clock

        os.kill(sleeper.pid, signal.SIGCONT)
        output, _ = sleeper.communicate(timeout=30)

    assert sleeper.returncode == 0, output
    shop.call("work")
    assert shop.shipped() == (["o-1", "o-1"] if is_fence_off else ["o-1"])


def test_a_delivery_arrives_late(shop: Shop) -> None:
    """Before it arrives, the view has repeated it, the row was deleted, and the task has run."""
    with Relay(shop.redis.socket_path) as network:
        held = network.hold_request(shop.redis.load("deliver"), hang_up=True)
        shop.call("place", orders=["o-1"], redis=network.url)
        assert shop.rows() == 0
        shop.call("work")

        held.deliver()
        shop.call("work")

    assert shop.shipped() == ["o-1"]


def test_many_relays_at_once_send_each_row_once(shop: Shop) -> None:
    orders = [f"o-{number:03}" for number in range(60)]
    shop.call("place", orders=orders, **AWAY)
    rows = shop.rows()

    relays = [shop.start("relay") for _ in range(4)]
    for relay in relays:
        with relay:
            output, _ = relay.communicate(timeout=60)
        assert relay.returncode == 0, output
    shop.call("work")

    assert rows == 60
    assert shop.rows() == 0
    assert shop.shipped() == shop.orders() == orders
