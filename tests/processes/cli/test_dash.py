"""`taskq dash` as a process on a real terminal."""

import contextlib
import io
import os
import pty
import select
import signal
import subprocess
import sys
import time

from taskq_core import TaskQ
from tests.redis_server import RedisServer


def test_other_commands_do_not_import_the_terminal_dashboard() -> None:
    code = "import sys, taskq_core.cli.command; sys.exit('textual' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_draws_on_a_real_terminal_and_restores_it(redis_server: RedisServer) -> None:
    """Run the dashboard in a separate process: check its output, the quit key, and its exit status."""
    with contextlib.closing(TaskQ(redis_server.unix_url, enqueue_timeout=30)) as taskq:
        taskq.client.enqueue(taskq.remote("mail:send", queue="mail-of-the-shop").s())
    master, slave = pty.openpty()
    environment = {
        **os.environ,
        "TASKQ_URL": redis_server.unix_url,
        "TERM": "xterm-256color",
        "COLUMNS": "80",
        "LINES": "24",
    }
    command = [sys.executable, "-m", "taskq_core", "dash"]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    try:
        drawn = _read_until(master, b"mail-of-the-shop")
        assert b"\x1b[?1049h" in drawn, "the dashboard does not use the alternate screen"
        os.write(master, b"q")
        rest = _read_until(master, b"\x1b[?1049l")
        assert b"Traceback" not in drawn + rest
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(master)


def _read_until(master: int, part: bytes) -> bytes:
    deadline, found = time.monotonic() + 60, io.BytesIO()
    while part not in found.getvalue():
        assert time.monotonic() < deadline, found.getvalue()[-2000:]
        if select.select([master], [], [], 1)[0]:
            found.write(os.read(master, 65536))
    return found.getvalue()
