"""Signatures, and the workflows that are built from them: steps, chains, groups and chords.

Nothing is sent here. Wrong names and results that a task does not take are refused at once. `graph.build` checks the
rest before anything is written.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain as joined
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, TypeVar, Unpack, overload

from taskq_core.codec import Later
from taskq_core.errors import WorkflowDefinitionError
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.settings import Duration, seconds
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.options import CallOptionsDict
from taskq_core.tasks.step_options import About, After, Callbacks, OnFailure, check_call, check_name, policy
from taskq_core.warnings import warn_if_blocking
from taskq_core.wire import validate_queue_name

R_co = TypeVar("R_co", covariant=True)


class PartialSignature(Generic[R_co]):
    """A task with some of its arguments. As a step of a workflow it gets the others from results.

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
        """Return the chain of this step and the next part, which gets its result as first argument."""
        return chain(self, other)

    def on_success(self, *calls: "Part") -> "PartialCanvas":
        """Return a workflow that runs `calls` after this step succeeds, each with its result as first argument."""
        return chain(self).on_success(*calls)

    def on_error(self, *calls: "Part") -> "PartialCanvas":
        """Return a workflow that runs `calls` if this step fails, each with a `StepFailure` as first argument."""
        return chain(self).on_error(*calls)

    def on_complete(self, *calls: "Part") -> "PartialCanvas":
        """Return a workflow that runs `calls` after this step ends, each with its result or None."""
        return chain(self).on_complete(*calls)

    def using(self, **options: Unpack[CallOptionsDict]) -> Self:
        """Return a copy whose task has other options."""
        return self._copy(self.task.using(**options), self.args, self.kwargs)

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments by name, without default values.

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
        def __or__(self, other: "Part") -> "Chain": ...
        def on_success(self, *calls: "Part") -> "Chain": ...  # noqa: D102 - as above
        def on_error(self, *calls: "Part") -> "Chain": ...  # noqa: D102 - as above
        def on_complete(self, *calls: "Part") -> "Chain": ...  # noqa: D102 - as above

    def delay(self) -> TaskHandle[R_co]:
        """Enqueue it, blocking. Raises as `Task.delay`."""
        return self.task._enqueuer.enqueue(self)

    async def adelay(self) -> TaskHandle[R_co]:
        """Enqueue it from a coroutine. Raises as `Task.delay`."""
        return await self.task._enqueuer.aenqueue(self)


class PartialCanvas:
    """A part of a workflow, to which the result before it may give arguments. It never changes: methods return copies.

    `chain`, `group` and `step` always return a `Canvas`. Type checkers see this class where required arguments are
    missing, so that they refuse to enqueue it by itself.
    """

    __slots__ = ("about", "callbacks")

    def __init__(self) -> None:
        self.about = About()
        self.callbacks = Callbacks()

    def _about(self, **changes: Any) -> Self:
        changed = copy.copy(self)
        changed.about = replace(self.about, **changes)
        return changed

    def _with(self, kind: str, calls: Sequence[Any]) -> Self:
        parts = tuple(_part("callback", call) for call in calls)
        if kind != "complete":
            for part in parts:
                check_takes_result(part)
        changed = copy.copy(self)
        changed.callbacks = replace(self.callbacks, **{kind: (*getattr(self.callbacks, kind), *parts)})
        return changed

    def on_success(self, *calls: "Part") -> Self:
        """Return a copy after whose success these run, each with its result as first argument."""
        return self._with("success", calls)

    def on_error(self, *calls: "Part") -> Self:
        """Return a copy with what runs once if a step of it fails, each with a `StepFailure` as first argument."""
        return self._with("error", calls)

    def on_complete(self, *calls: "Part") -> Self:
        """Return a copy with what runs once it has ended in whatever way, each with its result or None.

        A call that takes no argument more gets none.
        """
        return self._with("complete", calls)

    def named(self, name: str) -> Self:
        """Return a copy with a name, which people see."""
        return self._about(name=check_name("name of a workflow", name))

    def at_home(self, queue: str) -> Self:
        """Return a copy whose state is kept beside a queue; else beside that of its first step."""
        return self._about(queue=validate_queue_name(queue))

    def kept(self, duration: Duration) -> Self:
        """Return a copy that is kept so long after its end; else a day."""
        return self._about(keep_s=seconds("kept", duration))

    def __or__(self, other: "Part") -> "PartialCanvas":
        """Return the chain of this and what comes after it."""
        return chain(self, other)

    @property
    def enqueuer(self) -> Any:
        """The queue application of its steps.

        Raises:
            WorkflowDefinitionError: It has no step.
        """
        raise NotImplementedError


class Canvas(PartialCanvas):
    """A workflow."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __or__(self, other: "Part") -> "Chain": ...  # as above, but what comes out has all its arguments

    def delay(self) -> WorkflowHandle:
        """Enqueue it, blocking, and return its handle.

        Raises:
            WorkflowDefinitionError, PayloadTooLargeError: It cannot be; nothing was written, unless it is for a member
                of a generator behind its first batch of 200: then the group fails, and members before it run.
            EnqueueError: Redis refused or was not reached; `EnqueueUnknownError` when it may have begun.
        """
        warn_if_blocking(".delay() of a workflow", ".adelay()")
        handle: WorkflowHandle = self.enqueuer.enqueue_workflow(self)
        return handle

    async def adelay(self) -> WorkflowHandle:
        """Enqueue it from a coroutine and return its handle. Raises as `delay`."""
        handle: WorkflowHandle = await self.enqueuer.aenqueue_workflow(self)
        return handle


class Single(Canvas):
    """One call as a step. Made by `step`, by `Workflow.step`, and from each signature in a workflow.

    Attributes:
        call: The task and its arguments.
        name: The name of the step; None: made from the name of the task.
        into: Parameter that takes the result before it; None: the first one.
        on_failure: What happens to later steps when it fails after its last retry.
        after: In a `Workflow`, the steps that it comes after.
    """

    __slots__ = ("after", "call", "into", "name", "on_failure")

    def __init__(
        self,
        call: Signature[Any],
        name: str | None = None,
        into: str | None = None,
        on_failure: OnFailure = OnFailure.STOP,
    ) -> None:
        super().__init__()
        self.call = call
        self.name = name
        self.into = into
        self.on_failure = on_failure
        self.after: tuple[After, ...] = ()

    @property
    def label(self) -> str:
        """The name of the step in error messages."""
        return self.name or self.call.task.name

    @property
    def enqueuer(self) -> Any:
        """The queue application of its task."""
        return self.call.task.enqueuer


class Chain(Canvas):
    """Parts that run one after the other. Made by `chain`, `chord` and `|`."""

    __slots__ = ("on_failure", "parts")

    def __init__(self, parts: tuple[Any, ...], on_failure: OnFailure = OnFailure.STOP) -> None:
        super().__init__()
        self.parts = parts
        self.on_failure = on_failure

    @property
    def enqueuer(self) -> Any:
        """The queue application of the first part."""
        return self.parts[0].enqueuer


class Group(Canvas):
    """Parts that run side by side. Made by `group`."""

    __slots__ = ("members", "name", "on_failure")

    def __init__(self, members: Iterable[Any], name: str | None, on_failure: OnFailure) -> None:
        super().__init__()
        self.members = members
        self.name = name
        self.on_failure = on_failure

    @property
    def first(self) -> Any:
        """The first member, None without members. It stays in `members` if they are a generator."""
        if isinstance(self.members, Sequence):
            return self.members[0] if self.members else None
        if not isinstance(self.members, Peeked):
            self.members = Peeked(iter(self.members))
        return self.members.first

    @property
    def enqueuer(self) -> Any:
        """The queue application of the first member."""
        if self.first is None:
            raise WorkflowDefinitionError("", "a group without members cannot be enqueued by itself")
        return _part("member of a group", self.first).enqueuer


class Peeked:
    """A generator whose first element, None if it has none, was read."""

    def __init__(self, members: Iterator[Any]) -> None:
        self.first = next(members, None)
        self._rest = members

    def __iter__(self) -> Iterator[Any]:
        return joined([self.first], self._rest) if self.first is not None else iter(())


Part = PartialSignature[Any] | PartialCanvas
"""A part of a workflow."""
Whole = Signature[Any] | Canvas
"""A part that has all its arguments, as far as type checkers see."""


def _part(what: str, part: object) -> Single | Chain | Group:
    """Return a part of a workflow, a signature as a step without a name."""
    if isinstance(part, Signature):
        return Single(part)
    if not isinstance(part, Single | Chain | Group):
        hint = " (use its .s(...))" if hasattr(part, "s") else ""
        raise WorkflowDefinitionError("", f"{what} must be a signature, chain, group or step, got {part!r:.200}{hint}")
    return part


class _StepOptionsDict(CallOptionsDict, total=False):
    name: str | None
    into: str | None
    on_failure: OnFailure | str


@overload
def step(call: Signature[Any], **options: Unpack[_StepOptionsDict]) -> Single: ...
@overload
def step(call: PartialSignature[Any], **options: Unpack[_StepOptionsDict]) -> PartialCanvas: ...
def step(
    call: PartialSignature[Any],
    *,
    name: str | None = None,
    into: str | None = None,
    on_failure: OnFailure | str = OnFailure.STOP,
    **options: Unpack[CallOptionsDict],
) -> Any:
    """Return a call as a step of a workflow.

    Args:
        call: The task and its arguments.
        name: Its name, unique in the workflow. None: made from the name of the task.
        into: Parameter that takes the result before it. None: the first one.
        on_failure: What happens to later steps when it fails after its last retry.
        options: Options of its task.

    Raises:
        WorkflowDefinitionError: The task does not take such an argument, or the name cannot be one.
        ConfigurationError: An option is unknown or not usable.
    """
    if not isinstance(call, Signature):
        raise WorkflowDefinitionError("", f"a step must be a signature, got {call!r:.200}")
    if name is not None:
        check_name("name of a step", name)
    single = Single(call.using(**options) if options else call, name, into, policy(on_failure))
    if into is not None:
        if call.is_immutable:
            raise WorkflowDefinitionError(single.label, f"takes no result into {into!r}: it was made by si()")
        check_call(single.label, call, (), {into: Later(None)})
    return single


@overload
def chain(parts: Iterable[Part], /, *, on_failure: OnFailure | str = OnFailure.STOP) -> Chain: ...
@overload
def chain(first: Whole, /, *parts: Part, on_failure: OnFailure | str = OnFailure.STOP) -> Chain: ...
@overload
def chain(*parts: Part, on_failure: OnFailure | str = OnFailure.STOP) -> PartialCanvas: ...
def chain(*parts: Any, on_failure: OnFailure | str = OnFailure.STOP) -> Any:
    """Return the workflow of parts that run one after the other, each with the result before it as first argument.

    The result of a group is the list of its results. A part starts when the one before it has succeeded.

    Args:
        parts: Signatures, steps, groups and chains; or one iterable of them.
        on_failure: `stop`: what comes after a failure is skipped. `continue`: it runs, with None for the result.

    Raises:
        WorkflowDefinitionError: `parts` is empty, or a part does not take the result before it.
    """
    if len(parts) == 1 and not isinstance(parts[0], Signature | Canvas) and isinstance(parts[0], Iterable):
        parts = tuple(parts[0])
    if not parts:
        raise WorkflowDefinitionError("", "a chain needs at least one part")
    how = policy(on_failure)
    flat: list[Any] = []
    for each in parts:
        part = _part("part of a chain", each)
        if flat:
            check_takes_result(part)
        is_plain = part.on_failure is how and part.callbacks == Callbacks() and part.about == About()
        if isinstance(part, Chain) and is_plain:
            flat += part.parts
        else:
            flat.append(part)
    return Chain(tuple(flat), how)


class _GroupOptionsDict(TypedDict, total=False):
    name: str | None
    on_failure: OnFailure | str


@overload
def group(members: Iterable[Whole], /, **options: Unpack[_GroupOptionsDict]) -> Group: ...
@overload
def group(*members: Whole, **options: Unpack[_GroupOptionsDict]) -> Group: ...
@overload
def group(members: Iterable[Part], /, **options: Unpack[_GroupOptionsDict]) -> PartialCanvas: ...
@overload
def group(*members: Part, **options: Unpack[_GroupOptionsDict]) -> PartialCanvas: ...
def group(*members: Any, name: str | None = None, on_failure: OnFailure | str = OnFailure.STOP) -> Any:
    """Return the workflow of parts that run side by side.

    Its result is the list of their results, in order. It succeeds when all members have succeeded.

    Args:
        members: Signatures, steps, groups and chains; or one iterable of them, which is read once, while they are
            enqueued: of signatures there may be any number.
        name: Name of the group, where its members are signatures alone.
        on_failure: `stop`: what comes after it is skipped when a member failed for good. `continue`: it runs, with
            None for the results that are missing.

    Raises:
        WorkflowDefinitionError: A member cannot be one.
    """
    given: Iterable[Any] = members
    if len(members) == 1 and not isinstance(members[0], Signature | Canvas) and isinstance(members[0], Iterable):
        given = members[0]
    if isinstance(given, Sequence):
        for each in given:
            _part("member of a group", each)
    if name is not None:
        check_name("name of a group", name)
    return Group(given, name, policy(on_failure))


@overload
def chord(
    members: Group | Iterable[Whole], callback: Part, *, on_failure: OnFailure | str = OnFailure.STOP
) -> Chain: ...
@overload
def chord(
    members: PartialCanvas | Iterable[Part], callback: Part, *, on_failure: OnFailure | str = OnFailure.STOP
) -> PartialCanvas: ...
def chord(members: Any, callback: Part, *, on_failure: OnFailure | str = OnFailure.STOP) -> Any:
    """Return the chain of a group and what runs once all its members have ended, with the list of their results.

    Args:
        members: The group, or its members.
        callback: What runs then.
        on_failure: As for `group`, where its members are given.
    """
    if not isinstance(members, Group):
        members = group(members, on_failure=on_failure)
    return chain(members, callback)


def check_takes_result(part: Any) -> None:
    """Refuse a part that does not take a result before its own arguments.

    Members of a group that are read later are checked then.
    """
    if isinstance(part, Signature):
        part = Single(part)
    if isinstance(part, Chain):
        check_takes_result(part.parts[0])
    elif isinstance(part, Group):
        for each in part.members if isinstance(part.members, Sequence) else ():
            check_takes_result(each)
    elif part.into is None and not part.call.is_immutable:
        check_call(part.label, part.call, (Later(None),), {})
