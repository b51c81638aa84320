"""Test the start, sharing and end of the embedded redis-server with real processes and real SIGKILLs."""

import os
import random
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core.broker.embedded import open_embedded
from taskq_core.broker.embedded.folder import LONGEST_SOCKET_PATH
from tests.taskq_core.broker.test_embedded import client, guardians_of, is_free, servers_of, wait_until_gone
from tests.taskq_core.worker.conftest import until_blocking

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

ROOT = Path(__file__).parents[3]
STORM_PROCESSES = 40
STORM_WRITES = 25

# A user of the embedded server: opens it, then does what the lines on its standard input say.
USER = """
import os, sys
from pathlib import Path
from taskq_core.broker.embedded import open_embedded
from taskq_core.broker.embedded.guardian import ask
print("opening", flush=True)
share = open_embedded(Path(sys.argv[1]))
print("open", flush=True)
for line in sys.stdin:
    if line == "fork\\n":
        if (child := os.fork()):
            print(child, flush=True)
    elif line == "close\\n":
        share.close()
        print("closed", flush=True)
    else:
        print(ask(str(share.socket_path), line.strip()).decode(), flush=True)
"""

# Writes one key after the other, notes each that was acknowledged, and opens again when the server goes away.
WRITER = """
import sys
from pathlib import Path
from taskq_core.broker.embedded import open_embedded
from taskq_core.broker.embedded.guardian import ask
name, count = sys.argv[2], int(sys.argv[3])
print("opening", flush=True)
share = open_embedded(Path(sys.argv[1]))
done = 0
while done < count:
    try:
        assert ask(str(share.socket_path), f"SET {name}:{done} 1") == b"+OK"
    except OSError:
        share.close()
        share = open_embedded(Path(sys.argv[1]))
    else:
        print(f"{name}:{done}", flush=True)
        done += 1
share.close()
"""


def opened_by(pid: int) -> Iterator[str]:
    """Yield the open files of a process, as file names and socket numbers."""
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # it has just been closed; servers open files for a moment
            yield os.readlink(f"/proc/{pid}/fd/{descriptor}")


def the_server_of(folder: Path) -> int:
    (pid,) = servers_of(folder)
    return pid


def the_guardian_of(folder: Path) -> int:
    (pid,) = guardians_of(folder)
    return pid


def kill_guardian(folder: Path) -> None:
    os.kill(the_guardian_of(folder), signal.SIGKILL)
    until_blocking(lambda: is_free(folder / "guardian.lock"), "the guardian is dead")


class User:
    """Another process that opens the folder."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        return self.read()

    def is_open(self) -> bool:
        return self.read() == "opening" and self.read() == "open"

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start_user(folder: Path) -> Iterator[Callable[[], User]]:
    users: list[User] = []

    def start() -> User:
        users.append(User(folder))
        return users[-1]

    yield start
    for user in users:
        user.end()


def test_data_is_kept_in_an_append_only_file_and_nothing_is_evicted(folder: Path) -> None:
    with open_embedded(folder) as share, client(share) as connection:
        settings: dict[str, str] = connection.config_get()

    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
    assert settings | wanted == settings


def test_there_is_no_tcp_port(folder: Path) -> None:
    """The kernel's tables of TCP sockets contain no socket of the server."""
    with open_embedded(folder):
        found = opened_by(the_server_of(folder))
        own = {name[8:-1] for name in found if name.startswith("socket:")}

    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    assert own
    assert not own & {line.split()[9] for line in lines}


def test_only_this_user_can_read_anything(folder: Path) -> None:
    """Folders are 0700 and files 0600, whatever the umask of the process that opens."""
    before = os.umask(0)
    try:
        with open_embedded(folder) as share, client(share) as connection:
            connection.set("key", "value")
            found = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    finally:
        os.umask(before)

    assert share.socket_path in found
    modes = {path: stat.S_IMODE(mode) for path, mode in found.items()}
    assert modes == {path: 0o700 if stat.S_ISDIR(mode) else 0o600 for path, mode in found.items()}


def test_git_keeps_a_new_folder_out_of_a_project(folder: Path) -> None:
    """This keeps task arguments out of the project's history. An existing folder is not changed."""
    with open_embedded(folder):
        pass
    wait_until_gone(folder)
    new = (folder / ".gitignore").read_text()
    (folder / ".gitignore").unlink()
    with open_embedded(folder):
        pass

    assert new == "*\n"
    assert not (folder / ".gitignore").exists()


def test_data_is_there_when_the_folder_is_opened_again(folder: Path) -> None:
    with open_embedded(folder) as share, client(share) as connection:
        connection.set("key", "value")
    wait_until_gone(folder)

    with open_embedded(folder) as share, client(share) as connection:
        assert connection.get("key") == "value"


def test_opening_while_the_server_stops_gives_a_running_server(folder: Path) -> None:
    """A process that opens the folder at any moment of the stop gets a server that responds and has all data."""
    for number in range(8):
        with open_embedded(folder) as share, client(share) as connection:
            connection.rpush("list", number)
            assert connection.lrange("list", 0, -1) == [str(n) for n in range(number + 1)]
        if number % 2:
            until_blocking(lambda: not (folder / "address").exists(), "the guardian is stopping")


def test_threads_share_one_server_until_the_last_one_closes(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(lambda _: open_embedded(folder), range(8)))
    pid = the_server_of(folder)
    for share in shares[1:]:
        share.close()
        share.close()

    with client(shares[0]) as connection:
        assert connection.info("server")["process_id"] == pid
    shares[0].close()
    wait_until_gone(folder)


def test_a_long_folder_path_gets_a_short_socket_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is then in a private temporary folder, where every opener finds it."""
    temporary = folder.parent / "temporary"
    temporary.mkdir()
    deep = folder / ("d" * 60) / ("e" * 60)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with open_embedded(deep) as first:
        monkeypatch.undo()
        with open_embedded(deep) as second, client(second) as connection:
            assert connection.ping()

    assert first.socket_path == second.socket_path
    assert first.socket_path.is_relative_to(temporary)
    assert len(str(first.socket_path)) <= LONGEST_SOCKET_PATH
    assert stat.S_IMODE(first.socket_path.parent.stat().st_mode) == 0o700
    wait_until_gone(deep)


def test_many_open_files_and_unusual_folder_names_work(folder: Path) -> None:
    """Descriptors above 1023 are fine, and so are spaces, quotes and letters outside ASCII."""
    unusual = folder / """a "b' ü"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with open_embedded(unusual) as share, client(share) as connection:
            assert connection.ping()
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until_gone(unusual)


# --- Several processes ---


def test_processes_share_one_server_and_the_last_one_stops_it(folder: Path, start_user: Callable[[], User]) -> None:
    first, second = start_user(), start_user()
    assert first.is_open()
    assert second.is_open()
    pid = the_server_of(folder)

    assert first.send("SET key 1") == "+OK"
    assert first.send("close") == "closed"
    assert second.send("GET key") == "1"
    assert servers_of(folder) == [pid]
    assert second.send("close") == "closed"
    wait_until_gone(folder)


def test_a_killed_user_no_longer_keeps_the_server_running(folder: Path, start_user: Callable[[], User]) -> None:
    user = start_user()
    assert user.is_open()
    assert user.send("SET key 1") == "+OK"

    user.end(signal.SIGKILL)

    wait_until_gone(folder)
    with open_embedded(folder) as share, client(share) as connection:
        assert connection.get("key") == "1"


def test_a_forked_child_keeps_the_server_running(folder: Path, start_user: Callable[[], User]) -> None:
    """The server lives until the child has ended too, although the parent closed and was killed."""
    user = start_user()
    assert user.is_open()
    child = int(user.send("fork"))
    pid = the_server_of(folder)
    other = start_user()
    assert other.is_open()

    os.kill(user.process.pid, signal.SIGKILL)
    user.process.wait()
    assert other.send("close") == "closed"
    with open_embedded(folder) as share, client(share) as connection:
        assert connection.info("server")["process_id"] == pid

    os.kill(child, signal.SIGKILL)
    wait_until_gone(folder)


def test_the_server_of_a_killed_guardian_ends(folder: Path) -> None:
    """The kernel ends the server without another opener. The server shuts down cleanly."""
    with open_embedded(folder):
        kill_guardian(folder)

        until_blocking(lambda: not servers_of(folder), "the server has ended")

    (log,) = folder.glob("redis-*/redis.log")
    assert "ready to exit, bye bye" in log.read_text()


def test_after_a_killed_guardian_the_next_opener_starts_a_new_server(folder: Path) -> None:
    """Data is kept, and earlier openers reach the new server at the same socket."""
    with open_embedded(folder) as share, client(share) as connection:
        connection.set("key", "value")
        pid = the_server_of(folder)
        kill_guardian(folder)

        with open_embedded(folder) as again:
            assert again.socket_path == share.socket_path
            assert the_server_of(folder) != pid
            with client(share) as old, client(again) as new:
                assert old.get("key") == new.get("key") == "value"


def test_a_new_server_waits_until_the_server_of_a_killed_guardian_has_ended(
    folder: Path, start_user: Callable[[], User]
) -> None:
    """The next server does not start before a slow server has ended."""
    with open_embedded(folder) as share, client(share) as connection:
        connection.set("key", "value")
        pid = the_server_of(folder)
        os.kill(pid, signal.SIGSTOP)
        kill_guardian(folder)
        user = start_user()
        assert user.read() == "opening"
        until_blocking(lambda: guardians_of(folder), "the new guardian is there")
        assert servers_of(folder) == [pid]

        os.kill(pid, signal.SIGCONT)

        assert user.read() == "open"
        assert the_server_of(folder) != pid
        assert user.send("GET key") == "value"


def test_a_killed_server_is_started_again(folder: Path) -> None:
    """Its guardian restarts it. Users need not open it again, and a new opener waits for it."""
    with open_embedded(folder) as share, client(share) as connection:
        connection.set("key", "value")
        until_blocking(lambda: connection.info("persistence")["aof_buffer_length"] == 0, "the value is in the file")
        pid, guardian = the_server_of(folder), the_guardian_of(folder)
        os.kill(pid, signal.SIGKILL)

        with open_embedded(folder) as again, client(again) as new:
            assert new.get("key") == "value"
            assert the_server_of(folder) != pid
        with client(share) as new:
            assert new.get("key") == "value"
        assert guardians_of(folder) == [guardian]


def test_a_guardian_that_gets_sigterm_stops_its_server_first(folder: Path) -> None:
    with open_embedded(folder) as share, client(share) as connection:
        connection.set("key", "value")
        os.kill(the_guardian_of(folder), signal.SIGTERM)
        wait_until_gone(folder)
        with open_embedded(folder) as again, client(again) as new:
            assert new.get("key") == "value"


@pytest.mark.slow
def test_random_kills_never_cause_two_servers_a_leftover_server_or_a_lost_write(folder: Path) -> None:
    """The test kills users at random moments, also while they open the folder, and sometimes the guardian."""
    seed = 20_260_101
    print(f"seed {seed}")
    dice = random.Random(seed)
    outputs = folder.parent / "outputs"
    outputs.mkdir()
    waiting = []
    for number in range(STORM_PROCESSES):
        # After so many lines it is killed; the first line says that it is about to open.
        killed_after = dice.choice([0, 1, 1, dice.randint(2, STORM_WRITES), None, None])
        waiting.append(SimpleNamespace(name=f"w{number}", killed_after=killed_after, output=outputs / f"w{number}"))
    guardian_killed_at = set(dice.sample(range(STORM_PROCESSES), STORM_PROCESSES // 6))
    most_servers, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            most_servers[0] = max(most_servers[0], len(servers_of(folder)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    running: list[Any] = []
    survivors_failed = []
    guardians_killed = users_killed = 0
    guardian_is_due = False
    deadline = time.monotonic() + 120  # it usually takes a few seconds, on a busy machine a minute
    try:
        while waiting or running:
            assert time.monotonic() < deadline, "the processes did not end within 120 s"
            if waiting and len(running) < 6:
                writer = waiting.pop()
                with writer.output.open("wb") as output:
                    writer.process = subprocess.Popen(
                        [sys.executable, "-c", WRITER, str(folder), writer.name, str(STORM_WRITES)],
                        cwd=ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                    )
                running.append(writer)
                guardian_is_due = guardian_is_due or len(waiting) in guardian_killed_at
            if guardian_is_due:
                for pid in guardians_of(folder):  # if there is none yet, kill it later
                    with suppress(ProcessLookupError):  # it has ended since it was found
                        os.kill(pid, signal.SIGKILL)
                        guardians_killed += 1
                        guardian_is_due = False
            for writer in list(running):
                lines = writer.output.read_bytes().count(b"\n")
                if writer.killed_after is not None and lines >= writer.killed_after:
                    writer.process.kill()
                    users_killed += 1
                elif writer.process.poll() is None:
                    continue
                elif writer.process.returncode != 0:
                    survivors_failed.append(writer.name)
                writer.process.wait()
                running.remove(writer)
            time.sleep(0.002)  # leaves the processor to the other processes
    finally:
        for writer in running:
            writer.process.kill()
            writer.process.wait()
        over.set()
        watcher.join()

    wait_until_gone(folder)
    with open_embedded(folder) as share, client(share) as connection:
        stored = set(connection.scan_iter(count=1000))
    texts = [path.read_text() for path in outputs.iterdir()]
    # The last line of a killed writer may be half written.
    acknowledged = {line for text in texts for line in text.split("\n")[:-1] if line != "opening"}
    assert survivors_failed == []
    assert users_killed >= STORM_PROCESSES // 3
    assert guardians_killed > 0
    assert most_servers[0] == 1
    assert acknowledged - stored == set()
    assert len(acknowledged) >= STORM_WRITES
