"""Test `taskq worker --reload` as a process: which changes it detects, and how the worker restarts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskq_core import TaskQ
from tests.processes.taskq_django.project import read_until
from tests.redis_server import RedisServer


def write(path: Path, text: str = "", *, when: float | None = None) -> None:
    """Replace a file atomically, as editors do, with the given second as time of modification."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    if when is not None:
        os.utime(new, (when, when))
    new.replace(path)


TASKS = """
import time
from pathlib import Path
from taskq_core import TaskQ

taskq = TaskQ("{url}")

@taskq.task(name="shop:{name}", retention=600)
def work(flag: str) -> str:
    Path(flag + ".started").touch()
    while not Path(flag).exists():
        time.sleep(0.01)
    return "{name}"
"""


@contextmanager
def worker(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("taskq")), "worker", *arguments, "--reload"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.redis
@pytest.mark.slow
def test_a_worker_restarts_after_running_tasks_have_finished(tmp_path: Path, redis_server: RedisServer) -> None:
    """A change of code interrupts no task. After an error, here a missing module, the worker waits for a change."""
    module, flag = tmp_path / "shop.py", tmp_path / "flag"
    text = TASKS.format(url=redis_server.unix_url, name="first")
    write(module, text, when=1)
    with worker(tmp_path, "shop:taskq") as process, queue_application(redis_server) as app:
        read_until(process, "ready\n")
        handle = app.remote("shop:first", retention=600).delay(flag=str(flag))
        while not flag.with_suffix(".started").exists():
            assert process.poll() is None
            time.sleep(0.01)

        write(module, f"import later\n{text.replace('first', 'second')}", when=2)
        flag.touch()
        output = read_until(process, "The worker ended with status 1. It starts again when code changes.")
        assert f"task completed: name=shop:first id={handle.id} attempt=1/" in output
        assert "later" in output
        write(tmp_path / "later.py")
        assert "shop:second" in read_until(process, "ready\n")

        process.terminate()
        assert process.wait(60) == 0
        assert handle.result(timeout=10) == "first"


@contextmanager
def queue_application(server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(server.unix_url, enqueue_timeout=30)
    try:
        yield app
    finally:
        app.close()


@pytest.mark.slow
def test_a_worker_without_a_name_is_refused_at_once(tmp_path: Path) -> None:
    with worker(tmp_path) as process:
        assert "the name of the TaskQ object" in read_until(process, "the name of the TaskQ object")
        assert process.wait(60) == 2
