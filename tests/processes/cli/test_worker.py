"""Test `taskq worker` as a process: its log, its restart after hanging functions, and its imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import SHOP

ROOT = Path(__file__).parents[3]


@pytest.mark.redis
@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [("0", {"ERROR"}), ("1", {"ERROR", "WARNING", "INFO"}), ("3", {"ERROR", "WARNING", "INFO", "DEBUG"})],
)
def test_the_log_goes_to_standard_error_with_the_requested_level(
    shop: str, redis_server: RedisServer, verbosity: str, levels: set[str]
) -> None:
    """One task is archived, one retried, and one logs a detail itself."""
    (Path.cwd() / f"{shop}.py").write_text(SHOP.format(url=redis_server.unix_url))
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    for task in (app.remote("shop:broken", max_retry=0), app.remote("shop:broken", max_retry=1)):
        task.delay()
    app.remote("shop:greet").delay(name="Ada")
    app.close()

    done = subprocess.run(
        (sys.executable, "-m", "taskq_core", "worker", f"{shop}:taskq", "--burst", "-v", verbosity),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert {level for level in ("ERROR", "WARNING", "INFO", "DEBUG") if f" {level} " in done.stderr} == levels
    assert (done.stdout == "") is (verbosity == "0")


@pytest.mark.redis
def test_a_process_with_hanging_functions_replaces_itself(shop: str, redis_server: RedisServer) -> None:
    """The pid stays the same, so the process manager sees one process. The hanging threads have ended then.

    A second task keeps the worker from ending before it is replaced, because no task is left.
    """
    (Path.cwd() / f"{shop}.py").write_text(
        f"""
import time
from taskq_core import TaskQ
from taskq_core.worker import executor

executor.STUCK_S = 0.2
taskq = TaskQ({redis_server.unix_url!r})


@taskq.task(timeout=1, max_retry=0)
def hang():
    time.sleep(3600)
"""
    )
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    for _ in range(2):
        app.remote(f"{shop}.hang", timeout=1, max_retry=0).delay()
    app.close()

    done = subprocess.run(
        (sys.executable, "-m", "taskq_core", "worker", f"{shop}:taskq", "--burst", "--concurrency", "1"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    pids = [line.split()[-1] for line in done.stdout.splitlines() if line.strip().startswith("pid")]
    assert len(pids) > 1
    assert len(set(pids)) == 1
    assert "this process is replaced" in done.stderr
    assert redis_server.client.zcard("asynq:{default}:archived") == 2


def test_a_worker_loads_nothing_that_only_tools_need() -> None:
    """Modules that it does not import need no start time and no memory."""
    program = """
import sys
sys.modules["opentelemetry.sdk"] = None  # redis-py imports it with all that it needs, if it is installed
import click
from taskq_core import TaskQ
from taskq_core.cli.command import root

assert root.get_command(click.Context(root), "worker") is not None
assert TaskQ("redis://localhost").runtime.endpoint.connection() is not None  # what redis-py loads for one, too
rooms = ["inspector", "doctor", "dashboard", "testing", "scheduler", "worker.relay", "broker.embedded", "migrate"]
rooms += ["cli.terminal", "exporter", "service.port", "worker.processes", "worker.task_process"]
tools = ["rich", "croniter", "argparse", "difflib", "zoneinfo", "click.shell_completion", "textual", "libcst", "ctypes"]
tools += ["http", "csv", "multiprocessing"]
if sys.version_info >= (3, 13):
    tools.append("email.message")  # before, Python's own importlib.metadata loads it
print(*[name for name in (*tools, *[f"taskq_core.{room}" for room in rooms]) if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.split() == []
