"""Workflows of named steps. Each step names the earlier steps that it waits for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias, Unpack, cast, overload

from taskq_core.codec import Later
from taskq_core.errors import WorkflowDefinitionError
from taskq_core.settings import Duration, seconds
from taskq_core.tasks.canvas import Canvas, Part, PartialSignature, R_co, Signature, Single, step
from taskq_core.tasks.options import CallOptionsDict
from taskq_core.tasks.step_options import KEPT_S, After, OnFailure, WorkflowDetails, check_call, check_name, policy
from taskq_core.wire import validate_queue_name


def after(step: str, *, into: str | None = None, on_failure: OnFailure | str | None = None) -> After:
    """Return an edge of a `Workflow`: an earlier step, the parameter for its result, and the effect of its failure.

    Args:
        step: Name of the earlier step.
        into: Parameter that receives the result of the earlier step. None: the next positional argument. "": the
            result is not passed.
        on_failure: `stop` or `continue`. None: the value of the earlier step.
    """
    return After(
        step=check_name("name of a step", step),
        into=into,
        on_failure=None if on_failure is None else policy(on_failure),
    )


_Edges: TypeAlias = str | After | Sequence[str | After] | Mapping[str, str | None]


class _CallbacksDict(CallOptionsDict, total=False):
    on_failure: OnFailure | str
    on_success: Part | Sequence[Part]
    on_error: Part | Sequence[Part]
    on_complete: Part | Sequence[Part]


class _StepOptionsDict(_CallbacksDict, total=False):
    after: _Edges


class Workflow(Canvas[R_co]):
    """A workflow of named steps, each of which waits for any number of earlier steps: fan-out, fan-in, any depth.

    Type checkers cannot infer the type of the result. State it with `Workflow[Receipt]("order")`. The result is that of
    the last step, or a dict of results by name if the workflow has several last steps.

    Args:
        name: Name of the workflow for display.
        queue: Home queue, which stores the state of the workflow. None: the queue of its first step.
        kept: How long the workflow is stored after its end.
    """

    __slots__ = ("steps",)

    def __init__(self, name: str | None = None, *, queue: str | None = None, kept: Duration = KEPT_S) -> None:
        super().__init__()
        self.details = WorkflowDetails(
            None if name is None else check_name("name of a workflow", name),
            None if queue is None else validate_queue_name(queue),
            seconds("kept", kept),
        )
        self.steps: dict[str, Single] = {}

    @overload
    def step(self, name: str, call: Signature[Any], **options: Unpack[_StepOptionsDict]) -> Self: ...
    @overload
    def step(
        self, name: str, call: PartialSignature[Any], *, after: _Edges, **options: Unpack[_CallbacksDict]
    ) -> Self: ...
    def step(
        self,
        name: str,
        call: PartialSignature[Any],
        *,
        after: _Edges = (),
        on_failure: OnFailure | str = OnFailure.STOP,
        on_success: Part | Sequence[Part] = (),
        on_error: Part | Sequence[Part] = (),
        on_complete: Part | Sequence[Part] = (),
        **options: Unpack[CallOptionsDict],
    ) -> Self:
        """Add a step, and return the workflow.

        Args:
            name: Name of the step.
            call: The task and its arguments.
            after: The earlier steps: names or `after(...)`, whose results become the first arguments in this order; or
                a mapping of names to the parameters for their results, None to pass no result. A name may belong to a
                step that is added later.
            on_failure: What happens to later steps when this step fails after its last retry, unless they set another
                value.
            on_success: Calls that run after this step succeeds, as for a chain.
            on_error: Calls that run if this step fails after its last retry.
            on_complete: Calls that run once this step has ended.
            options: Options of the step's task.

        Raises:
            WorkflowDefinitionError: The name is taken or not valid, or the task does not accept these results.
            ConfigurationError: An option is unknown or its value is not valid.
        """
        if name in self.steps:
            raise WorkflowDefinitionError(name, "the workflow has a step with this name already")
        single = cast("Single", step(call, name=name, on_failure=on_failure, **options))
        for kind, calls in (("success", on_success), ("error", on_error), ("complete", on_complete)):
            single = single._with(kind, tuple(calls) if isinstance(calls, Sequence) else (calls,))
        edges = _edges(name, after)
        seen = [each.step for each in edges]
        for each in seen:
            if seen.count(each) > 1:
                raise WorkflowDefinitionError(name, f"after= names the step {each!r} twice")
        positional, named = edge_arguments(edges, lambda edge: Later(edge.step))
        if call.is_immutable:
            wanted = next((edge for edge in edges if edge.into), None)
            if wanted is not None:
                raise WorkflowDefinitionError(
                    name, f"cannot pass a result to {wanted.into!r}, because it was made by si(); use s()"
                )
        else:
            check_call(name, call, positional, named)
        single.after = edges
        self.steps[name] = single
        return self

    @property
    def enqueuer(self) -> Any:
        """The queue application of the first step."""
        if not self.steps:
            raise WorkflowDefinitionError("", "the workflow has no steps")
        return next(iter(self.steps.values())).enqueuer


def _edges(name: str, given: Any) -> tuple[After, ...]:
    if isinstance(given, str | After):
        given = (given,)
    if isinstance(given, Mapping):
        return tuple(after(each, into="" if into is None else into) for each, into in given.items())
    edges = []
    for each in given:
        if not isinstance(each, str | After):
            raise WorkflowDefinitionError(name, f"after= takes names of steps, got {each!r:.200}")
        edges.append(after(each) if isinstance(each, str) else each)
    return tuple(edges)


def edge_arguments(edges: Iterable[After], result: Callable[[After], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that the edges of a step pass to it: positional ones and keyword ones."""
    positional = tuple(result(edge) for edge in edges if edge.into is None)
    return positional, {edge.into: result(edge) for edge in edges if edge.into}
