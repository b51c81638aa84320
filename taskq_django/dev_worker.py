"""A worker inside `manage.py runserver`, for development: the setting `DEV_WORKER`.

It starts in the process that serves: under Django's reloader the child, not the parent that watches it, and in no other
command. It ends with that process. A change of code gives running tasks some seconds to finish; Ctrl-C gives them back
at once, because the reloader's parent ends its child 0.25 s later. Requeued tasks are at the head of
their queue and have used no attempt.

This module decides whether a process has such a worker; `served_worker` makes it.
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
"""The command that has a worker; whose it is does not matter, so that those of other servers have one too."""


def check_dev_worker(settings: Settings) -> None:
    """Check that `DEV_WORKER` may be set where it is.

    Raises:
        ConfigurationError: It is set without `DEBUG`, or beside `EAGER`.
    """
    if not settings.dev_worker:
        return
    if settings.eager:
        raise ConfigurationError("DEV_WORKER and EAGER are both set: tasks run at once, and a worker would get none")
    if not django_settings.DEBUG and not are_tests_running():
        raise ConfigurationError("DEV_WORKER is set, which is for development: it needs DEBUG = True")


def start_with_server() -> "BackgroundWorker | None":
    """Start a worker if this process is about to serve and the settings want one. Called while Django starts.

    With unusable settings it starts none; the system checks report them and keep the server from starting.
    """
    if not is_serving(sys.argv, os.environ) or multiprocessing.parent_process() is not None:
        return None  # a process that the server's code starts has its command line, and may set Django up again
    try:
        settings = taskq.settings
        check_dev_worker(settings)
    except ConfigurationError:
        return None
    if not settings.dev_worker:
        return None
    from taskq_django.served_worker import start  # only here: it brings all of the worker along

    return start(settings)


def is_serving(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether a process is a development server that serves, not its reloader or another command.

    Args:
        arguments: Its command line.
        environ: Its environment.
    """
    if len(arguments) < 2 or arguments[1] != COMMAND or {"-h", "--help", "--version"} & set(arguments):
        return False
    # argparse takes an option that is cut short as well.
    has_no_reloader = any(word.startswith("--nor") and "--noreload".startswith(word) for word in arguments)
    return has_no_reloader or environ.get(DJANGO_AUTORELOAD_ENV) == "true"
