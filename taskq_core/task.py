"""A task: a function with its name, options and signature.

`Task` is what `@taskq.task` leaves in place of the function. Calling it runs the function here; `.delay` and `.adelay`
enqueue it; `.using` returns a copy with other options; `.s` binds arguments for later.
"""

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload

from taskq_core.codec import ArgumentsCodec, References
from taskq_core.context import TaskContext, current
from taskq_core.errors import ConfigurationError
from taskq_core.fetching import afetching, fetching
from taskq_core.functions import context_parameter, parameters, qualified_name, result_type
from taskq_core.injection import Injection
from taskq_core.limits import Limits
from taskq_core.options import CallOptionsDict, TaskOptions, check_call_options, task_options
from taskq_core.plan import Plan
from taskq_core.result import TaskHandle
from taskq_core.settings import unknown
from taskq_core.warnings import warn_if_blocking
from taskq_core.wire import Keys, validate_task_type

if TYPE_CHECKING:
    from taskq_core.workflow import Chain, Group, WorkflowHandle
    from taskq_core.workflow.canvas import Part, PartialCanvas

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Q = ParamSpec("Q")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class Enqueuer(Protocol):
    """What a task needs of the queue application it belongs to."""

    @property
    def references(self) -> References | None:
        """Classes whose values travel as their keys, None where there are none."""
        ...

    @property
    def task_defaults(self) -> Mapping[str, Any]:
        """Options of every task that does not set its own."""
        ...

    def enqueue(self, call: "Signature[R]") -> TaskHandle[R]:
        """Enqueue, blocking."""
        ...

    async def aenqueue(self, call: "Signature[R]") -> TaskHandle[R]:
        """Enqueue from a coroutine."""
        ...

    def check_queue(self, name: str, queue: str) -> None:
        """Warn if the settings name queues, and not the one to which a task goes."""

    def enqueue_workflow(self, workflow: Any) -> "WorkflowHandle":
        """Enqueue a workflow, blocking."""
        ...

    async def aenqueue_workflow(self, workflow: Any) -> "WorkflowHandle":
        """Enqueue a workflow from a coroutine."""
        ...


_LIMITS = ("rate_limit", "concurrency", "sequence")


class BaseTask(Generic[R_co]):
    """What a task with code and a remote one share.

    Attributes:
        changed: Options that this copy has otherwise than the registered task.
    """

    name: str
    result_type: Any

    def __init__(self, name: str, options: Mapping[str, Any], enqueuer: Enqueuer) -> None:
        self.name = validate_task_type(name)
        self._given = dict(options)
        self.changed: frozenset[str] = frozenset()
        self._enqueuer = enqueuer
        self._plan: Plan | None = None
        self._options: tuple[Mapping[str, Any], TaskOptions] | None = None
        self._with_headers: tuple[Mapping[str, str], BaseTask[Any]] | None = None
        self._check_options()

    @property
    def enqueuer(self) -> Enqueuer:
        """The queue application it belongs to. For adapters."""
        return self._enqueuer

    @property
    def options(self) -> TaskOptions:
        """This task's options, over the defaults of its queue application."""
        defaults = self._enqueuer.task_defaults
        if self._options is None or self._options[0] is not defaults:
            options = task_options({**defaults, **self._given})
            self._check_unique(options)
            self._options = (defaults, options)
        return self._options[1]

    def _check_unique(self, options: TaskOptions) -> None:
        """Refuse arguments that make a task unique and that it does not have."""

    def plan(self, keys: Keys, app: object = None) -> Plan:
        """Return what is equal for all calls, computed once. Warn of a queue not in the settings. For clients.

        Args:
            keys: Key names of the client's queue application. No other has the same object.
            app: The queue application itself; None: it is not compared, and nothing is warned of.

        Raises:
            ConfigurationError: The task belongs to another queue application.
        """
        plan = self._plan
        if plan is None or plan.keys is not keys:
            if app is not None and app is not self._enqueuer:
                raise ConfigurationError(
                    f"task {self.name!r} belongs to another TaskQ than this client; enqueue it with its own .delay() "
                    "or .adelay(), with the client of its TaskQ, or by name with taskq.remote(...) of this one"
                )
            plan = self._plan = Plan(self.name, self.options, keys, self.limits)
            if app is not None and isinstance(self, Task):  # other programs serve the queues of remote tasks
                self._enqueuer.check_queue(self.name, plan.queue.name)
        return plan

    @property
    def limits(self) -> Limits | None:
        """Its limits, bound to its parameters; None if it has none. For clients and workers."""
        return self._limits(self.options)

    def _limits(self, options: TaskOptions) -> Limits | None:
        if not options.limits:
            return None
        try:
            return Limits(self.name, options.limits, self._parameter_defaults())
        except ConfigurationError as error:
            raise ConfigurationError(f"task {self.name!r}: {error}") from None

    def _parameter_defaults(self) -> Mapping[str, Any] | None:
        """Return the defaults of its parameters by name, `inspect.Parameter.empty` for none; None if not known."""
        return None

    def _check_options(self) -> None:
        """Refuse options where the mistake is, rather than at the first call."""
        self._check_limits(self._given)
        self._check_unique(task_options(self._given))

    def _check_limits(self, given: Mapping[str, Any]) -> None:
        limits = {name: given[name] for name in _LIMITS if name in given}
        if limits:
            try:
                checked = task_options(limits)
            except ConfigurationError as error:
                raise ConfigurationError(f"task {self.name!r}: {error}") from None
            self._limits(checked)

    def using(self, **options: Unpack[CallOptionsDict]) -> Self:
        """Return a copy with other options.

        Raises:
            ConfigurationError: An option is unknown, its value is not usable, or workers read it from the registered
                task, so that a copy cannot change it.
        """
        self._check_limits(options)
        check_call_options(options)
        copy: Self = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._given = {**self._given, **options}
        copy.changed = self.changed | options.keys()
        copy._plan = None
        copy._options = None
        copy._with_headers = None
        copy._check_options()
        return copy

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return a copy with these headers over its own.

        Calls that follow each other with equal headers get the same copy.

        Raises:
            ConfigurationError: A header cannot be used.
        """
        merged = {**self.options.headers, **headers}
        known = self._with_headers
        if known is not None and known[0] == merged:
            return cast("Self", known[1])
        copy = self.using(headers=merged)
        self._with_headers = (merged, copy)
        return copy

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        """Return the arguments of a call by name.

        Raises:
            TaskArgumentsError: They do not fit.
        """
        raise NotImplementedError

    def split(self, arguments: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """Return arguments by name, as `bind` returns them, as a call takes them."""
        return [], dict(arguments)

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Return the payload of a call. For clients."""
        raise NotImplementedError


class PartialSignature(Generic[R_co]):
    """A task with some of its arguments: a step of a workflow, to which results give the others.

    `Task.s` always returns a `Signature`. Type checkers see this class where required arguments are missing, so that
    they refuse to enqueue it by itself.
    """

    __slots__ = ("args", "is_immutable", "kwargs", "task")

    def __init__(
        self,
        task: BaseTask[R_co],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        is_immutable: bool = False,
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.is_immutable = is_immutable

    def __repr__(self) -> str:
        return f"<signature of {self.task.name!r}>"

    def _copy(self, task: BaseTask[R_co], args: tuple[object, ...], kwargs: Mapping[str, object]) -> Self:
        return type(self)(task, args, kwargs, is_immutable=self.is_immutable)

    def __or__(self, other: "Part") -> "PartialCanvas":
        """Return the chain of this and what comes after it, which gets its result as first argument."""
        from taskq_core.workflow import chain

        return chain(self, other)

    def on_success(self, *calls: "Part") -> "PartialCanvas":
        """Return a workflow of this step and what runs after its success, each with its result as first argument."""
        from taskq_core.workflow import chain

        return chain(self).on_success(*calls)

    def on_error(self, *calls: "Part") -> "PartialCanvas":
        """Return a workflow of this step and what runs if it fails, each with a `StepFailure` as first argument."""
        from taskq_core.workflow import chain

        return chain(self).on_error(*calls)

    def on_complete(self, *calls: "Part") -> "PartialCanvas":
        """Return a workflow of this step and what runs once it has ended, each with its result or None."""
        from taskq_core.workflow import chain

        return chain(self).on_complete(*calls)

    def using(self, **options: Unpack[CallOptionsDict]) -> Self:
        """Return a copy whose task has other options."""
        return self._copy(self.task.using(**options), self.args, self.kwargs)

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments by name; those left to their defaults are missing.

        Raises:
            TaskArgumentsError: They do not fit, or a remote task was given bytes.
        """
        return self.task.bind(self.args, self.kwargs)

    def with_arguments(self, **arguments: object) -> Self:
        """Return a copy with these arguments in place of those of the same name.

        Raises:
            TaskArgumentsError: The arguments so far do not fit, or a remote task was given bytes.
        """
        if not self.args:
            return self._copy(self.task, (), {**self.kwargs, **arguments})
        args, kwargs = self.task.split({**self.arguments, **arguments})
        return self._copy(self.task, tuple(args), kwargs)

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return a copy with these headers over those of its task.

        Raises:
            ConfigurationError: A header cannot be used.
        """
        return self._copy(self.task.with_headers(headers), self.args, self.kwargs)


class Signature(PartialSignature[R_co]):
    """A task with its arguments, to be enqueued later."""

    __slots__ = ()

    if TYPE_CHECKING:
        # As above, but what comes out has all its arguments.
        def __or__(self, other: Part) -> Chain: ...
        def on_success(self, *calls: Part) -> Chain: ...  # noqa: D102 - as above
        def on_error(self, *calls: Part) -> Chain: ...  # noqa: D102 - as above
        def on_complete(self, *calls: Part) -> Chain: ...  # noqa: D102 - as above

    def delay(self) -> TaskHandle[R_co]:
        """Enqueue it, blocking. Raises as `Task.delay`."""
        warn_if_blocking(f"{self.task.name}.delay()", ".adelay()")
        return self.task._enqueuer.enqueue(self)

    async def adelay(self) -> TaskHandle[R_co]:
        """Enqueue it from a coroutine. Raises as `Task.delay`."""
        return await self.task._enqueuer.aenqueue(self)


class Task(BaseTask[R], Generic[P, R]):
    """A function that can be enqueued.

    Attributes:
        name: Name of the task, its type on the wire.
        function: The function itself.
        body: What a worker calls with decoded arguments: the function, or what fetches arguments for it first.
        codec: Turns its arguments into payload bytes and back.
        is_coroutine: True for a coroutine function.
        takes_context: True if its first parameter receives the `TaskContext`.
        runs_in_process: True if workers run it in a process of its own.
        options: Options over the defaults of the queue application.
    """

    is_coroutine = False
    interface = "taskq"
    """The interface it was made by, for adapters that have several."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None,
        strict: bool,
        options: Mapping[str, Any],
        enqueuer: Enqueuer,
        injection: Injection | None = None,
        runs_in_process: bool = False,
    ) -> None:
        super().__init__(qualified_name(function) if name is None else name, options, enqueuer)
        injected_name = context_parameter(f"task {self.name!r}", function)
        self.function = function if injection is None else injection.function
        self.runs_in_process = runs_in_process
        self.takes_context = injected_name is not None
        injected = frozenset({injected_name}) if injected_name else frozenset[str]()
        if injection is not None:
            injected |= injection.names
        references = enqueuer.references
        self.codec = self._make_codec(function, strict, injected, references)
        self._check_unique(task_options(self._given))
        self.body = self.function
        if self.codec.is_variadic:
            self.body = functools.partial(self.codec.call, self.function)
        if references is not None and self.codec.has_references:
            self.body = (afetching if self.is_coroutine else fetching)(self, self.body, references)
        elif "on_missing" in self._given:
            raise ConfigurationError(
                f"task {self.name!r}: on_missing has no effect: no parameter is annotated with a class whose values "
                "travel as keys, such as a Django model"
            )
        self._check_limits(self._given)  # again: now its parameters are known
        self.result_type = result_type(function)
        self.__name__ = self.__qualname__ = self.name  # of a partial or a callable object, which have none
        functools.update_wrapper(self, function, updated=())

    def _make_codec(
        self, function: Callable[..., Any], strict: bool, injected: frozenset[str], references: References | None
    ) -> ArgumentsCodec:
        """Return what reads and writes the arguments. For adapters whose tasks have rules of their own."""
        return ArgumentsCodec(function, name=self.name, strict=strict, injected=injected, references=references)

    def _check_unique(self, options: TaskOptions) -> None:
        if "codec" not in self.__dict__:
            return  # looked at once its parameters are known
        for name in () if options.unique is None else options.unique.args or ():
            if name not in self.codec.known:
                raise unknown(f"parameter of task {self.name!r} in unique args", name, self.codec.parameters)

    def _parameter_defaults(self) -> Mapping[str, Any] | None:
        if "codec" not in self.__dict__:
            return None  # looked at again once it is there
        known = {each.name: each.default for each in parameters(f"task {self.name!r}", self.function)}
        return {name: known.get(name, inspect.Parameter.empty) for name in self.codec.parameters}

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        if self.takes_context:
            result: R = self.function(_local_context(self), *args, **kwargs)
        else:
            result = self.function(*args, **kwargs)
        return result

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Return the payload of a call."""
        return self.codec.encode(args, kwargs)

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        """Return the arguments of a call by name. Raises as `BaseTask.bind`."""
        return self.codec.bind(args, kwargs)

    def split(self, arguments: Mapping[str, object]) -> tuple[list[object], dict[str, object]]:
        """Return arguments by name as a call takes them."""
        return self.codec.split(arguments)

    @overload
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...
    @overload
    def s(self) -> PartialSignature[R]: ...  # type: ignore[overload-cannot-match]  # it can, if arguments are required
    @overload
    def s(self: Callable[Concatenate[Any, Q], Any], *args: Q.args, **kwargs: Q.kwargs) -> PartialSignature[R]: ...
    @overload
    def s(self: Callable[Concatenate[Any, Any, Q], Any], *args: Q.args, **kwargs: Q.kwargs) -> PartialSignature[R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Any:
        """Bind arguments, to be enqueued later; as a step of a workflow it gets the result before it as well.

        So the first ones may be missing. They are checked when the call is enqueued or becomes part of a workflow.
        """
        return Signature(self, args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Bind all arguments, to be enqueued later; as a step of a workflow it gets no result."""
        return Signature(self, args, kwargs, is_immutable=True)

    def map(self: Callable[[A], Any], arguments: Iterable[A]) -> "Group":
        """Return the group of one call for each element of an iterable, which is its first argument.

        It is read once, while the group is enqueued.
        """
        from taskq_core.workflow import group

        task: Task[Any, Any] = cast("Any", self)
        mapped: Group = group(Signature(task, (each,), {}) for each in arguments)
        return mapped

    @overload
    def starmap(self: Callable[[A, B], Any], arguments: Iterable[tuple[A, B]]) -> "Group": ...
    @overload
    def starmap(self: Callable[[A, B, C], Any], arguments: Iterable[tuple[A, B, C]]) -> "Group": ...
    @overload
    def starmap(self: Callable[[A, B, C, D], Any], arguments: Iterable[tuple[A, B, C, D]]) -> "Group": ...
    def starmap(self: Any, arguments: Iterable[Iterable[Any]]) -> "Group":
        """Return the group of one call for each element of an iterable, which is the tuple of its arguments."""
        from taskq_core.workflow import group

        task: Task[Any, Any] = self
        mapped: Group = group(Signature(task, tuple(each), {}) for each in arguments)
        return mapped

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Enqueue a call and return its handle. Blocks for one round trip to Redis; in a coroutine use `adelay`.

        Raises:
            TaskArgumentsError: The arguments do not fit; nothing was written.
            DuplicateTaskError, TaskIdConflictError: The lock or the id is taken.
            EnqueueError: Redis refused or was not reached; `EnqueueUnknownError` when it may have been written.
        """
        warn_if_blocking(f"{self.name}.delay()", ".adelay()")
        return self._enqueuer.enqueue(Signature(self, args, kwargs))

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Enqueue a call from a coroutine and return its handle. Raises as `delay`."""
        return await self._enqueuer.aenqueue(Signature(self, args, kwargs))


class CoroutineTask(Task[P, R]):
    """A coroutine function that can be enqueued."""

    is_coroutine = True

    def __call__(  # type: ignore[override]  # calling a coroutine function returns a coroutine
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        """Return the coroutine, to be awaited here."""
        return cast("Coroutine[Any, Any, R]", super().__call__(*args, **kwargs))


def _local_context(task: Task[Any, Any]) -> TaskContext:
    running = current.get()
    if running is not None:
        return running
    return TaskContext(
        id="local", name=task.name, queue=task.options.queue, max_retry=task.options.max_retry, local=True
    )
