"""Fixtures for the command line."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from taskq_core import TaskQ
from tests.clock import Clock
from tests.console import invoke
from tests.redis_server import RedisServer

Run = Callable[..., Result]
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
def time_flies(clock: Clock) -> Iterator[None]:
    """Seconds pass in milliseconds, for what waits in vain."""
    is_over = threading.Event()

    def skip() -> None:
        while not is_over.wait(0.001):
            clock.skip(1)

    skipping = threading.Thread(target=skip)
    skipping.start()
    yield
    is_over.set()
    skipping.join()


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    """An application on the test's server."""
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield app
    app.close()


@pytest.fixture
def run(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line against the test's server; it has to end with the status given, with any if that is None."""
    monkeypatch.setenv("TASKQ_URL", redis_server.unix_url)
    monkeypatch.setenv("TASKQ_ENQUEUE_TIMEOUT", "30")  # it is there, and takes its time on a busy machine

    def run(*words: str, status: int | None = 0, stdin: str | None = None) -> Result:
        result = invoke(words, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert status is None or result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """As `run`, with `--json`; returns the document."""
    return lambda *words, status=0: json.loads(run(*words, "--json", status=status).stdout)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Create a module with a queue application in the working directory, under a unique name."""
    name = f"shop_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(SHOP.format(url="redis://127.0.0.1:1/0"))
    (tmp_path / f"{name}_broken.py").write_text("import not_installed_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name
