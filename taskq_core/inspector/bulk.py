"""Do something to all tasks of a state: their ids are read first, then they are gone through in chunks.

So only what was there when it began is touched, each task once: a task that comes back, as an archived one that is run
and fails again, waits for the next time. A task that has left the state meanwhile is left alone. Each script call
handles at most `CHUNK` tasks, whatever the number of all of them. The ids are held in memory, about 100 bytes each.
"""

from collections.abc import Sequence

from taskq_core.broker.operations import actions
from taskq_core.broker.operations.actions import OK, Action
from taskq_core.broker.plans import Progress, RequestPlan, ask
from taskq_core.errors import ConfigurationError
from taskq_core.inspector.known import check_group, known_queue, known_state
from taskq_core.inspector.search import all_ids
from taskq_core.settings import ArchiveLimits
from taskq_core.wire import Keys, TaskState

CHUNK = 100
"""Most tasks that one script call handles."""

_WAITING = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
STATES = {
    Action.RUN: (*_WAITING, TaskState.ARCHIVED, TaskState.COMPLETED),
    Action.ARCHIVE: (TaskState.PENDING, *_WAITING, TaskState.COMPLETED),
    Action.DELETE: (TaskState.PENDING, *_WAITING, TaskState.ARCHIVED, TaskState.COMPLETED),
}
"""States whose tasks can be run, archived and deleted."""
MOVABLE = STATES[Action.DELETE]
"""States whose tasks can be moved to another queue."""


def check_state(what: str, state: TaskState, allowed: Sequence[TaskState]) -> None:
    """Refuse a state whose tasks this cannot be done to."""
    if state not in allowed:
        names = ", ".join(allowed)
        raise ConfigurationError(f"{what} takes tasks that are {names}; got state {str(state)!r}")


def act_on_all(
    keys: Keys,
    name: str,
    state: TaskState,
    action: Action,
    *,
    group: str | None,
    archive: ArchiveLimits,
    progress: Progress | None,
) -> RequestPlan[int]:
    """Run, archive or delete all tasks of a state, or of one group; return how many."""
    state = known_state(state)
    check_state(f"{action}_all", state, STATES[action])
    check_group(state, group)
    queue = yield from known_queue(keys, name)
    ids = yield from all_ids(queue, state, group)
    done = 0
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        answers = yield from ask(actions.act(queue, action, chunk, state=state, archive=archive))
        done += answers.count(OK)
        if progress is not None:
            progress(start + len(chunk), len(ids))
    return done
