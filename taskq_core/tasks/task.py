"""A task: a function with its name, options and signature.

`@taskq.task` replaces the function by a `Task`. Calling the task runs the function here; `.delay` and `.adelay` enqueue
the task; `.using` returns a copy with other options; `.s` binds arguments for a later call.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from taskq_core.codec import ArgumentsCodec, LoadedObjects, References, result_type
from taskq_core.errors import ConfigurationError, Discard, MissingReferenceError
from taskq_core.execution.context import TaskContext, current
from taskq_core.handles.handle import TaskHandle
from taskq_core.settings import unknown
from taskq_core.tasks.base import BaseTask, Enqueuer
from taskq_core.tasks.canvas import Group, PartialSignature, Signature, group
from taskq_core.tasks.functions import context_parameter, parameters, qualified_name
from taskq_core.tasks.injection import Injection
from taskq_core.tasks.options import OnMissing, TaskOptions

logger = logging.getLogger("taskq.worker")
P = ParamSpec("P")
R = TypeVar("R")
Q = ParamSpec("Q")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class Task(BaseTask[R], Generic[P, R]):
    """A function that can be enqueued.

    Attributes:
        name: Name of the task, its type on the wire.
        function: The user's function.
        body: Callable that a worker calls with decoded arguments: the function, or a wrapper that fetches arguments.
        codec: Converts arguments to payload bytes and back.
        is_coroutine: True for a coroutine function.
        takes_context: True if its first parameter receives the `TaskContext`.
        runs_in_process: True if workers run it in a separate process.
        options: Options of the task, with the defaults of the queue application for those that it does not set.
    """

    is_coroutine = False
    interface = "taskq"
    """Name of the programming interface that defined the task. An adapter with a second interface sets another name."""

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
        codec = self.codec = self._make_codec(function, strict, injected, references)
        self.encode, self.bind, self.split = codec.encode, codec.bind, codec.split
        self.body = self.function
        if self.codec.is_variadic:
            self.body = functools.partial(self.codec.call, self.function)
        if references is not None and self.codec.has_references:
            self.body = (_afetching if self.is_coroutine else _fetching)(self, self.body, references)
        elif "on_missing" in self._own_options:
            raise ConfigurationError(
                f"task {self.name!r}: on_missing has no effect, because no parameter is annotated with a class whose "
                "values are stored as keys, such as a Django model"
            )
        self._check_options(self._own_options)
        self.result_type = result_type(function)
        # `update_wrapper` copies no name from a partial or a callable object.
        self.__name__ = self.__qualname__ = self.name
        functools.update_wrapper(self, function, updated=())

    def _make_codec(
        self, function: Callable[..., Any], strict: bool, injected: frozenset[str], references: References | None
    ) -> ArgumentsCodec:
        """Return the codec of the arguments. Adapters with other rules override this method."""
        return ArgumentsCodec(function, name=self.name, strict=strict, injected=injected, references=references)

    def _check_options(self, given: Mapping[str, Any]) -> TaskOptions:
        options = super()._check_options(given)
        for name in () if options.unique is None else options.unique.args or ():
            if name not in self.codec.known:
                raise unknown(f"parameter of task {self.name!r} in unique args", name, self.codec.parameters)
        return options

    def _parameter_defaults(self) -> Mapping[str, Any]:
        known = {each.name: each.default for each in parameters(f"task {self.name!r}", self.function)}
        return {name: known.get(name, inspect.Parameter.empty) for name in self.codec.parameters}

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function at once in the calling code, without a queue."""
        if self.takes_context:
            result: R = self.function(_local_context(self), *args, **kwargs)
        else:
            result = self.function(*args, **kwargs)
        return result

    @overload
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...
    @overload
    def s(self) -> PartialSignature[R]: ...  # type: ignore[overload-cannot-match]  # matches if arguments are required
    @overload
    def s(self: Callable[Concatenate[Any, Q], Any], *args: Q.args, **kwargs: Q.kwargs) -> PartialSignature[R]: ...
    @overload
    def s(self: Callable[Concatenate[Any, Any, Q], Any], *args: Q.args, **kwargs: Q.kwargs) -> PartialSignature[R]: ...
    def s(self, *args: Any, **kwargs: Any) -> Any:
        """Bind arguments for a later call.

        As a step of a workflow, the call gets the previous result as first argument. Arguments may therefore be missing
        here. They are checked when the call is enqueued or put into a workflow.
        """
        return Signature(self, args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """Bind all arguments for a later call. As a step of a workflow, the call does not get the previous result."""
        return Signature(self, args, kwargs, is_immutable=True)

    def map(self: Callable[[A], Any], arguments: Iterable[A]) -> Group:
        """Return a group with one call for each element of an iterable. The element is the first argument.

        The iterable is read once, while the group is enqueued.
        """
        task: Task[Any, Any] = cast("Any", self)
        mapped: Group = group(Signature(task, (each,), {}) for each in arguments)
        return mapped

    @overload
    def starmap(self: Callable[[A, B], Any], arguments: Iterable[tuple[A, B]]) -> Group: ...
    @overload
    def starmap(self: Callable[[A, B, C], Any], arguments: Iterable[tuple[A, B, C]]) -> Group: ...
    @overload
    def starmap(self: Callable[[A, B, C, D], Any], arguments: Iterable[tuple[A, B, C, D]]) -> Group: ...
    def starmap(self: Any, arguments: Iterable[Iterable[Any]]) -> Group:
        """Return a group with one call for each element of an iterable. The element is the tuple of its arguments."""
        task: Task[Any, Any] = self
        mapped: Group = group(Signature(task, tuple(each), {}) for each in arguments)
        return mapped

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Enqueue a call and return its handle. Blocks for one round trip to Redis; in a coroutine use `adelay`.

        Inside a database transaction, an adapter may only prepare the call here and send it after the commit. `is_sent`
        of the handle is then False until the commit, and errors of the send are logged or raised at the commit.

        Raises:
            TaskArgumentsError: The arguments do not match the function's parameters. Nothing was written.
            DuplicateTaskError, TaskIdConflictError: Another task holds the unique lock or has the id.
            EnqueueError: Redis could not be reached or refused the task.
            EnqueueUnknownError: The connection failed, and the task may have been written.
        """
        return self._enqueuer.client.enqueue(Signature(self, args, kwargs))

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Enqueue a call from a coroutine and return its handle. Raises the errors of `delay`."""
        return await self._enqueuer.async_client.enqueue(Signature(self, args, kwargs))


class CoroutineTask(Task[P, R]):
    """A coroutine function that can be enqueued."""

    is_coroutine = True

    def __call__(  # type: ignore[override]  # calling a coroutine function returns a coroutine
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        """Return the coroutine of the function, for the caller to await. No queue is used."""
        return cast("Coroutine[Any, Any, R]", super().__call__(*args, **kwargs))


def _fetching(task: Task[Any, Any], function: Callable[..., Any], references: References) -> Callable[..., Any]:
    """Return a task body that loads the objects whose keys are in the payload, and then calls the function.

    The body runs inside the middleware and the time limit, so an error while loading counts as an error of the task.
    """

    def body(*given: object, **decoded: object) -> object:
        found = references.fetch(task.codec.keys_to_load(decoded))
        return function(*given, **_with_found(task, decoded, found))

    return body


def _afetching(
    task: Task[Any, Any], function: Callable[..., Any], references: References
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return the task body for a coroutine function. See `_fetching`."""

    async def body(*given: object, **decoded: object) -> object:
        found = await references.afetch(task.codec.keys_to_load(decoded))
        return await function(*given, **_with_found(task, decoded, found))

    return body


def _with_found(task: Task[Any, Any], decoded: dict[str, object], found: LoadedObjects) -> dict[str, object]:
    try:
        return task.codec.with_found(decoded, found)
    except MissingReferenceError as error:
        if task.options.on_missing is OnMissing.FAIL:
            raise
        logger.info("task discarded: name=%s reason=the %s in its arguments no longer exists", task.name, error.label)
        raise Discard from error


def _local_context(task: Task[Any, Any]) -> TaskContext:
    running = current.get()
    if running is not None:
        return running
    return TaskContext(
        id="local", name=task.name, queue=task.options.queue, max_retry=task.options.max_retry, local=True
    )
