"""`drain` and `adrain`: start a real worker that runs all due tasks and then stops.

The worker uses the store of the queue application: Redis, or the store in memory of a `capture`. As in production,
plain functions run in threads, and time limits and leases hold.
"""

import asyncio
from collections.abc import Iterable

from taskq_core.app import TaskQ
from taskq_core.broker.operations import views
from taskq_core.execution.context import TaskContext
from taskq_core.settings import Duration, seconds
from taskq_core.testing.passing import PassingTime
from taskq_core.testing.records import TaskRun, raise_failures, task_run
from taskq_core.worker import Worker, WorkerConfig, WorkerListener

SAFETY_NET_S = 0.05
"""Seconds between two polls of the queues by the worker, because a store in memory does not wake other threads."""


AGGREGATE_EVERY_S = 0.02
"""Seconds between two checks of the worker for groups that are due."""


class _Runs(WorkerListener):
    """Listener of the worker that records how each run ended."""

    per_task = True

    def __init__(self) -> None:
        self.runs: list[TaskRun] = []

    def task_ended(self, context: TaskContext, outcome: str, duration_s: float, error: BaseException | None) -> None:
        self.runs.append(task_run(context, outcome, error))


def drain(
    app: TaskQ,
    *,
    queues: Iterable[str] | None = None,
    advance: Duration | None = None,
    timeout: Duration = 60.0,
    raises: bool = True,
) -> list[TaskRun]:
    """Run a worker until no task is due. Blocks.

    Args:
        app: The queue application.
        queues: Queues that the worker serves. None: the queues of the settings, as in production.
        advance: Simulate that this much time passes for scheduled tasks and retries. None: no time passes.
        timeout: Maximum seconds.
        raises: Raise the errors of failed tasks. False: only return the runs.

    Returns:
        The runs, in the order of their ends.

    Raises:
        Exception: The last run of a task failed. It is the exception of the first such task.
        TimeoutError: The worker did not finish within `timeout`. Tasks that were still running returned to their queue.
        BrokerError: The store does not answer.
        RuntimeError: An event loop runs in this thread; await `adrain` there.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("drain() would block the running event loop; await adrain() instead")
    return asyncio.run(adrain(app, queues=queues, advance=advance, timeout=timeout, raises=raises))


async def adrain(
    app: TaskQ,
    *,
    queues: Iterable[str] | None = None,
    advance: Duration | None = None,
    timeout: Duration = 60.0,
    raises: bool = True,
) -> list[TaskRun]:
    """Run a worker on this event loop until no task is due, as `drain` does."""
    served = app.settings.queues if queues is None else dict.fromkeys(queues, 1)
    runtime = app.runtime
    await runtime.endpoint.aopen()
    await runtime.async_runner.run(views.ping())
    keys = [runtime.keys.queue(name) for name in served]
    most_s = 0.0 if advance is None else seconds("advance", advance)
    passing = PassingTime(runtime.runner, keys, most_s, aggregators=app.aggregators)

    async def skip(worker: Worker) -> bool:
        if advance is None or not await asyncio.to_thread(passing.skip):
            return False
        await worker.forward()
        return True

    listener = _Runs()
    config = WorkerConfig.from_settings(
        app.settings,
        queues=served,
        burst=True,
        wait_for_redis=False,
        safety_net=SAFETY_NET_S,
        aggregate_every=AGGREGATE_EVERY_S,
        task_processes=False,
        unknown_task_timeout=0,  # archive unknown tasks at once: no other worker could run them
    )
    async with asyncio.timeout(seconds("timeout", timeout, allow_zero=False)):
        await Worker(app, config, listener=listener, when_idle=skip).arun()
    await asyncio.to_thread(passing.finish)
    if raises:
        raise_failures(listener.runs)
    return listener.runs
