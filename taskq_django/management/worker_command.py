"""The worker command: what `runworker` (read by argparse) and `taskq worker` (read by click) share."""

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

import click
from django.core.management.base import CommandError, DjangoHelpFormatter

from taskq_core import ConfigurationError, Settings, TaskQError
from taskq_core.cli import worker
from taskq_core.cli.session import Session
from taskq_django.app import taskq
from taskq_django.autoreload import run_with_autoreload

DESCRIPTION = f"{worker.DESCRIPTION} Tasks are those in the tasks.py of the installed apps."


class HelpFormatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Django's order of options, with the line breaks of the examples kept."""


_AUTORELOAD_HELP = "start anew when code changes, after running tasks have finished; for development"


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the worker's options; the help shows what the settings say."""
    worker.add_arguments(parser, _settings())
    parser.add_argument("--autoreload", action="store_true", help=_AUTORELOAD_HELP)


def make_click_command() -> click.Command:
    """Return `taskq worker` with the same options."""

    @click.option("--autoreload", is_flag=True, help=_AUTORELOAD_HELP)
    @click.pass_obj
    def work(session: Session, /, **options: Any) -> None:
        run_worker({**options, "verbosity": session.verbosity}, session.output.stdout)

    return worker.make_command(work, description=DESCRIPTION, epilog=worker.epilog(), settings=_settings())


def _settings() -> Settings | None:
    try:
        return taskq.settings
    except ConfigurationError:
        return None  # the system check tells of it


def run_worker(options: Mapping[str, Any], stdout: worker.Output) -> None:
    """Run a worker until it is told to stop.

    Raises:
        CommandError: An option is not usable, `EAGER` is set, or the worker could not start or gave up.
        SystemExit: Under autoreload, when its process has to be replaced or ends.
    """
    if options.get("with_scheduler") is None:
        options = {**options, "with_scheduler": not options.get("burst")}
    try:
        taskq.refuse_eager("a worker")
        if options["autoreload"]:
            status = run_with_autoreload(lambda: worker.make_worker(taskq, options, stdout=stdout, per_task=True))
        else:
            status = worker.run(taskq, options, stdout=stdout)
    except TaskQError as error:
        raise CommandError(str(error)) from error
    if status:
        _fail(status)


def _fail(status: int) -> NoReturn:
    raise CommandError("the worker could not start or gave up; its log says why", returncode=status)
