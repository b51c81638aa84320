"""`manage.py runscheduler`."""

from typing import Any

from django.core.management.base import BaseCommand

from taskq_django.management.scheduler_command import DESCRIPTION, run_scheduler


class Command(BaseCommand):
    """Run a scheduler."""

    help = DESCRIPTION

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until told to stop."""
        run_scheduler(options["verbosity"], self.stdout)
