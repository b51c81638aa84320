"""Records of a workflow: its state, its steps and its graph."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any


class WorkflowState(StrEnum):
    """State of a workflow."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DAMAGED = "damaged"
    """The data of the workflow in Redis cannot be read. Lists show this state; reading the workflow raises
    `WorkflowDamagedError`."""


class StepState(StrEnum):
    """State of a step of a workflow."""

    WAITING = "waiting"
    """The step waits, because earlier steps have not ended."""
    STARTED = "started"
    """The task of the step is enqueued, and may run or be retried."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The task of the step was archived or dropped."""
    SKIPPED = "skipped"
    """The step does not run, because an earlier step did not end in the required way."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """State of a workflow, with the counts of its steps.

    Attributes:
        id: Id of the workflow.
        queue: Home queue of the workflow.
        name: Given name, or the names of the first steps, such as `fetch → resize → notify`.
        state: State of the workflow.
        created_at: When the workflow began, aware UTC.
        ended_at: When the workflow ended, None while it runs.
        total: Number of steps. Each member of a group and each callback counts as one.
        counts: Number of steps by state.
    """

    id: str
    queue: str
    name: str
    state: WorkflowState
    created_at: datetime
    ended_at: datetime | None
    total: int
    counts: Mapping[StepState, int]

    @property
    def ended(self) -> int:
        """Number of steps that have ended."""
        return self.total - self.counts.get(StepState.WAITING, 0) - self.counts.get(StepState.STARTED, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """A step of a workflow, or a group of steps.

    Attributes:
        name: Name of the step.
        task: Name of the step's task. For a group, the name of the first member's task, "" if unknown.
        queue: Queue of the step's task, "" for a group.
        task_id: Id of the step's task, "" for a group. The id of a member is the step's name, "." and its number.
        state: State of the step.
        after: Earlier steps by name, with the outcome after which this step runs: "success", "failure" or "end".
        is_callback: True for a callback of a part of the workflow.
        ended_at: When the step ended, None before.
        error: Error text of a failed step, or of the first failed member of a group. For a step that is retried, its
            last error. For a step that succeeded, the reason why its result was not stored. Otherwise "".
        retried: For a started step, the number of failures of its task so far.
        max_retry: For a retried step, the maximum number of retries.
        members: Members of a group, None for a step.
        succeeded: Members that have succeeded.
        failed: Members that failed after their last retry.
    """

    name: str
    task: str
    queue: str
    task_id: str
    state: StepState
    after: Mapping[str, str]
    is_callback: bool
    ended_at: datetime | None
    error: str
    members: int | None = None
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    max_retry: int = 0

    @property
    def status(self) -> str:
        """State for display, for example "retrying 2/25" if the step's task has failed twice and will run again."""
        return f"retrying {self.retried}/{self.max_retry}" if self.retried else self.state.value


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowGraph:
    """A workflow with its steps and their dependencies.

    Attributes:
        info: State of the whole workflow.
        steps: The steps, in an order in which each step comes after the steps on which it depends.
    """

    info: WorkflowInfo
    steps: tuple[StepInfo, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as JSON values."""
        return {**_plain(self.info), "steps": [_plain(step) for step in self.steps]}

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart."""
        numbers = {step.name: number for number, step in enumerate(self.steps)}
        lines = ["flowchart TD"]
        for number, step in enumerate(self.steps):
            label = f"{step.name}: {step.status}"
            if step.members is not None:
                label += f" {step.succeeded + step.failed}/{step.members}"
            lines.append(f'    n{number}["{label}"]:::{step.state}')
        for number, step in enumerate(self.steps):
            for name, when in step.after.items():
                arrow = "-->" if when == "success" else f"-. {when} .->"
                lines.append(f"    n{numbers[name]} {arrow} n{number}")
        return "\n".join(lines) + "\n"

    def to_text(self) -> str:
        """Return the graph as text, with one line for each step."""
        width = max((len(step.name) for step in self.steps), default=0)
        lines = []
        for step in self.steps:
            line = f"{step.name:<{width}}  {step.status:<9}"
            if step.members is not None:
                line += f"  {step.succeeded + step.failed}/{step.members}"
            if step.after:
                line += f"  after {after_text(step)}"
            if step.error:
                line += f"  ({step.error.splitlines()[0][:200]})"
            lines.append(line.rstrip())
        return "\n".join(lines) + "\n"


def after_text(step: StepInfo) -> str:
    """Return the conditions under which a step runs, for display, such as "charge, failure of ship"."""
    return ", ".join(name if when == "success" else f"{when} of {name}" for name, when in step.after.items())


def counted(steps: "tuple[StepInfo, ...]") -> tuple[int, Mapping[StepState, int]]:
    """Return the total number of steps, and the number by state. Each member of a group counts as one step."""
    counts: Counter[StepState] = Counter()
    total = 0
    for step in steps:
        if step.members is None:
            total += 1
            counts[step.state] += 1
            continue
        total += step.members
        left = step.members - step.succeeded - step.failed
        counts[StepState.SUCCEEDED] += step.succeeded
        counts[StepState.FAILED] += step.failed
        is_over = step.state in (StepState.SUCCEEDED, StepState.FAILED)
        counts[StepState.STARTED if is_over else step.state] += left
    return total, {state: count for state, count in counts.items() if count}


def _plain(record: WorkflowInfo | StepInfo) -> dict[str, Any]:
    """Return a record as JSON values."""
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    for name, value in values.items():
        if isinstance(value, datetime):
            values[name] = value.isoformat()
        elif isinstance(value, Mapping):
            values[name] = {str(key): each for key, each in value.items()}
        elif isinstance(value, StrEnum):
            values[name] = value.value
    return values
