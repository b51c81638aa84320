"""Define `manage.py runworker`, which is also `manage.py taskq worker`."""

import sys
from typing import Any

import click
from django.core.management.base import CommandError
from django.utils.autoreload import get_child_arguments

from taskq_core import ConfigurationError, Settings
from taskq_core.cli import running
from taskq_core.cli.base import Command as BaseClickCommand
from taskq_core.cli.processes import refuse_processes
from taskq_core.cli.session import Session
from taskq_core.cli.worker import worker_options
from taskq_django.app import taskq
from taskq_django.autoreload import run_with_autoreload
from taskq_django.mail.checks import mailers
from taskq_django.management.clicked import ClickCommand

DESCRIPTION = f"{running.DESCRIPTION} The tasks are in tasks.py of each app, and in the modules of TASKQ['INCLUDE']."
_NO_TASKS_HINT = (
    "put them into tasks.py of an app in INSTALLED_APPS, or name their modules in TASKQ['INCLUDE'], for example "
    "['shop.jobs']"
)


class Command(ClickCommand):
    """Run a worker."""

    help = DESCRIPTION

    def make_click_command(self) -> click.Command:
        """Return the click command that parses and runs the command line."""
        return make_click_command()


def make_click_command() -> click.Command:
    """Return `taskq worker`. The help of its options shows the settings."""
    autoreload = "restart when code changes, after running tasks have finished; for development"
    return BaseClickCommand(
        "worker",
        callback=run_worker,
        params=[click.Option(["--autoreload"], is_flag=True, help=autoreload), *worker_options(_settings())],
        help=DESCRIPTION,
        short_help=running.SHORT_DESCRIPTION,
        epilog=running.epilog(),
    )


def _settings() -> Settings | None:
    try:
        return taskq.settings
    except ConfigurationError:
        return None  # a system check reports the error


@click.pass_obj
def run_worker(session: Session, /, **options: Any) -> None:
    """Run a worker until it is stopped.

    Raises:
        TaskQError: An option is invalid, or `EAGER` is set.
        CommandError: No tasks are registered, or the worker could not start or stopped after an error.
        SystemExit: With autoreload, when the process is replaced or ends.
    """
    options["verbosity"] = session.verbosity
    stdout = session.stdout or sys.stdout
    try:
        if not any(mailers()):
            running.check_tasks(taskq, _NO_TASKS_HINT)
    except ConfigurationError as error:
        raise CommandError(str(error), returncode=2) from None
    taskq.refuse_eager("a worker")
    running.set_up_log(int(options["verbosity"]))
    if options["autoreload"]:
        refuse_processes(options, "--autoreload")
        status = run_with_autoreload(lambda: running.make_worker(taskq, options, stdout=stdout))
    else:
        status = running.run(taskq, options, stdout=stdout, command=get_child_arguments)
    if status:
        raise CommandError("the worker could not start, or stopped after an error; see its log", returncode=status)
