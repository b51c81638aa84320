"""Define `manage.py runworker` (argparse), and `taskq worker` with the same options (click)."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter
from django.utils.autoreload import get_child_arguments

from taskq_core import ConfigurationError, Settings, TaskQError
from taskq_core.cli import running
from taskq_core.cli.processes import refuse_processes
from taskq_django.app import taskq
from taskq_django.autoreload import run_with_autoreload
from taskq_django.mail.checks import mailers

if TYPE_CHECKING:
    import click

    from taskq_core.cli.session import Session

DESCRIPTION = f"{running.DESCRIPTION} The tasks are in tasks.py of each app, and in the modules of TASKQ['INCLUDE']."


class HelpFormatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Sorts options like Django and keeps the line breaks of the examples."""


_AUTORELOAD_HELP = "restart when code changes, after running tasks have finished; for development"


_NO_TASKS_HINT = (
    "put them into tasks.py of an app in INSTALLED_APPS, or name their modules in TASKQ['INCLUDE'], for example "
    "['shop.jobs']"
)


class Command(BaseCommand):
    """Run a worker."""

    help = DESCRIPTION

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Add the examples to the help."""
        return super().create_parser(
            prog_name, subcommand, epilog=running.epilog(), formatter_class=HelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options. Their help shows the settings."""
        running.add_arguments(parser, _settings())
        parser.add_argument("--autoreload", action="store_true", help=_AUTORELOAD_HELP)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until stopped."""
        run_worker(options, self.stdout)


def make_click_command() -> "click.Command":
    """Return `taskq worker` with the same options."""
    import click  # not above: `runworker` has no use for it

    from taskq_core.cli import worker

    @click.option("--autoreload", is_flag=True, help=_AUTORELOAD_HELP)
    @click.pass_obj
    def work(session: "Session", /, **options: Any) -> None:
        run_worker({**options, "verbosity": session.verbosity}, session.output.stdout)

    return worker.make_command(work, description=DESCRIPTION, epilog=running.epilog(), settings=_settings())


def _settings() -> Settings | None:
    try:
        return taskq.settings
    except ConfigurationError:
        return None  # a system check reports it


def run_worker(options: Mapping[str, Any], stdout: running.Output) -> None:
    """Run a worker until it is stopped.

    Raises:
        CommandError: An option is invalid, `EAGER` is set, or the worker could not start or stopped after an error.
        SystemExit: With autoreload, when the process is replaced or ends.
    """
    try:
        if not any(mailers()):
            running.check_tasks(taskq, _NO_TASKS_HINT)
    except ConfigurationError as error:
        raise CommandError(str(error), returncode=2) from None
    try:
        taskq.refuse_eager("a worker")
        running.set_up_log(int(options.get("verbosity", 1)))
        if options["autoreload"]:
            refuse_processes(options, "--autoreload")
            status = run_with_autoreload(lambda: running.make_worker(taskq, options, stdout=stdout))
        else:
            status = running.run(taskq, options, stdout=stdout, command=get_child_arguments)
    except TaskQError as error:
        raise CommandError(str(error)) from error
    if status:
        raise CommandError("the worker could not start, or stopped after an error; see its log", returncode=status)
