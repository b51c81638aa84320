"""Restart the worker when code changes, like `taskq_core.worker.autoreload`, but with Django's list of files.

Apps can add files to that list. A change of a template or translation is sent as Django's signal `file_changed`; its
receivers reload it, so the worker does not restart.
"""

import math
from collections.abc import Callable
from pathlib import Path

from django.utils import autoreload

from taskq_core.worker import Worker
from taskq_core.worker.autoreload import FileWatch, Reloading
from taskq_core.worker.autoreload import run_with_autoreload as run


def run_with_autoreload(make_worker: Callable[[], Worker]) -> int:
    """Run a worker, restart it after each change of code, and return the exit status of the last one.

    Raises:
        SystemExit: In the child process, when code has changed.
    """
    command = autoreload.get_child_arguments()
    return run(make_worker, Reloading(watch=_Watch, command=command, child=autoreload.DJANGO_AUTORELOAD_ENV))


class _Watch(FileWatch):
    """Watches the files that Django's reloader watches, by the times of their last changes."""

    def __init__(self, loaded_since: float = math.inf) -> None:
        self._reloader = autoreload.StatReloader()
        autoreload.autoreload_started.send(sender=self._reloader)  # receivers in apps add files to watch
        super().__init__(loaded_since)

    def files(self) -> dict[Path, float] | None:
        """Return Django's files with their times, or None if they cannot be listed at the moment."""
        try:
            return dict(self._reloader.snapshot_files())
        except (RuntimeError, KeyError):  # another thread imported a module during the listing
            return None
        except OSError:  # a folder was deleted during the listing
            return None

    def is_handled(self, path: Path) -> bool:
        """Return whether an app handled the change of a file itself."""
        answers = autoreload.file_changed.send(sender=self._reloader, file_path=path)
        return any(answer for _, answer in answers)
