"""FastAPI's `Depends` in tasks: a task receives sessions, clients and settings as a route does.

::

    taskq = TaskQ("redis://localhost:6379/0")
    enable_depends(taskq)  # before you define tasks

    @taskq.task
    async def charge(order_id: int, session: Session = Depends(get_session)) -> None: ...

    await charge.adelay(7)  # the worker provides the session

A dependency may be a function, a class, or a generator that cleans up behind its `yield`; of a task that is `async def`
also a coroutine function or an asynchronous generator. It may have dependencies and a `TaskContext` itself. Each
dependency is called once for a run unless `use_cache=False`. A task has no request, so defining a task with a
dependency on a request raises an error.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from taskq_core import ConfigurationError, TaskContext, TaskDefinitionError, TaskQ
from taskq_core.execution.context import current
from taskq_core.service.user_code import is_coroutine_function
from taskq_core.tasks.functions import function_name
from taskq_core.tasks.injection import Injection
from taskq_fastapi.needs import Kind, Plan, is_placeholder, name_of, plan_of
from taskq_fastapi.resolving import Resolver


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
            missing = Plan(tuple(need for need in plan.needs if need.name not in passed), None, Kind.CALL)
            if self.dependency_overrides:
                self._check(what, missing, (), set(), is_plain=is_plain)
            return Resolver(self, missing, _context(function, args)), functools.partial(function, *args, **given)

        def call(*args: Any, **kwargs: Any) -> object:
            resolver, prepared_call = prepared(args, kwargs)
            return resolver.call(prepared_call)

        async def acall(*args: Any, **kwargs: Any) -> object:
            resolver, prepared_call = prepared(args, kwargs)
            return await resolver.acall(prepared_call)

        body: Callable[..., Any] = call if is_plain else acall
        functools.update_wrapper(body, function)
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
        """Check all dependencies of a plan, at any depth. A plain task cannot await asynchronous ones."""
        for need in plan.needs:
            call, inner = self.find(need.call, what)
            if call in above:
                chain = " -> ".join(name_of(each) for each in (*above[above.index(call) :], call))
                raise TaskDefinitionError(f"{what}: the dependencies form a cycle: {chain}")
            if call in checked:
                continue
            if is_plain and inner.kind.is_async:
                raise TaskDefinitionError(
                    f"{what} is a plain function and cannot await the dependency {name_of(call)!r}; "
                    "make the task `async def`, or the dependency plain"
                )
            self._check(what, inner, (*above, call), checked, is_plain=is_plain)
            checked.add(call)

    def find(self, call: Callable[..., Any], what: str = "") -> tuple[Callable[..., Any], Plan]:
        """Return a dependency or its override, and how to call it.

        Raises:
            TaskDefinitionError: It does not work in a task.
        """
        call = self.dependency_overrides.get(call, call)
        if call not in self._plans:
            where = f"{what}, dependency" if what else "dependency"
            self._plans[call] = plan_of(f"{where} {name_of(call)!r}", call, is_task=False)
        return call, self._plans[call]


def _context(function: Callable[..., Any], args: tuple[Any, ...]) -> TaskContext:
    """Return the context of this run. A task that is called like a function gets the given or a local one."""
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
        raise ConfigurationError(f"the tasks of this queue application already get values from {type(known).__name__}")
    return known
