"""Options, banner and task lines of the worker command."""

import argparse
import io

import pytest

from taskq_core import ConfigurationError, Settings, TaskContext, TaskQ
from taskq_core.cli.running import Narrator, add_arguments, banner, make_worker, worker_config

SETTINGS = Settings(queues={"critical": 6, "low": 1}, concurrency=4)


def parse(*words: str, settings: Settings | None = SETTINGS) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_arguments(parser, settings)
    return vars(parser.parse_args(words))


def make_app(tasks: int = 2) -> TaskQ:
    app = TaskQ("redis://ada:secret@localhost:7000/3", queues={"critical": 6, "low": 1})

    async def wait() -> None: ...
    def greet(name: str) -> None: ...

    for number in range(tasks - 1):
        app.task(name=f"shop:greet-{number:02}")(greet)
    app.task(name="shop:wait", queue="low")(wait)
    return app


def test_the_settings_hold_where_no_option_is_given() -> None:
    config = worker_config(SETTINGS, parse())

    assert dict(config.queues) == {"critical": 6, "low": 1}
    assert (config.concurrency, config.strict_priority, config.burst) == (4, False, False)


def test_options_replace_the_settings() -> None:
    options = parse("--queues", "critical=2, default", "--concurrency", "20", "--strict", "--burst")

    config = worker_config(SETTINGS, options)

    assert dict(config.queues) == {"critical": 2, "default": 1}
    assert (config.concurrency, config.strict_priority, config.burst) == (20, True, True)


def test_queues_that_cannot_be_are_refused(subtests: pytest.Subtests) -> None:
    for queues in ["", "=3", "a=,b", "a=-1", "a=1.5", "}a", "a=9999999"]:
        with subtests.test(queues=queues), pytest.raises(ConfigurationError):
            worker_config(SETTINGS, parse("--queues", queues))


def test_the_help_shows_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help", settings=Settings(queues={"50%": 2, "low": 1}, concurrency=7))

    told = " ".join(capsys.readouterr().out.split())
    assert "50%=2,low=1" in told
    assert "(default: 7)" in told


def test_the_banner_says_what_runs_without_the_password() -> None:
    app = make_app()

    text = banner(app, worker_config(app.settings, {}))

    assert "redis://ada:***@localhost:7000/3" in text
    assert "secret" not in text
    assert "critical=6,low=1 (by weight)" in text
    assert "concurrency  10" in text
    assert "shop:greet-00  thread     default" in text
    assert "shop:wait      coroutine  low" in text


def test_the_banner_of_many_tasks_is_cut() -> None:
    app = make_app(tasks=30)
    config = worker_config(app.settings, {"strict": True})

    assert "and 10 more (-v 2 shows all)" in banner(app, config)
    assert "strictly in this order" in banner(app, config)
    assert "shop:wait" in banner(app, config, all_tasks=True)


def test_a_worker_without_tasks_says_what_that_means() -> None:
    assert "none registered" in banner(TaskQ(), worker_config(SETTINGS, {}))


def test_verbosity_0_says_nothing(subtests: pytest.Subtests) -> None:
    for verbosity, is_quiet in [(0, True), (1, False)]:
        with subtests.test(verbosity=verbosity, is_quiet=is_quiet):
            stdout = io.StringIO()

            make_worker(make_app(), {"verbosity": verbosity}, stdout=stdout)

            assert (stdout.getvalue() == "") is is_quiet


def test_a_line_per_task_says_how_it_ended() -> None:
    stdout = io.StringIO()
    context = TaskContext(id="7", name="shop:greet", queue="low", retried=2)

    narrator = Narrator(stdout, per_task=True)
    narrator.task_ended(context, "done", 0.0123, None)
    narrator.task_ended(context, "retry", 1.5, ValueError("no such name\nand more"))
    narrator.task_ended(context, "retry", 1.5, ValueError("\x1b]0;owned\x07"))

    assert stdout.getvalue().splitlines() == [
        "done       shop:greet  7  attempt 3  12 ms",
        "retry      shop:greet  7  attempt 3  1500 ms  ValueError: no such name",
        r"retry      shop:greet  7  attempt 3  1500 ms  ValueError: \x1b]0;owned\x07",
    ]


def test_output_that_cannot_be_written_does_not_stop_the_work() -> None:
    stdout = io.StringIO()
    stdout.close()

    Narrator(stdout, per_task=True).task_ended(TaskContext(id="7", name="a", queue="b"), "done", 0, None)
