"""The inspector for coroutines."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.broker.operations import views
from taskq_core.broker.operations.actions import Action
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.steps import Progress, Steps, T, afollow, ask
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
    `QueueNotFoundError` for a queue that nobody has enqueued to. A method that names a task raises
    `TaskNotFoundError`. An unknown state and an argument of another type raise `ConfigurationError`. Nothing was
    changed then.

    A `progress` callback must be quick. If a call is interrupted, a part of the tasks is done.

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

    async def _follow(self, steps: Steps[T]) -> T:
        return await afollow(steps, self._send)

    async def follow(self, read: Callable[[Keys], Steps[T]]) -> T:
        """Take the steps that `read` makes of the names of the store's keys: how the dashboard asks."""
        return await self._follow(read(self._keys))

    # --- queues -------------------------------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        """Return the names of all queues that were ever enqueued to, sorted."""
        return await self._follow(ask(views.list_queues(self._keys.queues)))

    async def queue_info(self, name: str) -> QueueInfo:
        """Return how a queue stands.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._follow(look.queue_info(self._keys, name))

    async def queue_infos(self) -> list[QueueInfo]:
        """Return how every queue stands, sorted by name. One that cannot be counted says so in `problem`."""
        return await self._follow(look.queue_infos(self._keys))

    async def history(self, queue: str, days: int = 10) -> list[DailyStats]:
        """Return what a queue did day by day, today first. Days are UTC, by Redis's clock.

        Args:
            queue: Name of the queue.
            days: How many days, 1 to 90; counters are kept no longer.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The number of days is out of bounds.
        """
        return await self._follow(look.history(self._keys, queue, days))

    async def memory_usage(self, queue: str) -> int:
        """Estimate how many bytes a queue takes in Redis, from 20 tasks of each state and of five groups.

        Raises:
            QueueNotFoundError: No queue has this name.
            BrokerReplyError: The store cannot tell (`MEMORY USAGE`).
        """
        return await self._follow(look.memory_usage(self._keys, queue))

    async def groups(self, queue: str) -> list[GroupInfo]:
        """Return the groups of tasks that wait to become one, sorted by name.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._follow(look.groups(self._keys, queue))

    async def groups_page(self, queue: str, *, limit: int = 100, cursor: str | None = None) -> GroupPage:
        """Return some of the groups of a queue, whatever their number, in no order from page to page.

        Args:
            queue: Name of the queue.
            limit: About how many, 1 to 1000; Redis may return some more.
            cursor: `GroupPage.cursor` of the call to carry on.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The limit is out of bounds, or the cursor is foreign.
        """
        return await self._follow(look.groups_page(self._keys, queue, limit=limit, cursor=cursor))

    async def limits(self, queue: str) -> list[LimitInfo]:
        """Return the limits of a queue's tasks with what holds and what waits, by kind and name.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._follow(limits.limits(self._keys, queue))

    async def set_limit(
        self, queue: str, name: str, *, rate: RateLimit | str | None = None, concurrency: int | None = None
    ) -> None:
        """Set a limit over what the code says, for all workers and for what waits already.

        Args:
            queue: Name of the queue.
            name: Name of the limit: as a rule that of the task, with `/key` behind for a `Concurrency` with a key.
                "" is the `CONCURRENCY` of the queue itself.
            rate: So many starts in a period, as "100/m", or a `RateLimit` for its numbers.
            concurrency: So many at once, instead of `rate`.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: Not just one number is given, or it is zero or below.
        """
        await self._follow(limits.set_limit(self._keys, queue, name, rate=rate, concurrency=concurrency))

    async def clear_limit(self, queue: str, name: str) -> bool:
        """Let a limit be again what the code says. Returns False if nothing was set.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._follow(limits.clear_limit(self._keys, queue, name))

    async def pause(self, queue: str) -> None:
        """Keep workers, Go's too, from taking tasks of a queue. What runs goes on; due tasks become pending and wait.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueuePausedError: It is paused already.
        """
        await self._follow(change.pause(self._keys, queue))

    async def resume(self, queue: str) -> None:
        """Let workers take tasks of a queue again.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueueNotPausedError: It is not paused.
        """
        await self._follow(change.resume(self._keys, queue))

    async def remove_queue(self, queue: str, *, force: bool = False, progress: Progress | None = None) -> int:
        """Remove a queue with all that belongs to it: tasks, groups, unique locks, counters, the mark of a pause.

        The queue is empty for everybody from one moment to the next; its tasks are deleted in chunks after that. A
        removal that was cut off is carried on by the next. If tasks are enqueued meanwhile, the queue lives on with
        these.

        Args:
            queue: Name of the queue.
            force: Delete tasks that have not succeeded as well. Without it they keep the queue from being removed.
            progress: Told after each chunk how many tasks are deleted, and of how many.

        Returns:
            How many tasks were deleted.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueueNotEmptyError: Tasks run, or there are tasks that would be lost without `force`.
        """
        return await self._follow(removal.remove_queue(self._keys, queue, force=force, progress=progress))

    async def remove_queue_part(
        self, queue: str, *, force: bool = False, cursor: str | None = None, has_time: Callable[[], bool] = always
    ) -> QueueRemoval:
        """Remove a queue, a part a call. As `remove_queue`, but what is enqueued between two parts lives on.

        Args:
            queue: Name of the queue.
            force: Delete tasks that have not succeeded as well.
            cursor: `QueueRemoval.next` of the part before.
            has_time: Asked after each chunk; the part ends when it says False.

        Raises:
            QueueNotFoundError: No queue has this name.
            QueueNotEmptyError: Tasks run, or there are tasks that would be lost without `force`.
            ConfigurationError: The cursor is foreign.
        """
        return await self._follow(
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
            state: Their state; None for all, one after another as in `LISTED_STATES`, which leaves out those in groups.
            group: Their group, with its queue and `TaskState.AGGREGATING`; such tasks are listed by group only.
            page: Number of the page, from 1. One beyond the last is empty.
            page_size: Most tasks on a page, 1 to 1000.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: Page or page size is out of bounds; the group is missing, or stands with another state.
        """
        return await self._follow(look.tasks(self._keys, queue, state, group, page=page, page_size=page_size))

    async def tasks_of(
        self, infos: Iterable[QueueInfo], state: TaskState | None = None, *, page: int = 1, page_size: int = 30
    ) -> TaskPage:
        """Return a page of the tasks of queues that were just looked at, but for those in groups. As `tasks`."""
        return await self._follow(look.Listing(self._keys, page=page, page_size=page_size).of_queues(infos, state))

    async def task(self, queue: str, task_id: str) -> TaskInfo | UnreadableTask:
        """Return one task.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
        """
        return await self._follow(look.task(self._keys, queue, task_id))

    async def count(self, queue: str, state: TaskState, *, group: str | None = None) -> int:
        """Count the tasks of one state without listing them; those of a group with `TaskState.AGGREGATING`.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The group is missing, or stands with another state.
        """
        return await self._follow(look.count(self._keys, queue, state, group))

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
        """Look for tasks of one state by what they hold. All that is given has to fit.

        It looks at a bounded number of tasks, in pieces that do not hold up Redis, and can be carried on with the
        cursor of its answer. A task that stays in its state is looked at once in the end, whatever comes and goes
        meanwhile; pending and active tasks, the newest of which come first, may be looked at twice, and one is missed
        only if others before it are deleted, archived or moved between two calls.

        The time of a task is the one its state tells of: when it became pending, its start, its next attempt, when it
        was archived, when it succeeded, or when it joined its group. A task without one, as an active one, fits no
        time.

        Args:
            queue: Name of the queue.
            state: Their state.
            group: Their group, with `TaskState.AGGREGATING`.
            name: Part of the task's name.
            error: Part of the text of its last failure.
            payload: Part of its payload.
            older_than: Its time is before this moment, or longer ago than this.
            newer_than: Its time is not before this moment, or not longer ago than this.
            limit: Most tasks to return, 1 to 1000.
            scan: Most tasks to look at, 1 to 1,000,000.
            cursor: `FoundTasks.cursor` of the call to carry on, with the same queue, state and group.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: An argument is out of bounds or of another type, a moment has no time zone, or the
                cursor is foreign.
        """
        return await self._follow(
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
        """Let a task run now that is scheduled, waits for a retry or in a group, is archived, or has succeeded.

        Its count of retries stays, so an archived task gets one more attempt.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: It is pending. `TaskActiveError` if it runs.
        """
        await self._follow(
            change.act(self._keys, queue, task_id, Action.RUN, doing="run", archive=self._archive.limits(queue))
        )

    async def archive_task(self, queue: str, task_id: str) -> None:
        """Archive a task that waits, or has succeeded. The oldest beyond the limits of the archive are deleted.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: It is archived. `TaskActiveError` if it runs.
        """
        await self._follow(
            change.act(
                self._keys, queue, task_id, Action.ARCHIVE, doing="archived", archive=self._archive.limits(queue)
            )
        )

    async def delete_task(self, queue: str, task_id: str) -> None:
        """Delete a task that does not run, and free the unique lock it holds.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskActiveError: It runs.
        """
        await self._follow(
            change.act(self._keys, queue, task_id, Action.DELETE, doing="deleted", archive=self._archive.limits(queue))
        )

    async def retry_task(
        self, queue: str, task_id: str, *, at: datetime | None = None, after: Duration | None = None
    ) -> None:
        """Let a task wait until another time: one that is scheduled or waits for a retry just with a new time.

        An archived task becomes one that waits for a retry; a pending one, one in a group and one that has succeeded
        become scheduled. Its unique lock keeps its time.

        Args:
            queue: Name of the queue.
            task_id: Id of the task.
            at: When it may run, with a time zone. Rounded up to whole seconds.
            after: How long from now, instead of `at`.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskActiveError: It runs.
            ConfigurationError: Not just one of `at` and `after` is given, or it is not usable.
        """
        await self._follow(
            change.retry_task(self._keys, queue, task_id, at=at, after=after, archive=self._archive.limits(queue))
        )

    async def update_payload(self, queue: str, task_id: str, payload: bytes, *, expected: bytes | None = None) -> None:
        """Replace the payload of a task that waits (pending, scheduled, retry, in a group) or is archived.

        If it holds a unique lock, it gives that up for the one of its new payload, with the time that was left. If
        another caller changes the task at the same moment, neither change is lost.

        Args:
            queue: Name of the queue.
            task_id: Id of the task.
            payload: The new payload, for our own tasks the JSON object of their arguments. At most 16 MiB.
            expected: The payload that was read before. If it is another by now, nothing is changed.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: It has succeeded, its group is being turned into one task, or its payload is not the one
                that is expected. `TaskActiveError` if it runs.
            DuplicateTaskError: Another task holds the unique lock of the new payload.
            WireFormatError: The stored task cannot be read.
            ConfigurationError: The payload is not bytes, or too large.
        """
        await self._follow(change.update_payload(self._keys, queue, task_id, payload, expected=expected))

    async def move_task(self, queue: str, task_id: str, to_queue: str) -> None:
        """Move a task that does not run to another queue, where it is in the same state.

        If this is cut off, the task waits until the move is done again, `finish_moves` is called, or a worker that
        serves its queue carries the move on, some minutes later. It is never lost, and never in both queues.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskIdConflictError: The other queue has a task of this id. It stays in its queue.
            DuplicateTaskError: Its unique lock is held there by another task. It stays in its queue.
            TaskStateError: It is on its way to yet another queue. `TaskActiveError` if it runs.
            WireFormatError: The stored task cannot be read.
            ConfigurationError: The name of the other queue is not usable, or is the same.
        """
        await self._follow(move.move_task(self._keys, queue, task_id, to_queue))

    async def reschedule_task(
        self,
        queue: str,
        task_id: str,
        *,
        at: datetime | None = None,
        after: Duration | None = None,
        payload: bytes | None = None,
    ) -> None:
        """Let a task wait until another time and, in the same step, give it another payload. It keeps its id.

        As `retry_task` and `update_payload` together: nobody sees the one without the other, and no worker takes the
        task in between. A task that has succeeded is refused.

        Args:
            queue: Name of the queue.
            task_id: Id of the task.
            at: When it may run, with a time zone. Rounded up to whole seconds.
            after: How long from now, instead of `at`.
            payload: The new payload; None leaves it as it is. At most 16 MiB.

        Raises:
            QueueNotFoundError: No queue has this name.
            TaskNotFoundError: The queue holds no task with this id.
            TaskStateError: It has succeeded, or its group is being turned into one task. `TaskActiveError` if it runs.
            DuplicateTaskError: Another task holds the unique lock of the new payload.
            WireFormatError: The stored task cannot be read.
            ConfigurationError: Not just one of `at` and `after` is given, or something is not usable.
        """
        await self._follow(change.reschedule(self._keys, queue, task_id, at=at, after=after, payload=payload))

    async def cancel_task(self, task_id: str, *, retry: bool = False, keep: bool | None = None) -> int:
        """Ask whichever worker runs a task to cancel it. Nothing waits for the end.

        Workers go by the id alone: of several queues with a running task of this id, all are cancelled.

        Args:
            task_id: Id of the task.
            retry: Run it again like one that failed, instead of archiving it.
            keep: False drops it instead of archiving it.

        Returns:
            Number of worker processes that received the request: those recorded as serving the task's queue, at most
            the number of subscribers.

        Raises:
            TaskNotFoundError: No queue holds a task with this id.
            TaskStateError: It does not run.
            ConfigurationError: `keep` is given together with `retry`.
        """
        return await self._follow(presence.cancel_task(self._keys, task_id, retry=retry, keep=keep))

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
        """Do one thing to tasks that were selected, in chunks of 100. What cannot be done to one is skipped and told.

        A task that is not in the state it was seen in (`TaskRef.state`) any more is left alone.

        Args:
            tasks: The tasks, of any queues.
            action: What to do: `run`, `retry` (with `at` or `after`), `archive`, `delete`, `cancel` (asks the worker,
                and does not wait for the end), or `move` (with `to_queue`).
            at: When tasks may run, with a time zone.
            after: How long from now, instead of `at`.
            to_queue: The queue to move them to.

        Returns:
            What became of them. If the store fails on the way, `failure` says so; what was done until then is told.

        Raises:
            ConfigurationError: The action is none, lacks something or has too much; a name is not usable.
        """
        return await self._follow(
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
        """Do one thing to all tasks of a state that fit, a part a call: until all are gone through or time is over.

        Only what was there when the first part began is touched, each task once: one that was run, or put off, and is
        back in the state is left alone. Tasks are read for it, in chunks of 100.

        Args:
            matching: Which tasks; their state has to allow the action.
            action: What to do, as in `act_on`.
            at: When tasks may run, with a time zone.
            after: How long from the first part on, instead of `at`.
            to_queue: The queue to move them to. Those that are in it already are not gone through.
            cursor: `MatchingReport.next` of the part before, with all else as it was.
            has_time: Asked after each chunk of at most 100 tasks acted on, or 1000 read; False ends the part.

        Returns:
            What became of them, and where to go on. If the store fails on the way, `report.failure` says so.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: The state does not allow the action, or something is not usable.
        """
        return await self._follow(
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
        """Let all tasks of a state run now. As `run_task`.

        Only those that were there when it began are touched, in chunks of 100, each once; one that has left the state
        by its turn is left alone.

        Args:
            queue: Name of the queue.
            state: scheduled, retry, aggregating, archived or completed.
            group: Their group, with `TaskState.AGGREGATING`.
            progress: Told after each chunk how many tasks were gone through, of how many. An error it raises ends it.

        Returns:
            How many were let run. Fewer than it was if an answer got lost and the chunk had to be repeated.

        Raises:
            QueueNotFoundError: No queue has this name.
            ConfigurationError: Tasks of this state cannot be run, or the group is missing or out of place.
        """
        return await self._follow(
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
        return await self._follow(
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
        return await self._follow(
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
        """Move all tasks of a state, any but active, to another queue. As `move_task`; otherwise as `run_all`.

        Returns:
            How many were moved. A task whose id is taken there, whose unique lock is held there, or that cannot be
            read, stays in its queue.
        """
        return await self._follow(move.move_all(self._keys, queue, state, to_queue, group=group, progress=progress))

    async def finish_moves(self, queue: str) -> int:
        """Carry on moves out of a queue that were cut off. Workers do so by themselves every few minutes.

        Returns:
            How many tasks arrived at their other queue. Those not wanted there are back in this one.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._follow(move.finish_moves(self._keys, queue))

    async def reconcile(self, queue: str, *, repair: bool = False, progress: Progress | None = None) -> ReconcileReport:
        """Look for damage in a queue: what stands in Redis and no operation can have left there.

        Workers do so by themselves every few minutes. All tasks are gone through in small script calls. What looks
        damaged is looked at again after five seconds, so that nothing on its way is taken for damage.

        Args:
            queue: Name of the queue.
            repair: Repair what is found; otherwise it is only told.
            progress: Told after each page how many tasks were gone through, and about how many there are.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        keys = await self._follow(known_queue(self._keys, queue))
        steps = reconcile(keys, repair=repair, progress=progress)
        return await arun(steps, self._send)

    # --- workers, schedulers, the store -------------------------------------------------------------------------------

    async def servers(self) -> list[WorkerProcess]:
        """Return the worker processes that are alive, Go's too, by host and process id, as of their last heartbeats."""
        return await self._follow(presence.servers(self._keys))

    async def scheduler_entries(self) -> list[PeriodicEntryInfo]:
        """Return the periodic entries of all schedulers that are alive, by id."""
        return await self._follow(schedules.scheduler_entries(self._keys))

    async def scheduler_events(self, entry_id: str, page: int = 1, page_size: int = 30) -> list[SchedulerEvent]:
        """Return past enqueues of a periodic entry, the newest first. At most the last 1000 are kept.

        Args:
            entry_id: Id of the entry.
            page: Number of the page, from 1.
            page_size: Most events on a page, 1 to 1000.

        Raises:
            EntryNotFoundError: No scheduler that is alive has this entry, and none has enqueued for it.
            ConfigurationError: Page or page size is out of bounds.
        """
        return await self._follow(schedules.scheduler_events(self._keys, entry_id, page=page, page_size=page_size))

    async def add_schedule(self, entry: PeriodicTask, *, replace: bool = False) -> None:
        """Add a schedule while schedulers run. They take it up within two seconds; it stays until it is removed.

        Args:
            entry: The schedule. Its options are text, numbers and durations.
            replace: Whether it may change a schedule that was added before under the same id.

        Raises:
            ConfigurationError: The id is taken, an option cannot be stored, or 1000 schedules were added already.
        """
        await self._follow(
            schedules.add_schedule(self._keys, entry.id, encode_schedule(self._app, entry), replaces=replace)
        )

    async def remove_schedule(self, entry_id: str) -> None:
        """Remove a schedule that was added by `add_schedule`.

        Raises:
            EntryNotFoundError: The schedule does not exist.
            ConfigurationError: It is declared in code or in a table.
        """
        await self._follow(schedules.remove_schedule(self._keys, entry_id))

    async def pause_schedule(self, entry_id: str) -> bool:
        """Let a schedule enqueue nothing until it is resumed, wherever it is declared. False if it was paused already.

        Raises:
            EntryNotFoundError: The schedule does not exist.
        """
        return await self._follow(
            schedules.pause_schedule(self._keys, entry_id, is_declared=declares(self._app, entry_id))
        )

    async def resume_schedule(self, entry_id: str) -> bool:
        """Let a schedule go on that `pause_schedule` paused, without what it missed. False if it was not paused.

        Raises:
            EntryNotFoundError: The schedule does not exist.
        """
        return await self._follow(schedules.resume_schedule(self._keys, entry_id))

    async def control_workers(
        self, action: WorkerAction | str, workers: Sequence[str] | None = None, *, concurrency: int | None = None
    ) -> list[WorkerProcess]:
        """Ask running workers to take no new tasks, to take tasks again, to change their concurrency, or to stop.

        A worker that is not connected at this moment misses the request. Go's workers ignore it.

        Args:
            action: `quiet`, `resume`, `scale` or `stop`.
            workers: Which: ids, hosts, or `<host>:<pid>`. None: all.
            concurrency: Tasks that each of them runs at a time, for `scale`.

        Returns:
            The recipients, as they were before. An empty list if no worker listens.

        Raises:
            WorkerNotFoundError: No live worker has one of the names.
            ConfigurationError: The action or the concurrency is not usable.
        """
        request = WorkerRequest(action, concurrency)
        return await self._follow(
            control.control_workers(self._keys, workers, request, is_cluster=self._app.runtime.endpoint.is_cluster)
        )

    async def key_slot(self, queue: str) -> int:
        """Return which slot of a cluster, 0 to 16383, holds a queue of this name, whether or not it exists.

        Raises:
            ConfigurationError: The name is none for a queue.
        """
        return presence.key_slot(self._keys, queue)

    async def cluster_nodes(self, queue: str) -> list[str]:
        """Return host:port of the nodes that hold a queue, the primary first. Without a cluster there are none.

        Raises:
            QueueNotFoundError: No queue has this name.
        """
        return await self._follow(
            presence.cluster_nodes(self._keys, queue, is_cluster=self._app.runtime.endpoint.is_cluster)
        )

    async def redis_info(self) -> Mapping[str, str | int]:
        """Return what the store says of itself (`INFO`), numbers as numbers; of a cluster, one of its nodes."""
        return await self._follow(presence.redis_info())
