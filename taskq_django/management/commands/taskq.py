"""Define `manage.py taskq`: the whole `taskq` command for the project's queue application."""

import click

from taskq_core.cli.command import make_root
from taskq_django.management.clicked import ClickCommand
from taskq_django.management.commands import runscheduler, runworker


class Command(ClickCommand):
    """Work with the task queue."""

    help = "Run workers, and manage queues and tasks."
    aborted = "stopped; the remaining items were not changed"

    def make_click_command(self) -> click.Command:
        """Return the root command."""
        services = {
            "worker": runworker.make_click_command(),
            "scheduler": runscheduler.make_click_command(),
        }
        return make_root(services, is_hosted=True)
