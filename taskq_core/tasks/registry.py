"""What the code of an application registers: tasks, periodic tasks, handlers, middleware, lifespans of workers.

Nothing here reads a setting or connects; `TaskQ` adds both.
"""

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

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
from taskq_core.tasks.options import CallOptionsDict, HandlerOptionsDict, TaskExecutor, TaskOptionsDict
from taskq_core.tasks.periodic import (
    DEFAULT_WINDOW_S,
    PROVIDER_EVERY_S,
    CatchUp,
    PeriodicTask,
    ProviderFunction,
    ScheduleHook,
    Timetable,
)
from taskq_core.tasks.remote import RemoteTask
from taskq_core.tasks.task import CoroutineTask, Task

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

P = ParamSpec("P")
A = TypeVar("A", bound=Callable[..., Any])
R = TypeVar("R")
T = TypeVar("T", bound=BaseTask[Any])
PF = TypeVar("PF", bound=ProviderFunction)


class Registry(Enqueuer):
    """What the code of an application registers. `TaskQ` is one."""

    references: References | None = None
    """Classes whose values travel as their keys and are fetched for each run, None where there are none. For adapters,
    which set it before the first task is made."""
    unknown_task_hint = ""
    """Advice in `UnknownTaskError`. Adapters set it."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any, Any]] = {}
        self._definitions = Definitions()
        self.middleware = MiddlewareStack()
        """Middleware of the whole application, outermost first; changes like a list. See `use`."""
        self.aggregators = Aggregators()
        """What turns groups of tasks into one. See `aggregator`."""
        self.handlers = Handlers(self, unknown_hint=self.unknown_task_hint)
        """What runs types that no task is registered for. See `handler` and `not_found`."""
        self.error_handlers: list[Callback] = []
        """What is told of failed runs. See `on_error`."""
        self.archive_handlers: list[Callback] = []
        """What is told of archived tasks. See `on_archived`."""
        self.injector: Injector | None = None
        """Gives parameters of tasks their values, None where nothing does. For adapters, before the first task."""
        self.lifespans: list[LifespanFunction] = []
        """What a worker opens before its first task and closes after its last. See `worker_lifespan`."""
        self.timetable = Timetable()
        """Periodic tasks but for those of the settings. See `periodic`, `schedule` and `schedule_provider`."""

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
            executor: Where workers run a plain function: `thread`, or `process`, a process of its own. That one can be
                ended whatever it does, and takes no other task along when it dies. Added in 0.1.
            **options: Options of its calls, such as `queue`, `max_retry` and `timeout`; see `TaskOptions`.

        Raises:
            TaskDefinitionError: The function cannot become a task, or the name is taken by another function.
            ConfigurationError: An option is unknown or its value is not usable.
        """
        decorator = TaskDecorator(self, name=name, strict=strict, executor=executor, options=options)
        return decorator if function is None else decorator(function)

    def find_task(self, name: str) -> Task[Any, Any] | None:
        """Return the task of a name, None if there is none here. Workers ask; adapters may look further."""
        return self._tasks.get(name)

    def registered_form(self, task: object) -> object:
        """Return the task as it is registered, for one of another interface that an adapter knows; else what was given.

        Tests ask, so that they may name the tasks of a framework by what the framework makes of a function.
        """
        return task

    def register(self, task: Task[Any, Any]) -> None:
        """Make a task known to workers. `task` does it by itself.

        Raises:
            TaskDefinitionError: Another function has its name.
        """
        known = self._tasks.get(task.name)

        def is_redefined() -> bool:
            is_other = known is not None and known.function is not task.function
            return is_other and self._definitions.is_redefined(task.name, task.function)

        what, remedy = f"the name {task.name!r}", "another name="
        refuse_other(known, task, what, remedy=remedy, is_redefined=is_redefined)
        refuse_other(self.handlers.get(task.name), task, what, remedy=remedy)
        self._tasks[task.name] = task
        self._definitions.note(task.name, task.function)

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
        """Make a function turn groups of tasks into one task each: those enqueued with the option `aggregate`.

        The function takes the name of the group and a list of `GroupedTask`, oldest first, and returns the signature of
        the one task, `task.s(...)`. It may be a coroutine function. The task goes to the queue of the group, and its id
        is that of the set unless it has one. `raise Discard` drops the group's tasks; any other error gives them back.

        Args:
            pattern: A group's whole name, or what it begins with. The longest that fits counts; "" fits every group.
            queue: Only for groups of this queue, before one of the same pattern for any.
            grace: A group is due when no task joined it for this long. Whole seconds, at least 1.
            max_delay: It is due when its oldest task has waited this long. None: no limit.
            max_size: It is due with this many tasks, 1 to 10 000, and no more are given to one call. None: no limit.
            timeout: Longest time for a call; then the tasks go back to their group. Whole seconds, at least 1.

        Raises:
            TaskDefinitionError: The function cannot be one, or another has the same pattern and queue.
            ConfigurationError: An argument is not usable.
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
        """Name a task whose code is not here, for example one that a Go service runs."""
        return RemoteTask(name, options, self)

    # --- periodic tasks -----------------------------------------------------------------------------------------------

    def periodic(
        self,
        spec: str,
        *,
        id: str | None = None,  # noqa: A002 - what the wire and the tools call it
        tz: "str | ZoneInfo | None" = None,
        catch_up: CatchUp | str = CatchUp.ONE,
        window: Duration = DEFAULT_WINDOW_S,
        **options: Unpack[CallOptionsDict],
    ) -> Callable[[T], T]:
        """Let the task below be enqueued again and again, without arguments. Stands above `@taskq.task`.

        A scheduler has to run: `taskq scheduler`, `manage.py runscheduler`, or a worker with one.

        Args:
            spec: A cron line (five fields, or six with the second in front), a descriptor such as `@hourly`, or
                `@every 90s`. See `taskq_core.wire.cron`.
            id: Name of the entry; see `PeriodicTask`.
            tz: IANA name of the zone of a cron line that names none. None: the setting `TIME_ZONE`.
            catch_up: `skip`, `one` or `all`: what becomes of firings that were missed; see `CatchUp`.
            window: Time after which a missed firing is not caught up any more.
            **options: Task options, over those of the task.

        Raises:
            ConfigurationError: Something is not usable, or another entry has this id.
            TaskArgumentsError: The task needs arguments; `schedule` takes them.
        """

        def register(task: T) -> T:
            if not isinstance(task, BaseTask):
                raise TaskDefinitionError(f"@periodic stands above @task and takes its task, got {task!r}")
            self.schedule(spec, task, id=id, tz=tz, catch_up=catch_up, window=window, **options)
            return task

        return register

    def schedule(
        self,
        spec: str,
        call: Signature[Any] | BaseTask[Any],
        *,
        id: str | None = None,  # noqa: A002 - what the wire and the tools call it
        tz: "str | ZoneInfo | None" = None,
        catch_up: CatchUp | str = CatchUp.ONE,
        window: Duration = DEFAULT_WINDOW_S,
        **options: Unpack[CallOptionsDict],
    ) -> PeriodicTask:
        """Let a call be enqueued again and again: a task, or `task.s(...)` with arguments. As `periodic`.

        A running scheduler of this process takes it up within seconds.

        Returns:
            The entry; its `id` is what `unschedule` takes.
        """
        return self.timetable.add(PeriodicTask(spec, call, id=id, tz=tz, catch_up=catch_up, window=window, **options))

    def unschedule(self, entry_id: str) -> bool:
        """Take a periodic task out, also from a running scheduler of this process. Return False if there is none."""
        return self.timetable.remove(entry_id)

    @overload
    def schedule_provider(self, function: PF, *, every: Duration = PROVIDER_EVERY_S) -> PF: ...
    @overload
    def schedule_provider(self, *, every: Duration = PROVIDER_EVERY_S) -> Callable[[PF], PF]: ...
    def schedule_provider(self, function: Any = None, *, every: Duration = PROVIDER_EVERY_S) -> Any:
        """Let a function say which periodic tasks there are, for example from a database. Also a decorator.

        Each scheduler asks it when it starts and then again and again, and applies what has changed. While it raises,
        the entries it returned last stay.

        Args:
            function: Returns `PeriodicTask` objects. A coroutine function runs on the scheduler's event loop, any other
                in a thread of its own. It has no time limit; one that takes long is told of in the log.
            every: Time between two calls.

        Raises:
            ConfigurationError: It is no function, or the time is not usable.
        """
        if function is None:
            return lambda each: self.schedule_provider(each, every=every)
        self.timetable.provide(function, every)
        return function

    def add_schedule_hook(self, hook: ScheduleHook) -> None:
        """Let a hook be told before and after each enqueue of a periodic task.

        Raises:
            ConfigurationError: It is no `ScheduleHook`.
        """
        self.timetable.tell(hook)

    # --- handlers -----------------------------------------------------------------------------------------------------

    def handler(self, pattern: str, **options: Unpack[HandlerOptionsDict]) -> Callable[[H], H]:
        """Let a function run all tasks whose type is, or begins with, a pattern, as raw messages.

        A registered task of exactly the type comes first, then a handler of exactly the type, then the handler of the
        longest pattern that the type begins with. The function takes a `RawTask`, behind a `TaskContext` if it takes
        one; what it returns and raises counts as with a task.

        Args:
            pattern: The type, or how types begin, for example `"email:"`. There are no wildcards.
            **options: retry_delay, retry_on, no_retry_on, is_failure, trace and max_result_bytes; the message
                carries all others.

        Raises:
            TaskDefinitionError: The pattern is blank or taken, or the function cannot be a handler.
            ConfigurationError: An option is unknown or its value is not usable.
        """
        check_pattern(pattern)

        def register(function: H) -> H:
            handler = Handler(pattern, function, self, options)
            refuse_other(self._tasks.get(pattern), handler, f"the name {pattern!r}")
            self.handlers.add(handler)
            return function

        return register

    def not_found(self, function: H) -> H:
        """Let a function run what neither a task nor a handler is registered for. It is a handler of any type.

        Without one such a task goes back for other workers, and is archived with `UnknownTaskError` after
        `UNKNOWN_TASK_TIMEOUT`.

        Raises:
            TaskDefinitionError: There is one already, or the function cannot be a handler.
        """
        self.handlers.set_not_found(Handler("", function, self))
        return function

    def find_handler(self, name: str) -> Task[Any, Any] | Handler:
        """Return what runs tasks of a type here: a task, a handler, or the handler of unknown types, named ""."""
        return self.find_task(name) or self.handlers.find(name)

    def on_error(self, function: E) -> E:
        """Let a function be told of every run that fails: `(error, context)`.

        It is called once the run has ended and its outcome is decided (`context.outcome`), for whatever a task or
        middleware raised, and for `TimeoutError`, `TaskCancelledError` and `LeaseLostError`; not for `Snooze` and
        `Discard`. Coroutine functions run on the worker's loop, plain ones in a thread. The slot of the run stays taken
        until all have returned; one that takes longer than 30 seconds is told to end. What one of them raises is logged
        and changes nothing.

        Raises:
            TaskDefinitionError: The function does not take an error and a context.
        """
        self.error_handlers.append(error_handler(function))
        return function

    def on_archived(self, function: A) -> A:
        """Let a function be told of every task that a worker archives: `(task)`, a `TaskInfo`.

        It is called after the task was archived, for whatever reason: it failed for good, was cancelled, expired, or
        its worker was lost when no attempt was left; in a worker of this application that serves the queue, not
        necessarily the one that ran the task. It is called at least once, also if workers are killed in between; after
        an error, which is logged, again every half minute while the task is in the archive. Coroutine functions run on
        the worker's loop, plain ones in a thread; one that takes longer than 30 seconds is told to end. The archived
        task is not touched by any of this. Workers of other applications that serve the same queue need the function
        too, or what they archive is not told of.

        Raises:
            TaskDefinitionError: The function does not take a task.
        """
        self.archive_handlers.append(Callback("a handler of archived tasks", function, takes="the task", count=1))
        return function

    # --- workers ------------------------------------------------------------------------------------------------------

    def worker_lifespan(self, function: L) -> L:
        """Let a function open what tasks use, such as a pool of connections, and close it again, once for each worker.

        It yields once, as the lifespan of a web app does, on the worker's event loop: before the first task is taken,
        and again after the last has ended. What it yields, a mapping or nothing, is `context.state` of every run; of
        several functions together, where the later ones win. The lifespan of a web app does not run in a worker. If it
        raises at the start the worker does not start, and says so in the log.

        Args:
            function: A generator function, plain or `async`, without parameters, or one that returns such a context
                manager.

        Raises:
            TaskDefinitionError: It is no function, or has parameters.
        """
        check_lifespan(function)
        self.lifespans.append(function)
        return function

    # --- middleware ---------------------------------------------------------------------------------------------------

    def use(self, middleware: Middleware, *, queue: str | None = None, task: str | BaseTask[Any] | None = None) -> None:
        """Let middleware wrap runs, and look at calls before they are enqueued.

        Middleware of the application stands outside that of a queue, and this outside that of a task; within each, what
        was registered first is the outermost.

        Args:
            middleware: The middleware; see `taskq_core.tasks.middleware.Middleware`.
            queue: Only for this queue.
            task: Only for this task, or the handler of this pattern.

        Raises:
            ConfigurationError: It is no `Middleware`, or both a queue and a task are given.
        """
        self.middleware.add(middleware, queue=queue, task=task)


class TaskDecorator:
    """What `@taskq.task(...)` returns: it makes the function below it a task."""

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
        """Make the function a task. As `TaskQ.task`."""
        if isinstance(function, staticmethod):
            function = function.__func__
        if isinstance(function, BaseTask):
            raise TaskDefinitionError(f"{function!r} is a task already; .using(...) gives a copy with other options")
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
