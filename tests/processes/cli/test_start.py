"""Test commands that start before Redis."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

ROOT = Path(__file__).parents[3]
APP = """
from taskq_core import TaskQ
taskq = TaskQ({url!r})
@taskq.task
def work() -> None: ...
"""
COMMANDS = [
    ("worker", "early_app:taskq"),
    ("worker", "early_app:taskq", "--processes", "2"),
    ("scheduler", "early_app:taskq"),
    ("exporter", "--app", "early_app:taskq", "--port", "0"),
    ("dashboard", "--app", "early_app:taskq", "--port", "0"),
]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that has its address but does not run yet."""
    with RedisServer(tcp=True, password="secret") as server:
        server.stop()
        yield server


@contextmanager
def started(folder: Path, url: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a command until the end of the block. Its two outputs are one."""
    (folder / "early_app.py").write_text(APP.format(url=url))
    with subprocess.Popen(
        (sys.executable, "-m", "taskq_core", *words),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if text in line:
            return output
    pytest.fail(f"the output ended without {text!r}:\n{output}")


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_waits_for_redis_with_one_line_at_begin_and_end(
    tmp_path: Path, server: RedisServer, words: tuple[str, ...]
) -> None:
    with started(tmp_path, server.url, *words) as process:
        output = read_until(process, f"the {words[0]} waits for Redis: cannot reach redis://:***@127.0.0.1")
        server.start()
        output += read_until(process, f"; the {words[0]} continues")
        if words[0] in ("worker", "scheduler"):
            output += read_until(process, "ready")
        status, rest = end(process)

    assert status == 0
    assert len(re.findall("waits for Redis|Redis answers|Redis is unavailable", output + rest)) == 2


@pytest.mark.parametrize("words", COMMANDS[1:], ids=" ".join)
def test_sigterm_ends_the_wait_with_status_0(tmp_path: Path, server: RedisServer, words: tuple[str, ...]) -> None:
    with started(tmp_path, server.url, *words) as process:
        read_until(process, "waits for Redis")

        assert end(process)[0] == 0


@pytest.mark.parametrize(
    ("words", "is_up"), [(COMMANDS[1], True), (COMMANDS[3], True), ((*COMMANDS[4], "--no-wait"), False)]
)
def test_a_start_that_cannot_succeed_ends_with_one_line_and_status_1(
    tmp_path: Path, server: RedisServer, words: tuple[str, ...], is_up: bool
) -> None:
    if is_up:
        server.start()
    with started(tmp_path, server.url.replace("secret", "wrong"), *words) as process:
        output, _ = process.communicate(timeout=30)

    assert process.returncode == 1
    assert len(re.findall("refused the user or password|cannot reach", output)) == 1
    assert "Traceback" not in output
