"""Apply an action to all tasks of a state: read their ids first, then change the tasks in chunks.

Only tasks that were in the state at the start are changed, once each. A task that has left the state is skipped. If it
returns, the next call changes it. Each script call handles at most `CHUNK` tasks. The ids take about 100 bytes of
memory each.
"""

from collections.abc import Sequence

from taskq_core.app import TaskQ
from taskq_core.broker.operations import actions
from taskq_core.broker.operations.actions import OK, Action
from taskq_core.broker.plans import Progress, RequestPlan, ask
from taskq_core.errors import ConfigurationError
from taskq_core.inspector.known import check_group, known_queue, known_state
from taskq_core.inspector.search import all_ids
from taskq_core.wire import TaskState

CHUNK = 100
"""Maximum number of tasks that one script call handles."""

_WAITING = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
STATES = {
    Action.RUN: (*_WAITING, TaskState.ARCHIVED, TaskState.COMPLETED),
    Action.ARCHIVE: (TaskState.PENDING, *_WAITING, TaskState.COMPLETED),
    Action.DELETE: (TaskState.PENDING, *_WAITING, TaskState.ARCHIVED, TaskState.COMPLETED),
}
"""States that allow each action."""
MOVABLE = STATES[Action.DELETE]
"""States whose tasks can be moved to another queue."""


def check_state(what: str, state: TaskState, allowed: Sequence[TaskState]) -> None:
    """Check that a state allows an action."""
    if state not in allowed:
        names = ", ".join(allowed)
        raise ConfigurationError(f"{what} takes tasks that are {names}; got state {str(state)!r}")


def run_all(
    app: TaskQ, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
) -> RequestPlan[int]:
    """Run all tasks of a state now. Each task is changed as by `run_task`.

    Only tasks that were in the state at the start are run, in chunks of 100, each once. A task that leaves the
    state before its turn is skipped.

    Args:
        queue: Name of the queue.
        state: scheduled, retry, aggregating, archived or completed.
        group: Their group, with `TaskState.AGGREGATING`.
        progress: Called after each chunk with the number of tasks processed and their total. An error that it
            raises ends the call.

    Returns:
        The number of tasks that will run. It is too low if Redis did not answer and a chunk was repeated.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: Tasks of this state cannot be run, or `group` does not fit the state.
    """
    return (yield from _act_on_all(app, queue, state, Action.RUN, group, progress))


def archive_all(
    app: TaskQ, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
) -> RequestPlan[int]:
    """Archive all tasks of a state: pending, scheduled, retry, aggregating or completed. Otherwise as `run_all`."""
    return (yield from _act_on_all(app, queue, state, Action.ARCHIVE, group, progress))


def delete_all(
    app: TaskQ, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
) -> RequestPlan[int]:
    """Delete all tasks of a state except active, and release their unique locks. Otherwise as `run_all`."""
    return (yield from _act_on_all(app, queue, state, Action.DELETE, group, progress))


def _act_on_all(
    app: TaskQ, queue: str, state: TaskState, action: Action, group: str | None, progress: Progress | None
) -> RequestPlan[int]:
    state = known_state(state)
    check_state(f"{action}_all", state, STATES[action])
    check_group(state, group)
    queue_keys = yield from known_queue(app.runtime.keys, queue)
    archive = app.runtime.settings.archive.limits(queue)
    ids = yield from all_ids(queue_keys, state, group)
    done = 0
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        answers = yield from ask(actions.act(queue_keys, action, chunk, state=state, archive=archive))
        done += answers.count(OK)
        if progress is not None:
            progress(start + len(chunk), len(ids))
    return done
