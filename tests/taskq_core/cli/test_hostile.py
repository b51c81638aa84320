"""Test that no command prints text from Redis that controls the terminal."""

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run
from tests.taskq_core.cli.hostile import EVIL, STEERS, store_hostile

pytestmark = pytest.mark.redis

QUEUE = "[b]q[/b]"
COMMANDS = [
    ("stats",),
    ("doctor",),
    ("health",),
    ("queue", "list"),
    ("queue", "inspect", QUEUE),
    ("queue", "inspect", EVIL),
    ("queue", "pause", EVIL),
    ("queue", "history", QUEUE),
    ("task", "list", "--queue", QUEUE),
    *(("task", "list", "--queue", QUEUE, "--state", state) for state in ("archived", "pending", "active")),
    ("task", "inspect", "--queue", QUEUE, "--id", "[red]id"),
    ("task", "inspect", "--queue", QUEUE, "--id", EVIL),
    ("task", "run", "--queue", QUEUE, "--id", EVIL),
    ("task", "enqueue", EVIL, "--payload", "{}"),
    ("group", "list", "--queue", QUEUE),
    ("limit", "list", "--queue", QUEUE),
    ("workflow", "list", "--queue", QUEUE),
    ("server", "list"),
    ("server", "quiet", EVIL),
    ("cron", "list"),
    ("cron", "history", EVIL),
    ("cron", "pause", EVIL),
]


@pytest.fixture
def hostile(app: TaskQ, redis_server: RedisServer) -> TaskQ:
    store_hostile(app, redis_server)
    return app


def test_no_command_prints_text_that_controls_the_terminal(hostile: TaskQ, run: Run) -> None:
    handle = hostile.remote("t", queue=QUEUE, headers={EVIL: EVIL}, task_id="headers").delay()
    shown = ("task", "inspect", "--queue", handle.queue, "--id", handle.id)
    output = ""
    for words in (*COMMANDS, shown):
        for more in ((), ("--json",)):
            result = run(*words, *more, status=None)
            assert result.exit_code < 2, result.output
            assert not STEERS.search(result.output), (words, result.output)
            output += result.output

    assert "\\x1b]0;owned" in output
    assert "\\u202e" in output
