"""Run a scheduler from a command line: its banner, its line per firing, and `taskq scheduler`.

What a scheduler does is the business of `taskq_core.scheduler`; a framework's own command calls `run` as well.
"""

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from taskq_core.app import TaskQ
from taskq_core.cli.base import Command
from taskq_core.cli.running import HEALTH_OPTIONS, Output, health_url, set_up_log
from taskq_core.cli.session import Session
from taskq_core.cli.text import clean
from taskq_core.cli.worker import click_options, verbosity_option
from taskq_core.scheduler import SchedulerConfig, SchedulerListener, run_scheduler
from taskq_core.tasks.periodic import Firing, FiringOutcome

DESCRIPTION = "Enqueue periodic tasks when they are due, until stopped."
EPILOG = """\
examples:
  %(prog)s shop.queue:taskq
      enqueue the tasks of @taskq.periodic, taskq.schedule and the setting SCHEDULE

Every worker runs a scheduler as well. Any number may run at the same time: one leads, the others stand by, and each
firing is enqueued once.

signals:
  SIGTERM, SIGINT (Ctrl-C)   stop; another scheduler takes over within seconds

exit status:
  0  it was stopped
  1  it could not start; the message or the log says why
"""


def scheduler_config(options: Mapping[str, Any]) -> SchedulerConfig:
    """Return the scheduler's configuration, as the command line says it.

    Raises:
        ConfigurationError: A value is not usable.
    """
    return SchedulerConfig(
        **{each.name: options[each.name] for each in HEALTH_OPTIONS if options.get(each.name) is not None}
    )


def banner(app: TaskQ, config: SchedulerConfig) -> str:
    """Return what a scheduler says of itself when it starts. The broker's address has no password."""
    timetable = app.timetable
    entries = [*timetable.entries.values()]
    lines = [
        f"taskq scheduler {importlib.metadata.version('taskq-asynq')}",
        f"  broker       {app.runtime.endpoint.address}",
        f"  pid          {os.getpid()}",
        f"  entries      {len(entries)}, and {len(app.settings.schedule)} of the settings",
        f"  providers    {len(timetable.providers)}",
        *([f"  health       {health_url(config)}"] if config.health_port else []),
    ]
    return "\n".join([*lines, "Ctrl-C stops it."])


class Narrator(SchedulerListener):
    """Writes when the scheduler is ready and, if wanted, one line per firing."""

    def __init__(self, stdout: Output, *, per_firing: bool) -> None:
        self._stdout = stdout
        self._per_firing = per_firing

    def started(self, scheduler: Any) -> None:
        """Say that it looks for what is due from now on."""
        self._write("ready")

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        """Say which entry fired, and what came of it."""
        if self._per_firing:
            problem = "" if error is None else f"  {type(error).__name__}"
            self._write(clean(f"{outcome.value:<9}  {firing.entry.id}  {firing.task_id}{problem}"))

    def _write(self, line: str) -> None:
        try:
            self._stdout.write(line + "\n")
            self._stdout.flush()
        except (OSError, ValueError):
            pass  # whoever read it is gone; no reason to stop


def run(app: TaskQ, options: Mapping[str, Any], *, verbosity: int, stdout: Output) -> int:
    """Run a scheduler until it is told to stop, and return the exit status.

    Args:
        app: Queue application whose periodic tasks it enqueues.
        options: Parsed command line: health_port, health_host.
        verbosity: 0 writes nothing, 1 what is run, 2 also a line per firing.
        stdout: Where to write.

    Raises:
        ConfigurationError: A value is not usable.
    """
    config = scheduler_config(options)
    if verbosity == 0:
        return run_scheduler(app, config)
    stdout.write(banner(app, config) + "\n")
    stdout.flush()
    return run_scheduler(app, config, listener=Narrator(stdout, per_firing=verbosity >= 2))


@click.command("scheduler", cls=Command, epilog=EPILOG, help=DESCRIPTION, short_help=DESCRIPTION)
@click.argument("app", metavar="MODULE:ATTRIBUTE", required=False)
@verbosity_option(
    "0 logs errors only, 1 also what is run (default), 2 also one line for each firing, 3 also the log's details"
)
@click.pass_obj
def scheduler_command(session: Session, /, app: str | None, verbosity: int, **options: Any) -> int:
    """Run a scheduler."""
    target = session.named_app(app)
    set_up_log(verbosity)
    return run(target, options, verbosity=verbosity, stdout=session.stdout or sys.stdout)


scheduler_command.params += click_options(options=HEALTH_OPTIONS)
