"""Tutorials are followed to the letter, from an empty folder: files written, commands run, output compared.

A comment above a block says what is done with it: `run` (in the foreground), `background NAME` (in a terminal that
stays open), `append FILE`, `setup` (what only prepares the machine), and `not run: why`. A Python block that begins
with the name of a file is that file.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from taskq_core.wire import Keys, build_message, decode_message, encode_message
from tests.docs.pages import ROOT, Terminal, blocks, console, environment, matches, terminals, write_files
from tests.redis_server import RedisServer, free_port

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]
GO_ID = "2b1c9c2e-6f0b-4f7e-9d53-3f0f5c7c2f4a"
PATIENCE_S = 60
_FILE = re.compile(r"# (?P<name>[\w/]+\.py)\n")


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for a state that a worker reports just before it is stored."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)
    return value


def is_over(status: dict[str, Any]) -> dict[str, Any] | None:
    """Return the status of a task that does not run any more."""
    return status if status["state"] not in ("pending", "active") else None


class Follower:
    """Follows a tutorial in a folder.

    Args:
        page: Path of the page below docs/.
        folder: Where to begin; it is empty.
        variables: Further variables of the environment.
    """

    def __init__(self, page: str, folder: Path, **variables: str) -> None:
        self.page = ROOT / "docs" / page
        self.folder = folder
        self.variables = variables
        self.port = str(free_port())
        self.ran: list[str] = []
        self.answers: list[str] = []
        self.terminals: dict[str, Terminal] = {}
        folder.mkdir()

    def follow(self) -> None:
        """Do what the page says, from its first block to its last."""
        with terminals() as opened:
            for block in blocks(self.page):
                file = _FILE.match(block.text)
                if block.mark == "setup" or block.mark.startswith("not run: "):
                    continue
                if block.mark.startswith("append "):
                    path = self.folder / block.mark.removeprefix("append ")
                    path.write_text(path.read_text() + "\n" + self._here(block.text))
                elif block.mark.startswith("background "):
                    command, _, output = self._here(block.text).partition("\n")
                    name = block.mark.removeprefix("background ")
                    self.before(name)
                    number = len(opened)
                    terminal = Terminal(self._command(command), self.folder, number, **self.variables)
                    opened.append(terminal)
                    self.terminals[name] = terminal
                    terminal.shows(output)
                elif block.mark == "run":
                    for part in re.split(r"^\$ ", self._here(block.text), flags=re.MULTILINE)[1:]:
                        self._run(*part.split("\n", 1))
                elif block.language == "python" and file:
                    path = self.folder / file["name"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(self._here(block.text))
                else:
                    pytest.fail(f"{self.page.name} does not say what becomes of a block:\n{block.text}")
                self.after(block.mark)
            self.finished()

    def before(self, name: str) -> None:
        """Called before a terminal opens."""

    def after(self, mark: str) -> None:
        """Called after each block."""

    def finished(self) -> None:
        """Called at the end, while terminals are open."""

    def _here(self, text: str) -> str:
        return text.replace("8000", self.port)

    def _command(self, line: str) -> str:
        words = line.removeprefix("$ ")
        return re.sub(r"^python ", f"{sys.executable} ", words)

    def _run(self, command: str, expected: str) -> None:
        if command.startswith("curl ") and shutil.which("curl") is None:
            pytest.skip("there is no curl")
        done = subprocess.run(
            shlex.split(self._command(command)),
            cwd=self.folder,
            env=environment(self.folder, **self.variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout if done.stdout.endswith("\n") or not done.stdout else done.stdout + "\n"
        assert done.returncode == 0, f"{command}\n{output}"
        assert not expected.strip() or matches(expected, output), f"{command}\n{output}\nexpected:\n{expected}"
        self.ran.append(command)
        self.answers.append(done.stdout)


def test_the_first_tutorial_works_as_written(tmp_path: Path) -> None:
    """Its files are written, its commands run in order, and each shows what the page says."""
    page = ROOT / "docs/tutorials/first-task.md"
    folder = tmp_path / "first-task"
    folder.mkdir()
    write_files(page, folder)
    send, words_worker, flaky_worker, flaky, *looks = (
        block for block in blocks(page) if block.mark in ("background", "foreground")
    )
    (result,) = (block.text for block in blocks(page) if block.mark == "result of send.py")

    with terminals() as opened:
        for number, block in enumerate((send, words_worker)):
            command, output = console(block)
            opened.append(Terminal(command, folder, number))
            opened[-1].shows(output)
        opened[0].shows(console(send)[1] + result)
        assert opened[0].process.wait(30) == 0
        assert opened[1].stop() == 0
        opened.append(Terminal(console(flaky_worker)[0], folder, 2))
        opened[2].shows("...\nready\n")
        opened.append(Terminal(console(flaky)[0], folder, 3))
        assert opened[3].process.wait(120) == 0, opened[3].path.read_text()
        opened[3].shows(console(flaky)[1])
        opened[2].shows(console(flaky_worker)[1])
        assert opened[2].stop() == 0
        for number, block in enumerate(looks, len(opened)):
            command, output = console(block)
            opened.append(Terminal(command, folder, number))
            assert opened[-1].process.wait(60) == 0
            opened[-1].shows(output)
    assert len(looks) == 2


def test_the_tutorial_of_django_works_as_written(tmp_path: Path) -> None:
    class Shop(Follower):
        def finished(self) -> None:
            assert self.terminals["worker"].stop() == 0
            self.terminals["site"].process.terminate()
            self.terminals["site"].process.wait(30)

    follower = Shop("tutorials/django.md", tmp_path / "bookshop")
    follower.follow()

    assert len(follower.ran) == 10


def test_the_tutorial_of_fastapi_works_as_written(tmp_path: Path) -> None:
    class Counter(Follower):
        def finished(self) -> None:
            accepted = json.loads(self.answers[0])
            url = f"http://127.0.0.1:{self.port}{accepted['status_url']}"
            status = until(lambda: is_over(httpx.get(url, timeout=PATIENCE_S).json()), "its end is stored")
            assert status["state"] == "completed"
            assert status["result"] == {"a": 2, "rose": 2, "is": 1}
            assert status["progress"]["done"] == status["progress"]["total"] == 5
            assert self.terminals["worker"].stop() == 0

    follower = Counter("tutorials/fastapi.md", tmp_path / "counter")
    follower.follow()

    assert len(follower.ran) == 2


def test_the_tutorial_of_python_and_go_works_as_written(tmp_path: Path, redis_server: RedisServer) -> None:
    """Go's part is played with what Go Asynq reads and writes: keys, messages and JSON."""
    client, keys = redis_server.client, Keys()

    class Both(Follower):
        def before(self, name: str) -> None:
            """Enqueue as Go does: `client.Enqueue(asynq.NewTask("mail:send", payload), ...)`."""
            queue = keys.queue("python")
            payload = json.dumps({"subject": "Your invoice", "to": "ada@example.com"}, separators=(",", ":")).encode()
            fields = {"type": "mail:send", "id": GO_ID, "queue": "python", "retry": 25, "timeout": 1800}
            message = encode_message(build_message(payload=payload, retention=3600, **fields))
            with client.pipeline() as pipe:
                pipe.sadd("asynq:queues", "python")
                pipe.hset(
                    queue.task(GO_ID),
                    mapping={"msg": message, "state": "pending", "pending_since": 1},
                )
                pipe.lpush(queue.pending, GO_ID)
                pipe.execute()

        def finished(self) -> None:
            result = until(lambda: client.hget(keys.queue("python").task(GO_ID), "result"), "its result is stored")
            assert result == b"\"sent 'Your invoice' to ada@example.com\""
            assert self.terminals["worker"].stop() == 0

    Both("tutorials/python-and-go.md", tmp_path / "both", TASKQ_URL=redis_server.url).follow()

    (task_id,) = client.lrange(keys.queue("go").pending, 0, -1)
    stored = client.hget(keys.queue("go").task(task_id.decode()), "msg")
    message = decode_message(stored)
    go = (ROOT / "docs/tutorials/python-and-go.md").read_text()
    assert message.type == "invoice:render"
    assert f'mux.HandleFunc("{message.type}", render)' in go
    # The tags of the struct are the names in the payload.
    assert sorted(json.loads(message.payload)) == sorted(set(re.findall(r'`json:"(\w+)"`', go)))
