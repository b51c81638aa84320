"""Test `taskq dashboard` as a process."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[str]:
    """Run the command until the end of the block, and yield the address that it prints."""
    command = (sys.executable, "-m", "taskq_core", "dashboard", "--port", "0", *words)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TASKQ_ENQUEUE_TIMEOUT": "30"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://[^ ]+/", line)
            assert found, line
            yield found[0]
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
        finally:
            process.kill()


def test_it_serves_until_it_is_stopped(redis_server: RedisServer, tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--url", redis_server.unix_url, "--read-only") as address,
        httpx.Client(base_url=address, trust_env=False, timeout=60) as web,
    ):
        assert address.startswith("http://127.0.0.1:")
        assert "There are no queues yet" in web.get("/").text
        assert "read only" in web.get("/settings").text
        assert web.get("/", headers={"host": "evil.example"}).status_code == 403


def test_with_a_login_it_is_reachable_from_other_machines(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "people.py").write_text(
        "from taskq_dashboard import User\n"
        "def login(request):\n"
        "    return User('olga') if request.headers.get('x-secret') == 's' else None\n"
    )
    with (
        serving(tmp_path, "--url", redis_server.unix_url, "--host", "0.0.0.0", "--login", "people:login") as address,
        httpx.Client(base_url=address.replace("0.0.0.0", "127.0.0.1"), trust_env=False, timeout=60) as web,
    ):
        assert web.get("/").status_code == 403
        assert web.get("/", headers={"x-secret": "s", "host": "ops.example"}).status_code == 200
