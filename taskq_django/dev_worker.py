"""Run a worker inside `manage.py runserver` for development: the setting `DEV_WORKER`.

The worker starts in the process that serves requests. Under Django's reloader this is the child process, not the parent
that watches the files. It ends with that process. After a change of code, running tasks have a few seconds to finish.
Ctrl-C requeues them at once, because the parent kills the child 0.25 s later. Requeued tasks go to the head of their
queue and use no attempt.

This module decides whether a process runs such a worker; `served_worker` starts it.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from django.conf import settings as django_settings
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from taskq_core import ConfigurationError, Settings
from taskq_django.app import are_tests_running, taskq

if TYPE_CHECKING:
    from taskq_core.worker.background import BackgroundWorker

COMMAND = "runserver"
"""The command that runs a worker. Any app may provide it, so that it also works with other development servers."""


def check_dev_worker(settings: Settings) -> None:
    """Check that the other settings allow `DEV_WORKER`.

    Raises:
        ConfigurationError: `DEV_WORKER` is set without `DEBUG`, or together with `EAGER`.
    """
    if not settings.dev_worker:
        return
    if settings.eager:
        raise ConfigurationError(
            "DEV_WORKER and EAGER are both set: with EAGER, tasks run where they are enqueued and workers get none"
        )
    if not django_settings.DEBUG and not are_tests_running():
        raise ConfigurationError("DEV_WORKER is for development: it needs DEBUG = True")


def start_with_server() -> "BackgroundWorker | None":
    """Start a worker if this process will serve requests and `DEV_WORKER` is set. Called while Django starts.

    Invalid settings start no worker. The system checks report them and prevent the server from starting.
    """
    if not is_serving(sys.argv, os.environ) or multiprocessing.parent_process() is not None:
        return None  # a child process of the server: same command line, but serves no requests
    try:
        settings = taskq.settings
        check_dev_worker(settings)
    except ConfigurationError:
        return None
    if not settings.dev_worker:
        return None
    from taskq_django.served_worker import start  # imported late, because it loads the whole worker

    return start(settings)


def is_serving(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether a process is a development server that serves requests, not its reloader or another command.

    Args:
        arguments: Its command line.
        environ: Its environment.
    """
    if len(arguments) < 2 or arguments[1] != COMMAND or {"-h", "--help", "--version"} & set(arguments):
        return False
    # Recognize abbreviations such as `--noreloa`, because argparse accepts them.
    has_no_reloader = any(word.startswith("--nor") and "--noreload".startswith(word) for word in arguments)
    return has_no_reloader or environ.get(DJANGO_AUTORELOAD_ENV) == "true"
