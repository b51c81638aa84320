"""Signatures, and the workflows that are built from them: steps, chains, groups and chords.

This module sends nothing. It rejects some mistakes at once: invalid names, and tasks that do not accept a previous
result. `graph.build` checks the rest before anything is written.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain as joined
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, TypeVar, Unpack, overload

from msgspec import Struct
from msgspec.structs import replace

from taskq_core.codec import Later
from taskq_core.errors import WorkflowDefinitionError
from taskq_core.handles.handle import TaskHandle
from taskq_core.handles.workflow import WorkflowHandle
from taskq_core.settings import Duration, seconds
from taskq_core.tasks.base import BaseTask
from taskq_core.tasks.options import CallOptionsDict
from taskq_core.tasks.step_options import After, Callbacks, OnFailure, WorkflowDetails, check_call, check_name, policy
from taskq_core.warnings import warn_if_blocking
from taskq_core.wire import validate_queue_name

T = TypeVar("T")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # only known to type checkers, not installed

    R_co = TypeVarWithDefault("R_co", covariant=True, default=Any)
else:
    R_co = TypeVar("R_co", covariant=True)


class PartialSignature(Struct, Generic[R_co], eq=False):
    """A task with some of its arguments.

    As a step of a workflow, it gets its other arguments from results of earlier steps.

    At run time `Task.s` always returns a `Signature`. Type checkers see this class, which has no `delay`, if required
    arguments are missing.
    """

    task: BaseTask[R_co]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    is_immutable: bool = False

    def __repr__(self) -> str:
        return f"<signature of {self.task.name!r}>"

    def _copy(self, task: BaseTask[R_co], args: tuple[object, ...], kwargs: Mapping[str, object]) -> Self:
        return type(self)(task, args, kwargs, is_immutable=self.is_immutable)

    def __or__(self, other: "Part[T]") -> "PartialCanvas[T]":
        """Return the chain of this step and a next part, which gets this step's result as first argument."""
        return chain(self, other)

    def on_success(self, *calls: "Part") -> "PartialCanvas[R_co]":
        """Return a workflow that runs `calls` after this step succeeds, each with the result as first argument."""
        return chain(self).on_success(*calls)

    def on_error(self, *calls: "Part") -> "PartialCanvas[R_co]":
        """Return a workflow that runs `calls` if this step fails, each with a `StepFailure` as first argument."""
        return chain(self).on_error(*calls)

    def on_complete(self, *calls: "Part") -> "PartialCanvas[R_co]":
        """Return a workflow that runs `calls` after this step ends, each with the result, or None after a failure."""
        return chain(self).on_complete(*calls)

    def using(self, **options: Unpack[CallOptionsDict]) -> Self:
        """Return a copy with other task options."""
        return self._copy(self.task.using(**options), self.args, self.kwargs)

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments by name, without default values.

        Raises:
            TaskArgumentsError: The arguments do not match the task's parameters, or the payload of a remote task is
                bytes.
        """
        return self.task.bind(self.args, self.kwargs)

    def with_arguments(self, **arguments: object) -> Self:
        """Return a copy with these arguments added. They replace arguments of the same name.

        Raises:
            TaskArgumentsError: The existing arguments do not match the task's parameters, or the payload of a remote
                task is bytes.
        """
        if not self.args:
            return self._copy(self.task, (), {**self.kwargs, **arguments})
        args, kwargs = self.task.split({**self.arguments, **arguments})
        return self._copy(self.task, tuple(args), kwargs)

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return a copy with these headers added. They replace the task's headers of the same name.

        Raises:
            ConfigurationError: A header is not valid.
        """
        return self._copy(self.task.with_headers(headers), self.args, self.kwargs)


class Signature(PartialSignature[R_co]):
    """A task with its arguments, to be enqueued later."""

    if TYPE_CHECKING:
        # For type checkers: a workflow that is combined with complete calls has all its arguments and can be enqueued.
        def __or__(self, other: "Part[T]") -> "Chain[T]": ...
        def on_success(self, *calls: "Part") -> "Chain[R_co]": ...  # noqa: D102 - as in the base class
        def on_error(self, *calls: "Part") -> "Chain[R_co]": ...  # noqa: D102 - as in the base class
        def on_complete(self, *calls: "Part") -> "Chain[R_co]": ...  # noqa: D102 - as in the base class

    def delay(self) -> TaskHandle[R_co]:
        """Enqueue the call and return its handle. Blocks. Raises the errors of `Task.delay`."""
        return self.task._enqueuer.client.enqueue(self)

    async def adelay(self) -> TaskHandle[R_co]:
        """Enqueue the call from a coroutine and return its handle. Raises the errors of `Task.delay`."""
        return await self.task._enqueuer.async_client.enqueue(self)


class PartialCanvas(Generic[R_co]):
    """A part of a workflow. Arguments that are missing come from the previous result. Immutable: methods return copies.

    At run time `chain`, `group` and `step` always return a `Canvas`. Type checkers see this class, which has no
    `delay`, if required arguments are missing.
    """

    __slots__ = ("callbacks", "details")

    def __init__(self) -> None:
        self.details = WorkflowDetails()
        self.callbacks = Callbacks()

    def _about(self, **changes: Any) -> Self:
        changed = copy.copy(self)
        changed.details = replace(self.details, **changes)
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
        """Return a copy that runs `calls` after this part succeeds, each with the part's result as first argument."""
        return self._with("success", calls)

    def on_error(self, *calls: "Part") -> Self:
        """Return a copy that runs `calls` once if a step of this part fails, each with a `StepFailure` as argument."""
        return self._with("error", calls)

    def on_complete(self, *calls: "Part") -> Self:
        """Return a copy that runs `calls` once this part has succeeded or failed.

        Each call gets the result as first argument, None after a failure. A call whose function accepts no further
        argument does not get the result.
        """
        return self._with("complete", calls)

    def named(self, name: str) -> Self:
        """Return a copy with a name for display."""
        return self._about(name=check_name("name of a workflow", name))

    def at_home(self, queue: str) -> Self:
        """Return a copy with another home queue, which stores the workflow's state. Default: the first step's queue."""
        return self._about(queue=validate_queue_name(queue))

    def kept(self, duration: Duration) -> Self:
        """Return a copy that is stored for `duration` after its end. The default is one day."""
        return self._about(keep_s=seconds("kept", duration))

    def __or__(self, other: "Part[T]") -> "PartialCanvas[T]":
        """Return the chain of this part and a next part, which gets this part's result as first argument."""
        return chain(self, other)

    @property
    def enqueuer(self) -> Any:
        """The queue application of the workflow's steps.

        Raises:
            WorkflowDefinitionError: The workflow has no steps.
        """
        raise NotImplementedError


class Canvas(PartialCanvas[R_co]):
    """A workflow that has all its arguments and can be enqueued."""

    __slots__ = ()

    if TYPE_CHECKING:
        # For type checkers: a chain of complete calls has all its arguments and can be enqueued.
        def __or__(self, other: "Part[T]") -> "Chain[T]": ...

    def delay(self) -> WorkflowHandle[R_co]:
        """Enqueue the workflow and return its handle. Blocks.

        Raises:
            WorkflowDefinitionError, PayloadTooLargeError: The workflow is not valid. Nothing was written, unless the
                members of a group come from a generator and the invalid member is not in the first batch of 200. In
                that case the earlier members run, and the group fails.
            EnqueueError: Redis could not be reached or refused the workflow.
            EnqueueUnknownError: The connection failed, and the workflow may have been written and started.
        """
        warn_if_blocking(".delay() of a workflow", ".adelay()")
        handle: WorkflowHandle[R_co] = self.enqueuer.enqueue_workflow(self)
        return handle

    async def adelay(self) -> WorkflowHandle[R_co]:
        """Enqueue the workflow from a coroutine and return its handle. Raises the errors of `delay`."""
        handle: WorkflowHandle[R_co] = await self.enqueuer.aenqueue_workflow(self)
        return handle


class Single(Canvas[R_co]):
    """One call as a step. Made by `step`, by `Workflow.step`, and from each signature in a workflow.

    Attributes:
        call: The task and its arguments.
        name: Name of the step. None: a name is made from the name of the task.
        into: Parameter that receives the result before this step. None: the first parameter.
        on_failure: What happens to later steps when this step fails after its last retry.
        after: In a `Workflow`, the edges to the earlier steps.
    """

    __slots__ = ("after", "call", "into", "name", "on_failure")

    def __init__(
        self,
        call: Signature[R_co],
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
        """The queue application of the step's task."""
        return self.call.task.enqueuer


class Chain(Canvas[R_co]):
    """Parts that run one after the other. Made by `chain` and `|`. Its result is the result of the last part."""

    __slots__ = ("on_failure", "parts")

    def __init__(self, parts: tuple[Any, ...], on_failure: OnFailure = OnFailure.STOP) -> None:
        super().__init__()
        self.parts = parts
        self.on_failure = on_failure

    @property
    def enqueuer(self) -> Any:
        """The queue application of the first part that is not a group without members."""
        filled = (part for part in self.parts if not isinstance(part, Group) or part.first is not None)
        return next(filled, self.parts[0]).enqueuer


class Chord(Chain[R_co]):
    """A group, and a callback that gets the list of its members' results. Made by `chord`."""

    __slots__ = ()


class Group(Canvas[list[Any]]):
    """Parts that run in parallel. Made by `group`. Its result is the list of its members' results, as JSON values."""

    __slots__ = ("members", "name", "on_failure")

    def __init__(self, members: Iterable[Any], name: str | None, on_failure: OnFailure) -> None:
        super().__init__()
        self.members = members
        self.name = name
        self.on_failure = on_failure

    @property
    def first(self) -> Any:
        """The first member, None if there is none.

        If `members` is a generator, a later loop over `members` also gets this member.
        """
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
    """An iterable over an iterator whose first element was already read. It yields that element first."""

    def __init__(self, members: Iterator[Any]) -> None:
        self.first = next(members, None)
        self._rest = members

    def __iter__(self) -> Iterator[Any]:
        return joined([self.first], self._rest) if self.first is not None else iter(())


Part = PartialSignature[R_co] | PartialCanvas[R_co]
"""Type of a part of a workflow."""
Whole = Signature[R_co] | Canvas[R_co]
"""Type of a part of a workflow, for type checkers: no required argument is missing."""


def _part(what: str, part: object) -> Single | Chain | Group:
    """Check a part of a workflow and return it. A signature becomes a step without a name."""
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
def step(call: Signature[T], **options: Unpack[_StepOptionsDict]) -> Single[T]: ...
@overload
def step(call: PartialSignature[T], **options: Unpack[_StepOptionsDict]) -> PartialCanvas[T]: ...
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
        name: Name of the step, unique in the workflow. None: a name is made from the name of the task.
        into: Parameter that receives the result before this step. None: the first parameter.
        on_failure: What happens to later steps when this step fails after its last retry.
        options: Options of the step's task.

    Raises:
        WorkflowDefinitionError: The task has no parameter `into`, or the name is not valid.
        ConfigurationError: An option is unknown or its value is not valid.
    """
    if not isinstance(call, Signature):
        raise WorkflowDefinitionError("", f"a step must be a signature, got {call!r:.200}")
    if name is not None:
        check_name("name of a step", name)
    single = Single(call.using(**options) if options else call, name, into, policy(on_failure))
    if into is not None:
        if call.is_immutable:
            raise WorkflowDefinitionError(
                single.label, f"cannot pass a result to {into!r}, because it was made by si(); use s()"
            )
        check_call(single.label, call, (), {into: Later(None)})
    return single


class _ChainOptionsDict(TypedDict, total=False):
    on_failure: OnFailure | str


# The type of a result is known for chains of at most five parts. The operator `|` has no such limit.
@overload
def chain(parts: Iterable[Part], /, **options: Unpack[_ChainOptionsDict]) -> Chain: ...
@overload
def chain(only: Whole[T], /, **options: Unpack[_ChainOptionsDict]) -> Chain[T]: ...
@overload
def chain(first: Whole, last: Part[T], /, **options: Unpack[_ChainOptionsDict]) -> Chain[T]: ...
@overload
def chain(first: Whole, part2: Part, last: Part[T], /, **options: Unpack[_ChainOptionsDict]) -> Chain[T]: ...
@overload
def chain(
    first: Whole, part2: Part, part3: Part, last: Part[T], /, **options: Unpack[_ChainOptionsDict]
) -> Chain[T]: ...
@overload
def chain(
    first: Whole, part2: Part, part3: Part, part4: Part, last: Part[T], /, **options: Unpack[_ChainOptionsDict]
) -> Chain[T]: ...
@overload
def chain(first: Whole, /, *parts: Part, **options: Unpack[_ChainOptionsDict]) -> Chain: ...
@overload
def chain(*parts: Part, **options: Unpack[_ChainOptionsDict]) -> PartialCanvas: ...
def chain(*parts: Any, on_failure: OnFailure | str = OnFailure.STOP) -> Any:
    """Return a workflow of parts that run one after the other, each with the previous result as first argument.

    The result of a group is the list of its members' results. A part starts when the previous part has succeeded.

    Args:
        parts: Signatures, steps, groups and chains; or one iterable of them.
        on_failure: `stop`: the parts after a failed part are skipped. `continue`: they run, with None as the result.

    Raises:
        WorkflowDefinitionError: `parts` is empty, or a part does not accept the previous result.
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
        is_plain = part.on_failure is how and part.callbacks == Callbacks() and part.details == WorkflowDetails()
        if isinstance(part, Chain) and is_plain:
            flat += part.parts
        else:
            flat.append(part)
    return Chain(tuple(flat), how)


class _GroupOptionsDict(_ChainOptionsDict, total=False):
    name: str | None


@overload
def group(members: Iterable[Whole], /, **options: Unpack[_GroupOptionsDict]) -> Group: ...
@overload
def group(*members: Whole, **options: Unpack[_GroupOptionsDict]) -> Group: ...
@overload
def group(members: Iterable[Part], /, **options: Unpack[_GroupOptionsDict]) -> PartialCanvas[object]: ...
@overload
def group(*members: Part, **options: Unpack[_GroupOptionsDict]) -> PartialCanvas[object]: ...
def group(*members: Any, name: str | None = None, on_failure: OnFailure | str = OnFailure.STOP) -> Any:
    """Return a workflow of members that run in parallel.

    Its result is the list of the members' results, in order. It succeeds when all members have succeeded.

    Args:
        members: Signatures, steps, groups and chains; or one iterable of them. The iterable is read once, while the
            group is enqueued. The iterable may yield any number of signatures.
        name: Name of the group. Only for a group whose members are all signatures.
        on_failure: What happens after a member fails after its last retry. `stop`: the steps after the group are
            skipped. `continue`: they run, with None for each missing result.

    Raises:
        WorkflowDefinitionError: A member is not a signature, step, group or chain.
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
    members: Group | Iterable[Whole], callback: Part[T], *, on_failure: OnFailure | str = OnFailure.STOP
) -> Chord[T]: ...
@overload
def chord(
    members: PartialCanvas | Iterable[Part], callback: Part[T], *, on_failure: OnFailure | str = OnFailure.STOP
) -> PartialCanvas[T]: ...
def chord(members: Any, callback: Any, *, on_failure: OnFailure | str = OnFailure.STOP) -> Any:
    """Return a workflow of a group and a callback, which runs after all members and gets the list of their results.

    Args:
        members: A group, or the members of a new group.
        callback: The part that runs after the group.
        on_failure: `on_failure` of the new group; see `group`.
    """
    if not isinstance(members, Group):
        members = group(members, on_failure=on_failure)
    return Chord(chain(members, callback).parts)


def check_takes_result(part: Any) -> None:
    """Check that a part accepts a result before its own arguments.

    The members of a group that come from a generator are checked later, when they are read.
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
