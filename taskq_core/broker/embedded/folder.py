"""Where the embedded server keeps its files, and who may see them.

::

    <folder>/             made 0700; one that exists is left as it is
      .gitignore          keeps all of it out of a project's history
      start.lock ...      lock files, see the package
      address             path of the socket, while a server is ready
      guardian.log
      run/redis.sock      unless the path is too long or the file system holds no sockets
      redis-8/            data, one folder per flavour and major version
        written-by        `redis 8.0.2`, the newest server that has opened it
        appendonlydir/ ...
        redis.log

A server opens the data of a newer major version as empty and says nothing, hence a folder for each, and a refusal where
a folder does not hold what its name says.
"""

import hashlib
import logging
import os
import re
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from taskq_core.broker.embedded.binary import ServerProgram
from taskq_core.errors import EmbeddedRedisError

logger = logging.getLogger(__name__)

LONGEST_SOCKET_PATH = 100
"""Bytes. Linux takes 107, macOS 103; the rest is room for the name of a draft."""

_NOTE = "written-by"
_NOTE_TEXT = re.compile(r"(redis|valkey) (\d+)\.(\d+)\.(\d+)\n?")
_DATA_FOLDER = re.compile(r"(redis|valkey)-\d+")


def prepare_folder(folder: Path) -> Path:
    """Make the folder if it is missing.

    Returns:
        Its absolute path without symbolic links, so that every process means the same one.

    Raises:
        EmbeddedRedisError: It is no folder, or everybody may write to it.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise EmbeddedRedisError(f"{folder} is not a folder") from None
    else:
        ignore = folder / ".gitignore"
        ignore.touch(mode=0o600)
        ignore.write_text("*\n")
    if folder.stat().st_mode & stat.S_IWOTH:
        raise EmbeddedRedisError(f"everybody may write to {folder}; choose another folder or run chmod o-w on it")
    return folder


def prepare_data_folder(folder: Path, program: ServerProgram) -> Path:
    """Return the folder for the data of this server, made if it is missing.

    Raises:
        EmbeddedRedisError: Its files are of another server, or nobody knows of which.
    """
    data = folder / f"{program.flavour}-{program.version[0]}"
    is_new = not data.exists()
    make_private(data)
    note = data / _NOTE
    if note.exists():
        text = note.read_text(errors="replace")
        written_by = _NOTE_TEXT.fullmatch(text)
        if written_by is None or (written_by[1], int(written_by[2])) != (program.flavour, program.version[0]):
            raise EmbeddedRedisError(
                f"{data} was written by {text.strip() or 'an unknown server'}, which {program.path} "
                f"({program.flavour} {program.version_text}) may read as empty; use that server or move the folder away"
            )
        if tuple(map(int, written_by.groups()[1:])) >= program.version:
            return data
    elif any(data.iterdir()):
        raise EmbeddedRedisError(f"{data} holds files, but no note of the server that wrote them; move the folder away")
    if is_new:
        _warn_of_other_data(folder, data, program)
    draft = data / f"{_NOTE}.new"
    draft.write_text(f"{program.flavour} {program.version_text}\n")
    draft.chmod(0o600)
    draft.replace(note)
    return data


def choose_socket(folder: Path, *, runtime_folder: str | None) -> Path:
    """Return a path for the socket in a folder that only this user can enter, made if it is missing.

    Args:
        folder: Where the data is. The socket is put below it if the path is short enough.
        runtime_folder: The user's folder for sockets (`$XDG_RUNTIME_DIR`), if there is one; else the one for temporary
            files is used.

    Raises:
        EmbeddedRedisError: The folder is there and belongs to somebody else, or others may enter it.
    """
    near = folder / "run"
    if _fits(near):
        make_private(near)
        if _holds_sockets(near):
            return near / "redis.sock"
    name = f"taskq-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    bases = [Path(base) for base in (runtime_folder, tempfile.gettempdir(), "/tmp") if base]  # noqa: S108 - private below
    for base in bases:
        if base.is_absolute() and base.is_dir() and os.access(base, os.W_OK | os.X_OK) and _fits(base / name):
            make_private(base / name)
            return base / name / "redis.sock"
    raise EmbeddedRedisError(f"no folder for a socket: tried {', '.join(map(str, bases))}; set XDG_RUNTIME_DIR")


def make_private(folder: Path) -> None:
    """Make a folder with mode 0700, or check that the one that is there is ours alone.

    Raises:
        EmbeddedRedisError: It belongs to somebody else, others may enter it, or it is no folder.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedRedisError(f"{folder} is not a folder; move it away")
    if found.st_uid != os.geteuid():
        raise EmbeddedRedisError(f"{folder} belongs to user {found.st_uid}, not to you ({os.geteuid()})")
    if found.st_mode & 0o077:
        raise EmbeddedRedisError(f"others may enter {folder}; if it is yours, run chmod 700 on it")


def _fits(socket_folder: Path) -> bool:
    return len(os.fsencode(socket_folder / "redis.sock")) <= LONGEST_SOCKET_PATH


def _holds_sockets(folder: Path) -> bool:
    """Whether the file system knows sockets; a folder shared into a virtual machine may not."""
    trial = folder / f"{os.getpid()}.try"
    trial.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(trial))
        except OSError:
            return False
        trial.unlink()
        return True


def _warn_of_other_data(folder: Path, data: Path, program: ServerProgram) -> None:
    others = [other.name for other in folder.iterdir() if other != data and _DATA_FOLDER.fullmatch(other.name)]
    if others:
        logger.warning(
            "%s %s starts empty in %s; what other servers stored is still in %s",
            *(program.flavour, program.version_text, data, ", ".join(sorted(others))),
        )
