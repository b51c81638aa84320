"""Test the setting `DEV_WORKER`: a worker inside `manage.py runserver`."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskq_core import TaskHandle, TaskState
from taskq_core.inspector import Inspector
from taskq_django import taskq
from tests.processes.taskq_django.project import Project, read_until
from tests.redis_server import RedisServer

DEVELOPING = """
DEBUG = True
ROOT_URLCONF = "kiosk.urls"
TASKQ["DEV_WORKER"] = True
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"taskq": {"handlers": ["console"], "level": "INFO"}},
}
"""


RUNNING = "taskq worker in this process: default=1, concurrency 10, "


@pytest.fixture
def project(tmp_path: Path, redis: RedisServer) -> Project:
    project = Project(tmp_path, redis, DEVELOPING)
    (tmp_path / "kiosk" / "urls.py").write_text("urlpatterns = []\n")
    return project


def begin(process: "subprocess.Popen[str]", flag: Path, name: str = "first") -> TaskHandle[Any]:
    """Enqueue a task that runs until a file exists, and wait until it runs."""
    handle = taskq.remote(f"kiosk:{name}", retention=600).delay(flag=str(flag))
    while not Path(f"{flag}.started").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return handle


def worker_pid(inspector: Inspector) -> int:
    """Return the pid of the only worker, once its presence record exists."""
    while not (workers := inspector.servers()):
        time.sleep(0.01)
    (worker,) = workers
    return worker.pid


@contextmanager
def changing(project: Project, name: str) -> Iterator[None]:
    """Change the code repeatedly until the block ends, because it is unknown when the reloader begins to watch."""
    is_seen = threading.Event()

    def change() -> None:
        version = 1
        while not is_seen.wait(0.1):
            project.write_tasks(name, version=version)
            version += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        is_seen.set()
        thread.join()


@pytest.mark.redis
class TestAsAProcess:
    def test_the_child_of_the_reloader_runs_a_worker_and_restarts_it_when_code_changes(
        self, project: Project, tmp_path: Path, inspector: Inspector
    ) -> None:
        flag = tmp_path / "flag"
        with project.running("runserver", "0") as process:
            read_until(process, RUNNING)
            first = worker_pid(inspector)
            assert first != process.pid, "only the child may run a worker"
            handle = begin(process, flag)

            with changing(project, "second"):
                read_until(process, "for 1 running tasks")
            flag.touch()
            read_until(process, f"task completed: name=kiosk:first id={handle.id} attempt=1/")
            read_until(process, RUNNING)

            assert worker_pid(inspector) not in (first, process.pid)
            taskq.remote("kiosk:second", retention=600).delay(flag=str(flag)).result(timeout=30)

    @pytest.mark.parametrize("options", [(), ("--noreload",)], ids=["reloader", "noreload"])
    def test_ctrl_c_returns_running_tasks(
        self, project: Project, tmp_path: Path, inspector: Inspector, options: tuple[str, ...]
    ) -> None:
        with project.running("runserver", "0", *options) as process:
            read_until(process, RUNNING)
            handle = begin(process, tmp_path / "flag")

            os.kill(worker_pid(inspector), signal.SIGINT)  # not to the parent, which would kill its child soon
            process.wait(60)

        info = inspector.task(handle.queue, handle.id)
        assert (info.state, info.retried) == (TaskState.PENDING, 0)  # type: ignore[union-attr]  # readable
        assert inspector.servers() == []

    def test_a_hanging_task_does_not_prevent_the_server_from_stopping(
        self, project: Project, tmp_path: Path, inspector: Inspector
    ) -> None:
        project.write_tasks("first", version=0)
        project.tasks.write_text(project.tasks.read_text().replace("time.sleep(0.01)", "time.sleep(1000)"))
        with project.running("runserver", "0", "--noreload") as process:
            read_until(process, RUNNING)
            handle = begin(process, tmp_path / "flag")

            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)

        assert inspector.task(handle.queue, handle.id).state is TaskState.PENDING  # type: ignore[union-attr]  # readable

    def test_a_replaced_runserver_command_has_a_worker_too(
        self, project: Project, tmp_path: Path, inspector: Inspector
    ) -> None:
        """Some apps replace Django's command with their own."""
        commands = tmp_path / "kiosk" / "management" / "commands"
        commands.mkdir(parents=True)
        (commands / "runserver.py").write_text(UVICORN)
        with project.running("runserver", "0") as process:
            read_until(process, RUNNING)
            handle = begin(process, tmp_path / "flag")

            os.kill(worker_pid(inspector), signal.SIGINT)
            process.wait(60)

        assert inspector.task(handle.queue, handle.id).state is TaskState.PENDING  # type: ignore[union-attr]  # readable

    @pytest.mark.parametrize(
        "words", [("shell", "-c", "import threading; print(*threading.enumerate())"), ("check",), ("showmigrations",)]
    )
    def test_other_commands_have_no_worker(self, project: Project, redis: RedisServer, words: tuple[str, ...]) -> None:
        with project.running(*words) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            process.wait(60)

        assert "taskq worker" not in output
        assert redis.client.keys("asynq:servers*") == []

    def test_a_server_without_debug_does_not_start(self, tmp_path: Path, redis: RedisServer) -> None:
        (tmp_path / "project").mkdir()
        settings = 'DEBUG = False\nALLOWED_HOSTS = ["*"]\nTASKQ["DEV_WORKER"] = True\n'
        with Project(tmp_path / "project", redis, settings).running("runserver", "0", "--noreload") as process:
            output = read_until(process, "HINT")
            assert process.wait(60) == 1

        assert "(taskq.E005) TASKQ['DEV_WORKER'] is not usable: DEV_WORKER is for development" in output
        assert redis.client.keys("*") == []


UVICORN = """
import uvicorn
from django.core.asgi import get_asgi_application
from django.core.management.commands.runserver import Command as Django

class Command(Django):
    def inner_run(self, *args, **options):
        self.check()
        uvicorn.Server(uvicorn.Config(get_asgi_application(), port=0)).run()
"""
