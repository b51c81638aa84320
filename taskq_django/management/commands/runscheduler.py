"""`manage.py runscheduler`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from taskq_django.management.scheduler_command import DESCRIPTION, add_scheduler_arguments, run_scheduler


class Command(BaseCommand):
    """Run a scheduler."""

    help = DESCRIPTION

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        add_scheduler_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        run_scheduler(options, options["verbosity"], self.stdout)
