"""Test `taskq doctor --fix` at a terminal, where a person confirms it."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.cli.test_doctor import LOCK, PENDING, is_damaged, is_repaired

pytestmark = pytest.mark.redis


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server for which the doctor reports no errors."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def damaged(app: TaskQ, redis_server: RedisServer) -> str:
    """Create a task that is in no list, and a lock without a task. Return the id of the task."""
    handle = app.remote("shop:ship").delay()
    redis_server.client.delete(PENDING)
    redis_server.client.set(LOCK, "ghost", ex=600)
    return handle.id


WITHOUT_PAUSES = """
import sys
import taskq_core.repair.reconcile
taskq_core.repair.reconcile.RECHECK_S = 0
from taskq_core.cli import main
sys.exit(main(["doctor", "--fix"]))
"""


@pytest.mark.parametrize(("answer", "is_wanted"), [("y", True), ("n", False), ("", False)])
def test_a_person_confirms_or_declines(redis_server: RedisServer, damaged: str, answer: str, is_wanted: bool) -> None:
    """At a terminal, the default answer is no."""
    terminal, stdin = os.openpty()
    with subprocess.Popen(
        (sys.executable, "-c", WITHOUT_PAUSES),
        env=os.environ | {"TASKQ_URL": redis_server.unix_url},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(terminal, f"{answer}\n".encode())
        output, asked = process.communicate(timeout=60)
    os.close(terminal)
    os.close(stdin)

    assert "repair 2 problems? [y/N]:" in asked
    assert process.returncode == (0 if is_wanted else 1)
    assert "to be repaired: 2" in output
    assert is_repaired(redis_server, damaged) is is_wanted
    assert is_damaged(redis_server) is not is_wanted
