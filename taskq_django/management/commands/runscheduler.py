"""Define `manage.py runscheduler` (argparse), and `taskq scheduler` with the same options (click)."""

from collections.abc import Mapping
from typing import Any

import click
from django.core.management.base import BaseCommand, CommandError, CommandParser

from taskq_core import TaskQError
from taskq_core.cli import scheduler
from taskq_core.cli.base import Command as ClickCommand
from taskq_core.cli.running import HEALTH_OPTIONS, Output, add_arguments
from taskq_core.cli.session import Session
from taskq_core.cli.worker import click_options
from taskq_django.app import taskq

DESCRIPTION = f"{scheduler.DESCRIPTION} Each worker of runworker also does this."


class Command(BaseCommand):
    """Run a scheduler."""

    help = DESCRIPTION

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        add_arguments(parser, options=HEALTH_OPTIONS)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until stopped."""
        run_scheduler(options, options["verbosity"], self.stdout)


def run_scheduler(options: Mapping[str, Any], verbosity: int, stdout: Output) -> None:
    """Run a scheduler until it is stopped.

    Raises:
        CommandError: An option is invalid, `EAGER` is set, or the scheduler could not start.
    """
    try:
        taskq.refuse_eager("a scheduler")
        status = scheduler.run(taskq, options, verbosity=verbosity, stdout=stdout)
    except TaskQError as error:
        raise CommandError(str(error)) from error
    if status:
        raise CommandError("the scheduler could not start; see its log", returncode=status)


def make_click_command() -> click.Command:
    """Return `taskq scheduler`."""
    command = click.command("scheduler", cls=ClickCommand, help=DESCRIPTION, short_help=scheduler.DESCRIPTION)(_run)
    command.params += click_options(options=HEALTH_OPTIONS)
    return command


@click.pass_obj
def _run(session: Session, /, **options: Any) -> None:
    run_scheduler(options, 1 if session.verbosity is None else session.verbosity, session.output.stdout)
