"""Test `taskq scheduler` as a process: it enqueues until it is stopped, and nothing delays its end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


CLOCK = """
from taskq_core import TaskQ
taskq = TaskQ("{url}")
@taskq.periodic("@every 1s")
@taskq.task(name="clock:tick")
def tick() -> None: ...
"""


def test_the_scheduler_enqueues_until_it_is_stopped(tmp_path: Path, redis_server: RedisServer) -> None:
    (tmp_path / "clock_app.py").write_text(CLOCK.format(url=redis_server.unix_url))
    with subprocess.Popen(
        (sys.executable, "-m", "taskq_core", "scheduler", "clock_app:taskq", "-v", "2"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path.cwd()))), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = []
        for line in process.stdout:
            output.append(line)
            if line.startswith("enqueued"):
                break
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)

    assert status == 0
    assert f"broker       unix://{redis_server.socket_path}" in "".join(output)
    assert "entries      1" in "".join(output)


HANGING = """
import threading
from taskq_core import ScheduleHook, TaskQ
taskq = TaskQ("{url}")
asked = 0

@taskq.schedule_provider(every=0.1)
def provide():
    global asked
    asked += 1
    if asked == 2:
        print("the provider hangs\\n", end="")
        threading.Event().wait()
    return []

class Hanging(ScheduleHook):
    def after_enqueue(self, firing, outcome, error) -> None:
        print("a hook hangs\\n", end="")
        threading.Event().wait()

taskq.add_schedule_hook(Hanging())

@taskq.periodic("@every 1s")
@taskq.task(name="clock:tick")
def tick() -> None: ...
"""


@pytest.mark.parametrize("command", [("scheduler",), ("worker",)], ids=["scheduler", "worker"])
def test_hanging_hooks_and_providers_do_not_delay_the_exit(
    tmp_path: Path, redis_server: RedisServer, command: tuple[str, ...]
) -> None:
    (tmp_path / "clock_hangs.py").write_text(HANGING.format(url=redis_server.unix_url))
    name, *options = command
    with subprocess.Popen(
        (sys.executable, "-m", "taskq_core", name, "clock_hangs:taskq", *options),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path.cwd()))), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line  # several threads write to it, so a message may begin in the middle of a line
            if "the provider hangs" in output and "a hook hangs" in output:
                break
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(30)
        finally:
            process.kill()

    assert status == 0
