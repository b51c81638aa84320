"""What the API answers with about workflows."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from taskq_core import views as dashboard
from taskq_core.workflow import StepInfo, StepState, WorkflowGraph, WorkflowState
from taskq_fastapi.api.access import Shown
from taskq_fastapi.api.models.values import ID, Octets, Record, Text, text


class WorkflowRow(Record):
    """A workflow in a list."""

    queue: Text = Field(description="Its home.", examples=["default"])
    id: Text = Field(examples=[ID])
    name: Text = Field(description="The one it was given, or those of its first steps.", examples=["onboarding"])
    state: WorkflowState = Field(description="damaged: what Redis keeps of it cannot be read.")
    created_at: datetime | None = Field(description="Null of a damaged one.")
    ended_at: datetime | None = Field(description="Null while it runs.")
    steps: int = Field(
        description="Each member of a group as one; of more than 100 groups each group as one.", examples=[4]
    )
    steps_ended: int = Field(description="How many of them have ended, in whatever way.", examples=[3])
    steps_failed: int = Field(
        description="How many have failed; those after which it goes on as if nothing had happened are left out.",
        examples=[0],
    )


class WorkflowSearch(Record):
    """What a search for workflows found: those that run first."""

    rows: list[WorkflowRow]
    scanned: int = Field(description="How many were read.", examples=[16])
    total: int = Field(description="How many there are.", examples=[16])
    cursor: Text | None = Field(description="Where to go on; null if all were read.")


class Workflows(Record):
    """Some of the workflows whose home a queue is: those that run first, then those that have ended, newest first."""

    queue: Text = Field(examples=["default"])
    rows: list[WorkflowRow]
    running: int = Field(description="How many run.", examples=[2])
    ended: int = Field(description="How many have ended and are kept.", examples=[14])
    total: int = Field(examples=[16])


class WorkflowInfo(Record):
    """How a workflow stands."""

    id: Text = Field(examples=[ID])
    queue: Text = Field(description="Its home.", examples=["default"])
    name: Text = Field(description="The one it was given, or those of its first steps.", examples=["onboarding"])
    state: WorkflowState
    created_at: datetime
    ended_at: datetime | None = Field(description="Null while it runs.")
    total: int = Field(description="Steps, each member of a group as one.", examples=[4])
    counts: dict[StepState, int] = Field(description="How many of them stand how.", examples=[{"succeeded": 3}])
    ended: int = Field(description="How many have ended, in whatever way.", examples=[3])


class WorkflowStep(Record):
    """A step of a workflow, or a group of them."""

    name: Text = Field(examples=["resize"])
    task: Text = Field(description='Name of its task; "" where that is not known.', examples=["image:resize"])
    queue: Text = Field(description='Queue of its task, "" for a group.', examples=["default"])
    task_id: Text = Field(description='Id of its task, "" for a group.', examples=[f"{ID}.resize"])
    state: StepState
    status: Text = Field(description="Its state, or how often it was retried.", examples=["retrying 2/25"])
    after: dict[Text, Literal["success", "failure", "end"]] = Field(
        description="The steps it comes after, and when it runs.", examples=[{"fetch": "success"}]
    )
    is_callback: bool = Field(description="Whether it runs after a part of the workflow.")
    ended_at: datetime | None
    error: Any = Field(
        description='Its failure, of a group that of its first, of a retried step the last; "" for none.',
        examples=["timed out"],
    )
    members: int | None = Field(description="Members of a group, null for a step.")
    succeeded: int = Field(description="Members that have succeeded.")
    failed: int = Field(description="Members that have failed for good.")
    retried: int = Field(description="Of a started step, how often its task has failed so far.", examples=[2])
    max_retry: int = Field(description="Of a step that was retried, how often it may be.", examples=[25])


class Workflow(BaseModel):
    """A workflow with its steps, each behind those it comes after."""

    info: WorkflowInfo
    steps: list[WorkflowStep]


class Member(BaseModel):
    """A member of a group."""

    number: int = Field(description="Which it is, from 0.", examples=[0])
    task_id: Text = Field(examples=[f"{ID}.pictures.0"])
    queue: Text = Field(description="Queue of its task.", examples=["default"])
    state: StepState
    error: Any = Field(description='The beginning of its failure; "" for none.', examples=["timed out"])
    result: Octets = Field(description="What it returned, if that is short.")
    result_size: int = Field(description="Bytes of what it returned.", examples=[0])
    retried: int = Field(description="While it is started, how often its task has failed so far.", examples=[2])
    max_retry: int = Field(description="If it was retried, how often it may be.", examples=[25])


class StepDetail(BaseModel):
    """A step of a workflow, or a group with some of its members in their order."""

    queue: Text = Field(description="Home of the workflow.", examples=["default"])
    workflow_id: Text = Field(examples=[ID])
    workflow_name: Text = Field(
        description="The one it was given, or those of its first steps.", examples=["onboarding"]
    )
    workflow_state: WorkflowState
    step: WorkflowStep
    result: Octets = Field(description="What a step that is no group returned, if that is not too long.")
    result_size: int = Field(description="Bytes of what it returned.", examples=[0])
    members: list[Member]


class WorkflowChanged(BaseModel):
    """What became of an action on a workflow."""

    action: Literal["cancel", "retry"]
    done: int = Field(description="Steps that run again; for cancel 1, or 0 if it had ended already.", examples=[1])


def workflow_of(graph: WorkflowGraph, shown: Shown) -> Workflow:
    """Return what is shown of a workflow; failures go through the redaction, as those of tasks do."""
    steps = [_step(record, shown) for record in graph.steps]
    return Workflow(info=WorkflowInfo.model_validate(graph.info), steps=steps)


def step_of(found: dashboard.StepDetail, shown: Shown) -> StepDetail:
    """Return what is shown of a step with its members; failures and results as those of tasks.

    Which task a member is of is not known, so where there is a redaction its result is not shown.
    """
    name = found.step.task
    of_members = shown if shown.may_ask_payloads else Shown(payloads=False, redact=None)
    members = [
        Member(
            number=each.number,
            task_id=each.task_id,
            queue=each.queue,
            state=each.state,
            error=shown.value(name, "error", text(each.error)),
            result=_result(of_members, name, each.result, each.result_size),
            result_size=each.result_size,
            retried=each.retried,
            max_retry=each.max_retry,
        )
        for each in found.members
    ]
    return StepDetail(
        queue=found.queue,
        workflow_id=found.workflow_id,
        workflow_name=found.workflow_name,
        workflow_state=found.workflow_state,
        step=_step(found.step, shown),
        result=_result(shown, name, found.result, found.result_size),
        result_size=found.result_size,
        members=members,
    )


def _step(record: StepInfo, shown: Shown) -> WorkflowStep:
    step = WorkflowStep.model_validate(record)
    step.error = shown.value(record.task, "error", text(record.error))
    return step


def _result(shown: Shown, name: str, data: bytes, size: int) -> Octets:
    """Return a result that may have been cut when it was read; one that was is left out."""
    found = Octets(**shown.octets(name, "result", data, most=None))
    if size > len(data) and found.omitted is None:
        return Octets(size=size, omitted="large")
    found.size = size
    return found
