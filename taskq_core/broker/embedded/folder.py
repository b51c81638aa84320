"""The files of the embedded server and their permissions.

::

    <folder>/             created with mode 0700; an existing folder is not changed
      .gitignore          excludes the whole folder from git
      start.lock ...      lock files, see the package
      address             path of the socket, while a server runs
      guardian.log
      run/redis.sock      unless the path is too long or the file system does not support sockets
      redis-8/            data, one folder per flavour and major version
        appendonlydir/ ...
        redis.log

Each major version has its own folder, because a server treats the data of a newer version as empty without a warning.
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
"""Maximum length of the path of the socket in bytes. Linux allows 107, macOS 103; some bytes are spare for suffixes."""

_DATA_FOLDER = re.compile(r"(redis|valkey)-\d+")


def prepare_folder(folder: Path) -> Path:
    """Create the folder if it is missing.

    Returns:
        Its absolute path without symbolic links, so that every process uses the same path.

    Raises:
        EmbeddedRedisError: The path is not a folder, or all users may write to it.
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
        raise EmbeddedRedisError(f"all users may write to {folder}; choose another folder or run chmod o-w on it")
    return folder


def prepare_data_folder(folder: Path, program: ServerProgram) -> Path:
    """Return the folder for the data of this server. It is created if it is missing."""
    data = folder / f"{program.flavour}-{program.version[0]}"
    others = [other.name for other in folder.iterdir() if other != data and _DATA_FOLDER.fullmatch(other.name)]
    if others and not data.exists():
        logger.warning(
            "%s %s starts without data in %s; the data of other server versions is still in %s",
            *(program.flavour, program.version_text, data, ", ".join(sorted(others))),
        )
    make_private(data)
    return data


def choose_socket(folder: Path) -> Path:
    """Return a path for the socket in a folder that only this user can enter. It is created if it is missing.

    The folder is below `folder` if the path is short enough and the file system supports sockets. Otherwise it is in
    the folder for temporary files.

    Raises:
        EmbeddedRedisError: The folder exists and belongs to another user, or other users may enter it.
    """
    near = folder / "run"
    if len(os.fsencode(near / "redis.sock")) <= LONGEST_SOCKET_PATH:
        make_private(near)
        if _supports_sockets(near):
            return near / "redis.sock"
    name = f"taskq-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    far = Path(tempfile.gettempdir()) / name
    make_private(far)
    return far / "redis.sock"


def make_private(folder: Path) -> None:
    """Create a folder with mode 0700, or check that only this user can enter the existing one.

    Raises:
        EmbeddedRedisError: The folder belongs to another user, other users may enter it, or it is not a folder.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedRedisError(f"{folder} is not a folder; move it away")
    if found.st_uid != os.geteuid():
        raise EmbeddedRedisError(f"{folder} belongs to user {found.st_uid}, not to you ({os.geteuid()})")
    if found.st_mode & 0o077:
        raise EmbeddedRedisError(f"other users may enter {folder}; if it is yours, run chmod 700 on it")


def _supports_sockets(folder: Path) -> bool:
    """Return whether the file system supports sockets. A folder shared with a virtual machine may not."""
    trial = folder / f"{os.getpid()}.try"
    trial.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(trial))
        except OSError:
            return False
        trial.unlink()
        return True
