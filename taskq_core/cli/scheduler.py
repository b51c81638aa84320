"""`taskq scheduler`: run a scheduler, with a banner and a line per enqueued task.

Django's command also calls `run`.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from taskq_core.app import TaskQ
from taskq_core.cli.base import Command
from taskq_core.cli.running import Output, health_url, set_up_log
from taskq_core.cli.session import Session
from taskq_core.cli.worker import service_options, verbosity_option
from taskq_core.scheduler import SchedulerConfig, SchedulerListener, run_scheduler
from taskq_core.tasks.periodic import Firing, FiringOutcome
from taskq_core.telemetry import flush_at_end
from taskq_core.version import installed_version
from taskq_core.wire.quoting import clean

DESCRIPTION = "Enqueue periodic tasks when they are due, until stopped."
EPILOG = """\
examples:
  %(prog)s shop.queue:taskq
      enqueue the tasks declared with @taskq.periodic, taskq.schedule and the setting SCHEDULE

Every worker also runs a scheduler. Any number of schedulers may run at the same time: one is active, the
others stand by, and each task is enqueued once.

signals:
  SIGTERM, SIGINT (Ctrl-C)   stop; another scheduler takes over within seconds

exit status:
  0  the scheduler was stopped
  1  the scheduler could not start; the message or the log gives the reason
"""


def scheduler_config(options: Mapping[str, Any]) -> SchedulerConfig:
    """Return the scheduler's configuration from the command line.

    Raises:
        ConfigurationError: A value is not usable.
    """
    names = ("health_port", "health_host")
    health = {name: options[name] for name in names if options.get(name) is not None}
    return SchedulerConfig(wait_for_redis=not options.get("no_wait"), **health)


def banner(app: TaskQ, config: SchedulerConfig) -> str:
    """Return the banner of a scheduler. The address has no password."""
    timetable = app.timetable
    entries = [*timetable.entries.values()]
    lines = [
        f"taskq scheduler {installed_version()}",
        f"  broker       {app.runtime.endpoint.address}",
        f"  pid          {os.getpid()}",
        f"  entries      {len(entries)}, and {len(app.settings.schedule)} in the settings",
        f"  providers    {len(timetable.providers)}",
        *([f"  health       {health_url(config)}"] if config.health_port else []),
    ]
    return "\n".join([*lines, "Ctrl-C stops it."])


class StatusWriter(SchedulerListener):
    """Writes a line when the scheduler is ready, and optionally a line for each enqueued task."""

    def __init__(self, stdout: Output, *, per_firing: bool) -> None:
        self._stdout = stdout
        self._per_firing = per_firing

    def started(self, scheduler: Any) -> None:
        """Write that the scheduler is ready."""
        self._write("ready")

    def fired(self, firing: Firing, outcome: FiringOutcome, error: Exception | None) -> None:
        """Write which entry was due, and whether its task was enqueued."""
        if self._per_firing:
            problem = "" if error is None else f"  {type(error).__name__}"
            self._write(clean(f"{outcome.value:<9}  {firing.entry.id}  {firing.task_id}{problem}"))

    def _write(self, line: str) -> None:
        try:
            self._stdout.write(line + "\n")
            self._stdout.flush()
        except (OSError, ValueError):
            pass  # The pipe is closed, or a character cannot be encoded. The scheduler continues without status lines.


def run(app: TaskQ, options: Mapping[str, Any], *, verbosity: int, stdout: Output) -> int:
    """Run a scheduler until it is stopped, and return the exit status.

    Args:
        app: Queue application whose periodic tasks the scheduler enqueues.
        options: Parsed command line: health_port, health_host.
        verbosity: 0 writes nothing, 1 the banner, 2 also a line per enqueued task.
        stdout: Receives the output.

    Raises:
        ConfigurationError: A value is not usable.
    """
    config = scheduler_config(options)
    listener = None
    if verbosity:
        stdout.write(banner(app, config) + "\n")
        stdout.flush()
        listener = StatusWriter(stdout, per_firing=verbosity >= 2)
    try:
        return run_scheduler(app, config, listener=listener)
    finally:
        flush_at_end()


@click.command("scheduler", cls=Command, epilog=EPILOG, help=DESCRIPTION, short_help=DESCRIPTION)
@click.argument("app", metavar="MODULE:ATTRIBUTE", required=False)
@verbosity_option("log: 0 errors, 1 also the start (default), 2 also each enqueued task, 3 debug messages")
@click.pass_obj
def scheduler(session: Session, /, app: str | None, verbosity: int, **options: Any) -> int:
    """Run a scheduler."""
    target = session.named_app(app)
    set_up_log(verbosity)
    return run(target, options, verbosity=verbosity, stdout=session.stdout or sys.stdout)


scheduler.params += service_options()
