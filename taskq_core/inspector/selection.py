"""Apply an action to selected tasks of any queues.

A task is skipped if its state does not allow the action, or has changed since the task was selected. Skipped tasks are
counted by reason. Tasks are changed in chunks. If Redis fails before the end, the report covers the tasks before the
failure.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from taskq_core.app import TaskQ
from taskq_core.broker.operations import actions, services
from taskq_core.broker.operations.actions import OK, Action, Refusal
from taskq_core.broker.operations.new_tasks import StoreCode
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerError, ConfigurationError, WireFormatError
from taskq_core.handles.changing import start_of
from taskq_core.handles.copying import move
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector.known import check_text
from taskq_core.inspector.records import UnreadableTask
from taskq_core.settings import Duration
from taskq_core.wire import Keys, TaskState, validate_queue_name


class TaskAction(StrEnum):
    """An action on tasks."""

    RUN = "run"
    """Run the task now."""
    RETRY = "retry"
    """Schedule the task to run at a new time."""
    ARCHIVE = "archive"
    DELETE = "delete"
    CANCEL = "cancel"
    """Ask the worker that runs the task to cancel it."""
    MOVE = "move"
    """Move the task to another queue. An archived task runs again there."""


class Skip(StrEnum):
    """Why a task was skipped."""

    GONE = "gone"
    """The task does not exist, or no longer exists."""
    CHANGED = "changed"
    """The task is no longer in the state in which it was selected."""
    STATE = "state"
    """The state of the task does not allow the action."""
    LOST = "lost"
    """The task is missing from the list of its state; `reconcile` repairs this."""
    COPIED = "copied"
    """The task is the archived original of a move that was interrupted."""
    STEPS = "steps"
    """The task has stored steps, signals or a position, so it cannot be moved to another queue."""
    ID_TAKEN = "id_taken"
    """The target queue already has a task with this id."""
    LOCK_TAKEN = "lock_taken"
    """Another task in the target queue holds the unique lock of the task."""
    SAME_QUEUE = "same_queue"
    """The task is already in the target queue."""
    UNREADABLE = "unreadable"
    """The task cannot be read."""
    UNHEARD = "unheard"
    """No running worker received the request to cancel the task."""


_MOVE_SKIPS = {StoreCode.ID_CONFLICT.value: Skip.ID_TAKEN, StoreCode.DUPLICATE.value: Skip.LOCK_TAKEN}
_ACTIONS = {
    TaskAction.RUN: Action.RUN,
    TaskAction.RETRY: Action.WAIT,
    TaskAction.ARCHIVE: Action.ARCHIVE,
    TaskAction.DELETE: Action.DELETE,
}
CHUNK = 100
"""Maximum number of tasks that one script call handles."""
RETRY_MINUTES_MAX = 60 * 24 * 365 * 10
"""Maximum number of minutes by which the form of a dashboard can postpone a task: 10 years."""
_WAITING = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
_NOT_ACTIVE = (TaskState.PENDING, *_WAITING, TaskState.ARCHIVED, TaskState.COMPLETED)
ALLOWED_STATES: dict[TaskAction, Sequence[TaskState]] = {
    TaskAction.RUN: (*_WAITING, TaskState.ARCHIVED, TaskState.COMPLETED),
    TaskAction.RETRY: _NOT_ACTIVE,
    TaskAction.ARCHIVE: (TaskState.PENDING, *_WAITING, TaskState.COMPLETED),
    TaskAction.DELETE: _NOT_ACTIVE,
    TaskAction.CANCEL: (TaskState.ACTIVE,),
    TaskAction.MOVE: (TaskState.PENDING, *_WAITING, TaskState.ARCHIVED),
}
"""States in which each action on a task is allowed."""


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A selected task.

    Attributes:
        queue: Queue of the task.
        id: Id of the task.
        state: Last known state of the task. None: any state.
        generation: `TaskInfo.generation` of the task, so that no later task with the same id is changed. None: the task
            that has the id when the action begins. "": the generation is not checked.
    """

    queue: str
    id: str
    state: TaskState | None = None
    generation: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, task: TaskInfo | UnreadableTask) -> Self:
        """Return the reference of a task as it was read."""
        return cls(task.queue, task.id, task.state, task.generation or None)


@dataclass(slots=True)
class ActionReport:
    """The outcome of an action on selected tasks.

    Attributes:
        done: The changed tasks.
        skipped: Number of skipped tasks, by reason. For `CHANGED` and `STATE`, the key also contains their current
            state.
        failure: The error of Redis that ended the action early, or None. If its `may_have_happened` is True, up to 100
            more tasks may have been changed.
        untouched: Number of tasks that were not processed because of the failure.
    """

    done: list[TaskRef] = field(default_factory=list)
    skipped: Counter[tuple[Skip, str]] = field(default_factory=Counter)
    failure: BrokerError | None = None
    untouched: int = 0

    def record(self, task: TaskRef, answer: str) -> None:
        """Record the answer of Redis for a task."""
        if answer == OK:
            self.done.append(task)
        elif answer == Refusal.NOT_FOUND:
            self.skipped[Skip.GONE, ""] += 1
        elif answer == Refusal.LARGE:
            self.skip(Skip.UNREADABLE)
        elif answer in (Refusal.LOST, Refusal.COPIED, Refusal.STEPS):
            self.skipped[Skip(answer), ""] += 1
        elif task.state is not None and answer != task.state:
            self.skipped[Skip.CHANGED, answer] += 1
        else:
            self.skipped[Skip.STATE, answer] += 1

    def add(self, part: "ActionReport") -> None:
        """Add the outcome of the action on other tasks."""
        self.done += part.done
        self.skipped += part.skipped
        self.failure, self.untouched = part.failure, part.untouched

    def skip(self, reason: Skip) -> None:
        """Record that a task was skipped."""
        self.skipped[reason, ""] += 1


def check_state(what: str, action: TaskAction, state: TaskState) -> None:
    """Check that a state allows an action."""
    if state not in ALLOWED_STATES[action]:
        names = ", ".join(ALLOWED_STATES[action])
        raise ConfigurationError(f"{what} takes tasks that are {names}; got state {str(state)!r}")


def act_on(
    app: TaskQ,
    tasks: Iterable[TaskRef],
    action: TaskAction,
    *,
    at: datetime | None = None,
    after: Duration | None = None,
    to_queue: str | None = None,
) -> RequestPlan[ActionReport]:
    """Apply one action to selected tasks, in chunks of 100. Skip and report tasks whose state does not allow it.

    A task is also skipped if its state has changed since `TaskRef.state` was read.

    Args:
        tasks: The tasks, of any queues.
        action: The action: `run`, `retry` (with `at` or `after`), `archive`, `delete`, `cancel` (asks the worker,
            and does not wait for the end), or `move` (with `to_queue`).
        at: When tasks may run, with a time zone.
        after: How long from now, instead of `at`.
        to_queue: The queue to move them to.

    Returns:
        The outcome for each task. If Redis fails before the end, `failure` has the error, and the report covers the
        tasks before it.

    Raises:
        ConfigurationError: The action is unknown, its arguments do not fit, or a name is not valid.
    """
    action = TaskAction(action)
    if (action is TaskAction.MOVE) != (to_queue is not None):
        raise ConfigurationError(
            f"the option to_queue= is only for the action {TaskAction.MOVE}, which needs it; got action={action!s}"
        )
    if to_queue is not None:
        validate_queue_name(to_queue)
    start_time = ""
    if action is TaskAction.RETRY:
        start_time = start_of(at, after)
    elif at is not None or after is not None:
        raise ConfigurationError(
            f"the options at= and after= are only for the action {TaskAction.RETRY}, got action={action!s}"
        )
    groups = _grouped(tasks)
    report = ActionReport()
    total = sum(map(len, groups))
    for group in groups:
        for start in range(0, len(group), CHUNK):
            chunk = group[start : start + CHUNK]
            try:
                yield from act_on_chunk(app, chunk, action, report, start=start_time, to_queue=to_queue)
            except BrokerError as error:
                report.failure, report.untouched = error, total - len(report.done) - sum(report.skipped.values())
                return report
    return report


def _grouped(tasks: Iterable[TaskRef]) -> Collection[Sequence[TaskRef]]:
    """Return tasks by queue and state, each once."""
    groups: dict[tuple[str, TaskState | None], list[TaskRef]] = {}
    for task in dict.fromkeys(tasks):
        check_text("queue", task.queue)
        check_text("task_id", task.id)
        groups.setdefault((task.queue, task.state), []).append(task)
    return groups.values()


def act_on_chunk(
    app: TaskQ,
    tasks: Sequence[TaskRef],
    action: TaskAction,
    report: ActionReport,
    *,
    start: str = "",
    to_queue: str | None = None,
    repeatable: bool = False,
) -> RequestPlan[None]:
    """Apply one action to at most `CHUNK` tasks of one queue and state, and add the outcome to a report.

    With `repeatable`, the request is repeated after a lost answer. Tasks that the first request changed then count as
    skipped.
    """
    keys, name = app.runtime.keys, tasks[0].queue
    unknown = [task.id for task in tasks if task.generation is None or (to_queue and not task.generation)]
    known = (yield from ask(actions.identify(keys.queue(name), unknown))) if unknown else ()
    generations = {task.id: task.generation or "" for task in tasks} | dict(zip(unknown, known, strict=True))
    if action is TaskAction.CANCEL:
        yield from _cancel(keys, tasks, generations, report)
    elif to_queue is not None:
        yield from _move(keys, tasks, to_queue, generations, report)
    else:
        operation = actions.act(
            keys.queue(name),
            _ACTIONS[action],
            [task.id for task in tasks],
            generations=generations,
            state=tasks[0].state,
            start=start,
            archive=app.runtime.settings.archive.limits(name),
            repeatable=repeatable,
        )
        for task, answer in zip(tasks, (yield from ask(operation)), strict=True):
            report.record(task, answer)


def _cancel(
    keys: Keys, tasks: Sequence[TaskRef], generations: Mapping[str, str], report: ActionReport
) -> RequestPlan[None]:
    queue, wish = keys.queue(tasks[0].queue), services.CancelOutcome.ARCHIVE
    for task in tasks:
        request = services.ask_cancel(queue, keys.cancel, task.id, wish, generation=generations[task.id])
        state, receivers = yield from ask(request)
        if state != TaskState.ACTIVE:
            report.record(task, Refusal.NOT_FOUND if state is None else state)
        elif receivers:
            report.record(task, OK)
        else:
            report.skip(Skip.UNHEARD)


def _move(
    keys: Keys, tasks: Sequence[TaskRef], to: str, generations: Mapping[str, str], report: ActionReport
) -> RequestPlan[None]:
    name, state = tasks[0].queue, tasks[0].state
    if name == to:
        for _ in tasks:
            report.skip(Skip.SAME_QUEUE)
        return
    by_id = {task.id: task for task in tasks}
    moved = yield from move(keys, keys.queue(name), keys.queue(to), list(by_id), state=state, generations=generations)
    for original, code in moved:
        task = by_id[original.task_id]
        if original.answer != OK or code in (StoreCode.STORED, StoreCode.STORED_BEFORE):
            report.record(task, original.answer)
        elif isinstance(code, WireFormatError) or code is None:
            report.skip(Skip.UNREADABLE)
        else:
            report.skip(_MOVE_SKIPS[str(code)])
