"""`manage.py runworker`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from taskq_core.cli import running
from taskq_django.management.worker_command import DESCRIPTION, HelpFormatter, add_worker_arguments, run_worker


class Command(BaseCommand):
    """Run a worker."""

    help = DESCRIPTION

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Add the examples to the help."""
        return super().create_parser(
            prog_name, subcommand, epilog=running.epilog(), formatter_class=HelpFormatter, **kwargs
        )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the worker's options."""
        add_worker_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        run_worker(options, self.stdout)
