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
    """Its data in Redis cannot be read. Lists show this state; reading the workflow raises `WorkflowDamagedError`."""


class StepState(StrEnum):
    """State of a step of a workflow."""

    WAITING = "waiting"
    """Earlier steps have not ended."""
    STARTED = "started"
    """Its task is enqueued, and may run or be retried."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its task was archived or dropped."""
    SKIPPED = "skipped"
    """It does not run, because an earlier step ended in another way."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """State of a workflow, with the counts of its steps.

    Attributes:
        id: Its id.
        queue: Its home queue.
        name: Its given name, or the names of its first steps, such as `fetch → resize → notify`.
        state: Its state.
        created_at: When it began, aware UTC.
        ended_at: When it ended, None while it runs.
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
    """A step of a workflow, or a group of them.

    Attributes:
        name: Its name.
        task: Name of its task; of a group that of its first member, "" if that is not known.
        queue: Queue of its task, "" for a group.
        task_id: Id of its task, "" for a group: a member's is the name with "." and its number behind.
        state: Its state.
        after: Names of the earlier steps, each with when this one runs: "success", "failure", or "end" for either.
        is_callback: True for a callback of a part of the workflow.
        ended_at: When it ended, None while it has not.
        error: Text of its failure; for a group, of its first failure. For a step that is retried, its last error. For a
            step that succeeded, why its result was not stored. "" if none applies.
        retried: For a started step, how often its task has failed so far.
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
        """Its state, or for example "retrying 2/25" if its task has failed twice and will run again."""
        return f"retrying {self.retried}/{self.max_retry}" if self.retried else self.state.value


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowGraph:
    """A workflow with its steps and their dependencies.

    Attributes:
        info: State of the whole workflow.
        steps: Its steps, each after the steps on which it depends.
    """

    info: WorkflowInfo
    steps: tuple[StepInfo, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**_plain(self.info), "steps": [_plain(step) for step in self.steps]}

    def to_mermaid(self) -> str:
        """Return it as a flowchart of Mermaid."""
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
        """Return it as lines of text, one a step."""
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
    """Return when a step runs, as "charge, failure of ship"."""
    return ", ".join(name if when == "success" else f"{when} of {name}" for name, when in step.after.items())


def counted(steps: "tuple[StepInfo, ...]") -> tuple[int, Mapping[StepState, int]]:
    """Return the number of steps, and their numbers by state. Each member of a group counts as one."""
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
