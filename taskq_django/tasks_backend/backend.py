"""Define `TaskQBackend`, the backend of Django's task framework that enqueues to taskq and reads results from Redis."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from django.core.checks import CheckMessage
from django.utils import timezone

from taskq_core import ConfigurationError, Signature, TaskDefinitionError, TaskHandle, TaskInfo, TaskNotFoundError
from taskq_core.client.preparer import new_task_id
from taskq_core.tasks.functions import qualified_name
from taskq_core.tasks.options import CALL_OPTIONS, task_options
from taskq_core.wire import validate_queue_name
from taskq_django.app import taskq
from taskq_django.tasks_backend import checks
from taskq_django.tasks_backend.facts import HEADER, Facts
from taskq_django.tasks_backend.framework import (
    AnyResult,
    AnyTask,
    BaseTaskBackend,
    InvalidTask,
    TaskResultDoesNotExist,
)
from taskq_django.tasks_backend.options import read_defaults, served_queue
from taskq_django.tasks_backend.results import new_result, put, read_result
from taskq_django.tasks_backend.running import BackendTask
from taskq_django.tasks_backend.signalling import Announcement
from taskq_django.tasks_backend.tasks import TaskQTask, options_of


class TaskQBackend(BaseTaskBackend):
    """Runs tasks of Django's framework on taskq: `TASKS = {"default": {"BACKEND": "taskq_django.TaskQBackend"}}`.

    `OPTIONS` takes `DEFAULTS`, a dict of task options. The constructor does not connect to Redis.
    """

    task_class = TaskQTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    @cached_property
    def own_defaults(self) -> Mapping[str, Any]:
        """The checked `DEFAULTS` in `OPTIONS`. The system check and every enqueue read them.

        Raises:
            ConfigurationError: `DEFAULTS` is not valid.
        """
        try:
            return read_defaults(self.options)
        except ConfigurationError as error:
            raise ConfigurationError(f"TASKS[{self.alias!r}]['OPTIONS']: {error}") from None

    def queue_for(self, task: AnyTask) -> str:
        """Return the queue of the task's priority band. If no worker serves it, return the task's own queue."""
        return served_queue(task.queue_name, int(task.priority), taskq.settings.queues)

    def known_tasks(self) -> list[tuple[str, AnyTask]]:
        """Return the registered tasks of this backend, with their names."""
        known = [(name, each.task) for name, each in taskq.tasks.items() if isinstance(each, BackendTask)]
        return [(name, task) for name, task in known if task.backend == self.alias]

    # --- tasks --------------------------------------------------------------------------------------------------------

    def validate_task(self, task: AnyTask) -> None:
        """Check that a task can run, and register it for workers.

        Raises:
            InvalidTask: The task cannot run on this backend.
        """
        run_after: object = task.run_after
        if isinstance(run_after, timedelta):
            # Validates a copy without `run_after`, because the framework refuses a timedelta.
            replace(task, run_after=None)
            return
        if run_after is not None and not isinstance(run_after, datetime):
            raise InvalidTask(f"run_after must be a datetime or a timedelta, got {run_after!r}.")
        super().validate_task(task)
        try:
            validate_queue_name(task.queue_name)
            if given := options_of(task):
                task_options(given)
            self._register(task)
        except (ConfigurationError, TaskDefinitionError) as error:
            raise InvalidTask(str(error)) from error

    def _register(self, task: AnyTask) -> BackendTask:
        """Register a task for workers, unless its function is registered already. Return the registered task."""
        known = taskq.tasks.get(qualified_name(task.func))
        if isinstance(known, BackendTask) and known.function is task.func:
            return known
        new = BackendTask(task)
        taskq.register(new)
        return new

    def adopt(self, task: AnyTask) -> None:
        """Register a task of another backend, with a queue that this backend accepts."""
        queue = task.queue_name
        if self.queues and queue not in self.queues:
            queue = min(self.queues)
        replace(task, backend=self.alias, queue_name=queue)

    # --- enqueue ------------------------------------------------------------------------------------------------------

    def enqueue(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AnyResult:  # type: ignore[override]  # takes any sequence
        """Enqueue a call. The setting `ENQUEUE` decides whether at the commit, at once, or through the outbox.

        Raises:
            InvalidTask: The task cannot run.
            TypeError: An argument has no JSON form, or the arguments do not fit the function.
            EnqueueError: As `taskq_core.Client.enqueue`.
        """
        call, announcement = self._prepare(task, args, kwargs)
        with announcement:
            handle = taskq.client.enqueue(call)
        return self._result(announcement, handle)

    async def aenqueue(self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AnyResult:  # type: ignore[override]  # takes any sequence
        """Enqueue a call from a coroutine, as `enqueue` does, without a thread."""
        call, announcement = self._prepare(task, args, kwargs)
        with announcement:
            handle = await taskq.async_client.enqueue(call)
        return self._result(announcement, handle)

    def _prepare(
        self, task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Signature[Any], Announcement]:
        self.validate_task(task)
        registered = self._register(task)
        queue = self.queue_for(task)
        result = new_result(task, new_task_id(), list(args), dict(kwargs))
        facts = Facts.of_call(task, result.args)
        options = {name: value for name, value in options_of(task).items() if name in CALL_OPTIONS}
        options["headers"] = {**registered.options.headers, **options.get("headers", {}), HEADER: facts.header()}
        call = Signature(
            registered.using(**options, queue=queue, run_after=_start(task), task_id=result.id),
            tuple(result.args),
            result.kwargs,
        )
        enqueued = facts.enqueued_at
        return call, Announcement(type(self), result, lambda: put(result, enqueued_at=enqueued))

    def _result(self, announcement: Announcement, handle: TaskHandle[Any]) -> AnyResult:
        """Return the result of a call. If the task ran at once, the result has its outcome."""
        result = announcement.result
        handle.note = announcement  # this reference keeps the announcement alive until the commit
        if handle.existing:  # by the option `unique`, the handle belongs to an earlier task
            object.__setattr__(result, "id", handle.id)
        if taskq.is_diverted and handle.is_sent:
            with suppress(TaskNotFoundError):
                return self._read(handle.refresh())
            return announcement.outcome or result
        return result

    # --- results ------------------------------------------------------------------------------------------------------

    def get_result(self, result_id: str) -> AnyResult:
        """Return the result of a call.

        Raises:
            TaskResultDoesNotExist: No task of the framework has this id. Its retention has ended, or the transaction
                that enqueued it has not committed yet.
        """
        try:
            return self._read(taskq.get(result_id).info)
        except TaskNotFoundError:
            raise TaskResultDoesNotExist(result_id) from None

    async def aget_result(self, result_id: str) -> AnyResult:
        """Return the result of a call from a coroutine, as `get_result` does, without a thread."""
        try:
            return self._read((await taskq.aget(result_id)).info)
        except TaskNotFoundError:
            raise TaskResultDoesNotExist(result_id) from None

    def _read(self, info: TaskInfo | None) -> AnyResult:
        assert info is not None  # the caller has just found the task
        task = taskq.find_task(info.name)
        if not isinstance(task, BackendTask):
            raise TaskResultDoesNotExist(info.id)
        return read_result(task.task, task.json_codec, info)

    # --- checks -------------------------------------------------------------------------------------------------------

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Return the errors and warnings about the backend's settings."""
        return checks.check_backend(self)


def _start(task: AnyTask) -> datetime | timedelta | None:
    start: datetime | timedelta | None = task.run_after
    if isinstance(start, datetime) and timezone.is_naive(start):  # `USE_TZ` is False
        return timezone.make_aware(start)
    return start
