"""Test `manage.py runworker` and `manage.py taskq` as processes: signals, several processes, reload, broken output."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import Keys
from tests.processes.taskq_django.project import Project, read_until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def project(tmp_path: Path, redis: RedisServer) -> Project:
    return Project(tmp_path, redis)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_gracefully(project: Project, number: signal.Signals) -> None:
    with project.worker() as process:
        output = read_until(process, "ready")
        process.send_signal(number)

        assert process.wait(30) == 0

    assert "kiosk:first" in output


ISOLATED = """
import os
from django.apps import apps
from taskq_django import task

@task(name="kiosk:isolated", executor="process", retention=600)
def isolated() -> list[int]:
    return [os.getpid(), os.getppid(), apps.ready]
"""


HANGING = """
import time
from asgiref.sync import sync_to_async
from taskq_django import task

@task(name="kiosk:hanging")
async def hanging() -> None:
    await sync_to_async(hang)()

def hang() -> None:
    print("hangs", flush=True)
    time.sleep(3600)
"""


@pytest.mark.slow
def test_blocking_code_that_a_coroutine_waits_for_does_not_delay_the_exit(project: Project, redis: RedisServer) -> None:
    """An example is a query without a response. Python would wait for its thread, while another worker has the task."""
    project.configure("TASKQ |= {'SHUTDOWN_GRACE': 0.1}\n")
    project.tasks.write_text(HANGING)
    app = TaskQ(redis.unix_url, enqueue_timeout=30)
    with project.worker() as process:
        handle = app.remote("kiosk:hanging").delay()
        read_until(process, "hangs")
        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == 0
        assert redis.client.hget(Keys().queue("default").task(handle.id), "state") == b"pending"
    app.close()


@pytest.mark.slow
def test_several_processes_and_a_task_in_a_separate_process(project: Project, redis: RedisServer) -> None:
    """Each is a separate Python process that has set up Django. The setting gives their number."""
    project.configure("TASKQ |= {'PROCESSES': 2, 'SHUTDOWN_GRACE': 5}\n")
    project.tasks.write_text(ISOLATED)
    app = TaskQ(redis.unix_url, enqueue_timeout=30)
    with project.worker("--concurrency", "1") as process:
        output = read_until(process, "ready")
        while len(servers := {each.pid for each in Inspector(app).servers()}) < 2:
            assert process.poll() is None  # the first heartbeat may be missing
            time.sleep(0.01)
        pid, parent, is_set_up = app.remote("kiosk:isolated", retention=600).delay().result(60)
        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == 0

    app.close()
    assert "processes    2" in output
    assert re.search(r"kiosk:isolated +process", output)
    assert is_set_up
    assert parent in servers
    assert process.pid not in servers
    assert pid not in servers
    assert len(servers) == 2


@pytest.mark.parametrize(("words", "named"), [(("--processes", "0"), "--processes"), (("--max-memory", "1"), "16MiB")])
def test_invalid_options_of_processes_are_refused(project: Project, words: tuple[str, ...], named: str) -> None:
    assert named in project.run("runworker", *words, status=1)
    assert "--autoreload runs a single process" in project.run(
        "runworker", "--autoreload", "--processes", "2", status=1
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
@pytest.mark.parametrize("words", [("queue", "list"), ("stats", "--json")])
def test_a_full_disk_is_reported_in_one_line(project: Project, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            (sys.executable, str(project.manage), "taskq", *words),
            env=project.environment,
            cwd=project.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "CommandError: cannot write the output: No space left on device\n")


def test_a_closed_pipe_causes_no_traceback(project: Project, redis: RedisServer) -> None:
    redis.client.sadd("asynq:queues", *[f"queue-{number:05}-{'x' * 50}" for number in range(5000)])
    with subprocess.Popen(
        (sys.executable, str(project.manage), "taskq", "queue", "list"),
        env=project.environment,
        cwd=project.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.readline()
        started.stdout.close()
        complaints = started.stderr.read()

    assert (started.returncode, complaints) == (1, "")


@pytest.mark.slow
class TestAutoreload:
    def test_it_restarts_after_running_tasks_have_finished(self, project: Project, tmp_path: Path) -> None:
        """A task that runs during the change is not interrupted. SIGTERM ends parent and child."""
        from taskq_django import taskq

        flag = tmp_path / "flag"
        with project.worker("--autoreload") as process:
            read_until(process, "ready\n")
            handle = taskq.remote("kiosk:first", retention=600).delay(flag=str(flag))
            while not flag.with_suffix(".started").exists():
                assert process.poll() is None
                time.sleep(0.01)

            project.write_tasks("second", version=1)
            flag.touch()
            output = read_until(process, "ready\n")
            assert f"task completed: name=kiosk:first id={handle.id} attempt=1/" in output
            assert "kiosk:second" in output

            process.terminate()
            assert process.wait(60) == 0

        assert handle.result(timeout=10) == "first"

    def test_after_an_error_in_the_code_it_waits_for_a_change(self, project: Project) -> None:
        with project.worker("--autoreload") as process:
            read_until(process, "ready\n")

            project.tasks.write_text("def broken(:")
            assert "SyntaxError" in read_until(process, "The worker ended with status 1. It starts again when")
            project.write_tasks("second", version=1)

            assert "kiosk:second" in read_until(process, "ready\n")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_the_wait_for_a_change(self, project: Project, number: signal.Signals) -> None:
        with project.worker("--autoreload") as process:
            read_until(process, "ready\n")
            project.tasks.write_text("def broken(:")
            read_until(process, "It starts again when code changes.")

            process.send_signal(number)

            assert process.wait(60) == 1

    def test_a_change_while_code_is_imported_is_detected(self, project: Project, tmp_path: Path) -> None:
        """The file changes after the worker has read it and before the worker watches it."""
        loading, go = tmp_path / "loading", tmp_path / "go"
        with project.worker("--autoreload") as process:
            read_until(process, "ready\n")
            project.write_tasks("second", version=1, begins=LOADS_SLOWLY.format(loading=str(loading), go=str(go)))
            while not loading.exists():
                assert process.poll() is None
                time.sleep(0.01)
            project.write_tasks("third")
            go.touch()

            output = ""
            while "kiosk:third" not in output:  # the worker before it may end before it is ready
                output = read_until(process, "ready\n")

    def test_a_worker_waits_for_redis(self, tmp_path: Path) -> None:
        """It may be started before Redis."""
        with RedisServer() as server:
            server.stop()
            with Project(tmp_path, server).worker("--autoreload") as process:
                read_until(process, "the worker waits for Redis: cannot reach unix:")
                server.start()

                read_until(process, "ready\n")


LOADS_SLOWLY = """
import time
from pathlib import Path
Path({loading!r}).touch()
while not Path({go!r}).exists():
    time.sleep(0.01)
"""
