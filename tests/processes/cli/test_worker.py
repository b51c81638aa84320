"""`taskq worker` as a process: where its log goes, and what it loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[3]


SHOP = """
import logging
from types import SimpleNamespace
from taskq_core import TaskQ
taskq = TaskQ("{url}")
nested = SimpleNamespace(queue=taskq)
other = 3
@taskq.task(name="shop:greet", retention=600)
def greet(name: str) -> str:
    logging.getLogger("shop").debug("somebody is greeted")
    return f"hello {{name}}"
@taskq.task(name="shop:broken", retry_delay=3600)
def broken():
    raise ValueError("no such shop")
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module with a queue application in the working directory, under a name of its own."""
    name = f"shop_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(SHOP.format(url="redis://127.0.0.1:1/0"))
    (tmp_path / f"{name}_broken.py").write_text("import not_installed_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.redis
@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [("0", {"ERROR"}), ("1", {"ERROR", "WARNING", "INFO"}), ("3", {"ERROR", "WARNING", "INFO", "DEBUG"})],
)
def test_the_log_goes_to_standard_error_from_the_level_asked_for(
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


def test_a_worker_loads_nothing_that_only_tools_need() -> None:
    """What it starts without it neither waits for nor keeps in memory; a process of its own has loaded nothing else."""
    program = """
import sys
import click
from taskq_core import TaskQ
from taskq_core.cli.command import root

assert root.get_command(click.Context(root), "worker") is not None
assert TaskQ("redis://localhost").runtime.endpoint.connection() is not None  # what redis-py loads for one, too
rooms = ("inspector", "doctor", "dashboard", "testing", "scheduler", "worker.relay", "broker.embedded")
tools = ["rich", "croniter", "argparse", "difflib", "zoneinfo", "click.shell_completion"]
if sys.version_info >= (3, 13):
    tools.append("email.message")  # before, Python's own importlib.metadata loads it
print(*[name for name in (*tools, *[f"taskq_core.{room}" for room in rooms]) if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.split() == []
