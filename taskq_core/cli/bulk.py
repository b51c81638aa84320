"""`taskq task run-all`, `archive-all`, `delete-all` and `move-all`: all tasks of one queue and state.

The work goes on in small steps that never hold Redis up, and concerns what is there when it begins. On a terminal a bar
shows how far it is; Ctrl-C ends it between two steps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import click

from taskq_core.cli.base import Command, confirm, yes_option
from taskq_core.cli.params import QUEUE, StateType
from taskq_core.cli.session import Session
from taskq_core.cli.task import group_option, queue_option
from taskq_core.wire import TaskState

_RUN = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.ARCHIVED, TaskState.AGGREGATING)
_ARCHIVE = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
_DELETE = (*_ARCHIVE, TaskState.ARCHIVED, TaskState.COMPLETED)


def _state_option(states: tuple[TaskState, ...]) -> Callable[[Any], Any]:
    return click.option("-s", "--state", required=True, type=StateType(states), help="state of the tasks")


def _named(queue: str, state: TaskState, group: str | None) -> str:
    if (state is TaskState.AGGREGATING) is (group is None):
        raise click.UsageError(
            "--group goes with --state aggregating, and is needed there", click.get_current_context()
        )
    return f"all {state.value} tasks of {'' if group is None else f'group {group} in '}queue {queue}"


def _for_all(
    session: Session, verb: str, done: str, queue: str, state: TaskState, group: str | None, to: Sequence[str] = ()
) -> None:
    out = session.output
    act: Callable[..., int] = getattr(session.inspector, f"{verb}_all")
    with out.progress(f"{verb} {state.value}") as progress:
        count = act(queue, state, *to, group=group, progress=progress)
    if out.as_json:
        where = {} if group is None else {"group": group}
        out.json({"queue": queue, "state": state.value, **where, "count": count})
    else:
        out.line(f"{count} {state.value} {'task is' if count == 1 else 'tasks are'} {done}")


@click.command("run-all", cls=Command, aliases=("runall",))
@queue_option
@_state_option(_RUN)
@group_option
@click.pass_obj
def run_all(session: Session, queue: str, state: TaskState, group: str | None) -> None:
    """Run all tasks of a state now: put them at the end of their queue."""
    _named(queue, state, group)
    _for_all(session, "run", "pending now", queue, state, group)


@click.command("archive-all", cls=Command, aliases=("archiveall",))
@queue_option
@_state_option(_ARCHIVE)
@group_option
@yes_option
@click.pass_obj
def archive_all(session: Session, queue: str, state: TaskState, group: str | None, yes: bool) -> None:
    """Archive all tasks of a state. The archive keeps a limited number."""
    confirm(f"Archive {_named(queue, state, group)}?", yes=yes)
    _for_all(session, "archive", "archived", queue, state, group)


@click.command("delete-all", cls=Command, aliases=("deleteall",))
@queue_option
@_state_option(_DELETE)
@group_option
@yes_option
@click.pass_obj
def delete_all(session: Session, queue: str, state: TaskState, group: str | None, yes: bool) -> None:
    """Delete all tasks of a state."""
    confirm(f"Delete {_named(queue, state, group)}?", yes=yes)
    _for_all(session, "delete", "deleted", queue, state, group)


@click.command("move-all", cls=Command, aliases=("moveall",))
@queue_option
@_state_option(_DELETE)
@group_option
@click.option("--to", required=True, type=QUEUE, metavar="QUEUE", help="target queue")
@click.pass_obj
def move_all(session: Session, queue: str, state: TaskState, group: str | None, to: str) -> None:
    """Move all tasks of a state to another queue; tasks that it refuses stay."""
    _named(queue, state, group)
    _for_all(session, "move", f"in {to} now", queue, state, group, (to,))
