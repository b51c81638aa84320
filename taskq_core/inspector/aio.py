"""The inspector for coroutines: one method for each request plan of this package."""

import functools
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Concatenate, ParamSpec

from taskq_core.app import TaskQ
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import Progress, RequestPlan, T, arun_plan
from taskq_core.inspector import bulk, change, control, presence, reading, removal, schedules
from taskq_core.inspector import limits as limit_plans
from taskq_core.inspector.known import known_queue
from taskq_core.inspector.matching import act_on_matching, find_tasks
from taskq_core.inspector.selection import act_on
from taskq_core.repair.reconcile import ReconcileReport, arun, reconcile
from taskq_core.settings import seconds
from taskq_core.wire import Keys

P = ParamSpec("P")


def _with_keys(
    plan: Callable[Concatenate[Keys, P], RequestPlan[T]],
) -> "Callable[Concatenate[AsyncInspector, P], Coroutine[Any, Any, T]]":
    """Return the method that runs a plan with the key names of the application."""

    @functools.wraps(plan)
    async def method(self: "AsyncInspector", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run_plan(lambda keys: plan(keys, *args, **kwargs))

    return method


def _with_app(
    plan: Callable[Concatenate[TaskQ, P], RequestPlan[T]],
) -> "Callable[Concatenate[AsyncInspector, P], Coroutine[Any, Any, T]]":
    """Return the method that runs a plan with the application, for plans that need settings or tasks."""

    @functools.wraps(plan)
    async def method(self: "AsyncInspector", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run_plan(lambda _keys: plan(self._app, *args, **kwargs))

    return method


class AsyncInspector:
    """Reads and changes queues, tasks, schedules and workers, for coroutines.

    Every method raises a `BrokerError` if Redis refuses or does not answer within the enqueue timeout.
    `may_have_happened` of this error is True if the change may have been made. A method that names a queue raises
    `QueueNotFoundError` if no task was ever enqueued to it. A method that names a task raises `TaskNotFoundError` if
    the queue does not have the task. An unknown state or an argument of the wrong type raises `ConfigurationError`.
    These three errors mean that nothing was changed.

    A `progress` callback must be quick. If a call is interrupted, only some of the tasks have been changed.

    Args:
        app: The queue application. Each call uses the Redis that the application has at that time.
    """

    def __init__(self, app: TaskQ) -> None:
        self._app = app

    @property
    def _send(self) -> Callable[[Operation[Any]], Awaitable[Any]]:
        runtime = self._app.runtime
        return partial(
            runtime.async_runner.run, patience_s=seconds("ENQUEUE_TIMEOUT", runtime.settings.enqueue_timeout)
        )

    async def run_plan(self, read: Callable[[Keys], RequestPlan[T]]) -> T:
        """Run a request plan: `read` gets the key names and yields the requests. For the dashboards."""
        return await arun_plan(read(self._app.runtime.keys), self._send)

    # queues
    queues = _with_keys(reading.queues)
    queue_info = _with_keys(reading.queue_info)
    queue_infos = _with_keys(reading.queue_infos)
    history = _with_keys(reading.history)
    memory_usage = _with_keys(reading.memory_usage)
    groups = _with_keys(reading.groups)
    groups_page = _with_keys(reading.groups_page)
    limits = _with_keys(limit_plans.limits)
    set_limit = _with_keys(limit_plans.set_limit)
    clear_limit = _with_keys(limit_plans.clear_limit)
    pause = _with_keys(change.pause)
    resume = _with_keys(change.resume)
    remove_queue = _with_keys(removal.remove_queue)
    remove_queue_part = _with_keys(removal.remove_queue_part)

    # tasks
    tasks = _with_keys(reading.tasks)
    task = _with_keys(reading.task)
    count = _with_keys(reading.count)
    find_tasks = _with_keys(find_tasks)
    questions = _with_keys(reading.questions)

    # one task
    run_task = _with_app(change.run_task)
    archive_task = _with_app(change.archive_task)
    delete_task = _with_app(change.delete_task)
    retry_task = _with_app(change.retry_task)
    update_payload = _with_keys(change.update_payload)
    reschedule_task = _with_keys(change.reschedule_task)
    move_task = _with_keys(change.move_task)
    cancel_task = _with_keys(presence.cancel_task)
    signal_task = _with_app(change.signal_task)
    answer_task = _with_app(change.answer_task)
    forget_step = _with_keys(change.forget_step)

    # many tasks
    act_on = _with_app(act_on)
    act_on_matching = _with_app(act_on_matching)
    run_all = _with_app(bulk.run_all)
    archive_all = _with_app(bulk.archive_all)
    delete_all = _with_app(bulk.delete_all)
    move_all = _with_app(bulk.move_all)

    # workers, schedules and the Redis server
    servers = _with_keys(presence.servers)
    control_workers = _with_app(control.control_workers)
    scheduler_entries = _with_keys(schedules.scheduler_entries)
    scheduler_events = _with_keys(schedules.scheduler_events)
    add_schedule = _with_app(schedules.add_schedule)
    remove_schedule = _with_keys(schedules.remove_schedule)
    pause_schedule = _with_app(schedules.pause_schedule)
    resume_schedule = _with_keys(schedules.resume_schedule)
    cluster_nodes = _with_app(presence.cluster_nodes)
    redis_info = _with_keys(presence.redis_info)

    async def key_slot(self, queue: str) -> int:
        """Return the cluster slot, 0 to 16383, of a queue name. The queue need not exist.

        Raises:
            ConfigurationError: The name is not valid for a queue.
        """
        return presence.key_slot(self._app.runtime.keys, queue)

    async def reconcile(self, queue: str, *, repair: bool = False, progress: Progress | None = None) -> ReconcileReport:
        """Find damage in a queue: data in Redis that no operation of taskq or Asynq can have written.

        Workers also do this every few minutes. This method reads all tasks in small script calls. It checks tasks that
        look damaged again after five seconds, because a task that is just being changed may look damaged.

        Args:
            queue: Name of the queue.
            repair: Also repair the damage. Otherwise, only report the damage.
            progress: Called after each page with the number of tasks checked and their approximate total.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        keys = await self.run_plan(lambda keys: known_queue(keys, queue))
        return await arun(reconcile(keys, repair=repair, progress=progress), self._send)
