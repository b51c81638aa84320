"""Apply an action to all tasks of a state: read their ids first, then change the tasks in chunks.

Only tasks that were in the state at the start are changed, once each. A task that has left the state is skipped. If the
task returns to the state, a later call of the method changes it. Each script call handles at most `CHUNK` tasks. The
ids take about 100 bytes of memory each.
"""

from taskq_core.app import TaskQ
from taskq_core.broker.plans import Progress, RequestPlan
from taskq_core.inspector.change import check_target
from taskq_core.inspector.known import check_group, known_queue, known_state
from taskq_core.inspector.search import all_ids
from taskq_core.inspector.selection import CHUNK, ActionReport, TaskAction, TaskRef, act_on_chunk, check_state
from taskq_core.wire import TaskState


def run_all(
    app: TaskQ, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
) -> RequestPlan[int]:
    """Run all tasks of a state now. Each task is changed as by `run_task`.

    Only tasks that were in the state at the start are run, in chunks of 100, each once. A task that leaves the state
    before it is run is skipped.

    Args:
        queue: Name of the queue.
        state: scheduled, retry, aggregating, archived or completed.
        group: Group of the tasks, with `TaskState.AGGREGATING`.
        progress: Called after each chunk with the number of tasks processed and their total. An error that it
            raises ends the call.

    Returns:
        The number of tasks that will run. The number is too low if Redis did not answer and a chunk was repeated.

    Raises:
        QueueNotFoundError: No queue has this name.
        ConfigurationError: Tasks of this state cannot be run, or `group` does not fit the state.
    """
    return (yield from _act_on_all(app, queue, state, TaskAction.RUN, group, progress))


def archive_all(
    app: TaskQ, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
) -> RequestPlan[int]:
    """Archive all tasks of a state: pending, scheduled, retry, aggregating or completed. Otherwise like `run_all`."""
    return (yield from _act_on_all(app, queue, state, TaskAction.ARCHIVE, group, progress))


def delete_all(
    app: TaskQ, queue: str, state: TaskState, *, group: str | None = None, progress: Progress | None = None
) -> RequestPlan[int]:
    """Delete all tasks of a state except active, and release their unique locks. Otherwise like `run_all`."""
    return (yield from _act_on_all(app, queue, state, TaskAction.DELETE, group, progress))


def move_all(
    app: TaskQ,
    queue: str,
    state: TaskState,
    to_queue: str,
    *,
    group: str | None = None,
    progress: Progress | None = None,
) -> RequestPlan[int]:
    """Move all tasks of a state to another queue, as `move_task` moves one task: all except active and completed ones.

    If the call is interrupted, up to 100 tasks may be archived whose move is not finished. Their last error begins with
    "copied to queue"; move them again.

    Returns:
        The number of moved tasks. A task stays in its queue if the other queue has its id or its unique lock, or if
        it cannot be read.
    """
    check_target(queue, to_queue)
    return (yield from _act_on_all(app, queue, state, TaskAction.MOVE, group, progress, to_queue))


def _act_on_all(
    app: TaskQ,
    queue: str,
    state: TaskState,
    action: TaskAction,
    group: str | None,
    progress: Progress | None,
    to_queue: str | None = None,
) -> RequestPlan[int]:
    state = known_state(state)
    check_state(f"{action}_all", action, state)
    check_group(state, group)
    queue_keys = yield from known_queue(app.runtime.keys, queue)
    ids = yield from all_ids(queue_keys, state, group)
    done = 0
    for start in range(0, len(ids), CHUNK):
        chunk = [TaskRef(queue, task_id, state, "") for task_id in ids[start : start + CHUNK]]
        report = ActionReport()
        yield from act_on_chunk(app, chunk, action, report, to_queue=to_queue, repeatable=True)
        done += len(report.done)
        if progress is not None:
            progress(start + len(chunk), len(ids))
    return done
