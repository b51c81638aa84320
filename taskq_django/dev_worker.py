"""A worker inside `manage.py runserver`, for development: the setting `DEV_WORKER`.

It starts in the process that serves: under Django's reloader the child, not the parent that watches it, and in no other
command. It ends with that process. A change of code gives running tasks `GRACE_S` to finish; Ctrl-C gives them back at
once, because the reloader's parent ends its child 0.25 s later. Tasks that were given back stand at the head of their
queue and have used no attempt.
"""

import concurrent.futures.thread  # noqa: F401 - what it does at the end of a process has to be registered before ours
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core import mail
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from taskq_core import ConfigurationError, Settings
from taskq_core.cli.worker import Narrator, queues_text
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_django.app import taskq

COMMAND = "runserver"
"""The command that has a worker; whose it is does not matter, so that those of other servers have one too."""
GRACE_S = 5.0
"""Most seconds running tasks get when code has changed; fewer where `SHUTDOWN_GRACE` says so."""
TOLD_TO_END_S = 0.1
"""Seconds functions get that are told to end. All of it has to fit into the 0.25 s that Ctrl-C leaves."""
ENDING_S = 3.0
"""Seconds beyond the grace after which the process ends without its worker."""


def check_dev_worker(settings: Settings) -> None:
    """Check that `DEV_WORKER` may be set where it is.

    Raises:
        ConfigurationError: It is set without `DEBUG`, or beside `EAGER`.
    """
    if not settings.dev_worker:
        return
    if settings.eager:
        raise ConfigurationError("DEV_WORKER and EAGER are both set: tasks run at once, and a worker would get none")
    if not django_settings.DEBUG and not _is_test_environment():
        raise ConfigurationError("DEV_WORKER is set, which is for development: it needs DEBUG = True")


def _is_test_environment() -> bool:
    """Whether Django's tests run, which turn DEBUG off whatever the settings say."""
    return hasattr(mail, "outbox")


def start_with_server() -> BackgroundWorker | None:
    """Start a worker if this process is about to serve and the settings want one. Called while Django starts.

    Settings that are not usable start none; the system checks tell of them and keep the server from starting.
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
    worker = BackgroundWorker(make_worker, may_begin=apps.ready_event.wait)
    _end_with_process(worker, _grace_s(settings) + ENDING_S)
    worker.start()
    return worker


def is_serving(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether a process is a development server's that serves, rather than one that watches it or another command.

    Args:
        arguments: Its command line.
        environ: Its environment.
    """
    if len(arguments) < 2 or arguments[1] != COMMAND or {"-h", "--help", "--version"} & set(arguments):
        return False
    # argparse takes an option that is cut short as well.
    has_no_reloader = any(word.startswith("--nor") and "--noreload".startswith(word) for word in arguments)
    return has_no_reloader or environ.get(DJANGO_AUTORELOAD_ENV) == "true"


def make_worker() -> Worker:
    """Return a worker as the settings say, which tells on standard output what it does."""
    settings = taskq.settings
    _ = taskq.runtime  # tasks that are not usable are told once, and not tried again
    config = WorkerConfig.from_settings(settings, with_scheduler=True)
    config = replace(config, shutdown_grace=_grace_s(settings), interrupt_grace=TOLD_TO_END_S)
    return Worker(taskq, config, listener=_Narrator(sys.stdout, per_task=True))


class _Narrator(Narrator):
    """Says on one line that there is a worker, and writes a line per task."""

    def started(self, worker: Worker) -> None:
        """Say that tasks are taken from now on."""
        self.write(
            f"taskq worker in this process: {queues_text(worker.config.queues)}, concurrency "
            f"{worker.config.concurrency}, {len(taskq.tasks)} tasks, on {taskq.runtime.endpoint.address}"
        )


def _grace_s(settings: Settings) -> float:
    return min(GRACE_S, float(settings.shutdown_grace))  # type: ignore[arg-type]  # Settings has turned it into seconds


def _end_with_process(worker: BackgroundWorker, timeout_s: float) -> None:
    """Stop a worker when its process ends, by a change of code, Ctrl-C or SIGTERM, while it can still work."""
    # `atexit` is too late: the thread pools of asyncio and asgiref, which tasks need to finish, are closed before it.
    threading._register_atexit(worker.stop, timeout_s)  # type: ignore[attr-defined]  # not public; in 3.9 to 3.14
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may handle signals
    before: Any = signal.getsignal(signal.SIGINT)
    if not callable(before):
        return  # ignored, as a shell does for what it runs in the background

    def interrupted(number: int, frame: FrameType | None) -> None:
        worker.abort()
        before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
