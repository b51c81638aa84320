"""Options, banner and log of the worker command."""

import io
import logging
import re
import sys
from pathlib import Path

import click
import pytest

from taskq_core import ConfigurationError, Settings, TaskContext, TaskQ
from taskq_core.cli import main, running
from taskq_core.cli.running import StatusWriter, WorkerFormatter, banner, make_worker, worker_config
from taskq_core.cli.worker import worker_options
from taskq_core.execution.context import current
from taskq_core.wire.quoting import clean
from tests.logged import CONTROLS
from tests.rows import rows

SETTINGS = Settings(queues={"critical": 6, "low": 1}, concurrency=4)


def parse(*words: str, settings: Settings | None = SETTINGS) -> dict[str, object]:
    command = click.Command("worker", params=list(worker_options(settings)))
    return command.make_context("worker", list(words)).params


def make_app(tasks: int = 2) -> TaskQ:
    app = TaskQ("redis://ada:secret@localhost:7000/3", queues={"critical": 6, "low": 1})

    async def wait() -> None: ...
    def greet(name: str) -> None: ...

    for number in range(tasks - 1):
        app.task(name=f"shop:greet-{number:02}")(greet)
    app.task(name="shop:wait", queue="low")(wait)
    return app


def test_settings_apply_without_an_option() -> None:
    config = worker_config(SETTINGS, parse())

    assert dict(config.queues) == {"critical": 6, "low": 1}
    assert (config.concurrency, config.strict_priority, config.burst) == (4, False, False)


def test_options_override_settings() -> None:
    options = parse("--queues", "critical=2, default", "--concurrency", "20", "--strict", "--burst")

    config = worker_config(SETTINGS, options)

    assert dict(config.queues) == {"critical": 2, "default": 1}
    assert (config.concurrency, config.strict_priority, config.burst) == (20, True, True)


def test_invalid_queues_are_refused(subtests: pytest.Subtests) -> None:
    for queues in ["", "=3", "a=,b", "a=-1", "a=1.5", "}a", "a=9999999"]:
        with subtests.test(queues=queues), pytest.raises(ConfigurationError):
            worker_config(SETTINGS, parse("--queues", queues))


def test_the_help_shows_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit):
        parse("--help", settings=Settings(queues={"50%": 2, "low": 1}, concurrency=7))

    told = " ".join(capsys.readouterr().out.split())
    assert "50%=2,low=1" in told
    assert "(default: 7)" in told


def test_the_banner_lists_settings_without_the_password() -> None:
    app = make_app()

    text = banner(app, worker_config(app.settings, {}))

    assert "redis://ada:***@localhost:7000/3" in text
    assert "secret" not in text
    assert "critical=6,low=1 (by weight)" in text
    assert "concurrency  10" in text
    assert "shop:greet-00  thread     default" in text
    assert "shop:wait      coroutine  low" in text


def test_the_banner_marks_tasks_of_other_queues() -> None:
    app = make_app()

    text = banner(app, worker_config(app.settings, {"queues": "lwo,low"}))

    assert "shop:greet-00  thread     default (not served by this worker)" in text
    assert text.count("not served by this worker") == text.count(" default (")
    assert re.search(r"shop:wait +coroutine +low$", text, re.MULTILINE)


def test_the_banner_truncates_a_long_list_of_tasks() -> None:
    app = make_app(tasks=30)
    config = worker_config(app.settings, {"strict": True})

    assert "and 10 more (-v 2 shows all)" in banner(app, config)
    assert "strictly in this order" in banner(app, config)
    assert "shop:wait" in banner(app, config, all_tasks=True)


def test_the_banner_shows_that_no_scheduler_runs() -> None:
    assert "scheduler" not in banner(make_app(), worker_config(SETTINGS, {}))
    assert "scheduler    off" in banner(make_app(), worker_config(SETTINGS, {"with_scheduler": False}))


def test_a_worker_without_tasks_is_refused_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lonely_queue.py").write_text("from taskq_core import TaskQ\ntaskq = TaskQ()\n")
    monkeypatch.chdir(tmp_path)

    assert main(["worker", "lonely_queue:taskq"]) == 2

    told = capsys.readouterr().err
    assert "no tasks are registered" in told
    assert 'TaskQ(include=["shop.tasks"])' in told
    assert "taskq worker shop.queue:taskq shop.tasks" in told


@rows(
    ("include", "words"),
    [
        ("", ["named_queue:taskq", "named_tasks"]),
        ("", ["--app", "named_queue:taskq", "worker", "named_tasks"]),
        ("include=['named_tasks']", ["named_queue:taskq"]),
    ],
)
def test_arguments_or_the_application_name_the_modules_with_tasks(
    include: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named_queue.py").write_text(f"from taskq_core import TaskQ\ntaskq = TaskQ({include})\n")
    (tmp_path / "named_tasks.py").write_text("from named_queue import taskq\ntaskq.task(name='named')(lambda: None)\n")
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    monkeypatch.setattr(running, "run", lambda app, *_, **__: seen.extend(app.tasks) or 0)

    try:
        assert main(words if "worker" in words else ["worker", *words]) == 0
    finally:
        for name in ("named_queue", "named_tasks"):
            sys.modules.pop(name, None)

    assert seen == ["named"]


def test_verbosity_0_prints_nothing(subtests: pytest.Subtests) -> None:
    for verbosity, is_quiet in [(0, True), (1, False)]:
        with subtests.test(verbosity=verbosity, is_quiet=is_quiet):
            stdout = io.StringIO()

            make_worker(make_app(), {"verbosity": verbosity}, stdout=stdout)

            assert (stdout.getvalue() == "") is is_quiet


def test_each_line_of_the_log_names_the_task_it_belongs_to() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("tests.worker_formatter")
    logger.addHandler(handler := logging.StreamHandler(stream))
    logger.setLevel(logging.INFO)
    handler.setFormatter(WorkerFormatter("%(levelname)s %(message)s"))
    token = current.set(TaskContext(id="7", name="shop:greet", queue="low"))

    logger.info("code of a task")
    logger.info("name=shop:greet id=7")
    current.reset(token)
    logger.info("the worker on a task", extra={"task_id": "8"})
    logger.info("the worker\x1b[31m")
    logger.removeHandler(handler)

    assert stream.getvalue().splitlines() == [
        "INFO code of a task [shop:greet 7]",
        "INFO name=shop:greet id=7",
        "INFO the worker on a task [task 8]",
        r"INFO the worker\x1b[31m",
    ]


@pytest.mark.parametrize("is_extra", [True, False])
def test_name_and_id_of_a_task_cannot_control_the_terminal(is_extra: bool) -> None:
    name, task_id = f"name{CONTROLS}", f"id{CONTROLS}"
    record = logging.makeLogRecord({"msg": "said %s", "args": (CONTROLS,)})
    if is_extra:
        record.__dict__ |= {"task_name": name, "task_id": task_id}
    token = current.set(TaskContext(id=task_id, name=name, queue="low"))

    line = WorkerFormatter("%(message)s").format(record)
    current.reset(token)

    assert line.isprintable()
    assert line.endswith(f"[{clean(name)} {clean(task_id)}]")
    assert "\\x1b" in line


def test_output_that_cannot_be_written_does_not_stop_the_work() -> None:
    stdout = io.StringIO()
    stdout.close()

    StatusWriter(stdout).write("ready")
