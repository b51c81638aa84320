"""`manage.py runworker` and `manage.py taskq worker`."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command, load_command_class
from django.core.management.base import SystemCheckError
from django.db import transaction

from taskq_core.worker import worker
from taskq_django import task
from tests.redis_server import RedisServer
from tests.taskq_django.shop.tasks import greet

pytestmark = pytest.mark.redis
COMMANDS = [("runworker",), ("taskq", "worker")]


@task(name="shop:count-groups", retention=600)
def count_groups() -> int:
    return Group.objects.count()


@task(name="shop:acount-groups", retention=600)
async def acount_groups() -> int:
    return await Group.objects.acount()


def run(*words: str, **options: Any) -> str:
    stdout = io.StringIO()
    call_command(*words, "--burst", stdout=stdout, **options)
    return stdout.getvalue()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_burst_runs_what_was_committed(redis: RedisServer, command: tuple[str, ...]) -> None:
    with transaction.atomic():
        Group.objects.create(name="staff")
        handles = [count_groups.delay(), acount_groups.delay()]

    run(*command)

    assert [handle.result(timeout=10) for handle in handles] == [1, 1]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_banner_and_a_line_per_task_at_verbosity_2(redis: RedisServer, command: tuple[str, ...]) -> None:
    handle = greet.delay("Ada")

    told = run(*command, "-v", "2", "--queues", "default=2,low", "--concurrency", "3", "--strict")

    assert f"unix://{redis.socket_path}" in told
    assert "default=2,low=1 (strictly in this order)" in told
    assert "concurrency  3" in told
    assert "shop:restock" in told
    assert f"pid          {os.getpid()}" in told
    assert f"completed  shop:greet  {handle.id}" in told


def test_verbosity_1_has_no_line_per_task(redis: RedisServer) -> None:
    handle = greet.delay("Ada")

    told = run("runworker")

    assert "taskq worker" in told
    assert handle.id not in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--queues", "a=b"], "--queues: the weight of queue 'a'"),
        (["--concurrency", "0"], "concurrency must be between"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_option_is_a_command_error(
    redis: RedisServer, command: tuple[str, ...], options: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        run(*command, *options)


def test_a_worker_that_cannot_start_is_a_command_error(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "START_PATIENCE_S", 0.1)
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0"}

    with pytest.raises(CommandError, match="could not start") as caught:
        run("runworker")

    assert caught.value.returncode == 1


def test_bad_settings_are_told_by_the_system_check(settings: Any) -> None:
    settings.TASKQ = {"CONCURENCY": 3}

    with pytest.raises(SystemCheckError, match="did you mean 'CONCURRENCY'"):
        run("runworker", skip_checks=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_teaches(command: tuple[str, ...], capsys: pytest.CaptureFixture[str], settings: Any) -> None:
    settings.TASKQ = {"QUEUES": {"critical": 6, "low": 1}}

    with (
        nullcontext() if command == ("taskq", "worker") else pytest.raises(SystemExit, check=lambda end: end.code == 0)
    ):
        call_command(*command, "--help")  # argparse exits the process, click does not

    told = capsys.readouterr().out
    assert f"{' '.join(command)} --queues critical=6,default=3,low=1 --concurrency 20" in told
    assert "default: critical=6,low=1" in " ".join(told.split())
    assert "SIGTERM, SIGINT (Ctrl-C)" in told
    assert "--autoreload" in told


# --- the whole command ------------------------------------------------------------------------------------------------


def taskq(*words: str, **options: Any) -> str:
    stdout = io.StringIO()
    call_command("taskq", *words, stdout=stdout, **options)
    return stdout.getvalue()


def test_the_command_works_on_the_project_s_broker(redis: RedisServer) -> None:
    handle = greet.delay("Ada")

    document = json.loads(taskq("task", "list", "--queue", handle.queue, "--state", "pending", "--json"))

    assert [task["id"] for task in document["tasks"]] == [handle.id]
    assert handle.id in taskq("task", "list")
    assert taskq("task", "delete", "-q", handle.queue, "-i", handle.id, "-y") == f"{handle.id} is deleted\n"


def test_a_task_of_the_project_is_enqueued_with_its_payload_checked(redis: RedisServer) -> None:
    told = taskq("task", "enqueue", "-t", "shop:greet", "-l", '{"name": "Ada"}', "--id", "by-hand")

    assert told.startswith("enqueued by-hand to ")
    with pytest.raises(CommandError, match="shop:greet"):
        taskq("task", "enqueue", "-t", "shop:greet", "-l", '{"nmae": "Ada"}')


def test_the_doctor_repairs_the_project_s_broker(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_core.reconcile.LOOK_AGAIN_S", 0)
    handle = greet.delay("Ada")
    pending = f"asynq:{{{handle.queue}}}:pending"
    redis.client.delete(pending)
    stdout = io.StringIO()

    with pytest.raises(CommandError):  # it has a word to say on the tests' server, which writes nothing to disk
        call_command("taskq", "doctor", "--fix", "--yes", "--json", stdout=stdout)

    document = json.loads(stdout.getvalue())
    assert [(each["kind"], each["subject"]) for each in document["repaired"]] == [("not_listed", handle.id)]
    assert [each["check"] for each in document["findings"] if each["level"] == "red"] == ["persistence"]
    assert redis.client.lrange(pending, 0, -1) == [handle.id.encode()]


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (["quue"], "did you mean 'queue'", 2),
        (["queue", "list", "--url", "x"], "No such option", 2),
        (["queue", "inspect", "nothing"], "no queue 'nothing'", 1),
        (["queue", "pause", "nothing"], "not all of it could be done", 1),
        (["completion", "bash"], "no command 'completion'", 2),
    ],
)
def test_what_fails_is_a_command_error(redis: RedisServer, words: list[str], message: str, status: int) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        taskq(*words)

    assert caught.value.returncode == status


def test_without_a_verb_the_help_is_shown_and_the_status_is_2() -> None:
    stdout = io.StringIO()

    with pytest.raises(CommandError, match="which command") as caught:
        call_command("taskq", "queue", stdout=stdout)

    assert caught.value.returncode == 2
    assert "\nCommands:\n" in stdout.getvalue()


def test_json_is_written_as_on_the_console(redis: RedisServer) -> None:
    assert taskq("queue", "list", "--json") == '{\n  "queues": []\n}\n'


def test_options_of_django_may_stand_anywhere(redis: RedisServer) -> None:
    greet.delay("Ada")

    assert "paused" not in taskq("--no-color", "stats", "-v", "2", "--skip-checks")
    assert "\x1b[" in taskq("stats", "--force-color")
    assert "\x1b[" not in taskq("stats", "--traceback", "--no-color")


def test_the_help_of_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    taskq("--help")
    taskq("queue", "--help")
    load_command_class("taskq_django", "taskq").print_help("manage.py", "taskq")

    told = capsys.readouterr().out
    assert told.count("Usage: ") == 3
    assert told.count("Usage: manage.py taskq [OPTIONS] COMMAND [ARGS]...") == 1
    assert "pause" in told
    assert "--url" not in told


# --- as a process -----------------------------------------------------------------------------------------------------

PROJECT = """
SECRET_KEY = "for tests only"
INSTALLED_APPS = ["taskq_django", "kiosk"]
TASKQ = {{"URL": "{url}", "SHUTDOWN_GRACE": 20}}
USE_TZ = True
"""
TASKS = """
from pathlib import Path
from taskq_django import task

@task(name="kiosk:{name}", retention=600)
def work(flag: str) -> str:
    import time
    Path(flag + ".started").touch()
    while not Path(flag).exists():
        time.sleep(0.01)
    return "{name}"
"""


class Project:
    """A Django project in a folder of its own, with one app and a worker as a process."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder = folder
        self.tasks = folder / "kiosk" / "tasks.py"
        self.tasks.parent.mkdir()
        (folder / "kiosk" / "__init__.py").touch()
        (folder / "kiosk_settings.py").write_text(PROJECT.format(url=redis.unix_url))
        self.write_tasks("first", version=0)
        self.manage = folder / "manage.py"
        self.manage.write_text(
            "from django.core.management import execute_from_command_line as run\nimport sys\nrun(sys.argv)\n"
        )

    def write_tasks(self, name: str, *, version: int | None = None, begins: str = "") -> None:
        """Put a file in the place of the one with the tasks, changed just now or in the second `version`."""
        new = self.folder / "tasks.py.new"
        new.write_text(begins + TASKS.format(name=name))
        if version is not None:
            os.utime(new, (version, version))  # a change that no clock's coarseness can hide
        new.replace(self.tasks)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "DJANGO_SETTINGS_MODULE": "kiosk_settings",
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(Path.cwd()))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @contextmanager
    def worker(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            [sys.executable, str(self.manage), "runworker", *options],
            env=self.environment,
            cwd=self.folder,
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


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read what a process says up to a line with this text."""
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if text in line:
            return "".join(said)
    raise AssertionError(f"it ended without saying {text!r}:\n{''.join(said)}")


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

    assert (done.returncode, done.stderr) == (1, "CommandError: cannot write the answer: No space left on device\n")


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
            assert f"completed  kiosk:first  {handle.id}  attempt 1" in said
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

            assert "kiosk:second" in read_until(process, "ready\n")
            assert "kiosk:third" in read_until(process, "ready\n")

    def test_a_worker_waits_for_redis(self, tmp_path: Path) -> None:
        """Whoever starts it before Redis needs not come back to it."""
        with RedisServer() as server:
            server.stop()
            with Project(tmp_path, server).worker("--autoreload") as process:
                said = read_until(process, "It is tried again in 5 s, or when code changes.")
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
