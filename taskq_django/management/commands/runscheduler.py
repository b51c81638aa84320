"""Define `manage.py runscheduler`, which is also `manage.py taskq scheduler`."""

import sys
from typing import Any

import click
from django.core.management.base import CommandError

from taskq_core.cli import scheduler
from taskq_core.cli.base import Command as BaseClickCommand
from taskq_core.cli.session import Session
from taskq_core.cli.worker import service_options
from taskq_django.app import taskq
from taskq_django.management.clicked import ClickCommand

DESCRIPTION = f"{scheduler.DESCRIPTION} Each worker of runworker also does this."


class Command(ClickCommand):
    """Run a scheduler."""

    help = DESCRIPTION

    def make_click_command(self) -> click.Command:
        """Return the click command that parses and runs the command line."""
        return make_click_command()


def make_click_command() -> click.Command:
    """Return `taskq scheduler`."""
    return BaseClickCommand(
        "scheduler",
        callback=run_scheduler,
        params=list(service_options()),
        help=DESCRIPTION,
        short_help=scheduler.DESCRIPTION,
    )


@click.pass_obj
def run_scheduler(session: Session, /, **options: Any) -> None:
    """Run a scheduler until it is stopped.

    Raises:
        TaskQError: An option is invalid, or `EAGER` is set.
        CommandError: The scheduler could not start.
    """
    taskq.refuse_eager("a scheduler")
    verbosity = 1 if session.verbosity is None else session.verbosity
    status = scheduler.run(taskq, options, verbosity=verbosity, stdout=session.stdout or sys.stdout)
    if status:
        raise CommandError("the scheduler could not start; see its log", returncode=status)
