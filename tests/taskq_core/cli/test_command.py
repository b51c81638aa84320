"""The console script `taskq`."""

import io
from pathlib import Path

import pytest

from taskq_core import ConfigurationError, TaskQ
from taskq_core.cli import main
from taskq_core.cli.command import root
from taskq_core.cli.session import load_app
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import SHOP

ROOT = Path(__file__).parents[3]


def test_an_application_is_found_in_the_working_directory(shop: str) -> None:
    assert isinstance(load_app(f"{shop}:taskq"), TaskQ)
    assert load_app(f"{shop}:nested.queue") is load_app(f"{shop}:taskq")


def test_an_invalid_application_is_reported(shop: str, subtests: pytest.Subtests) -> None:
    for target, told in [
        ("{shop}", "give module:attribute"),
        ("{shop}:", "give module:attribute"),
        ("no_such_{shop}:taskq", "there is no module 'no_such_{shop}'"),
        ("{shop}.py:taskq", "a module is named without .py: {shop}:taskq"),
        ("{shop}:tasq", "'{shop}' has no attribute 'tasq'"),
        ("{shop}:other", "'{shop}:other' is not a TaskQ but of type 'int'"),
    ]:
        with subtests.test(target=target, told=told):
            with pytest.raises(ConfigurationError) as caught:
                load_app(target.format(shop=shop))

            assert told.format(shop=shop) in str(caught.value)


def test_an_import_that_fails_inside_the_module_keeps_its_traceback(shop: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_app(f"{shop}_broken:taskq")


def test_an_invalid_setting_is_reported_with_status_1(
    shop: str, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for options, told in [
        (["--queues", "a=0"], "--queues: the weight of queue 'a' must be between 1 and"),
        (["--queues", "a=x"], "--queues: the weight of queue 'a' must be a whole number, got 'x'"),
        (["--concurrency", "0"], "concurrency must be between 1 and 100000, got 0"),
    ]:
        with subtests.test(options=options, told=told):
            status = main(["worker", f"{shop}:taskq", *options], stdout=io.StringIO())

            assert status == 1
            assert told in capsys.readouterr().err


def test_an_unreachable_broker_ends_with_status_1(shop: str) -> None:
    stdout = io.StringIO()

    assert main(["worker", f"{shop}:taskq", "--burst", "--no-wait"], stdout=stdout) == 1
    assert "redis://127.0.0.1:1/0" in stdout.getvalue()


@pytest.mark.redis
def test_a_burst_runs_pending_tasks_and_ends_with_status_0(
    shop: str, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    (Path.cwd() / f"{shop}.py").write_text(SHOP.format(url=redis_server.unix_url))
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)  # the command closes the application that it loads
    handle = app.remote("shop:greet", retention=600).delay(name="Ada")
    stdout = io.StringIO()

    with caplog.at_level("INFO", "taskq.worker"):
        status = main(["worker", f"{shop}:taskq", "--burst"], stdout=stdout)

    assert status == 0
    assert handle.result(timeout=60) == "hello Ada"
    assert f"task completed: name=shop:greet id={handle.id} attempt=1/" in caplog.text
    app.close()


def test_the_help_describes_options_and_signals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worker", "--help"]) == 0

    told = capsys.readouterr().out
    assert "taskq worker shop.queue:taskq --queues critical=6,default=3,low=1 --concurrency 20" in told
    assert "SIGTERM, SIGINT (Ctrl-C)" in told
    assert "exit status:" in told


def test_every_command_has_the_name_of_its_table_entry() -> None:
    assert {name: command.name for name, command in root.commands.items()} == {name: name for name in root.commands}
