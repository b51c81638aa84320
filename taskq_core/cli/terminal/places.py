"""Where one can go from a screen: what is asked to be shown, without knowing the screen that shows it."""

from dataclasses import dataclass

from taskq_core.wire import TaskState


@dataclass(frozen=True, slots=True)
class TasksPlace:
    """Tasks of a queue and state, or of a group."""

    queue: str
    state: TaskState | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class LimitsPlace:
    """Limits of the tasks of a queue."""

    queue: str


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """One task."""

    queue: str
    task_id: str


@dataclass(frozen=True, slots=True)
class SchedulePlace:
    """One periodic entry."""

    entry_id: str


@dataclass(frozen=True, slots=True)
class WorkflowPlace:
    """One workflow."""

    queue: str
    workflow_id: str


@dataclass(frozen=True, slots=True)
class StepPlace:
    """One step of a workflow."""

    queue: str
    workflow_id: str
    step: str


Place = TasksPlace | LimitsPlace | TaskPlace | SchedulePlace | WorkflowPlace | StepPlace
