"""FastAPI's `Depends` in tasks: a task receives sessions, clients and settings as a route does.

::

    taskq = TaskQ("redis://localhost:6379/0")
    enable_depends(taskq)  # before its tasks are made

    @taskq.task
    async def charge(order_id: int, session: Session = Depends(get_session)) -> None: ...

    await charge.adelay(7)  # the worker provides the session

A dependency may be a function, a coroutine function, a generator of either kind that cleans up behind its `yield`, or a
class. It may have dependencies and a `TaskContext` itself. Each dependency is called once for a run unless
`use_cache=False`. A task has no request, so defining a task with a dependency on a request raises an error.
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
from taskq_fastapi.needs import Kind, Plan, is_placeholder, name_of, plan_of_dependency, plan_of_task
from taskq_fastapi.resolving import Resolver, hosted, in_thread, on_loop


class _Injected:
    def __repr__(self) -> str:
        return "INJECTED"


INJECTED: Any = _Injected()
"""Default of a parameter whose `Annotated` has `Depends`, so that type checkers let a call leave it out."""


class TaskDependencies:
    """Gives tasks their dependencies.

    Attributes:
        dependency_overrides: What takes the place of a dependency, by the dependency; as on a FastAPI app.
    """

    def __init__(self) -> None:
        self.dependency_overrides: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._plans: dict[Callable[..., Any], Plan] = {}

    def inject(self, what: str, function: Callable[..., Any]) -> Injection | None:
        """Return a function that calls the task with its dependencies. None without dependencies. For the core.

        Raises:
            TaskDefinitionError: Something cannot be given to a task.
        """
        plan = plan_of_task(what, function)
        if not plan.needs:
            return None
        self._check(what, plan, ())
        call = _Call(self, function, plan)
        if is_coroutine_function(function):

            async def acall(*args: Any, **kwargs: Any) -> object:
                return await call.aexecute(args, kwargs)

            body: Callable[..., Any] = acall
        else:

            def plain(*args: Any, **kwargs: Any) -> object:
                return call.execute(args, kwargs)

            body = plain
        functools.update_wrapper(body, function)
        return Injection(body, frozenset(need.name for need in plan.needs))

    def _check(self, what: str, plan: Plan, above: tuple[Callable[..., Any], ...]) -> None:
        """Read all that a plan needs, so that what cannot work is refused now."""
        for need in plan.needs:
            if need.call in above:
                chain = " -> ".join(name_of(each) for each in (*above[above.index(need.call) :], need.call))
                raise TaskDefinitionError(f"{what}: dependencies need each other without end: {chain}")
            if need.call in self.dependency_overrides:
                continue  # what takes its place is read when it runs
            inner = self._plans.get(need.call)
            if inner is None:
                inner = plan_of_dependency(f"{what}, dependency {name_of(need.call)!r}", need.call)
                self._check(what, inner, (*above, need.call))
                self._plans[need.call] = inner

    def find(self, call: Callable[..., Any]) -> tuple[Callable[..., Any], Plan]:
        """Return a dependency, or what takes its place, and how to call it.

        Raises:
            TaskDefinitionError: What takes its place cannot be given to a task.
        """
        call = self.dependency_overrides.get(call, call)
        plan = self._plans.get(call)
        if plan is None:
            plan = plan_of_dependency(f"dependency {name_of(call)!r}", call)
            self._check(f"dependency {name_of(call)!r}", plan, (call,))
            self._plans[call] = plan
        return call, plan

    def needs_loop(self, plan: Plan) -> bool:
        """Whether something that a plan needs is asynchronous."""
        for need in plan.needs:
            _, inner = self.find(need.call)
            if inner.kind.is_async or self.needs_loop(inner):
                return True
        return False


class _Call:
    """A task's function, called with its dependencies."""

    def __init__(self, dependencies: TaskDependencies, function: Callable[..., Any], plan: Plan) -> None:
        self._dependencies = dependencies
        self._function = function
        self._plan = plan
        self._names = tuple(inspect.signature(function).parameters)
        self._needed = frozenset(need.name for need in plan.needs)

    def _resolver(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Resolver, dict[str, Any]]:
        """Return who gives what is missing, and the arguments by name that were given."""
        given = {
            name: value
            for name, value in kwargs.items()
            if name not in self._needed or not (value is INJECTED or is_placeholder(value))
        }
        named = {*self._names[: len(args)], *given}
        missing = tuple(need for need in self._plan.needs if need.name not in named)
        context = current.get()
        if context is None:
            name = function_name(self._function)
            context = next((each for each in args[:1] if isinstance(each, TaskContext)), None) or TaskContext(
                id="local", name=name, queue="", local=True
            )
        plan = Plan(missing, None, Kind.CALL)
        return Resolver(self._dependencies, plan, context), given

    async def aexecute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Call a coroutine function: dependencies on this event loop, plain ones in threads."""
        resolver, given = self._resolver(args, kwargs)
        return await on_loop(resolver, lambda values: self._function(*args, **given, **values))

    def execute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Call a plain function, in this thread.

        Its dependencies are called here too, unless one of them is asynchronous: then all as for a coroutine function,
        on the worker's event loop.
        """
        resolver, given = self._resolver(args, kwargs)
        call = functools.partial(self._function, *args, **given)
        if self._dependencies.needs_loop(resolver.plan):
            return hosted(resolver, call)
        return in_thread(resolver, call)


def enable_depends(taskq: TaskQ) -> TaskDependencies:
    """Let the tasks of a queue application have dependencies.

    Args:
        taskq: The queue application, before its tasks are made.

    Returns:
        What gives them; its `dependency_overrides` are for tests. The same for a second call.

    Raises:
        ConfigurationError: It is not a queue application, or it has another injector.
    """
    if not isinstance(taskq, TaskQ):
        raise ConfigurationError(f"enable_depends takes a TaskQ, got {type(taskq).__name__}")
    known = taskq.injector
    if known is None:
        known = taskq.injector = TaskDependencies()
    if not isinstance(known, TaskDependencies):
        raise ConfigurationError(f"the tasks of this queue application are given values by {type(known).__name__}")
    return known
