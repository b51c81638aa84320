"""`manage.py taskq`: everything about tasks under a name that no other app takes."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from taskq_core.cli import worker
from taskq_django.management.worker_command import DESCRIPTION, HelpFormatter, add_worker_arguments, run_worker


class Command(BaseCommand):
    """Work with tasks."""

    help = "Work with the task queue. `manage.py taskq worker` is the same as `manage.py runworker`."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands."""
        commands = parser.add_subparsers(title="commands", dest="subcommand", metavar="COMMAND", required=True)
        run = commands.add_parser(
            "worker",
            help="run tasks",
            description=DESCRIPTION,
            epilog=worker.epilog(),
            formatter_class=HelpFormatter,
        )
        add_worker_arguments(run)
        _repeat_base_arguments(run)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand."""
        run_worker(options, self.stdout)


def _repeat_base_arguments(parser: argparse.ArgumentParser) -> None:
    """Let Django's own options stand behind the subcommand too, without undoing those in front of it."""
    unset = argparse.SUPPRESS
    parser.add_argument(
        "-v",
        "--verbosity",
        type=int,
        choices=(0, 1, 2, 3),
        default=unset,
        help="0 says nothing, 1 what is run (default), 2 also one line per task",
    )
    parser.add_argument("--settings", default=unset, help="as in every Django command, like the next five")
    parser.add_argument("--pythonpath", default=unset, help=unset)
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(flag, action="store_true", default=unset, help=unset)
