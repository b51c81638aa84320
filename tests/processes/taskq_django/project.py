"""Create a Django project in a separate folder, and run its commands as processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tests.redis_server import RedisServer

PROJECT = """
SECRET_KEY = "for tests only"
INSTALLED_APPS = ["taskq_django", "kiosk"]
TASKQ = {{"URL": "{url}", "SHUTDOWN_GRACE": 20, "ENQUEUE_TIMEOUT": 30}}
USE_TZ = True
{more}
"""
TASKS = """
from pathlib import Path
from taskq_django import task

@task(name="kiosk:{name}", retention=600)
def work(flag: str) -> str:
    import time
    Path(flag + ".started").touch()
    while not Path(flag).exists():
        time.sleep(0.01)
    return "{name}"
"""


class Project:
    """A Django project in a separate folder, with one app.

    Args:
        folder: Folder of the project.
        redis: Redis of its tasks.
        settings: Python code to append to its settings.
    """

    def __init__(self, folder: Path, redis: RedisServer, settings: str = "") -> None:
        self.folder = folder
        self.tasks = folder / "kiosk" / "tasks.py"
        self.tasks.parent.mkdir()
        (folder / "kiosk" / "__init__.py").touch()
        (folder / "kiosk_settings.py").write_text(PROJECT.format(url=redis.unix_url, more=settings))
        self.write_tasks("first", version=0)
        self.manage = folder / "manage.py"
        self.manage.write_text(
            "from django.core.management import execute_from_command_line as run\nimport sys\nrun(sys.argv)\n"
        )

    def write_tasks(self, name: str, *, version: int | None = None, begins: str = "") -> None:
        """Replace the file with the tasks. Its time of modification is now, or the second `version`."""
        new = self.folder / "tasks.py.new"
        new.write_text(begins + TASKS.format(name=name))
        if version is not None:
            os.utime(new, (version, version))  # a different time, even if the clock of the file system is coarse
        new.replace(self.tasks)

    def configure(self, settings: str) -> None:
        """Append Python code to the settings."""
        with (self.folder / "kiosk_settings.py").open("a") as file:
            file.write(settings)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "DJANGO_SETTINGS_MODULE": "kiosk_settings",
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(Path.cwd()))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def worker(self, *options: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """Start a worker."""
        return self.running("runworker", *options)

    def run(self, *words: str, status: int = 0) -> str:
        """Run a command, check its exit status, and return its output."""
        with self.running(*words) as process:
            output, _ = process.communicate(timeout=120)
        assert process.returncode == status, output
        return output

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command. It leads a process group, which is killed at the end of the block."""
        process = subprocess.Popen(
            [sys.executable, str(self.manage), *words],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # a child may have outlived its parent
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read the output of a process up to a line with this text."""
    output = []
    assert process.stdout is not None
    for line in process.stdout:
        output.append(line)
        if text in line:
            return "".join(output)
    raise AssertionError(f"the output ended without {text!r}:\n{''.join(output)}")
