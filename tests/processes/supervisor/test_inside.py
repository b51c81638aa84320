"""Test a supervisor in this process with a real worker process, for cases that cannot be tested from outside."""

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.supervisor import SupervisorConfig, orphans, supervisor
from taskq_core.supervisor.child import Child, Stage
from taskq_core.supervisor.supervisor import Supervisor
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import until_blocking

pytestmark = [pytest.mark.slow, pytest.mark.redis]


@pytest.fixture
def behind() -> list[float]:
    """Number of seconds to add to the supervisor's clock."""
    return [0.0]


@pytest.fixture
def beside(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, behind: list[float], capfd: pytest.CaptureFixture[str]
) -> Callable[[Callable[[Supervisor], None]], int]:
    """Run a supervisor and a function in a thread, stop the supervisor, and return its status."""
    for name in ("TASKQ_URL", "NOTES_URL"):
        monkeypatch.setenv(name, redis_server.url)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + behind[0])
    monkeypatch.setattr(supervisor, "time", clock)
    config = {"ending": 20, "aborting": 5, "silence": 60}
    settings = {"supervisor": config, "worker": {"concurrency": 1, "heartbeat": 0.5}}
    command = [sys.executable, "-m", "tests.processes.supervisor.program", json.dumps(settings)]

    def run(act: Callable[[Supervisor], None]) -> int:
        app = TaskQ(redis_server.url)
        parent = Supervisor(app, SupervisorConfig(**config), command, write_line=lambda line: None)
        problems: list[BaseException] = []

        def work() -> None:
            try:
                until_blocking(lambda: parent.report()[0], "it works")
                act(parent)
            except BaseException as error:  # reported below
                problems.append(error)
            finally:
                parent._loop.call_soon_threadsafe(parent.stop)

        thread = threading.Thread(target=work)
        thread.start()
        status = parent.run()
        thread.join()
        app.close()
        assert not problems, problems
        return status

    return run


def test_time_in_which_the_supervisor_was_frozen_does_not_count_as_silence(
    beside: Any, behind: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """This happens after SIGSTOP and SIGCONT, or when a machine was suspended."""
    caplog.set_level(logging.INFO)

    def sleep(parent: Supervisor) -> None:
        (child,) = parent._children
        last_message_at = child.last_message_at

        def wake_up() -> None:
            behind[0] += 3600
            parent._check()  # before the supervisor reads newer messages

        parent._loop.call_soon_threadsafe(wake_up)
        until_blocking(lambda: child.last_message_at > last_message_at + 3601, "its messages arrive again")
        assert parent.report()[0]

    assert beside(sleep) == 0
    assert "is killed" not in caplog.text
    assert "the supervisor was suspended for 3" in caplog.text


def test_a_failure_in_the_background_is_logged(beside: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("odd")

    def work(parent: Supervisor) -> None:
        parent._loop.call_soon_threadsafe(parent._background.start, fail())
        until_blocking(lambda: "a background task failed" in caplog.text and "odd" in caplog.text)

    assert beside(work) == 0


@pytest.fixture
def first_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make this process the parent of orphaned processes, like the first process of a container."""
    set_subreaper = partial(ctypes.CDLL(None).prctl, 36)  # PR_SET_CHILD_SUBREAPER
    assert set_subreaper(1, 0, 0, 0) == 0
    monkeypatch.setattr(orphans, "is_first_process", lambda: True)
    yield
    assert set_subreaper(0, 0, 0, 0) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="containers are a matter of Linux")
def test_the_first_process_of_a_container_reaps_orphaned_processes(beside: Any, first_process: None) -> None:
    """Otherwise each leaves a zombie process. The supervisor's own children are reported as usual."""

    def leave(parent: Supervisor) -> None:
        said = subprocess.run(["sh", "-c", "sleep 0.2 >/dev/null & echo $!"], capture_output=True, check=True).stdout
        until_blocking(lambda: not os.path.exists(f"/proc/{int(said)}"), "its entry is gone")
        (child,) = parent._children
        child.process.kill()
        until_blocking(lambda: child.process.returncode == -signal.SIGKILL, "its end is known")
        until_blocking(lambda: parent.report()[0], "another one works")

    assert beside(leave) == 0


def test_a_process_that_cannot_be_killed_is_abandoned(
    beside: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel does not end the process. The supervisor logs this once and starts another process."""
    monkeypatch.setattr(supervisor, "UNKILLABLE_S", 0.0)
    monkeypatch.setattr(Child, "kill", lambda self, now: setattr(self, "killed_at", now))

    def hold(parent: Supervisor) -> None:
        (held,) = parent._children
        parent._loop.call_soon_threadsafe(parent._kill, held, "it says nothing")
        until_blocking(lambda: parent.report()[0] and held not in parent._children, "another one works")
        os.kill(held.pid, signal.SIGKILL)
        held.process.wait()

    assert beside(hold) == 0
    assert caplog.text.count("is killed: it says nothing") == 1
    assert caplog.text.count("after it was killed; it is replaced") == 1


def test_a_rolling_restart_ends_when_the_worker_is_paused(beside: Any) -> None:
    """Without this, no successor would start, because the rolling restart has ended."""
    done = threading.Event()

    def act(parent: Supervisor) -> None:
        (child,) = parent._children

        def roll_and_pause() -> None:
            parent.roll()
            parent._check()
            parent._on_pause()
            parent._check()
            done.set()

        parent._loop.call_soon_threadsafe(roll_and_pause)
        assert done.wait(60)
        assert child.stage is Stage.WORKING

    assert beside(act) == 0
