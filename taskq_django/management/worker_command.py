"""The worker command: what `runworker` and `taskq worker` share."""

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from django.core.management.base import CommandError, DjangoHelpFormatter, OutputWrapper

from taskq_core import ConfigurationError, Settings, TaskQError
from taskq_core.cli import worker
from taskq_django.app import taskq
from taskq_django.autoreload import run_with_autoreload

DESCRIPTION = f"{worker.DESCRIPTION} Tasks are those in the tasks.py of the installed apps."


class HelpFormatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Django's order of options, with the line breaks of the examples kept."""


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the worker's options; the help shows what the settings say."""
    settings: Settings | None
    try:
        settings = taskq.settings
    except ConfigurationError:
        settings = None  # the system check tells of it
    worker.add_arguments(parser, settings)
    parser.add_argument(
        "--autoreload",
        action="store_true",
        help="start anew when code changes, after running tasks have finished; for development",
    )


def run_worker(options: Mapping[str, Any], stdout: OutputWrapper) -> None:
    """Run a worker until it is told to stop.

    Raises:
        CommandError: An option is not usable, or the worker could not start or gave up.
        SystemExit: Under autoreload, when its process has to be replaced or ends.
    """
    try:
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
