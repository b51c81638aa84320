"""Test the command as a process: pipes, terminals, passwords, and closed or full streams."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.redis_server import RedisServer


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        (sys.executable, "-m", "taskq_core", "version", "--json"), capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout).keys() == {"version"}


def process(*words: str, url: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "taskq_core", *words),
        env=os.environ | {"TASKQ_URL": url, "TASKQ_ENQUEUE_TIMEOUT": "30"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.redis
def test_a_closed_pipe_causes_no_traceback(redis_server: RedisServer) -> None:
    redis_server.client.sadd("asynq:queues", *[f"queue-{number:05}-{'x' * 50}" for number in range(5000)])
    with subprocess.Popen(
        (sys.executable, "-m", "taskq_core", "queue", "list", "--url", redis_server.unix_url),
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


@pytest.mark.redis
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
@pytest.mark.parametrize("words", [("queue", "list"), ("stats", "--json"), ("--help",)])
def test_a_full_disk_is_reported_in_one_line(redis_server: RedisServer, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            (sys.executable, "-m", "taskq_core", *words, "--url", redis_server.unix_url),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (done.returncode, done.stderr) == (1, "taskq: cannot write the output: No space left on device\n")


@pytest.mark.redis
@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
@pytest.mark.parametrize(
    ("command", "status", "error"),
    [
        ("queue pause here >&-", 0, ""),
        (
            "queue list --ask-password <&-",
            1,
            "taskq: --ask-password: standard input contains no password [configuration]\n",
        ),
        (
            "queue remove here <&-",
            2,
            "taskq: Remove queue here: standard input is not a terminal to ask for confirmation; pass --yes",
        ),
        ("queue list --url 127.0.0.1:1 2>&-", 1, ""),
    ],
)
def test_streams_may_be_closed(redis_server: RedisServer, command: str, status: int, error: str) -> None:
    redis_server.client.sadd("asynq:queues", "here")
    done = subprocess.run(
        ("sh", "-c", f'"$PYTHON" -m taskq_core {command}'),
        env=os.environ | {"TASKQ_URL": redis_server.unix_url, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == status
    assert done.stderr.startswith(error)
    assert "Traceback" not in done.stderr


@pytest.mark.redis
def test_without_a_terminal_there_are_no_colours_and_nothing_is_cut(redis_server: RedisServer) -> None:
    name = "a-queue-with-a-name-that-is-wider-than-any-terminal-" + "x" * 150
    redis_server.client.sadd("asynq:queues", name)

    done = process("queue", "list", url=redis_server.unix_url)

    assert done.stdout.splitlines() == ["QUEUE", name]


@pytest.mark.redis
def test_characters_that_cannot_be_shown_are_escaped(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    name = "snow\N{SNOWMAN}\N{GRINNING FACE}"
    redis_server.client.sadd("asynq:queues", name)

    table = process("queue", "list", url=redis_server.unix_url)
    document = process("queue", "list", "--json", url=redis_server.unix_url)

    assert table.stdout.splitlines()[1] == "snow\\u2603\\U0001f600"
    assert json.loads(document.stdout) == {"queues": [{"queue": name}]}


def in_terminal(*words: str, url: str, answer: tuple[str, str] = ("", ""), **environment: str) -> tuple[int, str]:
    """Run the command on a pseudo-terminal, answer a prompt once, and return its status and output."""
    main_end, terminal = pty.openpty()
    started = subprocess.Popen(
        (sys.executable, "-m", "taskq_core", *words),
        env={key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        | {"TASKQ_URL": url, "TERM": "xterm-256color", "COLUMNS": "100"}
        | environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,  # so that the password prompt appears here, not on the terminal of the test run
    )
    os.close(terminal)
    shown = b""
    question, typed = (each.encode() for each in answer)
    while True:
        if question and question in shown:
            os.write(main_end, typed)
            question = b""
        try:
            part = os.read(main_end, 65_536)
        except OSError:  # Linux raises this when the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(main_end)
    return started.wait(60), shown.decode()


@pytest.mark.redis
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
class TestOnATerminal:
    """Test colors, confirmations and passwords."""

    def test_states_have_colours(self, redis_server: RedisServer) -> None:
        redis_server.client.sadd("asynq:queues", "default")
        redis_server.client.set("asynq:{default}:paused", "1")

        status, shown = in_terminal("stats", url=redis_server.unix_url)
        _, plain = in_terminal("stats", "--color", "never", url=redis_server.unix_url)

        assert status == 0
        assert "\x1b[33mpaused" in shown
        assert "\x1b[33m" not in plain

    @pytest.mark.parametrize(("answer", "status", "is_left"), [("y\n", 0, False), ("n\n", 1, True)])
    def test_an_irreversible_action_needs_a_confirmation(
        self, redis_server: RedisServer, answer: str, status: int, is_left: bool
    ) -> None:
        redis_server.client.sadd("asynq:queues", "default")

        ended, shown = in_terminal("queue", "rm", "default", url=redis_server.unix_url, answer=("[y/N]", answer))

        assert ended == status, shown
        assert "Remove queue default? [y/N]" in shown
        assert redis_server.client.sismember("asynq:queues", "default") == is_left

    def test_a_confirmation_may_be_aborted(self, redis_server: RedisServer) -> None:
        """The test uses Ctrl-D. Ctrl-C has the same effect, but a process that is about to read may miss it."""
        redis_server.client.sadd("asynq:queues", "default")

        status, shown = in_terminal("queue", "rm", "default", url=redis_server.unix_url, answer=("[y/N]: ", "\x04"))

        assert status == 1
        assert "\r\ntaskq: stopped; the remaining items were not changed\r\n" in shown
        assert redis_server.client.sismember("asynq:queues", "default")

    def test_completion_does_not_prompt_for_a_password(self) -> None:
        """The prompt would appear in the middle of the typed command."""
        _, shown = in_terminal(
            url="redis://127.0.0.1:1/0",
            answer=("Password:", "\x04"),
            _TASKQ_COMPLETE="bash_complete",
            COMP_WORDS="taskq --ask-password queue pause x",
            COMP_CWORD="4",
        )

        assert shown.strip() == ""

    def test_the_password_prompt_does_not_show_the_password(self) -> None:
        with RedisServer(password="geheim") as server:
            server.client.sadd("asynq:queues", "default")
            url = server.unix_url.replace(":geheim@", "")

            status, shown = in_terminal("queue", "ls", "--ask-password", url=url, answer=("Password:", "geheim\n"))

        assert status == 0, shown
        assert "default" in shown
        assert "Password:" in shown


@pytest.mark.redis
def test_the_password_is_read_from_a_pipe_and_shown_nowhere() -> None:
    with RedisServer(password="geheim") as server:
        url = server.unix_url.replace(":geheim@", "")
        right = process("queue", "list", "--ask-password", url=url, input="geheim\n")
        wrong = process("queue", "list", "--ask-password", url=url, input="falsch\n")
        none = process("queue", "list", url=url)
        empty = process("queue", "list", "--ask-password", url=url, input="")

    assert right.returncode == 0
    assert (wrong.returncode, "falsch" in wrong.stderr) == (1, False)
    assert "use --ask-password" in none.stderr
    assert "standard input contains no password" in empty.stderr
    assert all(each.stderr.count("\n") == 1 for each in (wrong, none, empty))
