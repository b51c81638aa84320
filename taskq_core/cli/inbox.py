"""`taskq inbox`: list the open questions of tasks."""

import click

from taskq_core.cli.base import Command
from taskq_core.cli.columns import QUESTIONS
from taskq_core.cli.params import QUEUE
from taskq_core.cli.session import Session


@click.command("inbox", cls=Command)
@click.option("-q", "--queue", type=QUEUE, help="queue of the tasks (default: all)")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="maximum number of questions"
)
@click.pass_obj
def inbox(session: Session, queue: str | None, limit: int) -> None:
    """List the questions that tasks ask people, the oldest first. `taskq task answer` answers one."""
    found = session.inspector.questions(queue, limit=limit)
    session.output.listing("questions", found, QUESTIONS, empty="no open questions")
    if found and not session.output.as_json:
        first = found[0]
        answer = f"taskq task answer --queue {first.queue} {first.task_id} {first.number} JSON"
        session.output.note(f"Answer the first with {answer}; --json shows the schema of each answer.")
