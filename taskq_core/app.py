"""`TaskQ`: a queue application, with its registry, settings and clients.

Nothing connects before the first use. `configure` replaces the settings after tasks were registered, for example by the
test settings of a framework.
"""

import contextlib
import importlib
import os
import threading
import weakref
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations.operation import Confirmation
from taskq_core.broker.plans import RequestPlan
from taskq_core.client import AsyncClient, Client
from taskq_core.client.outbox import Outbox, OutboxTable
from taskq_core.client.runtime import Runtime, Store
from taskq_core.client.sender import TransactionHook
from taskq_core.errors import ConfigurationError, TaskNotFoundError, TaskQError
from taskq_core.handles.finding import find_task
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.records import TaskInfo
from taskq_core.service.bridge import Bridge
from taskq_core.settings import EnqueueMode, Settings, nearest_hint, unknown, values_from_environ
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.canvas import Signature, Whole
from taskq_core.tasks.options import TaskOptions, check_defaults
from taskq_core.tasks.periodic import PeriodicTask, Timetable
from taskq_core.tasks.plan import confirmation_of
from taskq_core.tasks.registry import Registry
from taskq_core.tasks.schedule_setting import schedule_lines, scheduled_entries
from taskq_core.tasks.task import Task
from taskq_core.warnings import QueueUnservedWarning, warn_caller
from taskq_core.wire import validate_queue_name, validate_task_id
from taskq_core.workflow import WorkflowHandle
from taskq_core.workflow.client import WorkflowClients

R = TypeVar("R")
T = TypeVar("T")

_applications: "weakref.WeakSet[TaskQ]" = weakref.WeakSet()


def applications() -> "list[TaskQ]":
    """Return the queue applications of this process.

    A child process that runs tasks searches these applications for a task by its name.
    """
    return list(_applications)


class TaskQ(Registry):
    """A queue application: its settings, its registered tasks and its clients.

    Args:
        url: URL of Redis, or a redis-py client. None: the setting `url`.
        settings: A `Settings` record. Settings that are given by name replace its values.
        embedded_folder: Folder for the data of the private Redis server, if the URL is `embedded://` without a path.
        outbox: Stores tasks in a database before they are sent, for example `taskq_sqlalchemy.SQLAlchemyOutbox`.
            Used unless the setting `enqueue` names another mode.
        **values: Single settings in lower case, for example `prefix=`, `queues=`, `concurrency=`, `defaults=`.

    Raises:
        ConfigurationError: A setting is unknown or its value is not valid.
    """

    built_in: frozenset[str] = frozenset()
    """Names of tasks that an adapter registers by itself. An application that has only built-in tasks needs no
    worker."""
    process_set_up: str = ""
    """`module:function` that a child process calls before it imports tasks. "": no function. Adapters set it."""
    propagates: bool = False
    """Whether sending a task runs it at once and raises its error, as a test store may do. For adapters."""

    def __init__(
        self,
        url: Any = None,
        *,
        settings: Settings | None = None,
        embedded_folder: Path | str = ".taskq",
        outbox: Outbox | None = None,
        **values: Any,
    ) -> None:
        if url is not None:
            values["url"] = url
        if outbox is not None:
            values.setdefault("enqueue", EnqueueMode.OUTBOX)
        known = [each.name for each in fields(Settings)]
        for name in values:
            if name not in known:
                raise unknown("setting", name, [*known, "settings", "embedded_folder", "outbox"])
        super().__init__()
        self._embedded_folder = Path(embedded_folder)
        self._runtime: Runtime | None = None
        self._ready: Runtime | None = None
        """The same object as `_runtime` if it can be used without further checks, otherwise None."""
        self._workflows: WorkflowClients | None = None
        self._lock = threading.RLock()
        self._hook: TransactionHook | None = None
        self._outbox = outbox
        self._diverted: Store | None = None
        self.bridge = Bridge()
        self._settings = Settings(**values) if settings is None else replace(settings, **values)
        self._check(self._settings)
        _applications.add(self)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **values: Any) -> "TaskQ":
        """Build an application from variables `TASKQ_<KEY>`. They replace settings that are given by name.

        Args:
            environ: Environment variables. None: those of this process.
            **values: As for `TaskQ(...)`.

        Raises:
            ConfigurationError: A setting or a variable that begins with `TASKQ_` is unknown, or a value is not valid.
        """
        return cls(**{**values, **values_from_environ(os.environ if environ is None else environ)})

    def __repr__(self) -> str:
        return f"<TaskQ with {len(self._tasks)} tasks>"

    # --- settings -----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The current settings."""
        return self._settings

    def configure(self, settings: Settings, *, transaction: TransactionHook | None = None) -> None:
        """Replace the settings. Clients that were created before keep the old settings.

        Args:
            settings: The new settings.
            transaction: Postpones sending to the commit of a surrounding database transaction.

        Raises:
            ConfigurationError: The URL or an option in `defaults` is not valid; nothing was changed.
        """
        self._check(settings)
        with self._lock:
            runtime, self._runtime, self._ready = self._runtime, None, None
            self._settings = settings
            self._hook = transaction
        if runtime is not None:
            runtime.close()

    def import_tasks(self) -> None:
        """Import the modules of the setting `INCLUDE`. For workers and commands.

        Raises:
            ConfigurationError: A module does not exist.
        """
        for name in self.settings.include:
            import_named(name, "INCLUDE")

    @property
    def has_work(self) -> bool:
        """Whether a worker has anything to do: tasks, handlers, periodic tasks or an outbox."""
        timetable = self.timetable
        periodic = timetable.entries or timetable.providers or self.settings.schedule
        return bool(self.tasks.keys() - self.built_in or self.handlers or periodic or self.outbox_tables)

    def check_queue(self, name: str, queue: str) -> None:
        """Warn if the setting `QUEUES` does not contain the queue of a task. Tasks call this when they are defined."""
        queues = self.settings.queues
        if queue not in queues and self.settings.has_own_queues:
            warn_caller(
                f"task {name!r} goes to queue {queue!r}, which is not in QUEUES ({', '.join(queues)}), "
                f"so workers do not serve it by default{nearest_hint(queue, queues)}",
                QueueUnservedWarning,
            )

    def task_queues(self) -> dict[str, list[str]]:
        """Return the names of tasks by the name of their queue, without remote tasks.

        A schedule entry may enqueue its task to another queue, which then also has this task. If the setting `SCHEDULE`
        is not valid, schedule entries are ignored.
        """
        tasks: list[BaseTask[Any]] = list(self.tasks.values())
        with contextlib.suppress(TaskQError):
            tasks += [each.call.task for each in self.periodic_tasks()]
        found: dict[str, list[str]] = {}
        for task in tasks:
            names = found.setdefault(task.options.queue, [])
            if isinstance(task, Task) and task.name not in names:
                names.append(task.name)
        return {queue: names for queue, names in found.items() if names}

    def _check(self, settings: Settings) -> None:
        Endpoint(settings.url, embedded_folder=self._embedded_folder)  # checks the URL, but does not connect
        if settings.enqueue is EnqueueMode.OUTBOX and self.outbox is None:
            raise ConfigurationError(
                "ENQUEUE is 'outbox', but the application has no outbox: pass "
                "TaskQ(outbox=taskq_sqlalchemy.SQLAlchemyOutbox(...)), or use taskq_django, which has one"
            )
        check_defaults(settings.defaults)
        check_defaults(settings.email.options, where="EMAIL['OPTIONS']", for_calls=True)
        schedule_lines(settings.schedule, zone=settings.time_zone)

    @property
    def outbox(self) -> Outbox | None:
        """The outbox of the application, None if it has no outbox. For adapters."""
        return self._outbox

    @property
    def outbox_tables(self) -> Sequence[OutboxTable]:
        """The outbox tables whose rows workers move to Redis. Empty unless tasks are enqueued through an outbox."""
        outbox = self._used_outbox
        return () if outbox is None else outbox.tables()

    @property
    def _used_outbox(self) -> Outbox | None:
        return self.outbox if self.settings.enqueue is EnqueueMode.OUTBOX else None

    @property
    def task_defaults(self) -> Mapping[str, Any]:
        """The setting `defaults`: task options that apply to each task that does not set them."""
        return self._settings.defaults

    def confirmation(self, task: BaseTask[Any] | None = None) -> Confirmation | None:
        """Return what must confirm a request to a task: by its options, by the setting `DEFAULTS` if it is unknown."""
        if task is not None:
            return confirmation_of(task.options)
        chosen = {name: self.task_defaults[name] for name in ("replicated", "fsynced") if name in self.task_defaults}
        return confirmation_of(TaskOptions(**chosen))

    @property
    def runtime(self) -> Runtime:
        """Keys, connections and clients of the current settings. For adapters and workers."""
        return self._ready or self._open_runtime()

    def _open_runtime(self) -> Runtime:
        with self._lock:
            runtime = self._runtime
            if runtime is None:
                runtime = Runtime(
                    self._settings,
                    self,
                    embedded_folder=self._embedded_folder,
                    hook=self._hook,
                    outbox=self.outbox if self._settings.enqueue is EnqueueMode.OUTBOX else None,
                )
                if self._diverted is not None:
                    runtime.use(self._diverted)
                self._runtime = runtime
            self._ready = runtime
        return runtime

    def divert(self, store: Store | None) -> Store | None:
        """Send all requests to another store instead of the Redis of the settings. For `taskq_core.testing`.

        Existing clients use the other store too, and a change of the settings does not end this.

        Args:
            store: The other store. None: the Redis of the settings.

        Returns:
            The store of the previous call. None if requests were sent to the Redis of the settings.
        """
        with self._lock:
            before, self._diverted = self._diverted, store
            self.propagates = store is not None and store.propagates
            if self._runtime is not None:
                self._runtime.use(store)
        return before

    def waiting_note(self) -> str:
        """Return a hint for test errors: the number of sends of this thread that wait for a commit.

        "" if there are none.
        """
        return ""

    @property
    def workflows(self) -> WorkflowClients:
        """The workflow clients of the current settings. For adapters."""
        workflows, runtime = self._workflows, self.runtime
        if workflows is None or workflows.runtime is not runtime:
            self._workflows = workflows = WorkflowClients(runtime)
        return workflows

    # --- clients ------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client for blocking code."""
        return (self._ready or self.runtime).client

    @property
    def async_client(self) -> AsyncClient:
        """The client for coroutines."""
        return (self._ready or self.runtime).async_client

    def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue a call from blocking code, as `client.enqueue` does."""
        return self.client.enqueue(call)

    async def aenqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue a call from a coroutine, as `async_client.enqueue` does."""
        return await self.async_client.enqueue(call)

    def get(self, task_id: str, *, queue: str | None = None) -> TaskHandle[Any]:
        """Find a task by its id, blocking, and return its handle: state, progress, error, times and result.

        One request searches the queues of the settings and of registered tasks. A second request reads the task. Other
        queues are searched only if none of the first ones has the task. On a cluster, one request is sent for each
        queue. If you choose ids yourself and several queues have the same id, the first queue of the settings wins. The
        handle keeps reading the queue in which the task was found.

        Args:
            task_id: Id of the task.
            queue: Search only this queue. None: search all queues.

        Raises:
            TaskNotFoundError: No queue has the task. It ended without `retention`, was deleted, or never existed.
            BrokerError: Redis refused the request or was not reached.
            WireFormatError: The task cannot be read.
        """
        run, outbox = self.runtime.source.run, self._used_outbox
        info, waiting = run(self._find(task_id, queue)), None
        if info is None and outbox is not None:
            waiting = outbox.find(task_id)
            # Search Redis again, because the relay may have moved the task from the outbox to Redis between the two
            # reads.
            info = waiting or run(self._find(task_id, queue))
        return self._handle(info, task_id, queue, is_late=waiting is not None)

    async def aget(self, task_id: str, *, queue: str | None = None) -> TaskHandle[Any]:
        """Find a task by its id from a coroutine and return its handle, as `get` does."""
        run, outbox = self.runtime.source.arun, self._used_outbox
        info, waiting = await run(self._find(task_id, queue)), None
        if info is None and outbox is not None:
            waiting = await outbox.afind(task_id)
            info = waiting or await run(self._find(task_id, queue))
        return self._handle(info, task_id, queue, is_late=waiting is not None)

    def _find(self, task_id: str, queue: str | None) -> RequestPlan[TaskInfo | None]:
        try:
            validate_task_id(task_id)
        except ConfigurationError:
            # The id may come from a URL that a visitor has changed. So an invalid id is "not found", and no
            # ConfigurationError.
            raise TaskNotFoundError(queue or "", task_id) from None
        if queue is not None:
            validate_queue_name(queue)
        runtime = self.runtime
        likely = (*runtime.settings.queues, *(task.options.queue for task in self.tasks.values()))
        return find_task(runtime.keys, likely, task_id, queue=queue, is_cluster=runtime.endpoint.is_cluster)

    def _handle(self, info: TaskInfo | None, task_id: str, queue: str | None, *, is_late: bool) -> TaskHandle[Any]:
        if info is None:
            raise TaskNotFoundError(queue or "", task_id)
        task = self.find_task(info.name)
        handle = TaskHandle[Any](
            self.runtime.source,
            id=info.id,
            queue=info.queue,
            name=info.name,
            is_kept=bool(info.retention) or info.is_final,
            result_type=Any if task is None else task.result_type,
            first_state=info.state,
            signals={} if task is None else task.options.signals,
            confirm=self.confirmation(task),
        )
        handle.info, handle.is_late, handle.generation = info, is_late, info.generation or None
        return handle

    def enqueue_workflow(self, workflow: Whole[T]) -> WorkflowHandle[T]:
        """Enqueue a workflow from blocking code and return its handle. Raises the same errors as `Canvas.delay`."""
        return self.workflows.blocking.enqueue(workflow)

    async def aenqueue_workflow(self, workflow: Whole[T]) -> WorkflowHandle[T]:
        """Enqueue a workflow from a coroutine and return its handle. Raises the same errors as `Canvas.delay`."""
        return await self.workflows.asyncio.enqueue(workflow)

    def extend_group(self, calls: Iterable[Signature[Any]]) -> int:
        """Add members to the group of the current task, blocking. Return the number of members that were added.

        The group then ends after the new members too. If the current task is retried, it does not add the same members
        again.

        Raises:
            NoCurrentTaskError: The code does not run inside a task.
            WorkflowError: The task is not a member of a group of signatures, or its run has ended.
            WorkflowDefinitionError, PayloadTooLargeError: A call is not valid. The calls before it were added.
            BrokerError: Redis refused or was not reached.
        """
        return self.workflows.blocking.grow(calls)

    async def aextend_group(self, calls: Iterable[Signature[Any]] | AsyncIterable[Signature[Any]]) -> int:
        """Add members to the group of the current task from a coroutine, as `extend_group` does."""
        return await self.workflows.asyncio.grow(calls)

    def workflow(self, workflow_id: str, queue: str = "default") -> WorkflowHandle:
        """Return the handle of a workflow by its id and its home queue, without a request to Redis.

        Raises:
            ConfigurationError: The id or the name of the queue is not valid.
        """
        return self.workflows.handle(workflow_id, queue)

    def close(self) -> None:
        """Close the connections of blocking code. The next use opens new ones."""
        with self._lock:
            runtime, self._runtime, self._ready = self._runtime, None, None
        if runtime is not None:
            runtime.close()
        if self._outbox is not None:
            self._outbox.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop and of blocking code. The next use opens new ones."""
        runtime = self._runtime
        if runtime is not None:
            await runtime.async_runner.aclose()
        self.close()

    # --- periodic tasks -----------------------------------------------------------------------------------------------

    def periodic_tasks(self) -> list[PeriodicTask]:
        """Return the schedule entries of the setting `SCHEDULE` and of this application, without entries of providers.

        Raises:
            ConfigurationError: The setting `SCHEDULE` names a task that is not registered, or an entry in `SCHEDULE`
                has the same id as an entry of this application.
            TaskArgumentsError: Arguments in `SCHEDULE` do not match the parameters of their task.
        """
        settings = self.settings
        lines = schedule_lines(settings.schedule, zone=settings.time_zone)
        entries = Timetable(dict(self.timetable.entries))
        for entry in scheduled_entries(lines, self.tasks, self.remote):
            entries.add(entry)
        return list(entries.entries.values())


def import_named(name: str, setting: str) -> None:
    """Import a module that a setting names.

    Raises:
        ConfigurationError: The module does not exist. The message names the setting.
    """
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, but one of its imports does not
        raise ConfigurationError(f"{setting} names {name!r}, but there is no module {error.name!r}") from None
