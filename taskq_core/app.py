"""`TaskQ`: one configured queue application. It holds the registered tasks, the settings and the clients.

Nothing connects before the first use. `configure` replaces the settings of an application whose tasks stand already,
which is what a framework's test settings need.
"""

import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.connection import Endpoint
from taskq_core.broker.sync import SyncRunner
from taskq_core.client import AsyncClient, Client, TransactionHook
from taskq_core.context import TaskContext
from taskq_core.errors import ConfigurationError, TaskDefinitionError
from taskq_core.middleware import Middleware
from taskq_core.options import TaskOptionsDict, task_options
from taskq_core.preparer import Preparer
from taskq_core.result import TaskHandle
from taskq_core.settings import Settings, unknown, values_from_environ
from taskq_core.task import CoroutineTask, RemoteTask, Signature, Task, check_function
from taskq_core.telemetry import Tracing
from taskq_core.wire import Keys

P = ParamSpec("P")
R = TypeVar("R")


class Runtime:
    """What one set of settings stands for: keys, connections and clients."""

    def __init__(self, settings: Settings, *, embedded_folder: Path, hook: TransactionHook | None) -> None:
        timeout_s = float(settings.enqueue_timeout)  # type: ignore[arg-type]  # Settings has turned it into seconds
        self.settings = settings
        self.endpoint = Endpoint(settings.url, embedded_folder=embedded_folder)
        self.keys = Keys(settings.prefix)
        self.tracing = Tracing(relation=settings.trace.relation.value, baggage=settings.trace.baggage)
        self.runner = SyncRunner(self.endpoint)
        self.async_runner = AsyncRunner(self.endpoint)
        preparer = Preparer(self.keys, self.tracing, envelope=settings.trace.envelope, server=self.endpoint.server)
        self.client = Client(preparer, self.runner, timeout_s=timeout_s, hook=hook)
        self.async_client = AsyncClient(
            preparer, self.async_runner, timeout_s=timeout_s, blocking=self.client, hook=hook
        )
        self.client.bind_async(self.async_client)

    def close(self) -> None:
        """Close what blocking code opened, and give up the embedded server."""
        self.runner.close()
        self.endpoint.close()


class TaskQ:
    """One configured queue application.

    Args:
        url: Where Redis is, or a redis-py client. `settings.url` otherwise.
        settings: A `Settings` record; single settings may be given by name instead or on top.
        embedded_folder: Folder of the private server's data for `embedded://` without a path.
        **values: Single settings in lower case, for example `prefix=`, `queues=`, `concurrency=`, `defaults=`.

    Raises:
        ConfigurationError: A setting is unknown or its value is not usable.
    """

    def __init__(
        self,
        url: Any = None,
        *,
        settings: Settings | None = None,
        embedded_folder: Path | str = ".taskq",
        **values: Any,
    ) -> None:
        if url is not None:
            values["url"] = url
        known = [each.name for each in fields(Settings)]
        for name in values:
            if name not in known:
                raise unknown("setting", name, [*known, "settings", "embedded_folder"])
        self._embedded_folder = Path(embedded_folder)
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._runtime: Runtime | None = None
        self._lock = threading.RLock()
        self._hook: TransactionHook | None = None
        self.middleware: list[Middleware] = []
        self._settings = Settings(**values) if settings is None else replace(settings, **values)
        self._check(self._settings)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **values: Any) -> "TaskQ":
        """Build an application from `TASKQ_<KEY>` of the environment over the settings given by name.

        Args:
            environ: Instead of the process's environment.
            **values: As for `TaskQ(...)`.

        Raises:
            ConfigurationError: A setting or a variable that begins `TASKQ_` is unknown, or a value is not usable.
        """
        return cls(**{**values, **values_from_environ(os.environ if environ is None else environ)})

    def __repr__(self) -> str:
        return f"<TaskQ with {len(self._tasks)} tasks>"

    # --- settings -----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def configure(self, settings: Settings, *, transaction: TransactionHook | None = None) -> None:
        """Replace the settings. Clients taken before belong to the old ones.

        Args:
            settings: The new settings.
            transaction: Postpones sending to the commit of a surrounding database transaction.

        Raises:
            ConfigurationError: The URL or an option in `defaults` is not usable; nothing was changed.
        """
        self._check(settings)
        with self._lock:
            runtime, self._runtime = self._runtime, None
            self._settings = settings
            self._hook = transaction
        if runtime is not None:
            runtime.close()

    def _check(self, settings: Settings) -> None:
        Endpoint(settings.url, embedded_folder=self._embedded_folder)  # connects to nothing
        try:
            task_options(settings.defaults)
        except ConfigurationError as error:
            raise ConfigurationError(f"DEFAULTS: {error}") from None
        if settings.defaults.get("task_id") is not None:
            raise ConfigurationError("DEFAULTS: task_id cannot be the same for all tasks")

    @property
    def task_defaults(self) -> Mapping[str, Any]:
        """Options of every task that does not set its own."""
        return self._settings.defaults

    @property
    def runtime(self) -> Runtime:
        """Keys, connections and clients of the settings in force. For adapters and workers."""
        runtime = self._runtime
        if runtime is None:
            with self._lock:
                runtime = self._runtime
                if runtime is None:
                    runtime = self._runtime = Runtime(
                        self._settings, embedded_folder=self._embedded_folder, hook=self._hook
                    )
        return runtime

    # --- clients ------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """Enqueues from blocking code."""
        return self.runtime.client

    @property
    def async_client(self) -> AsyncClient:
        """Enqueues from coroutines."""
        return self.runtime.async_client

    def enqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue a call, blocking. As `client.enqueue`."""
        return self.runtime.client.enqueue(call)

    async def aenqueue(self, call: Signature[R]) -> TaskHandle[R]:
        """Enqueue a call from a coroutine. As `async_client.enqueue`."""
        return await self.runtime.async_client.enqueue(call)

    def close(self) -> None:
        """Close the connections of blocking code. The next use opens new ones."""
        with self._lock:
            runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop and of blocking code. The next use opens new ones."""
        runtime = self._runtime
        if runtime is not None:
            await runtime.async_runner.aclose()
        self.close()

    # --- tasks --------------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """Registered tasks by name."""
        return MappingProxyType(self._tasks)

    @overload
    def task(
        self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...
    @overload
    def task(self, function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, *, name: str | None = None, strict: bool = False, **options: Unpack[TaskOptionsDict]
    ) -> "TaskDecorator": ...
    def task(  # type: ignore[misc]  # mypy does not match Unpack in an implementation with the same in an overload
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        strict: bool = False,
        **options: Unpack[TaskOptionsDict],
    ) -> Any:
        """Make a function a task.

        Args:
            function: The function, when used without brackets.
            name: Name of the task, its type on the wire. None: `module.qualname`.
            strict: Archive a task whose payload has unknown fields, instead of ignoring and counting them.
            **options: See `TaskOptions`: queue, max_retry, retry_delay, retry_on, no_retry_on, timeout, deadline,
                run_after, retention, unique_for, headers.

        Raises:
            TaskDefinitionError: The function cannot become a task, or the name is taken by another function.
            ConfigurationError: An option is unknown or its value is not usable.
        """
        decorator = TaskDecorator(self, name=name, strict=strict, options=options)
        return decorator if function is None else decorator(function)

    def register(self, task: Task[Any, Any]) -> None:
        """Make a task known to workers. `task` does it by itself."""
        known = self._tasks.get(task.name)
        if known is not None and _origin(known) != _origin(task):
            raise TaskDefinitionError(
                f"the name {task.name!r} is taken by {_origin(known)}; {_origin(task)} needs another name="
            )
        self._tasks[task.name] = task

    def remote(self, name: str, **options: Unpack[TaskOptionsDict]) -> RemoteTask:
        """Name a task whose code is not here, for example one that a Go service runs."""
        return RemoteTask(name, options, self)


def _origin(task: Task[Any, Any]) -> str:
    function = task.function
    return f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"


class TaskDecorator:
    """What `@taskq.task(...)` returns: it makes the function below it a task."""

    def __init__(self, app: TaskQ, *, name: str | None, strict: bool, options: Mapping[str, Any]) -> None:
        self._app = app
        self._name = name
        self._strict = strict
        self._options = options

    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        """Make the function a task. As `TaskQ.task`."""
        if isinstance(function, staticmethod):
            function = function.__func__
        check_function(function)
        kind = CoroutineTask if inspect.iscoroutinefunction(function) else Task
        task: Task[Any, Any] = kind(
            function, name=self._name, strict=self._strict, options=self._options, enqueuer=self._app
        )
        self._app.register(task)
        return task
