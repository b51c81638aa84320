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
from taskq_core.inspector.reconcile import ReconcileReport, arun, reconcile
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
from taskq_core.inspector.runtime_schedules import declares, encode_schedule
from taskq_core.inspector.selection import ActionReport, TaskAction, TaskRef
from taskq_core.inspector.worker_control import WorkerAction, WorkerRequest
from taskq_core.settings import ArchiveSettings, Duration, seconds
from taskq_core.tasks.limits import RateLimit
from taskq_core.tasks.periodic import PeriodicTask
from taskq_core.wire import Keys, TaskState


class AsyncInspector:
    """Looks at queues and tasks, and acts on them, from coroutines. As `Inspector`.

    `progress` is called on the event loop and must be quick. Work that is cancelled has done a part of the tasks.

    Args:
        app: The queue application whose store is looked at.
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
        """Take the steps that `read` makes of the names of the store's keys. As `Inspector.follow`."""
        return await self._follow(read(self._keys))

    # --- queues -------------------------------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        """Return the names of all queues that were ever enqueued to, sorted."""
        return await self._follow(ask(views.list_queues(self._keys.queues)))

    async def queue_info(self, name: str) -> QueueInfo:
        """Return how a queue stands. As `Inspector.queue_info`."""
        return await self._follow(look.queue_info(self._keys, name))

    async def queue_infos(self) -> list[QueueInfo]:
        """Return how every queue stands, sorted by name."""
        return await self._follow(look.queue_infos(self._keys))

    async def history(self, queue: str, days: int = 10) -> list[DailyStats]:
        """Return what a queue did day by day, today first. As `Inspector.history`."""
        return await self._follow(look.history(self._keys, queue, days))

    async def memory_usage(self, queue: str) -> int:
        """Estimate how many bytes a queue takes in Redis. As `Inspector.memory_usage`."""
        return await self._follow(look.memory_usage(self._keys, queue))

    async def groups(self, queue: str) -> list[GroupInfo]:
        """Return the groups of tasks that wait to become one, sorted by name. As `Inspector.groups`."""
        return await self._follow(look.groups(self._keys, queue))

    async def groups_page(self, queue: str, *, limit: int = 100, cursor: str | None = None) -> GroupPage:
        """Return some of the groups of a queue, whatever their number. As `Inspector.groups_page`."""
        return await self._follow(look.groups_page(self._keys, queue, limit=limit, cursor=cursor))

    async def limits(self, queue: str) -> list[LimitInfo]:
        """Return the limits of a queue's tasks with what holds and what waits. As `Inspector.limits`."""
        return await self._follow(limits.limits(self._keys, queue))

    async def set_limit(
        self, queue: str, name: str, *, rate: RateLimit | str | None = None, concurrency: int | None = None
    ) -> None:
        """Set a limit over what the code says, for all workers and for what waits already. As `Inspector.set_limit`."""
        await self._follow(limits.set_limit(self._keys, queue, name, rate=rate, concurrency=concurrency))

    async def clear_limit(self, queue: str, name: str) -> bool:
        """Let a limit be again what the code says. Returns False if nothing was set. As `Inspector.clear_limit`."""
        return await self._follow(limits.clear_limit(self._keys, queue, name))

    async def pause(self, queue: str) -> None:
        """Keep workers, Go's too, from taking tasks of a queue. As `Inspector.pause`."""
        await self._follow(change.pause(self._keys, queue))

    async def resume(self, queue: str) -> None:
        """Let workers take tasks of a queue again. As `Inspector.resume`."""
        await self._follow(change.resume(self._keys, queue))

    async def remove_queue(self, queue: str, *, force: bool = False, progress: Progress | None = None) -> int:
        """Remove a queue with all that belongs to it. As `Inspector.remove_queue`."""
        return await self._follow(removal.remove_queue(self._keys, queue, force=force, progress=progress))

    async def remove_queue_part(
        self, queue: str, *, force: bool = False, cursor: str | None = None, has_time: Callable[[], bool] = always
    ) -> QueueRemoval:
        """Remove a queue, a part a call. As `Inspector.remove_queue_part`."""
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
        """Return a page of tasks. As `Inspector.tasks`."""
        return await self._follow(look.tasks(self._keys, queue, state, group, page=page, page_size=page_size))

    async def tasks_of(
        self, infos: Iterable[QueueInfo], state: TaskState | None = None, *, page: int = 1, page_size: int = 30
    ) -> TaskPage:
        """Return a page of tasks of queues that were just looked at. As `Inspector.tasks_of`."""
        return await self._follow(look.Listing(self._keys, page=page, page_size=page_size).of_queues(infos, state))

    async def task(self, queue: str, task_id: str) -> TaskInfo | UnreadableTask:
        """Return one task. As `Inspector.task`."""
        return await self._follow(look.task(self._keys, queue, task_id))

    async def count(self, queue: str, state: TaskState, *, group: str | None = None) -> int:
        """Count the tasks of one state without listing them. As `Inspector.count`."""
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
        """Look for tasks of one state by what they hold. As `Inspector.find_tasks`."""
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
        """Let a task run now. As `Inspector.run_task`."""
        await self._follow(
            change.act(self._keys, queue, task_id, Action.RUN, doing="run", archive=self._archive.limits(queue))
        )

    async def archive_task(self, queue: str, task_id: str) -> None:
        """Archive a task that waits, or has succeeded. As `Inspector.archive_task`."""
        await self._follow(
            change.act(
                self._keys, queue, task_id, Action.ARCHIVE, doing="archived", archive=self._archive.limits(queue)
            )
        )

    async def delete_task(self, queue: str, task_id: str) -> None:
        """Delete a task that does not run, and free the unique lock it holds. As `Inspector.delete_task`."""
        await self._follow(
            change.act(self._keys, queue, task_id, Action.DELETE, doing="deleted", archive=self._archive.limits(queue))
        )

    async def retry_task(
        self, queue: str, task_id: str, *, at: datetime | None = None, after: Duration | None = None
    ) -> None:
        """Let a task wait until another time. As `Inspector.retry_task`."""
        await self._follow(
            change.retry_task(self._keys, queue, task_id, at=at, after=after, archive=self._archive.limits(queue))
        )

    async def update_payload(self, queue: str, task_id: str, payload: bytes, *, expected: bytes | None = None) -> None:
        """Replace the payload of a task that waits or is archived. As `Inspector.update_payload`."""
        await self._follow(change.update_payload(self._keys, queue, task_id, payload, expected=expected))

    async def move_task(self, queue: str, task_id: str, to_queue: str) -> None:
        """Move a task that does not run to another queue, where it is in the same state. As `Inspector.move_task`."""
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
        """Let a task wait until another time, with another payload. As `Inspector.reschedule_task`."""
        await self._follow(change.reschedule(self._keys, queue, task_id, at=at, after=after, payload=payload))

    async def cancel_task(self, task_id: str, *, retry: bool = False, keep: bool | None = None) -> int:
        """Ask whichever worker runs a task to cancel it. As `Inspector.cancel_task`."""
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
        """Do one thing to tasks that were selected. As `Inspector.act_on`."""
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
        """Do one thing to all tasks of a state that fit, a part a call. As `Inspector.act_on_matching`."""
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
        """Let all tasks of a state run now. As `Inspector.run_all`."""
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
        """Move all tasks of a state, any but active, to another queue. As `Inspector.move_all`."""
        return await self._follow(move.move_all(self._keys, queue, state, to_queue, group=group, progress=progress))

    async def finish_moves(self, queue: str) -> int:
        """Carry on moves out of a queue that were cut off. As `Inspector.finish_moves`."""
        return await self._follow(move.finish_moves(self._keys, queue))

    async def reconcile(self, queue: str, *, repair: bool = False, progress: Progress | None = None) -> ReconcileReport:
        """Look for damage in a queue. As `Inspector.reconcile`."""
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
        """Return past enqueues of a periodic entry, the newest first. As `Inspector.scheduler_events`."""
        return await self._follow(schedules.scheduler_events(self._keys, entry_id, page=page, page_size=page_size))

    async def add_schedule(self, entry: PeriodicTask, *, replace: bool = False) -> None:
        """Add a schedule while schedulers run. As `Inspector.add_schedule`."""
        await self._follow(
            schedules.add_schedule(self._keys, entry.id, encode_schedule(self._app, entry), replaces=replace)
        )

    async def remove_schedule(self, entry_id: str) -> None:
        """Remove a schedule that was added by `add_schedule`. As `Inspector.remove_schedule`."""
        await self._follow(schedules.remove_schedule(self._keys, entry_id))

    async def pause_schedule(self, entry_id: str) -> bool:
        """Let a schedule enqueue nothing until it is resumed. As `Inspector.pause_schedule`."""
        return await self._follow(
            schedules.pause_schedule(self._keys, entry_id, is_declared=declares(self._app, entry_id))
        )

    async def resume_schedule(self, entry_id: str) -> bool:
        """Let a schedule go on that `pause_schedule` paused. As `Inspector.resume_schedule`."""
        return await self._follow(schedules.resume_schedule(self._keys, entry_id))

    async def control_workers(
        self, action: WorkerAction | str, workers: Sequence[str] | None = None, *, concurrency: int | None = None
    ) -> list[WorkerProcess]:
        """Ask running workers to quiet, resume, scale or stop. As `Inspector.control_workers`."""
        request = WorkerRequest(action, concurrency)
        return await self._follow(control.control_workers(self._keys, workers, request))

    async def key_slot(self, queue: str) -> int:
        """Return which slot of a cluster, 0 to 16383, holds a queue of this name, whether or not it exists."""
        return presence.key_slot(self._keys, queue)

    async def cluster_nodes(self, queue: str) -> list[str]:
        """Return host:port of the nodes that hold a queue, the primary first. Without a cluster there are none."""
        return await self._follow(
            presence.cluster_nodes(self._keys, queue, is_cluster=self._app.runtime.endpoint.is_cluster)
        )

    async def redis_info(self) -> Mapping[str, str | int]:
        """Return what the store says of itself (`INFO`), numbers as numbers; of a cluster, one of its nodes."""
        return await self._follow(presence.redis_info())
