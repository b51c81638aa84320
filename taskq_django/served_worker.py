"""Start the worker of `runserver` (`DEV_WORKER`), print its output, and stop it when the process ends.

It is separate from `dev_worker`, which decides whether to start it, because this module imports the whole worker.
"""

import concurrent.futures.thread  # noqa: F401 - registers its handler for the end of the process before ours
import signal
import sys
import threading
from dataclasses import replace
from types import FrameType
from typing import Any

from django.apps import apps

from taskq_core import Settings
from taskq_core.cli.running import StatusWriter, queues_text, set_up_log
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_django.app import taskq

GRACE_S = 5.0
"""Maximum seconds for running tasks to finish after a change of code. `SHUTDOWN_GRACE` can lower it."""
INTERRUPTED_S = 0.1
"""Seconds that interrupted functions get to end. The whole shutdown must fit into the 0.25 s that Ctrl-C leaves."""
ENDING_S = 3.0
"""Seconds after the grace period until the process ends even if its worker still runs."""


def start(settings: Settings) -> BackgroundWorker:
    """Start a worker, once Django is ready, that ends with this process."""
    worker = BackgroundWorker(make_worker, may_begin=apps.ready_event.wait)
    _end_with_process(worker, _grace_s(settings) + ENDING_S)
    worker.start()
    return worker


def make_worker() -> Worker:
    """Return a worker with the project's settings that logs the end of each task."""
    settings = taskq.settings
    _ = taskq.runtime  # raises an error at this point if two tasks have the same name
    config = WorkerConfig.from_settings(settings)
    config = replace(config, shutdown_grace=_grace_s(settings), interrupt_grace=INTERRUPTED_S)
    set_up_log(1, "taskq")
    return Worker(taskq, config, listener=_StatusWriter(sys.stdout))


class _StatusWriter(StatusWriter):
    """Prints one line when the worker starts."""

    def started(self, worker: Worker) -> None:
        """Print that the worker has started."""
        self.write(
            f"taskq worker in this process: {queues_text(worker.config.queues)}, concurrency "
            f"{worker.config.concurrency}, {len(taskq.tasks)} tasks, on {taskq.runtime.endpoint.address}"
        )


def _grace_s(settings: Settings) -> float:
    return min(GRACE_S, float(settings.shutdown_grace))  # type: ignore[arg-type]  # the core's settings contain this duration in seconds


def _end_with_process(worker: BackgroundWorker, timeout_s: float) -> None:
    """Stop the worker when the process ends (change of code, Ctrl-C, SIGTERM), while its threads still work."""
    # `atexit` is too late: the thread pools of asyncio and asgiref, which tasks need to finish, are closed before it.
    threading._register_atexit(worker.stop, timeout_s)  # type: ignore[attr-defined]  # not public; in 3.9 to 3.14
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may set signal handlers
    before: Any = signal.getsignal(signal.SIGINT)
    if not callable(before):
        return  # SIGINT is ignored, as in background jobs of a shell

    def interrupted(number: int, frame: FrameType | None) -> None:
        worker.abort()
        before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
