"""The registry of an application: tasks, periodic tasks, handlers, middleware, and lifespans of workers.

The registry has no settings and no connections. Its subclass `TaskQ` adds them.
"""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from taskq_core.codec import References
from taskq_core.errors import TaskDefinitionError
from taskq_core.execution.context import TaskContext
from taskq_core.execution.lifespan import L, LifespanFunction, check_lifespan
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.settings import Duration, member
from taskq_core.tasks.aggregation import (
    DEFAULT_GRACE_S,
    DEFAULT_TIMEOUT_S,
    Aggregation,
    Aggregators,
    F,
)
from taskq_core.tasks.base import BaseTask, Enqueuer
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.functions import check_function, check_injected, check_process_function, function_name
from taskq_core.tasks.handlers import (
    Callback,
    Definitions,
    E,
    H,
    Handler,
    Handlers,
    check_pattern,
    error_handler,
    refuse_other,
)
from taskq_core.tasks.injection import Injector, refuse_markers
from taskq_core.tasks.middleware import Middleware, MiddlewareStack
from taskq_core.tasks.observer import Observer
from taskq_core.tasks.options import CallOptionsDict, HandlerOptionsDict, TaskExecutor, TaskOptionsDict
from taskq_core.tasks.periodic import (
    PROVIDER_EVERY_S,
    PeriodicTask,
    ProviderFunction,
    ScheduleHook,
    ScheduleOptionsDict,
    Timetable,
)
from taskq_core.tasks.remote import RemoteTask
from taskq_core.tasks.task import CoroutineTask, Task

P = ParamSpec("P")
A = TypeVar("A", bound=Callable[..., Any])
R = TypeVar("R")
T = TypeVar("T", bound=BaseTask[Any])
PF = TypeVar("PF", bound=ProviderFunction)


class Registry(Enqueuer):
    """The registry of an application. Base class of `TaskQ`."""

    references: References | None = None
    """Classes whose objects are stored in a payload as keys and loaded again for each run, such as Django models. None
    if there are no such classes. Adapters set it before the first task is defined."""
    observer: Observer | None = None
    """Receives notifications of enqueued tasks and ended runs. Adapters may set it before the first enqueue."""
    propagate: Callable[[], Mapping[str, str]] | None = None
    """Function that returns headers from the context of an enqueue, such as the active language, for the run of the
    task. Adapters set it. None: no headers."""
    unknown_task_hint = ""
    """Advice at the end of the message of `UnknownTaskError`. Adapters set it."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._definitions = Definitions()
        self.middleware = MiddlewareStack()
        """Middleware of the application. See the method `use`."""
        self.aggregators = Aggregators()
        """Functions that combine the tasks of a group into one task. See the method `aggregator`."""
        self.handlers = Handlers(self, unknown_hint=self.unknown_task_hint)
        """Functions that run task types without a registered task. See the methods `handler` and `not_found`."""
        self.error_handlers: list[Callback] = []
        """Functions that workers call after failed runs. See the method `on_error`."""
        self.archive_handlers: list[Callback] = []
        """Functions that workers call for archived tasks. See the method `on_archived`."""
        self.injector: Injector | None = None
        """Fills injected parameters of tasks. None: no injection. Adapters set it before the first task is defined."""
        self.lifespans: list[LifespanFunction] = []
        """Functions that open and close resources of a worker. See the method `worker_lifespan`."""
        self.timetable = Timetable()
        """Periodic tasks, without those of the settings. See `periodic`, `schedule` and `schedule_provider`."""

    # --- tasks --------------------------------------------------------------------------------------------------------

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The registered tasks by their names."""
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
        self,
        *,
        name: str | None = None,
        strict: bool = False,
        executor: TaskExecutor | str = TaskExecutor.THREAD,
        **options: Unpack[TaskOptionsDict],
    ) -> "TaskDecorator": ...
    def task(  # type: ignore[misc]  # mypy does not match Unpack in an implementation with the same in an overload
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        strict: bool = False,
        executor: TaskExecutor | str = TaskExecutor.THREAD,
        **options: Unpack[TaskOptionsDict],
    ) -> Any:
        """Make a function a task.

        Args:
            function: The function, when used without brackets.
            name: Name of the task, its type on the wire. None: `module.qualname`.
            strict: Archive a task whose payload has unknown fields, instead of ignoring and counting them.
            executor: Where workers run a plain function: `thread`, or `process`, a separate process. A process can be
                killed, and its crash affects no other task. Added in 0.1.
            **options: Options of the task, such as `queue`, `max_retry` and `timeout`; see `TaskOptions`.

        Raises:
            TaskDefinitionError: The function cannot become a task, or another function has the name.
            ConfigurationError: An option is unknown or its value is not valid.
        """
        decorator = TaskDecorator(self, name=name, strict=strict, executor=executor, options=options)
        return decorator if function is None else decorator(function)

    def find_task(self, name: str) -> Task[Any, Any] | None:
        """Return the task with a name, None if it is not registered.

        Workers call this method, and adapters may extend it.
        """
        return self._tasks.get(name)

    def registered_form(self, task: object) -> object:
        """Return the registered task for a task object of a framework. Return any other object unchanged.

        The option `dead_letter` and the testing helpers accept such task objects.
        """
        return task

    def register(self, task: Task[Any, Any]) -> None:
        """Register a task for workers. The decorator `task` calls this method.

        Raises:
            TaskDefinitionError: Another function has the name of the task.
        """
        known = self._tasks.get(task.name)

        def is_redefined() -> bool:
            is_other = known is not None and known.function is not task.function
            return is_other and self._definitions.is_redefined(task.name, task.function)

        what, remedy = f"the name {task.name!r}", "another name="
        refuse_other(known, task, what, remedy=remedy, is_redefined=is_redefined)
        refuse_other(self.handlers.get(task.name), task, what, remedy=remedy)
        self._tasks[task.name] = task
        self._definitions.record(task.name, task.function)

    def aggregator(
        self,
        pattern: str = "",
        /,
        *,
        queue: str | None = None,
        grace: Duration = DEFAULT_GRACE_S,
        max_delay: Duration | None = None,
        max_size: int | None = None,
        timeout: Duration = DEFAULT_TIMEOUT_S,
    ) -> Callable[[F], F]:
        """Register a function that combines the tasks of a group, enqueued with the option `aggregate`, into one task.

        The function takes the name of the group and a list of `GroupedTask`, oldest first, and returns the signature of
        the combined task, `task.s(...)`. The function may be a coroutine function. The combined task goes to the queue
        of the group. Its default id is derived from the set of tasks. `raise Discard` drops the tasks of the group.
        After any other error they return to the group.

        Args:
            pattern: The name of a group, or a prefix of group names. The longest matching pattern wins. "" matches
                every group.
            queue: Queue of the groups. None: any queue. If two patterns are equal, an aggregator with a queue wins.
            grace: A group is due when no task joined it for this long. Whole seconds, at least 1.
            max_delay: A group is due when its oldest task has waited this long. None: no limit.
            max_size: A group is due with this many tasks, 1 to 10 000. One call gets at most this many. None: no limit.
            timeout: Maximum time of a call. After it, the tasks return to their group. Whole seconds, at least 1.

        Raises:
            TaskDefinitionError: The function cannot be an aggregator, or another one has the same pattern and queue.
            ConfigurationError: An argument is not valid.
        """

        def register(function: F) -> F:
            self.aggregators.add(
                Aggregation(
                    function=function,
                    pattern=pattern,
                    queue=queue,
                    grace=grace,
                    max_delay=max_delay,
                    max_size=max_size,
                    timeout=timeout,
                )
            )
            return function

        return register

    def remote(self, name: str, **options: Unpack[CallOptionsDict]) -> RemoteTask:
        """Return a task whose code is in another program, for example a Go service."""
        return RemoteTask(name, options, self)

    # --- periodic tasks -----------------------------------------------------------------------------------------------

    def periodic(self, spec: str, **options: Unpack[ScheduleOptionsDict]) -> Callable[[T], T]:
        """Enqueue the decorated task repeatedly, without arguments. Write this decorator above `@taskq.task`.

        This needs a running scheduler: `taskq scheduler`, `manage.py runscheduler`, or a worker with a scheduler.

        Args:
            spec: A cron line (five fields, or six with seconds first), a descriptor such as `@hourly`, or `@every 90s`.
                See `taskq_core.wire.cron`.
            **options: `id`, `tz`, `catch_up` and `window`, as for `PeriodicTask`, and task options, which replace those
                of the task.

        Raises:
            ConfigurationError: A value is not valid, or another entry has this id.
            TaskArgumentsError: The task needs arguments. Use `schedule`, which accepts them.
        """

        def register(task: T) -> T:
            if not isinstance(task, BaseTask):
                raise TaskDefinitionError(f"write @periodic above @task, so that it decorates a task; got {task!r}")
            self.schedule(spec, task, **options)
            return task

        return register

    def schedule(
        self, spec: str, call: Signature[Any] | BaseTask[Any], **options: Unpack[ScheduleOptionsDict]
    ) -> PeriodicTask:
        """Enqueue a task, or `task.s(...)` with arguments, repeatedly. The options are those of `periodic`.

        A running scheduler of this process starts to use the entry within seconds.

        Returns:
            The entry. `unschedule` takes its `id`.
        """
        return self.timetable.add(PeriodicTask(spec, call, **options))

    def unschedule(self, entry_id: str) -> bool:
        """Remove a periodic task, also from a running scheduler of this process. Return False if the id is unknown."""
        return self.timetable.remove(entry_id)

    @overload
    def schedule_provider(self, function: PF, *, every: Duration = PROVIDER_EVERY_S) -> PF: ...
    @overload
    def schedule_provider(self, *, every: Duration = PROVIDER_EVERY_S) -> Callable[[PF], PF]: ...
    def schedule_provider(self, function: Any = None, *, every: Duration = PROVIDER_EVERY_S) -> Any:
        """Register a function that returns periodic tasks, for example from a database. Also usable as a decorator.

        Each scheduler calls the function at its start and then repeatedly, and applies the changes. While the function
        raises errors, the scheduler uses the entries of its last result.

        Args:
            function: Returns `PeriodicTask` objects. A coroutine function runs on the scheduler's event loop, a plain
                function in a separate thread. A call has no time limit; the scheduler logs a call that takes long.
            every: Time between two calls.

        Raises:
            ConfigurationError: `function` is not a function, or `every` is not valid.
        """
        if function is None:
            return lambda each: self.schedule_provider(each, every=every)
        self.timetable.provide(function, every)
        return function

    def add_schedule_hook(self, hook: ScheduleHook) -> None:
        """Add a hook, which schedulers call before and after each enqueue of a periodic task.

        Raises:
            ConfigurationError: `hook` is not a `ScheduleHook`.
        """
        self.timetable.add_hook(hook)

    # --- handlers -----------------------------------------------------------------------------------------------------

    def handler(self, pattern: str, **options: Unpack[HandlerOptionsDict]) -> Callable[[H], H]:
        """Make a function the handler of all tasks whose type begins with a pattern. It receives raw messages.

        A registered task with the name of the type comes first, then the handler whose pattern is exactly the type,
        then the handler with the longest pattern with which the type begins. The function takes a `RawTask`, after a
        `TaskContext` if it takes one. Its result and its errors count as those of a task.

        Args:
            pattern: A type or a prefix of types, for example `"email:"`. A pattern has no wildcards.
            **options: retry_delay, retry_on, no_retry_on, is_failure, trace and max_result_bytes. All other options
                come from the task message.

        Raises:
            TaskDefinitionError: The pattern is blank or already used, or the function cannot be a handler.
            ConfigurationError: An option is unknown or its value is not valid.
        """
        check_pattern(pattern)

        def register(function: H) -> H:
            handler = Handler(pattern, function, self, options)
            refuse_other(self._tasks.get(pattern), handler, f"the name {pattern!r}")
            self.handlers.add(handler)
            return function

        return register

    def not_found(self, function: H) -> H:
        """Make a function the handler of tasks whose type has neither a registered task nor a handler.

        Without this handler, a worker returns such a task to its queue for other workers, and archives it with
        `UnknownTaskError` after `UNKNOWN_TASK_TIMEOUT`.

        Raises:
            TaskDefinitionError: Another function is registered already, or this function cannot be a handler.
        """
        self.handlers.set_not_found(Handler("", function, self))
        return function

    def find_handler(self, name: str) -> Task[Any, Any] | Handler:
        """Return the task or handler of this application that runs a type. The handler of unknown types is named ""."""
        return self.find_task(name) or self.handlers.find(name)

    def on_error(self, function: E) -> E:
        """Register a function `(error, context)` that workers call after every failed run. Also usable as a decorator.

        Workers call the function after the run has ended and its outcome is decided (`context.outcome`). They call it
        for every error of a task or middleware, and for `TimeoutError`, `TaskCancelledError` and `LeaseLostError`, but
        not for `Snooze` and `Discard`.

        Coroutine functions run on the worker's loop, plain functions in a thread. The run occupies its slot of the
        worker until all these functions have returned. A call that takes longer than 30 seconds is interrupted. Errors
        of these functions are logged and have no other effect.

        Raises:
            TaskDefinitionError: The function does not take an error and a context.
        """
        self.error_handlers.append(error_handler(function))
        return function

    def on_archived(self, function: A) -> A:
        """Register a function that workers call with the `TaskInfo` of every task that they archive.

        The function is called for every reason of archiving: the task failed after its last retry, was cancelled or
        expired, or its worker was lost when no attempt was left. Any worker of this application that serves the queue
        may call it, not only the worker that ran the task.

        The function is called at least once, even if workers are killed. If it raises an error, the worker logs the
        error and calls the function again every half minute while the task is in the archive. Coroutine functions run
        on the worker's loop, plain functions in a thread. A call that takes longer than 30 seconds is interrupted.

        Other applications that serve the same queue must register the function too. Otherwise it is not called for the
        tasks that their workers archive.

        Raises:
            TaskDefinitionError: The function does not take a task.
        """
        self.archive_handlers.append(Callback("a handler of archived tasks", function, takes="the task", count=1))
        return function

    # --- workers ------------------------------------------------------------------------------------------------------

    def worker_lifespan(self, function: L) -> L:
        """Register a function that opens and closes resources of tasks, such as a connection pool, once per worker.

        The function runs on the worker's event loop and yields once, like the lifespan of a web app. It opens the
        resources before the first task and closes them after the last. It may yield a mapping, which is `context.state`
        of every run. With several functions, the mappings are merged, and later ones win. The lifespan of a web app
        does not run in a worker. If the function raises an error at the start, the worker logs the error and does not
        start.

        Args:
            function: A generator function, plain or `async`, without parameters; or a function that returns a context
                manager.

        Raises:
            TaskDefinitionError: `function` is not a function, or it has parameters.
        """
        check_lifespan(function)
        self.lifespans.append(function)
        return function

    # --- middleware ---------------------------------------------------------------------------------------------------

    def use(
        self,
        middleware: Middleware,
        *,
        queue: str | None = None,
        task: str | BaseTask[Any] | None = None,
        outermost: bool = False,
    ) -> None:
        """Add middleware, which wraps runs and may change calls before they are enqueued.

        Middleware of the application is outside of that of a queue, which is outside of that of a task. Within each of
        these scopes, the first one registered is the outermost.

        Args:
            middleware: The middleware; see `taskq_core.tasks.middleware.Middleware`.
            queue: Use the middleware only for this queue.
            task: Use the middleware only for this task, or for the handler with this pattern.
            outermost: Put the middleware outside of the middleware that is already registered in the same scope.

        Raises:
            ConfigurationError: `middleware` is not a `Middleware`, or both a queue and a task are given.
        """
        self.middleware.add(middleware, queue=queue, task=task, outermost=outermost)


class TaskDecorator:
    """The decorator that `@taskq.task(...)` returns: it makes the function below it a task."""

    def __init__(
        self,
        app: Registry,
        *,
        name: str | None,
        strict: bool,
        options: Mapping[str, Any],
        executor: TaskExecutor | str = TaskExecutor.THREAD,
    ) -> None:
        self._app = app
        self._name = name
        self._strict = strict
        self._executor = member(TaskExecutor, "executor", executor)
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
        """Make the function a task; see `TaskQ.task`."""
        if isinstance(function, staticmethod):
            function = function.__func__
        if isinstance(function, BaseTask):
            raise TaskDefinitionError(f"{function!r} is a task already; .using(...) returns a copy with other options")
        check_function(function)
        kind = CoroutineTask if is_coroutine_function(function) else Task
        what = f"task {function_name(function) if self._name is None else self._name!r}"
        injector = self._app.injector
        injection = None if injector is None else injector.inject(what, function)
        if injection is not None:
            check_injected(what, function, injection.names)
        if injector is None:
            refuse_markers(what, function, "call taskq_fastapi.enable_depends(taskq) before its tasks are made")
        runs_in_process = self._executor is TaskExecutor.PROCESS
        if runs_in_process:
            check_process_function(what, function, is_injected=injection is not None)
        task: Task[Any, Any] = kind(
            function,
            name=self._name,
            strict=self._strict,
            options=self._options,
            enqueuer=self._app,
            injection=injection,
            runs_in_process=runs_in_process,
        )
        self._app.register(task)
        return task
