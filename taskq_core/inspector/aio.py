"""The inspector for coroutines."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.broker.operations import views
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import Progress, RequestPlan, T, arun_plan, ask
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import (
    bulk,
    change,
    control,
    limits,
    look,
    move,
    presence,
    removal,
    schedules,
    search,
    selection,
)
from taskq_core.inspector.known import known_queue
from taskq_core.inspector.limits import LimitInfo
from taskq_core.inspector.matching import Matching, MatchingReport, act_on_matching, always
from taskq_core.inspector.records import (
    DailyStats,
    FoundTasks,
    GroupInfo,
    GroupPage,
    PeriodicEntryInfo,
    QueueInfo,
    SchedulerEvent,
    TaskPage,
    UnreadableTask,
    WorkerProcess,
)
from taskq_core.inspector.removal import QueueRemoval
from taskq_core.inspector.selection import ActionReport, TaskAction, TaskRef
from taskq_core.repair.reconcile import ReconcileReport, arun, reconcile
from taskq_core.scheduler.runtime_schedules import declares, encode_schedule
from taskq_core.service.worker_control import WorkerAction, WorkerRequest
from taskq_core.settings import ArchiveSettings, Duration, seconds
from taskq_core.tasks.limits import RateLimit
from taskq_core.tasks.periodic import PeriodicTask
from taskq_core.wire import Keys, TaskState


class AsyncInspector:
    """Reads and changes queues, tasks, schedules and workers, for coroutines.

    Every method raises a `BrokerError` if Redis refuses or does not answer within the enqueue timeout. Its
    `may_have_happened` is True if the change may have been made. A method that names a queue raises
    `QueueNotFoundError` if no task was ever enqueued to it. A method that names a task raises
    `TaskNotFoundError`. An unknown state or an argument of the wrong type raises `ConfigurationError`. These three
    errors mean that nothing was changed.

    A `progress` callback must be quick. If a call is interrupted, only some of the tasks have been changed.

    Args:
        app: The queue application. Each call uses the Redis that the application has at that time.
    """

    def __init__(self, app: TaskQ) -> None:
        self._app = app

    @property
    def _keys(self) -> Keys:
        return self._app.runtime.keys

    @property
    def _archive(self) -> ArchiveSettings:
        return self._app.runtime.settings.archive

    @property
    def _send(self) -> Callable[[Operation[Any]], Awaitable[Any]]:
        runtime = self._app.runtime
        return partial(
            runtime.async_runner.run, patience_s=seconds("ENQUEUE_TIMEOUT", runtime.settings.enqueue_timeout)
        )

    async def _run_plan(self, plan: RequestPlan[T]) -> T:
        return await arun_plan(plan, self._send)

    async def run_plan(self, read: Callable[[Keys], RequestPlan[T]]) -> T:
        """Run a request plan: `read` gets the key names and yields the requests. For the dashboards."""
        return await self._run_plan(read(self._keys))

    # --- queues -------------------------------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        """Return the names of all queues that were ever enqueued to, sorted."""
        return await self._run_plan(ask(views.list_queues(self._keys.queues)))

    async def queue_info(self, name: str) -> QueueInfo:
        """Return the state and counts of a queue.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._run_plan(look.queue_info(self._keys, name))

    async def queue_infos(self) -> list[QueueInfo]:
        """Return the state and counts of every queue, sorted by name. `problem` says why a queue cannot be counted."""
        return await self._run_plan(look.queue_infos(self._keys))

    async def history(self, queue: str, days: int = 10) -> list[DailyStats]:
        """Return the daily counters of a queue, today first. Days are UTC, by Redis's clock.

        Args:
            queue: Name of the queue.
            days: Number of days, 1 to 90. Counters are kept for 90 days.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The number of days is out of bounds.
        """
        return await self._run_plan(look.history(self._keys, queue, days))

    async def memory_usage(self, queue: str) -> int:
        """Estimate how many bytes a queue takes in Redis, from 20 tasks of each state and of five groups.

        Raises:
            QueueNotFoundError: No queue has this name.
            BrokerReplyError: The store does not support `MEMORY USAGE`.
        """
        return await self._run_plan(look.memory_usage(self._keys, queue))

    async def groups(self, queue: str) -> list[GroupInfo]:
        """Return the groups of tasks that wait to be aggregated, sorted by name.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._run_plan(look.groups(self._keys, queue))

    async def groups_page(self, queue: str, *, limit: int = 100, cursor: str | None = None) -> GroupPage:
        """Return a page of the groups of a queue. The pages are not sorted.

        Args:
            queue: Name of the queue.
            limit: Approximate number of groups, 1 to 1000. Redis may return a few more.
            cursor: `GroupPage.cursor` of the previous call.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The limit is out of bounds, or the cursor is not valid.
        """
        return await self._run_plan(look.groups_page(self._keys, queue, limit=limit, cursor=cursor))

    async def limits(self, queue: str) -> list[LimitInfo]:
        """Return the limits of a queue's tasks, with their running and waiting tasks, by kind and name.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._run_plan(limits.limits(self._keys, queue))

    async def set_limit(
        self, queue: str, name: str, *, rate: RateLimit | str | None = None, concurrency: int | None = None
    ) -> None:
        """Override a limit of the code, for all workers and for tasks that already wait.

        Args:
            queue: Name of the queue.
            name: Name of the limit: usually the name of the task, followed by `/key` for a `Concurrency` with a key.
                "" is the `CONCURRENCY` of the queue itself.
            rate: Starts per period, such as "100/m", or a `RateLimit` for its numbers.
            concurrency: Number of tasks that may run at once, instead of `rate`.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: Neither or both of `rate` and `concurrency` are given, or the number is not positive.
        """
        await self._run_plan(limits.set_limit(self._keys, queue, name, rate=rate, concurrency=concurrency))

    async def clear_limit(self, queue: str, name: str) -> bool:
        """Remove the override of a limit. Return False if it had none.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._run_plan(limits.clear_limit(self._keys, queue, name))

    async def pause(self, queue: str) -> None:
        """Pause a queue: workers, including Go workers, take no more of its tasks. Running tasks finish.

        Scheduled tasks still become pending when they are due, and wait.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueuePausedError: The queue is already paused.
        """
        await self._run_plan(change.pause(self._keys, queue))

    async def resume(self, queue: str) -> None:
        """Resume a paused queue: workers take its tasks again.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueueNotPausedError: The queue is not paused.
        """
        await self._run_plan(change.resume(self._keys, queue))

    async def remove_queue(self, queue: str, *, force: bool = False, progress: Progress | None = None) -> int:
        """Remove a queue and all its data: tasks, groups, unique locks, counters and pause state.

        The queue becomes empty in one step. Its tasks are then deleted in chunks. If a removal is interrupted, the
        next call continues it. If tasks are enqueued during the removal, the queue stays and keeps them.

        Args:
            queue: Name of the queue.
            force: Also delete tasks that have not succeeded. Without it, such tasks raise `QueueNotEmptyError`.
            progress: Called after each chunk with the number of deleted tasks and their total.

        Returns:
            The number of deleted tasks.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueueNotEmptyError: Tasks run, or there are tasks that would be lost without `force`.
        """
        return await self._run_plan(removal.remove_queue(self._keys, queue, force=force, progress=progress))

    async def remove_queue_part(
        self, queue: str, *, force: bool = False, cursor: str | None = None, has_time: Callable[[], bool] = always
    ) -> QueueRemoval:
        """Remove a queue in several calls. Like `remove_queue`, but tasks enqueued between two calls are kept.

        Args:
            queue: Name of the queue.
            force: Also delete tasks that have not succeeded.
            cursor: `QueueRemoval.next` of the previous call.
            has_time: Called after each chunk. The call ends when it returns False.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueueNotEmptyError: Tasks run, or there are tasks that only `force` deletes.
            ConfigurationError: The cursor is not valid.
        """
        return await self._run_plan(
            removal.remove_queue_part(self._keys, queue, force=force, cursor=cursor, has_time=has_time)
        )

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def tasks(
        self,
        queue: str | None = None,
        state: TaskState | None = None,
        *,
        group: str | None = None,
        page: int = 1,
        page_size: int = 30,
    ) -> TaskPage:
        """Return a page of tasks.

        Args:
            queue: Name of their queue; None for all queues.
            state: Their state. None: all of `LISTED_STATES` in that order, without tasks in groups.
            group: Their group, together with `queue` and `TaskState.AGGREGATING`.
            page: Number of the page, from 1. A page after the last one is empty.
            page_size: Maximum number of tasks on a page, 1 to 1000.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: `page` or `page_size` is out of bounds, or `group` does not fit the state.
        """
        return await self._run_plan(look.tasks(self._keys, queue, state, group, page=page, page_size=page_size))

    async def tasks_of(
        self, infos: Iterable[QueueInfo], state: TaskState | None = None, *, page: int = 1, page_size: int = 30
    ) -> TaskPage:
        """Return a page of the tasks of queues that were just read, without tasks in groups. Like `tasks`."""
        return await self._run_plan(look.Listing(self._keys, page=page, page_size=page_size).of_queues(infos, state))

    async def task(self, queue: str, task_id: str) -> TaskInfo | UnreadableTask:
        """Return one task.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
        """
        return await self._run_plan(look.task(self._keys, queue, task_id))

    async def count(self, queue: str, state: TaskState, *, group: str | None = None) -> int:
        """Count the tasks of one state without reading them. `TaskState.AGGREGATING` needs `group`.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: `group` does not fit the state.
        """
        return await self._run_plan(look.count(self._keys, queue, state, group))

    async def find_tasks(
        self,
        queue: str,
        state: TaskState,
        *,
        group: str | None = None,
        name: str | None = None,
        error: str | None = None,
        payload: bytes | str | None = None,
        older_than: datetime | Duration | None = None,
        newer_than: datetime | Duration | None = None,
        limit: int = 100,
        scan: int = 10_000,
        cursor: str | None = None,
    ) -> FoundTasks:
        """Search the tasks of one state. A task must match every argument that is given.

        Each call reads a limited number of tasks, in small requests that keep Redis responsive. The cursor in the
        answer continues the search. A task that stays in its state is read once, whatever other tasks do. Pending and
        active tasks are an exception, because their newest come first: a task may be read twice, and is missed if
        tasks before it are deleted, archived or moved between two calls.

        `older_than` and `newer_than` compare the time of the task's state: when it became pending, its start, its next
        attempt, or when it was archived, succeeded or joined its group. Active tasks have no such time, so they do not
        match.

        Args:
            queue: Name of the queue.
            state: Their state.
            group: Their group, with `TaskState.AGGREGATING`.
            name: Part of the task's name.
            error: Part of the text of its last failure.
            payload: Part of its payload.
            older_than: A moment before which its time is, or a minimum age.
            newer_than: A moment at or after which its time is, or a maximum age.
            limit: Maximum number of tasks to return, 1 to 1000.
            scan: Maximum number of tasks to read, 1 to 1,000,000.
            cursor: `FoundTasks.cursor` of the previous call, with the same queue, state and group.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: An argument is out of bounds or of the wrong type, a moment has no time zone, or the
                cursor is not valid.
        """
        return await self._run_plan(
            search.find_tasks(
                self._keys,
                queue,
                state,
                group=group,
                name=name,
                error=error,
                payload=payload,
                older_than=older_than,
                newer_than=newer_than,
                limit=limit,
                scan=scan,
                cursor=cursor,
            )
        )

    # --- one task -----------------------------------------------------------------------------------------------------

    async def run_task(self, queue: str, task_id: str) -> None:
        """Run a scheduled, retried, aggregating, archived or completed task now.

        Its number of retries is not reset, so an archived task gets one more attempt.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: The task is pending. `TaskActiveError` if it runs.
        """
        await self._run_plan(
            change.act(self._keys, queue, task_id, Action.RUN, doing="run", archive=self._archive.limits(queue))
        )

    async def archive_task(self, queue: str, task_id: str) -> None:
        """Archive a waiting or completed task. If the archive is over its limits, its oldest tasks are deleted.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: The task is already archived. `TaskActiveError` if it runs.
        """
        await self._run_plan(
            change.act(
                self._keys, queue, task_id, Action.ARCHIVE, doing="archived", archive=self._archive.limits(queue)
            )
        )

    async def delete_task(self, queue: str, task_id: str) -> None:
        """Delete a task that is not running, and release its unique lock.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskActiveError: It runs.
        """
        await self._run_plan(
            change.act(self._keys, queue, task_id, Action.DELETE, doing="deleted", archive=self._archive.limits(queue))
        )

    async def retry_task(
        self, queue: str, task_id: str, *, at: datetime | None = None, after: Duration | None = None
    ) -> None:
        """Make a task wait until a new time.

        A scheduled task and a task that waits for a retry keep their state. An archived task will be retried. A pending
        task, a task in a group and a completed task become scheduled. The lifetime of the unique lock does not change.

        Args:
            queue: Name of the queue.
            task_id: Id of the task.
            at: When it may run, with a time zone. Rounded up to whole seconds.
            after: How long from now, instead of `at`.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskActiveError: It runs.
            ConfigurationError: Neither or both of `at` and `after` are given, or the time is not valid.
        """
        await self._run_plan(
            change.retry_task(self._keys, queue, task_id, at=at, after=after, archive=self._archive.limits(queue))
        )

    async def update_payload(self, queue: str, task_id: str, payload: bytes, *, expected: bytes | None = None) -> None:
        """Replace the payload of a task that waits (pending, scheduled, retry, in a group) or is archived.

        If the task holds a unique lock, that lock is replaced by the lock of the new payload, with the remaining
        lifetime. If another caller changes the task at the same time, neither change is lost.

        Args:
            queue: Name of the queue.
            task_id: Id of the task.
            payload: The new payload: for tasks of taskq, the JSON object of their arguments. At most 16 MiB.
            expected: The payload that was read before. If the stored payload differs, nothing is changed.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: The task has succeeded, its group is being aggregated, or its payload is not `expected`.
                `TaskActiveError` if it runs.
            DuplicateTaskError: Another task holds the unique lock of the new payload.
            WireFormatError: The stored task cannot be read.
            ConfigurationError: The payload is not bytes, or is too large.
        """
        await self._run_plan(change.update_payload(self._keys, queue, task_id, payload, expected=expected))

    async def move_task(self, queue: str, task_id: str, to_queue: str) -> None:
        """Move a task that is not running to another queue. It keeps its state.

        If the move is interrupted, the task waits until `move_task` is called again, `finish_moves` is called, or a
        worker of its queue finishes the move some minutes later. It is never lost, and never in both queues.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskIdConflictError: The other queue has a task with this id. The task was not moved.
            DuplicateTaskError: Another task in the other queue holds its unique lock. The task was not moved.
            TaskStateError: It is being moved to a third queue. `TaskActiveError` if it runs.
            WireFormatError: The stored task cannot be read.
            ConfigurationError: The name of the other queue is not valid, or is the same.
        """
        await self._run_plan(move.move_task(self._keys, queue, task_id, to_queue))

    async def reschedule_task(
        self,
        queue: str,
        task_id: str,
        *,
        at: datetime | None = None,
        after: Duration | None = None,
        payload: bytes | None = None,
    ) -> None:
        """Make a task wait until a new time and replace its payload, in one atomic step. It keeps its id.

        This is `retry_task` and `update_payload` combined: no reader sees only one of the changes, and no worker takes
        the task in between. A completed task is refused.

        Args:
            queue: Name of the queue.
            task_id: Id of the task.
            at: When it may run, with a time zone. Rounded up to whole seconds.
            after: How long from now, instead of `at`.
            payload: The new payload, at most 16 MiB. None does not change it.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: The task has succeeded, or its group is being aggregated. `TaskActiveError` if it runs.
            DuplicateTaskError: Another task holds the unique lock of the new payload.
            WireFormatError: The stored task cannot be read.
            ConfigurationError: Neither or both of `at` and `after` are given, or an argument is not valid.
        """
        await self._run_plan(change.reschedule(self._keys, queue, task_id, at=at, after=after, payload=payload))

    async def cancel_task(self, task_id: str, *, retry: bool = False, keep: bool | None = None) -> int:
        """Ask the worker that runs a task to cancel it. Does not wait until the task ends.

        Workers compare only the id. If running tasks of several queues have this id, all of them are cancelled.

        Args:
            task_id: Id of the task.
            retry: Retry the task as if it had failed, instead of archiving it.
            keep: False deletes the task instead of archiving it.

        Returns:
            Number of worker processes that received the request: those recorded as serving the task's queue, at most
            the number of subscribers.

        Raises:
            TaskNotFoundError: No queue holds a task with this id.
            TaskStateError: The task is not running.
            ConfigurationError: `keep` is given together with `retry`.
        """
        return await self._run_plan(presence.cancel_task(self._keys, task_id, retry=retry, keep=keep))

    # --- many tasks ---------------------------------------------------------------------------------------------------

    async def act_on(
        self,
        tasks: Iterable[TaskRef],
        action: TaskAction,
        *,
        at: datetime | None = None,
        after: Duration | None = None,
        to_queue: str | None = None,
    ) -> ActionReport:
        """Apply one action to selected tasks, in chunks of 100. Skip tasks that refuse it, and report them.

        A task is also skipped if its state has changed since `TaskRef.state` was read.

        Args:
            tasks: The tasks, of any queues.
            action: What to do: `run`, `retry` (with `at` or `after`), `archive`, `delete`, `cancel` (asks the worker,
                and does not wait for the end), or `move` (with `to_queue`).
            at: When tasks may run, with a time zone.
            after: How long from now, instead of `at`.
            to_queue: The queue to move them to.

        Returns:
            The outcome for each task. If the store fails part way, `failure` has the error, and the report covers the
            tasks before it.

        Raises:
            ConfigurationError: The action is unknown, its arguments do not fit, or a name is not valid.
        """
        return await self._run_plan(
            selection.act_on(self._keys, tasks, action, archive=self._archive, at=at, after=after, to_queue=to_queue)
        )

    async def act_on_matching(
        self,
        matching: Matching,
        action: TaskAction,
        *,
        at: datetime | None = None,
        after: Duration | None = None,
        to_queue: str | None = None,
        cursor: str | None = None,
        has_time: Callable[[], bool] = always,
    ) -> MatchingReport:
        """Apply one action to all matching tasks of a state. Each call does a part, until `has_time` returns False.

        The action applies only to tasks that were in the state when the first call began, and once to each: a task that
        left the state and came back is skipped. Tasks are read in chunks of 100.

        Args:
            matching: Filter for the tasks. Their state must allow the action.
            action: The action, as in `act_on`.
            at: When tasks may run, with a time zone.
            after: Time from the first call on, instead of `at`.
            to_queue: The queue to move them to. Tasks that are already in it are skipped.
            cursor: `MatchingReport.next` of the previous call, with the same other arguments.
            has_time: Called after each chunk of at most 100 changed or 1000 read tasks. False ends the call.

        Returns:
            The outcome for each task, and the cursor of the next call. `report.failure` has the error of the store if
            it failed part way.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The state does not allow the action, or an argument is not valid.
        """
        return await self._run_plan(
            act_on_matching(
                self._keys,
                matching,
                action,
                archive=self._archive,
                at=at,
                after=after,
                to_queue=to_queue,
                cursor=cursor,
                has_time=has_time,
            )
        )

    async def run_all(
        self, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
    ) -> int:
        """Run all tasks of a state now. Like `run_task`.

        Only tasks that were in the state at the start are run, in chunks of 100, each once. A task that leaves the
        state before its turn is skipped.

        Args:
            queue: Name of the queue.
            state: scheduled, retry, aggregating, archived or completed.
            group: Their group, with `TaskState.AGGREGATING`.
            progress: Called after each chunk with the number of tasks processed and their total. An error that it
                raises ends the call.

        Returns:
            The number of tasks that will run. It is too low if an answer was lost and its chunk repeated.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: Tasks of this state cannot be run, or the group is missing or out of place.
        """
        return await self._run_plan(
            bulk.act_on_all(
                self._keys,
                queue,
                state,
                Action.RUN,
                group=group,
                archive=self._archive.limits(queue),
                progress=progress,
            )
        )

    async def archive_all(
        self, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
    ) -> int:
        """Archive all tasks of a state: pending, scheduled, retry, aggregating or completed. Otherwise as `run_all`."""
        return await self._run_plan(
            bulk.act_on_all(
                self._keys,
                queue,
                state,
                Action.ARCHIVE,
                group=group,
                archive=self._archive.limits(queue),
                progress=progress,
            )
        )

    async def delete_all(
        self, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
    ) -> int:
        """Delete all tasks of a state with their unique locks: any but active. Otherwise as `run_all`."""
        return await self._run_plan(
            bulk.act_on_all(
                self._keys,
                queue,
                state,
                Action.DELETE,
                group=group,
                archive=self._archive.limits(queue),
                progress=progress,
            )
        )

    async def move_all(
        self, queue: str, state: TaskState, to_queue: str, *, group: str | None = None, progress: Progress | None = None
    ) -> int:
        """Move all tasks of a state, except active ones, to another queue. Like `move_task` and `run_all`.

        Returns:
            The number of moved tasks. A task stays in its queue if the other queue has its id or its unique lock, or if
            it cannot be read.
        """
        return await self._run_plan(move.move_all(self._keys, queue, state, to_queue, group=group, progress=progress))

    async def finish_moves(self, queue: str) -> int:
        """Finish interrupted moves out of a queue. Workers also do this every few minutes.

        Returns:
            The number of tasks that arrived in the other queue. Tasks that it refused are back in this one.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._run_plan(move.finish_moves(self._keys, queue))

    async def reconcile(self, queue: str, *, repair: bool = False, progress: Progress | None = None) -> ReconcileReport:
        """Find damage in a queue: data in Redis that no operation of taskq or Asynq can have left there.

        Workers also do this every few minutes. It reads all tasks in small script calls, and checks what looks damaged
        again after five seconds, so that a task in transit is not mistaken for damage.

        Args:
            queue: Name of the queue.
            repair: Also repair the damage. Otherwise it is only reported.
            progress: Called after each page with the number of tasks checked and their approximate total.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        keys = await self._run_plan(known_queue(self._keys, queue))
        plan = reconcile(keys, repair=repair, progress=progress)
        return await arun(plan, self._send)

    # --- workers, schedulers, the store -------------------------------------------------------------------------------

    async def servers(self) -> list[WorkerProcess]:
        """Return the worker processes that are alive, Go's too, by host and process id, as of their last heartbeats."""
        return await self._run_plan(presence.servers(self._keys))

    async def scheduler_entries(self) -> list[PeriodicEntryInfo]:
        """Return the periodic entries of all schedulers that are alive, by id."""
        return await self._run_plan(schedules.scheduler_entries(self._keys))

    async def scheduler_events(self, entry_id: str, page: int = 1, page_size: int = 30) -> list[SchedulerEvent]:
        """Return past enqueues of a periodic entry, the newest first. At most the last 1000 are kept.

        Args:
            entry_id: Id of the entry.
            page: Number of the page, from 1.
            page_size: Maximum number of events on a page, 1 to 1000.

        Raises:
            EntryNotFoundError: No running scheduler has this entry, and it has no past enqueues.
            ConfigurationError: Page or page size is out of bounds.
        """
        return await self._run_plan(schedules.scheduler_events(self._keys, entry_id, page=page, page_size=page_size))

    async def add_schedule(self, entry: PeriodicTask, *, replace: bool = False) -> None:
        """Add a schedule at run time. Running schedulers load it within two seconds. It is stored until it is removed.

        Args:
            entry: The schedule. Its options are text, numbers and durations.
            replace: Overwrite a schedule that was added before under the same id.

        Raises:
            ConfigurationError: The id is taken, an option cannot be stored, or 1000 schedules were added already.
        """
        await self._run_plan(
            schedules.add_schedule(self._keys, entry.id, encode_schedule(self._app, entry), replaces=replace)
        )

    async def remove_schedule(self, entry_id: str) -> None:
        """Remove a schedule that was added by `add_schedule`.

        Raises:
            EntryNotFoundError: The schedule does not exist.
            ConfigurationError: It is declared in code or in a table.
        """
        await self._run_plan(schedules.remove_schedule(self._keys, entry_id))

    async def pause_schedule(self, entry_id: str) -> bool:
        """Pause a schedule, wherever it is declared. Return False if it was already paused.

        Raises:
            EntryNotFoundError: The schedule does not exist.
        """
        return await self._run_plan(
            schedules.pause_schedule(self._keys, entry_id, is_declared=declares(self._app, entry_id))
        )

    async def resume_schedule(self, entry_id: str) -> bool:
        """Resume a paused schedule. Missed firings are not enqueued. Return False if it was not paused.

        Raises:
            EntryNotFoundError: The schedule does not exist.
        """
        return await self._run_plan(schedules.resume_schedule(self._keys, entry_id))

    async def control_workers(
        self, action: WorkerAction | str, workers: Sequence[str] | None = None, *, concurrency: int | None = None
    ) -> list[WorkerProcess]:
        """Ask running workers to take no new tasks, to take tasks again, to change their concurrency, or to stop.

        A worker that is not connected at this moment misses the request. Go's workers ignore it.

        Args:
            action: `quiet`, `resume`, `scale` or `stop`.
            workers: Ids, hosts, or `<host>:<pid>`. None: all workers.
            concurrency: New concurrency of each worker, for `scale`.

        Returns:
            The workers that received the request, as they were before it. Empty if no worker listens.

        Raises:
            WorkerNotFoundError: No live worker has one of the names.
            ConfigurationError: The action or the concurrency is not valid.
        """
        request = WorkerRequest(action, concurrency)
        return await self._run_plan(
            control.control_workers(self._keys, workers, request, is_cluster=self._app.runtime.endpoint.is_cluster)
        )

    async def key_slot(self, queue: str) -> int:
        """Return the cluster slot, 0 to 16383, of a queue name. The queue need not exist.

        Raises:
            ConfigurationError: The name is not valid for a queue.
        """
        return presence.key_slot(self._keys, queue)

    async def cluster_nodes(self, queue: str) -> list[str]:
        """Return host:port of the nodes that store a queue, the primary first. Empty without a cluster.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._run_plan(
            presence.cluster_nodes(self._keys, queue, is_cluster=self._app.runtime.endpoint.is_cluster)
        )

    async def redis_info(self) -> Mapping[str, str | int]:
        """Return what the store says of itself (`INFO`), numbers as numbers; of a cluster, one of its nodes."""
        return await self._run_plan(presence.redis_info())
