"""Test `manage.py runworker` and `manage.py taskq`."""

import io
import json
import logging
import os
import re
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command, load_command_class
from django.core.management.base import SystemCheckError
from django.db import transaction

from taskq_core.cli.running import set_up_log
from taskq_django import task
from taskq_django.app import taskq as project
from tests.redis_server import RedisServer
from tests.rows import rows
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

    assert [handle.result(timeout=60) for handle in handles] == [1, 1]


def test_options_may_be_keywords(redis: RedisServer) -> None:
    stdout = io.StringIO()

    call_command("runworker", burst=True, queues="low", concurrency=3, stdout=stdout)

    assert "queues       low=1\n" in stdout.getvalue()
    assert "concurrency  3\n" in stdout.getvalue()
    with pytest.raises(TypeError, match="Unknown option"):
        call_command("runworker", concurency=3)
    with pytest.raises(CommandError, match=r"queues must be text, .*, got \['default', 'low'\]"):
        call_command("runworker", burst=True, queues=["default", "low"])


@pytest.mark.parametrize("command", [("runworker",), ("runscheduler",), ("taskq",), ("taskq", "worker")])
def test_the_help_needs_no_valid_settings(
    settings: Any, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    settings.TASKQ = {"URL": "nonsense"}

    with pytest.raises(SystemExit) as caught:
        call_command(*command, "--help", skip_checks=False)

    assert caught.value.code == 0
    assert "--queues" in capsys.readouterr().out or command != ("runworker",)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_banner_lists_settings_and_the_log_the_ended_tasks(
    redis: RedisServer, command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    handle = greet.delay("Ada")

    with caplog.at_level("INFO", "taskq.worker"):
        output = run(*command, "--queues", "default=2,low", "--concurrency", "3", "--strict")

    assert f"unix://{redis.socket_path}" in output
    assert "default=2,low=1 (strictly in this order)" in output
    assert "concurrency  3" in output
    assert "shop:restock" in output
    assert f"pid          {os.getpid()}" in output
    assert f"task completed: name=shop:greet id={handle.id} attempt=1/" in caplog.text
    assert handle.id not in output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_log_lines_begin_with_the_time_unless_the_project_configures_logging(
    redis: RedisServer,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = greet.delay("Ada")

    with caplog.at_level("WARNING"), monkeypatch.context() as patch:  # restores the log level that the worker sets
        patch.setattr(
            logging.getLogger(), "handlers", []
        )  # pytest's handlers would count as logging configured by the project
        run(*command)

    lines = capsys.readouterr().err.splitlines()
    (line,) = [each for each in lines if handle.id in each]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO taskq\.worker: "
        rf"task completed: name=shop:greet id={handle.id} attempt=1/\d+ duration=\d+\.\d{{3}}s",
        line,
    )


def test_a_line_that_another_handler_has_written_is_not_repeated(
    redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With DEBUG, Django's own handler writes the lines of `django.tasks` to the terminal."""
    django = logging.getLogger("django")
    console = logging.StreamHandler()

    with caplog.at_level("WARNING"), monkeypatch.context() as patch:  # restores the log level that `set_up_log` sets
        patch.setattr(logging.getLogger(), "handlers", [])
        patch.setattr(django, "handlers", [console])
        set_up_log(1)
        logging.getLogger("django.tasks").warning("Task id=7 state=RUNNING")
        console.addFilter(lambda _record: False)
        logging.getLogger("django.tasks").warning("Task id=8 state=RUNNING")

    lines = capsys.readouterr().err.splitlines()
    assert [line[-24:] for line in lines] == ["Task id=7 state=RUNNING"[-24:], " Task id=8 state=RUNNING"]


def test_the_log_of_a_worker_inside_a_server_writes_each_line_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("taskq")
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])
        patch.setattr(logger, "handlers", [])
        set_up_log(1, "taskq")
        logging.getLogger("taskq.worker").info("hello")
    logger.setLevel(logging.NOTSET)

    assert [line[-5:] for line in capsys.readouterr().err.splitlines()] == ["hello"]


@rows(
    ("options", "message"),
    [
        (["--queues", "a=b"], "--queues: the weight of queue 'a'"),
        (["--concurrency", "0"], "concurrency must be between"),
    ],
)
@rows("command", COMMANDS)
def test_a_bad_option_is_a_command_error(
    redis: RedisServer, command: tuple[str, ...], options: list[str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        run(*command, *options)


def test_a_worker_that_cannot_start_is_a_command_error(settings: Any) -> None:
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}

    with pytest.raises(CommandError, match="could not start") as caught:
        run("runworker", "--no-wait")

    assert caught.value.returncode == 1


def test_bad_settings_are_reported_by_the_system_check(settings: Any) -> None:
    settings.TASKQ = {"CONCURENCY": 3}

    with pytest.raises(SystemCheckError, match="did you mean 'CONCURRENCY'"):
        run("runworker", skip_checks=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_examples_defaults_and_signals(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    settings.TASKQ = {"QUEUES": {"critical": 6, "low": 1}}

    with pytest.raises(SystemExit):
        call_command(*command, "--help")

    output = capsys.readouterr().out
    assert f"{' '.join(command)} --queues critical=6,default=3,low=1 --concurrency 20" in output
    assert "default: critical=6,low=1" in " ".join(output.split())
    assert "SIGTERM, SIGINT (Ctrl-C)" in output
    assert "--autoreload" in output


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
    output = taskq("task", "enqueue", "-t", "shop:greet", "-l", '{"name": "Ada"}', "--id", "by-hand")

    assert output.startswith("enqueued by-hand to ")
    with pytest.raises(CommandError, match="shop:greet"):
        taskq("task", "enqueue", "-t", "shop:greet", "-l", '{"nmae": "Ada"}')


@rows(
    ("words", "message", "status"),
    [
        (["quue"], "did you mean 'queue'", 2),
        (["queue", "list", "--url", "x"], "No such option", 2),
        (["queue", "inspect", "nothing"], "no queue 'nothing'", 1),
        (["queue", "pause", "nothing"], "some items failed; see above", 1),
        (["completion", "bash"], "no command 'completion'", 2),
    ],
)
def test_a_failing_command_is_a_command_error(redis: RedisServer, words: list[str], message: str, status: int) -> None:
    with pytest.raises(CommandError, match=message) as caught:
        taskq(*words)

    assert caught.value.returncode == status


def test_the_health_command_fails_while_redis_is_down(settings: Any) -> None:
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}

    with pytest.raises(CommandError, match=r"^the queues are not healthy$") as caught:
        taskq("health", "--timeout", "0.01")

    assert caught.value.returncode == 1


def test_without_a_subcommand_the_help_is_shown_and_the_status_is_2() -> None:
    stdout = io.StringIO()

    with pytest.raises(CommandError, match="a command is missing") as caught:
        call_command("taskq", "queue", stdout=stdout)

    assert caught.value.returncode == 2
    assert "\nCommands:\n" in stdout.getvalue()


def test_json_output_is_the_same_as_that_of_the_taskq_command(redis: RedisServer) -> None:
    assert taskq("queue", "list", "--json") == '{\n  "queues": []\n}\n'


def test_options_of_django_may_stand_anywhere(redis: RedisServer) -> None:
    greet.delay("Ada")

    assert "paused" not in taskq("--no-color", "stats", "-v", "2", "--skip-checks")
    assert "\x1b[" in taskq("stats", "--force-color")
    assert "\x1b[" not in taskq("stats", "--traceback", "--no-color")


def test_the_help_of_the_whole_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["queue", "--help"]):
        with pytest.raises(SystemExit):
            taskq(*words)
    load_command_class("taskq_django", "taskq").print_help("manage.py", "taskq")

    output = capsys.readouterr().out
    assert output.count("Usage: ") == 3
    assert output.count("Usage: manage.py taskq [OPTIONS] COMMAND [ARGS]...") == 1
    assert "pause" in output
    assert "--url" not in output


# --- as a process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_project_without_tasks_gets_a_hint_where_to_put_them(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """The built-in mail task does not count as a project task, unless a mailer of the project enqueues it."""
    monkeypatch.setattr(project, "_tasks", {"taskq:send-mail": project.tasks["taskq:send-mail"]})
    for registered in ("entries", "providers"):
        monkeypatch.setattr(project.timetable, registered, [])

    with pytest.raises(CommandError, match=r"no tasks are registered.*tasks\.py") as caught:
        run(*command)
    assert caught.value.returncode == 2

    monkeypatch.setattr("taskq_django.management.commands.runworker.mailers", lambda: [("EMAIL_BACKEND", object, {})])
    run(*command)
