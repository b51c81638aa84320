"""FastAPI's `Depends` in tasks: a task receives sessions, clients and settings as a route does.

::

    taskq = TaskQ("redis://localhost:6379/0")
    enable_depends(taskq)  # before you define tasks

    @taskq.task
    async def charge(order_id: int, session: Session = Depends(get_session)) -> None: ...

    await charge.adelay(7)  # the worker provides the database session

A dependency may be a function, a class, or a generator that cleans up after its `yield`. For an `async def` task, it
may also be a coroutine function or an asynchronous generator. It may have dependencies and a `TaskContext` itself. Each
dependency is called once for a run unless `use_cache=False`. A task has no request, so defining a task with a
dependency on a request raises an error.

An exception of the task is raised in the generators at their `yield`, and they may raise another one. If a generator
swallows it, the run has still failed.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial, update_wrapper
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from taskq_core import ConfigurationError, TaskContext, TaskDefinitionError, TaskQ
from taskq_core.execution.context import current
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.tasks.functions import function_name
from taskq_core.tasks.injection import Injection
from taskq_fastapi.needs import Need, Plan, is_placeholder, name_of, plan_of

T = TypeVar("T")

_SWALLOWED = "a dependency caught this exception at its yield and did not raise it again; the run has failed anyway"


class _Injected:
    def __repr__(self) -> str:
        return "INJECTED"


INJECTED: Any = _Injected()
"""Default of a parameter with `Annotated[..., Depends(...)]`, so that type checkers allow a call without it."""


class TaskDependencies:
    """Gives tasks their dependencies.

    Attributes:
        dependency_overrides: Replacements by dependency, as on a FastAPI app.
    """

    def __init__(self) -> None:
        self.dependency_overrides: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._plans: dict[Callable[..., Any], Plan] = {}

    def inject(self, what: str, function: Callable[..., Any]) -> Injection | None:
        """Return a function that calls the task with its dependencies. None without dependencies. For the core.

        Raises:
            TaskDefinitionError: A dependency does not work in this task.
        """
        plan = plan_of(what, function, is_task=True)
        if not plan.needs:
            return None
        is_plain = not is_coroutine_function(function)
        self._check(what, plan, (), set(), is_plain=is_plain)
        names = tuple(inspect.signature(function).parameters)
        needed = frozenset(need.name for need in plan.needs)

        def prepared(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Resolver, Callable[..., Any]]:
            given = {
                name: value
                for name, value in kwargs.items()
                if name not in needed or not (value is INJECTED or is_placeholder(value))
            }
            passed = {*names[: len(args)], *given}
            missing = Plan(tuple(need for need in plan.needs if need.name not in passed))
            if self.dependency_overrides:
                self._check(what, missing, (), set(), is_plain=is_plain)
            return Resolver(self, missing, _context(function, args)), partial(function, *args, **given)

        def call(*args: Any, **kwargs: Any) -> object:
            resolver, prepared_call = prepared(args, kwargs)
            return resolver.call(prepared_call)

        async def acall(*args: Any, **kwargs: Any) -> object:
            resolver, prepared_call = prepared(args, kwargs)
            return await resolver.acall(prepared_call)

        body: Callable[..., Any] = call if is_plain else acall
        update_wrapper(body, function)
        return Injection(body, needed)

    def _check(
        self,
        what: str,
        plan: Plan,
        above: tuple[Callable[..., Any], ...],
        checked: set[Callable[..., Any]],
        *,
        is_plain: bool,
    ) -> None:
        """Check all dependencies of a plan, at any depth. A plain function must not have asynchronous dependencies."""
        for need in plan.needs:
            call, inner = self.find(need.call, what)
            if call in above:
                chain = " -> ".join(name_of(each) for each in (*above[above.index(call) :], call))
                raise TaskDefinitionError(f"{what}: the dependencies form a cycle: {chain}")
            if call in checked:
                continue
            if is_plain and inner.is_async:
                raise TaskDefinitionError(
                    f"{what} is a plain function and cannot await the dependency {name_of(call)!r}; "
                    "make the task `async def`, or the dependency plain"
                )
            self._check(what, inner, (*above, call), checked, is_plain=is_plain)
            checked.add(call)

    def find(self, call: Callable[..., Any], what: str = "") -> tuple[Callable[..., Any], Plan]:
        """Return the function of a dependency or of its override, with the plan for calling it.

        Raises:
            TaskDefinitionError: The dependency does not work in a task.
        """
        call = self.dependency_overrides.get(call, call)
        if call not in self._plans:
            where = f"{what}, dependency" if what else "dependency"
            self._plans[call] = plan_of(f"{where} {name_of(call)!r}", call, is_task=False)
        return call, self._plans[call]


def _context(function: Callable[..., Any], args: tuple[Any, ...]) -> TaskContext:
    """Return the context of the run. If code calls the task like a function, return its argument or a local context."""
    context = current.get() or next((each for each in args[:1] if isinstance(each, TaskContext)), None)
    return context or TaskContext(id="local", name=function_name(function), queue="", local=True)


def enable_depends(taskq: TaskQ) -> TaskDependencies:
    """Let the tasks of a queue application have dependencies.

    Args:
        taskq: The queue application. Call this before you define its tasks.

    Returns:
        The object with `dependency_overrides`, for tests. A second call returns the same object.

    Raises:
        ConfigurationError: `taskq` is not a queue application, or already has another injector.
    """
    if not isinstance(taskq, TaskQ):
        raise ConfigurationError(f"enable_depends takes a TaskQ, got {type(taskq).__name__}")
    known = taskq.injector
    if known is None:
        known = taskq.injector = TaskDependencies()
    if not isinstance(known, TaskDependencies):
        raise ConfigurationError(
            f"the dependencies of this queue application's tasks already come from {type(known).__name__}; "
            "an application can use only one such provider"
        )
    return known


# --- one run ----------------------------------------------------------------------------------------------------------


class Resolver:
    """Gets the values of the dependencies of one run.

    Args:
        dependencies: Finds dependencies.
        plan: The dependencies of the task that its caller did not pass.
        context: The run.
    """

    def __init__(self, dependencies: TaskDependencies, plan: Plan, context: TaskContext) -> None:
        self._dependencies = dependencies
        self._plan = plan
        self._context = context
        self._cache: dict[Callable[..., Any], Any] = {}

    def call(self, function: Callable[..., Any]) -> object:
        """Call a plain function with its dependencies, all in this thread."""
        error: BaseException | None = None
        with ExitStack() as stack:
            try:
                return function(**self._values(self._plan, stack))
            except BaseException as raised:
                error = raised
                raise
        raise _noted(error)

    async def acall(self, function: Callable[..., Awaitable[object]]) -> object:
        """Call a coroutine function with its dependencies, on this event loop. Plain dependencies run in threads."""
        error: BaseException | None = None
        async with AsyncExitStack() as stack:
            try:
                return await function(**await self._avalues(self._plan, stack))
            except BaseException as raised:
                error = raised
                raise
        raise _noted(error)

    def _values(self, plan: Plan, stack: ExitStack) -> dict[str, Any]:
        """Return the values of the parameters in a plan, by name. `stack` receives the cleanups of dependencies."""
        return {need.name: self._value(need, stack) for need in plan.needs} | self._context_of(plan)

    def _value(self, need: Need, stack: ExitStack) -> Any:
        call, plan = self._dependencies.find(need.call)
        if need.use_cache and call in self._cache:
            return self._cache[call]
        given = self._values(plan, stack)
        value = stack.enter_context(contextmanager(call)(**given)) if plan.is_generator else call(**given)
        return self._cache.setdefault(call, value) if need.use_cache else value

    async def _avalues(self, plan: Plan, stack: AsyncExitStack) -> dict[str, Any]:
        return {need.name: await self._avalue(need, stack) for need in plan.needs} | self._context_of(plan)

    async def _avalue(self, need: Need, stack: AsyncExitStack) -> Any:
        call, plan = self._dependencies.find(need.call)
        if need.use_cache and call in self._cache:
            return self._cache[call]
        given = await self._avalues(plan, stack)
        value: Any
        if plan.is_generator and plan.is_async:
            value = await stack.enter_async_context(asynccontextmanager(call)(**given))
        elif plan.is_generator:
            value = await stack.enter_async_context(_InThread(contextmanager(call)(**given)))
        elif plan.is_async:
            value = await call(**given)
        else:
            value = await _threaded(partial(call, **given))
        return self._cache.setdefault(call, value) if need.use_cache else value

    def _context_of(self, plan: Plan) -> dict[str, Any]:
        return {} if plan.context is None else {plan.context: self._context}


def _noted(error: BaseException | None) -> BaseException:
    assert error is not None
    error.add_note(_SWALLOWED)
    return error


class _InThread:
    """Wraps a plain context manager as an asynchronous one. It is entered and left in threads.

    Leaving needs no free thread of the pool, because all of its threads may wait for what this context manager
    releases.
    """

    def __init__(self, manager: AbstractContextManager[Any]) -> None:
        self._manager = manager
        self._has_entered = False

    def _enter(self) -> Any:
        value = self._manager.__enter__()
        self._has_entered = True
        return value

    async def __aenter__(self) -> Any:
        try:
            return await _threaded(self._enter)
        except asyncio.CancelledError as cancelled:
            if self._has_entered:
                await self.__aexit__(type(cancelled), cancelled, None)
            raise

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await _threaded(partial(self._manager.__exit__, *exc), limiter=CapacityLimiter(1))


async def _threaded(call: Callable[[], T], *, limiter: CapacityLimiter | None = None) -> T:
    """Call a plain function in a thread. Wait for its end even if cancelled, because a thread cannot be stopped."""

    def guarded() -> tuple[list[T], BaseException | None]:
        try:
            return [call()], None
        except BaseException as error:  # returned as a value, because a raised SystemExit would end the event loop
            return [], error

    working = asyncio.ensure_future(to_thread.run_sync(guarded, limiter=limiter))
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            await asyncio.wait((working,))
            break
        except asyncio.CancelledError as error:
            cancelled = error
    value, failure = working.result()
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure
    return value[0]
