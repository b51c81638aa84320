"""The `taskq` command as a whole: its nouns put together, for the console and for a framework's own command."""

import importlib.metadata
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from taskq_core.cli.base import Command, Root, connection_options, output_options, told
from taskq_core.cli.bulk import archive_all, delete_all, move_all, run_all
from taskq_core.cli.change import retry, update
from taskq_core.cli.completion import VARIABLE, completion
from taskq_core.cli.cron import cron
from taskq_core.cli.dashboard import dashboard
from taskq_core.cli.doctor import doctor
from taskq_core.cli.enqueue import enqueue
from taskq_core.cli.group import group
from taskq_core.cli.health import health
from taskq_core.cli.limit import limit
from taskq_core.cli.past import show_history, show_types
from taskq_core.cli.queue import queue
from taskq_core.cli.repair import finish_moves, reconcile
from taskq_core.cli.scheduler import scheduler_command
from taskq_core.cli.server import server
from taskq_core.cli.session import Session
from taskq_core.cli.stats import stats
from taskq_core.cli.task import task
from taskq_core.cli.worker import worker_command
from taskq_core.cli.workflow import workflow

EPILOG = """\
examples:
  %(prog)s stats
  %(prog)s task list --queue default --state retry
  %(prog)s task run --queue default --id 1f3a...
  %(prog)s doctor

exit status:
  0  done
  1  failed; the reason is on standard error (of several things, the others were done)
  2  the command line is wrong
"""


@click.command("version", cls=Command)
@click.pass_obj
def version(session: Session) -> None:
    """Show the version."""
    number = importlib.metadata.version("taskq-asynq")
    if session.output.as_json:
        session.output.json({"version": number})
    else:
        session.output.line(number)


def make_root(services: Sequence[click.Command], *, is_hosted: bool = False) -> Root:
    """Return the whole command.

    Args:
        services: The commands that run for long: worker, scheduler, dashboard.
        is_hosted: It runs inside a framework, which says where the broker is and completes nothing.
    """
    root = Root(
        "taskq",
        help="Work with a task queue on Redis.",
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
        no_args_is_help=True,
        shared=output_options() if is_hosted else [*connection_options(), *output_options()],
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_version,
                help="show the version and exit",
            )
        ],
    )
    for verb in (retry, update, enqueue, run_all, archive_all, delete_all, move_all):
        task.add_command(verb)
    for verb in (show_history, show_types, reconcile, finish_moves):
        queue.add_command(verb)
    tools = [
        stats,
        queue,
        task,
        group,
        limit,
        workflow,
        server,
        cron,
        doctor,
        health,
        version,
        *([] if is_hosted else [completion]),
    ]
    for command in (*services, *tools):
        root.add_command(command)
    return root


def _show_version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(importlib.metadata.version("taskq-asynq"))
        context.exit()


def _nowhere(mode: str) -> Any:
    return open(os.devnull, mode, encoding="utf-8")  # open as long as the process


def main(arguments: Sequence[str] | None = None, *, stdout: TextIO | None = None) -> int:
    """Run the `taskq` command and return its exit status.

    Args:
        arguments: What stands after `taskq` on the command line; None takes it from there.
        stdout: Where to write; None is standard output.

    Returns:
        0 for success, 1 for a failure and 2 for a wrong command line, told on standard error.
    """
    # Whoever starts a process may close its streams (`<&-`, a service): Python has None for them then.
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that cannot be shown is no reason to fail
    session = Session(stdout=stdout)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return told(lambda: root.main(words, "taskq", VARIABLE, standalone_mode=False, obj=session))
    finally:
        session.close()


root = make_root([worker_command, scheduler_command, dashboard])
"""The console's command."""
