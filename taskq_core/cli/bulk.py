"""`taskq task run-all`, `archive-all`, `delete-all` and `move-all`: change all tasks of a queue that have one state.

The command changes only tasks that exist when it starts. It works in small steps. A terminal shows a progress bar.
Ctrl-C stops between two steps.
"""

from typing import Any

import click

from taskq_core.cli.base import Command, confirm, yes_option
from taskq_core.cli.params import QUEUE, StateType
from taskq_core.cli.session import Session
from taskq_core.cli.task import group_option, queue_option, task
from taskq_core.wire import TaskState

_RUN = (TaskState.SCHEDULED, TaskState.RETRY, TaskState.ARCHIVED, TaskState.AGGREGATING)
_ARCHIVE = (TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING)
_DELETE = (*_ARCHIVE, TaskState.ARCHIVED, TaskState.COMPLETED)


def _add(verb: str, states: tuple[TaskState, ...], help_: str, done: str, *, asks: bool = False) -> None:
    """Add a command for all tasks of a state.

    `verb` is the name of the command. The name of the inspector's method begins with it.
    """

    @click.pass_obj
    def command(
        session: Session, /, queue: str, state: TaskState, group: str | None, yes: bool = True, **to: Any
    ) -> None:
        if (state is TaskState.AGGREGATING) is (group is None):
            raise click.UsageError("--group and --state aggregating require each other", click.get_current_context())
        where = f"{'' if group is None else f'group {group} in '}queue {queue}"
        confirm(f"{verb.capitalize()} all {state.value} tasks of {where}?", yes=yes)
        out = session.output
        with out.progress(f"{verb} {state.value}") as progress:
            act = getattr(session.inspector, f"{verb}_all")
            count = act(queue, state, *to.values(), group=group, progress=progress)
        if out.as_json:
            out.json({"queue": queue, "state": state.value, **({"group": group} if group else {}), "count": count})
        else:
            out.line(f"{count} {state.value} {'task is' if count == 1 else 'tasks are'} {done.format(**to)}")

    made = task.command(f"{verb}-all", cls=Command, aliases=(f"{verb}all",), help=help_)(command)
    state_option = click.option("-s", "--state", required=True, type=StateType(states), help="state of the tasks")
    for param in (queue_option, state_option, group_option, *([yes_option] if asks else [])):
        param(made)
    if verb == "move":
        click.option("--to", required=True, type=QUEUE, metavar="QUEUE", help="target queue")(made)


_add("run", _RUN, "Run all tasks of a state now: put them at the end of their queue.", "pending now")
_add("archive", _ARCHIVE, "Archive all tasks of a state. The archive keeps a limited number.", "archived", asks=True)
_add("delete", _DELETE, "Delete all tasks of a state.", "deleted", asks=True)
_add("move", _DELETE, "Move all tasks of a state to another queue. Tasks that it refuses stay.", "in {to} now")
