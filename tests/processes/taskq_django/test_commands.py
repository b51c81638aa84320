"""`manage.py runworker` and `manage.py taskq` as processes: signals, several processes, reload, broken output."""

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
        said = read_until(process, "ready")
        process.send_signal(number)

        assert process.wait(30) == 0

    assert "kiosk:first" in said


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
def test_blocking_code_that_a_coroutine_waits_for_does_not_hold_up_the_exit(
    project: Project, redis: RedisServer
) -> None:
    """A query without an answer, for one: Python would wait for its thread, while another worker has the task."""
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
def test_several_processes_and_a_task_in_one_of_its_own(project: Project, redis: RedisServer) -> None:
    """Each is a separate Python process that has set up Django. The setting gives their number."""
    project.configure("TASKQ |= {'PROCESSES': 2, 'SHUTDOWN_GRACE': 5}\n")
    project.tasks.write_text(ISOLATED)
    app = TaskQ(redis.unix_url, enqueue_timeout=30)
    with project.worker("--concurrency", "1") as process:
        said = read_until(process, "ready")
        while len(servers := {each.pid for each in Inspector(app).servers()}) < 2:
            assert process.poll() is None  # the first heartbeat of one is on its way
            time.sleep(0.01)
        pid, parent, is_set_up = app.remote("kiosk:isolated", retention=600).delay().result(60)
        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == 0

    app.close()
    assert "processes    2" in said
    assert re.search(r"kiosk:isolated +process", said)
    assert is_set_up
    assert parent in servers
    assert process.pid not in servers
    assert pid not in servers
    assert len(servers) == 2


@pytest.mark.parametrize(("words", "named"), [(("--processes", "0"), "--processes"), (("--max-memory", "1"), "16MiB")])
def test_processes_that_cannot_be_are_refused(project: Project, words: tuple[str, ...], named: str) -> None:
    assert named in project.run("runworker", *words, status=1)
    assert "--autoreload runs a single process" in project.run(
        "runworker", "--autoreload", "--processes", "2", status=1
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
@pytest.mark.parametrize("words", [("queue", "list"), ("stats", "--json")])
def test_a_full_disk_is_told_in_one_line(project: Project, words: tuple[str, ...]) -> None:
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


def test_a_pipe_that_is_closed_is_no_traceback(project: Project, redis: RedisServer) -> None:
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
    def test_it_starts_anew_after_running_tasks_have_finished(self, project: Project, tmp_path: Path) -> None:
        """The task that runs while the code changes is not cut off. SIGTERM ends parent and child."""
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
            said = read_until(process, "ready\n")
            assert f"task completed: name=kiosk:first id={handle.id} attempt=1/" in said
            assert "kiosk:second" in said

            process.terminate()
            assert process.wait(60) == 0

        assert handle.result(timeout=10) == "first"

    def test_a_mistake_in_the_code_waits_for_its_repair(self, project: Project) -> None:
        with project.worker("--autoreload") as process:
            read_until(process, "ready\n")

            project.tasks.write_text("def broken(:")
            assert "SyntaxError" in read_until(process, "The worker ended with status 1. It starts again when")
            project.write_tasks("second", version=1)

            assert "kiosk:second" in read_until(process, "ready\n")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_the_wait_for_a_repair(self, project: Project, number: signal.Signals) -> None:
        with project.worker("--autoreload") as process:
            read_until(process, "ready\n")
            project.tasks.write_text("def broken(:")
            read_until(process, "It starts again when code changes.")

            process.send_signal(number)

            assert process.wait(60) == 1

    def test_a_change_while_code_is_loaded_is_not_missed(self, project: Project, tmp_path: Path) -> None:
        """The worker has read the file already when it changes, and has not begun to watch it."""
        loading, go = tmp_path / "loading", tmp_path / "go"
        with project.worker("--autoreload") as process:
            read_until(process, "ready\n")
            project.write_tasks("second", version=1, begins=LOADS_SLOWLY.format(loading=str(loading), go=str(go)))
            while not loading.exists():
                assert process.poll() is None
                time.sleep(0.01)
            project.write_tasks("third")
            go.touch()

            said = ""
            while "kiosk:third" not in said:  # the worker before it may end before it is ready
                said = read_until(process, "ready\n")

    def test_a_worker_waits_for_redis(self, tmp_path: Path) -> None:
        """Whoever starts it before Redis needs not come back to it."""
        with RedisServer() as server:
            server.stop()
            with Project(tmp_path, server).worker("--autoreload") as process:
                said = read_until(process, "The worker starts again in 5 s, or when code changes.")
                assert "the worker cannot start: cannot reach unix:" in said
                server.start()

                read_until(process, "ready\n")


LOADS_SLOWLY = """
import time
from pathlib import Path
Path({loading!r}).touch()
while not Path({go!r}).exists():
    time.sleep(0.01)
"""
