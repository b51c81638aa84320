"""Base class of tasks with code and of remote tasks."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar, Unpack, cast

from taskq_core.codec import References
from taskq_core.errors import ConfigurationError
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.tasks.limits import Limits
from taskq_core.tasks.options import CallOptionsDict, TaskOptions, check_call_options, task_options
from taskq_core.tasks.plan import Plan
from taskq_core.wire import Keys, validate_task_type

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class BlockingClient(Protocol):
    """The part of the client for blocking code that tasks use."""

    def enqueue(self, call: Any) -> TaskHandle[Any]:
        """Enqueue a call and return its handle. Blocks."""
        ...


class AsyncioClient(Protocol):
    """The part of the client for coroutines that tasks use."""

    async def enqueue(self, call: Any) -> TaskHandle[Any]:
        """Enqueue a call and return its handle."""
        ...


class Enqueuer(Protocol):
    """The part of a queue application that its tasks use, for example to enqueue themselves."""

    @property
    def references(self) -> References | None:
        """Classes whose values are sent as keys, such as Django models. None if the application has none."""
        ...

    @property
    def task_defaults(self) -> Mapping[str, Any]:
        """Options that apply to each task that does not set them."""
        ...

    def registered_form(self, task: object) -> object:
        """Return the registered task for a task object of a framework, and any other object unchanged."""
        return task

    @property
    def client(self) -> BlockingClient:
        """The client for blocking code."""
        ...

    @property
    def async_client(self) -> AsyncioClient:
        """The client for coroutines."""
        ...

    def check_queue(self, name: str, queue: str) -> None:
        """Warn if the setting `QUEUES` is set and does not contain the queue of a task."""

    def enqueue_workflow(self, workflow: Any) -> WorkflowHandle:
        """Enqueue a workflow and return its handle. Blocks."""
        ...

    async def aenqueue_workflow(self, workflow: Any) -> WorkflowHandle:
        """Enqueue a workflow from a coroutine and return its handle."""
        ...


class BaseTask(Generic[R_co]):
    """Base class of tasks with code and of remote tasks.

    Attributes:
        changed: Options in which this copy differs from the registered task.
    """

    name: str
    result_type: Any
    is_remote = False
    """True if the code of the task is in another program."""
    encode: Callable[[tuple[object, ...], Mapping[str, object]], bytes]
    """Returns the payload of a call, or raises `TaskArgumentsError`."""
    bind: Callable[[tuple[object, ...], Mapping[str, object]], Mapping[str, object]]
    """Returns the arguments of a call by name, or raises `TaskArgumentsError`."""
    split: Callable[[Mapping[str, object]], tuple[list[object], dict[str, object]]]
    """Converts arguments by name, as `bind` returns them, to positional and keyword arguments of a call."""

    def __init__(self, name: str, options: Mapping[str, Any], enqueuer: Enqueuer) -> None:
        self.name = validate_task_type(name)
        self.changed: frozenset[str] = frozenset()
        self._enqueuer = enqueuer
        self._set_options(options)

    def _set_options(self, options: Mapping[str, Any]) -> None:
        self._own_options = dict(options)
        if "dead_letter" in options:
            self._own_options["dead_letter"] = self._enqueuer.registered_form(options["dead_letter"])
        self.current_plan: Plan | None = None
        """The last result of the method `plan`. A client uses it again if its attribute `keys` is the client's own key
        object."""
        self._options: tuple[Mapping[str, Any], TaskOptions] | None = None
        self._with_headers: tuple[Mapping[str, str], BaseTask[Any]] | None = None

    @property
    def enqueuer(self) -> Enqueuer:
        """The queue application of the task. For adapters."""
        return self._enqueuer

    @property
    def options(self) -> TaskOptions:
        """The task's options, with the defaults of its queue application for those that it does not set."""
        defaults = self._enqueuer.task_defaults
        if self._options is None or self._options[0] is not defaults:
            self._options = (defaults, self._check_options({**defaults, **self._own_options}))
        return self._options[1]

    def _check_options(self, given: Mapping[str, Any]) -> TaskOptions:
        """Check options and return them.

        The constructor calls this method, so a mistake raises an error where the task is defined.
        """
        try:
            options = task_options(given)
            self._limits(options)
        except ConfigurationError as error:
            raise ConfigurationError(f"task {self.name!r}: {error}") from None
        return options

    def plan(self, keys: Keys, app: object = None) -> Plan:
        """Return the data that all calls of the task share, computed once. For clients.

        Warn if the task's queue is not in the setting `QUEUES`.

        Args:
            keys: Key names of the client's queue application. No two applications share this object.
            app: The queue application. None: neither check the application nor warn.

        Raises:
            ConfigurationError: The task belongs to another queue application.
        """
        plan = self.current_plan
        if plan is None or plan.keys is not keys:
            if app is not None and app is not self._enqueuer:
                raise ConfigurationError(
                    f"task {self.name!r} belongs to another TaskQ than this client; call its .delay() or .adelay(), "
                    "use the client of its TaskQ, or enqueue it by name with taskq.remote(...) of this TaskQ"
                )
            plan = self.current_plan = Plan(self.name, self.options, keys, self.limits, self.result_type)
            # Other programs serve the queues of remote tasks. So the setting `QUEUES` need not contain these queues.
            if app is not None and not self.is_remote:
                self._enqueuer.check_queue(self.name, plan.queue.name)
        return plan

    @property
    def limits(self) -> Limits | None:
        """The limits of the task, bound to its parameters. None if it has no limits. For clients and workers."""
        return self._limits(self.options)

    def _limits(self, options: TaskOptions) -> Limits | None:
        return Limits(self.name, options.limits, self._parameter_defaults()) if options.limits else None

    def _parameter_defaults(self) -> Mapping[str, Any] | None:
        """Return the parameters' default values by name, `inspect.Parameter.empty` for no default. None if unknown."""
        return None

    def using(self, **options: Unpack[CallOptionsDict]) -> Self:
        """Return a copy with other options.

        Raises:
            ConfigurationError: An option is unknown, its value is not valid, or a copy cannot change it because workers
                read it from the registered task.
        """
        copy: Self = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.changed = self.changed | options.keys()
        copy._set_options({**self._own_options, **options})
        copy._check_options(copy._own_options)
        check_call_options(options)
        return copy

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return a copy with these headers added. They replace the task's headers of the same name.

        Consecutive calls with equal headers return the same copy.

        Raises:
            ConfigurationError: A header is not valid.
        """
        merged = {**self.options.headers, **headers}
        known = self._with_headers
        if known is not None and known[0] == merged:
            return cast("Self", known[1])
        copy = self.using(headers=merged)
        self._with_headers = (merged, copy)
        return copy
