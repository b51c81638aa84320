"""A real PostgreSQL server for tests, in a separate folder and on a unix socket only. It ends with the tests.

PostgreSQL does not run as root, so root starts it as the user `postgres` of its package.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Self

USER = "postgres"


@cache
def find_postgres() -> Path | None:
    """Return the folder with the programs of the newest PostgreSQL, or None if none can be started."""
    folders = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        key=lambda folder: int(folder.parent.name),
    )
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    if not folders or (os.geteuid() == 0 and not _has_user()):
        return None
    return folders[-1]


def _has_user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


class PostgresServer:
    """A PostgreSQL server that runs while its context is open."""

    def __init__(self) -> None:
        programs = find_postgres()
        assert programs is not None, "PostgreSQL is not installed"
        self._programs = programs

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="taskq-pg-", dir="/tmp"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER)
        self._run("initdb", "-D", self._data, "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.start()
        return self

    def start(self) -> None:
        """Start or restart the server."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """Stop the server without a shutdown, like a crash. Its data stays."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self, name: str) -> dict[str, Any]:
        """Return Django's settings for a database on this server."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": USER,
            "HOST": str(self.folder),
        }

    def create(self, name: str) -> dict[str, Any]:
        """Create an empty database and return Django's settings for it."""
        self._run("createdb", "-h", str(self.folder), "-U", USER, name)
        return self.database(name)

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._programs / program), *words]
        as_user = {"user": USER, "group": USER} if os.geteuid() == 0 else {}
        # No pipe: the server inherits the output of pg_ctl, so reading a pipe would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                check=False,
                **as_user,  # type: ignore[arg-type]  # a user only for root
            )
            output.seek(0)
            assert done.returncode == 0, f"{program}: {output.read().decode(errors='replace')}"
