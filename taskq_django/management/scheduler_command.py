"""The scheduler command: what `runscheduler` (read by argparse) and `taskq scheduler` (read by click) share."""

import click
from django.core.management.base import CommandError

from taskq_core import TaskQError
from taskq_core.cli import scheduler
from taskq_core.cli.base import Command
from taskq_core.cli.session import Session
from taskq_core.cli.worker import Output
from taskq_django.app import taskq

DESCRIPTION = f"{scheduler.DESCRIPTION} A worker started with runworker does it as well."


def run_scheduler(verbosity: int, stdout: Output) -> None:
    """Run a scheduler until it is told to stop.

    Raises:
        CommandError: `EAGER` is set, or it could not start.
    """
    try:
        taskq.refuse_eager("a scheduler")
        status = scheduler.run(taskq, verbosity=verbosity, stdout=stdout)
    except TaskQError as error:
        raise CommandError(str(error)) from error
    if status:
        raise CommandError("the scheduler could not start; its log says why", returncode=status)


def make_click_command() -> click.Command:
    """Return `taskq scheduler`."""
    return click.command("scheduler", cls=Command, help=DESCRIPTION, short_help=scheduler.DESCRIPTION)(_run)


@click.pass_obj
def _run(session: Session, /) -> None:
    run_scheduler(1 if session.verbosity is None else session.verbosity, session.output.stdout)
