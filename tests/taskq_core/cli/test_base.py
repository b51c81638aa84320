"""What holds for all commands: names, help, errors, exit status, questions, streams."""

import importlib.metadata
import io
import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from taskq_core.cli import main
from taskq_core.cli.base import Group
from taskq_core.cli.command import root
from tests.redis_server import RedisServer
from tests.taskq_core.cli.conftest import Run


def every(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Return every command with the words that name it."""
    found = [(path, command)]
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            found += every(each, (*path, name))
    return found


COMMANDS = {" ".join(path): command for path, command in every(root)}

ASYNQ = """
stats
queue list|ls  queue inspect  queue history  queue pause  queue resume|unpause  queue remove|rm|delete
task list|ls  task inspect  task cancel  task run  task archive  task delete|rm|remove  task enqueue
task archive-all|archiveall  task delete-all|deleteall  task run-all|runall
group list|ls  server list|ls  cron list|ls  cron history
version
"""


def test_every_command_of_asynq_exists_with_the_same_name() -> None:
    context = click.Context(root)
    for words in (each for line in ASYNQ.strip().splitlines() for each in line.split("  ")):
        *noun, names = words.split()
        group = root.commands[noun[0]] if noun else root
        assert isinstance(group, Group)
        assert all(group.get_command(context, name) is not None for name in names.split("|")), words


def test_every_command_has_a_help_of_one_sentence_and_takes_the_shared_options(
    capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for path in COMMANDS:
        with subtests.test(path=path):
            assert main([*path.split(), "--help"]) == 0

            told = capsys.readouterr().out
            assert told.startswith(f"Usage: {' '.join(['taskq', *path.split()])}")
            for option in (
                "--url",
                "--db",
                "--username",
                "--ask-password",
                "--prefix",
                "--app",
                "--json",
                "--color",
                "--help",
            ):
                assert option in told
            assert COMMANDS[path].get_short_help_str(200).endswith(".")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["version"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"{importlib.metadata.version('taskq-asynq')}\n"


def test_an_invalid_command_line_causes_a_one_line_error_and_status_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for words, told in [
        (["quue", "list"], "taskq: no command 'quue'; did you mean 'queue'? (see taskq --help)"),
        (["queue", "pasue", "x"], "taskq: no command 'pasue'; did you mean 'pause'? (see taskq queue --help)"),
        (["task", "xyz"], "taskq: no command 'xyz'; the commands are list, find, "),
        (["queue", "pause"], "taskq: Missing argument 'QUEUE...' (see taskq queue pause --help)"),
        (["task", "list", "--pgae", "2"], "--page"),
        (["task", "list", "-s", "pendign"], "no state 'pendign'; did you mean 'pending'? (see taskq task list --help)"),
        (["task", "list", "-s", "aggregating"], "for tasks of a group, give --queue"),
        (["task", "list", "-g", "x"], "--group needs --state aggregating"),
        (["task", "run-all", "-q", "x", "-s", "completed"], "'completed' is not one of"),
        (["task", "run-all", "-q", "x", "-s", "aggregating"], "--group and --state aggregating"),
        (["task", "delete-all", "-q", "x", "-s", "aggregating"], "--group and --state aggregating"),
        (
            ["task", "delete-all", "-q", "x", "-s", "aggregating", "-g", "y"],
            "group y in queue x: standard input is",
        ),
        (
            ["queue", "remove", "x"],
            "Remove queue x: standard input is not a terminal to ask for confirmation; pass --yes",
        ),
        (["task", "enqueue", "-t", "x"], "give either --payload or --payload-file"),
        (["task", "enqueue", "-t", "x", "-l", "{}", "--timeout", "soon"], "'soon' is not a duration"),
        (["task", "enqueue", "-t", "x", "-l", "{}", "--unique", "0"], "--unique takes at least one second"),
        (["task", "enqueue", "-t", "x", "-l", "{}", "-g", " "], "--group must be the name of a group"),
        (["task", "enqueue", "-t", "x", "-l", "{}", "--deadline", "2030-01-01"], "has no time zone"),
        (["task", "enqueue", "-t", "x", "-l", "{}", "--header", "x"], "'x' is not a header; use name=value"),
        (["worker"], "give the name of the TaskQ object"),
    ]:
        with subtests.test(words=words, told=told):
            monkeypatch.setattr(sys, "stdin", io.StringIO())

            assert main(words) == 2

            captured = capsys.readouterr()
            assert captured.out == ""
            assert captured.err.count("\n") == 1
            assert told.lower() in captured.err.lower()


def test_without_a_subcommand_the_help_is_shown(capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests) -> None:
    for words in [[], ["queue"]]:
        with subtests.test(words=words):
            assert main(words) == 2
            told = capsys.readouterr().err
            assert told.startswith(f"Usage: {' '.join(['taskq', *words])} [OPTIONS]")
            assert "\nCommands:\n" in told


@pytest.mark.usefixtures("time_flies")
def test_an_unreachable_broker_causes_a_one_line_error_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "list", "--url", "127.0.0.1:1"]) == 1

    told = capsys.readouterr().err
    assert told.startswith("taskq: cannot reach redis://127.0.0.1:1/0")
    assert told.endswith(
        "is Redis running? --url, TASKQ_URL or in Django TASKQ['URL'] sets its address [broker-unavailable]\n"
    )
    assert told.count("\n") == 1


@pytest.mark.usefixtures("time_flies")
def test_an_unreachable_broker_is_tried_once_for_several_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [word for number in range(20) for word in ("-i", f"id{number}")]

    assert main(["task", "run", "-q", "x", *ids, "--url", "127.0.0.1:1", "--json"]) == 1

    told = capsys.readouterr()
    first, *others = json.loads(told.out)["ids"]
    assert "cannot reach" in first["error"]
    assert others == [{"id": f"id{number}", "ok": False, "error": "not tried"} for number in range(1, 20)]
    assert told.err.count("cannot reach") == 1
    assert "taskq: skipped, because Redis does not answer: id1, id2, " in told.err


def test_invalid_settings_cause_a_one_line_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKQ_CONCURENCY", "3")

    assert main(["queue", "list"]) == 1
    assert "did you mean 'TASKQ_CONCURRENCY'" in capsys.readouterr().err


@pytest.mark.redis
def test_shared_options_are_accepted_anywhere_and_the_last_one_counts(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    redis_server.client.sadd("asynq:queues", "here")
    url = redis_server.unix_url
    for words in (
        ["--url", url, "--json", "queue", "list"],
        ["queue", "--url", url, "--json", "list"],
        ["--url", "127.0.0.1:1", "queue", "list", "--json", "-u", url],
    ):
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out) == {"queues": [{"queue": "here"}]}


@pytest.mark.redis
def test_an_unknown_queue_is_reported_with_the_nearest_name(run: Run, app: Any) -> None:
    app.remote("shop:greet", queue="critical").delay()

    assert "no queue 'critcal'; did you mean 'critical'?" in run("queue", "inspect", "critcal", status=1).stderr
    assert (
        "there are 'critical'; taskq queue list shows all queues" in run("queue", "inspect", "other", status=1).stderr
    )


# --- completion -------------------------------------------------------------------------------------------------------


def test_the_completion_script_names_the_command(capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests) -> None:
    for shell in ["bash", "zsh", "fish"]:
        with subtests.test(shell=shell):
            assert main(["completion", shell]) == 0

            assert "_TASKQ_COMPLETE" in capsys.readouterr().out


def completed(typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the completions of the last word for a shell, and check that nothing else is printed."""
    monkeypatch.setenv("_TASKQ_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    with pytest.raises(SystemExit):
        main([])

    told = capsys.readouterr()
    assert told.err == ""
    return told.out.split()


@pytest.mark.redis
def test_a_shell_completes_commands_options_and_queues(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    redis_server.client.sadd("asynq:queues", "critical", "low", "critical\x1b[2J\nplain,x")
    monkeypatch.setenv("TASKQ_URL", redis_server.unix_url)

    for typed, expected in (
        ("taskq que", "queue"),
        ("taskq queue pa", "pause"),
        ("taskq task list --sta", "--state"),
        ("taskq task list --state arch", "archived"),
        ("taskq queue pause cri", "critical"),
        ("taskq task list -q cri", "critical"),
    ):
        assert f"plain,{expected}" in completed(typed, monkeypatch, capsys), typed
    assert completed("taskq queue pause cri", monkeypatch, capsys) == ["plain,critical"]


def test_completion_without_a_broker_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], time_flies: None
) -> None:
    (tmp_path / "bazaar_closed.py").write_text("raise RuntimeError('out of order')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TASKQ_URL", "redis://127.0.0.1:1/0")

    for option in ("--color never", "--app bazaar_closed:taskq", "--app nowhere:taskq"):
        assert completed(f"taskq queue pause {option} x", monkeypatch, capsys) == [], option


@pytest.mark.usefixtures("time_flies")
def test_the_app_option_uses_the_broker_of_an_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bazaar.py").write_text("from taskq_core import TaskQ\ntaskq = TaskQ('redis://127.0.0.1:2/0')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert main(["queue", "list", "--app", "bazaar:taskq"]) == 1
    assert "cannot reach redis://127.0.0.1:2/0" in capsys.readouterr().err
    assert main(["queue", "list", "--app", "bazaar:taskq", "--url", "127.0.0.1:3"]) == 1
    assert "cannot reach redis://127.0.0.1:3/0" in capsys.readouterr().err
    assert main(["queue", "list", "--app", "bazaar:nothing"]) == 1
    assert "has no attribute 'nothing'" in capsys.readouterr().err
