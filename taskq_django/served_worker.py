"""The worker that `runserver` has with `DEV_WORKER`: how it is made, its output, and how it ends with the process.

Apart from `dev_worker`, which says where there is one, because all that a worker needs is imported with it.
"""

import concurrent.futures.thread  # noqa: F401 - what it does at the end of a process has to be registered before ours
import signal
import sys
import threading
from dataclasses import replace
from types import FrameType
from typing import Any

from django.apps import apps

from taskq_core import Settings
from taskq_core.cli.running import Narrator, queues_text, set_up_log
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_django.app import taskq

GRACE_S = 5.0
"""Most seconds running tasks get when code has changed; fewer where `SHUTDOWN_GRACE` says so."""
TOLD_TO_END_S = 0.1
"""Seconds that interrupted functions get to end. Everything has to fit into the 0.25 s that Ctrl-C leaves."""
ENDING_S = 3.0
"""Seconds beyond the grace after which the process ends without its worker."""


def start(settings: Settings) -> BackgroundWorker:
    """Start a worker, once Django is ready, that ends with this process."""
    worker = BackgroundWorker(make_worker, may_begin=apps.ready_event.wait)
    _end_with_process(worker, _grace_s(settings) + ENDING_S)
    worker.start()
    return worker


def make_worker() -> Worker:
    """Return a worker as the settings say, which logs each task that ends."""
    settings = taskq.settings
    _ = taskq.runtime  # unusable tasks raise here, once, and are not tried again
    config = WorkerConfig.from_settings(settings)
    config = replace(config, shutdown_grace=_grace_s(settings), interrupt_grace=TOLD_TO_END_S)
    set_up_log(1, "taskq")
    return Worker(taskq, config, listener=_Narrator(sys.stdout))


class _Narrator(Narrator):
    """Prints one line when the worker starts."""

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
