"""The `taskq` command as a whole: its nouns put together, for the console and for a framework's own command."""

import importlib.metadata
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import click

from taskq_core.cli.base import (
    COMPLETE_VARIABLE,
    Command,
    LazyCommands,
    Root,
    connection_options,
    output_options,
    told,
)
from taskq_core.cli.session import Session

EPILOG = """\
examples:
  %(prog)s stats
  %(prog)s task list --queue default --state retry
  %(prog)s task run --queue default --id 1f3a...
  %(prog)s doctor

exit status:
  0  done
  1  failed; standard error says why. Of several items, the others were done
  2  the command line is wrong
"""


TOOLS: Mapping[str, tuple[str, ...]] = {
    "stats": ("stats:stats",),
    "dash": ("dash:dash",),
    "queue": ("queue:queue", "past:show_history", "past:show_types", "repair:reconcile", "repair:finish_moves"),
    "task": (
        *("task:task", "change:retry", "change:update", "enqueue:enqueue"),
        *("bulk:run_all", "bulk:archive_all", "bulk:delete_all", "bulk:move_all"),
    ),
    "group": ("group:group",),
    "limit": ("limit:limit",),
    "workflow": ("workflow:workflow",),
    "server": ("server:server",),
    "cron": ("cron:cron",),
    "doctor": ("doctor:doctor",),
    "health": ("health:health",),
    "explain": ("explain:explain",),
    "acl": ("acl:acl",),
    "migrate": ("migrate:migrate",),
    "version": ("command:version",),
}
"""Where the commands stand that everybody has, as module and name; behind a noun verbs that are added to it."""
SERVICES: Mapping[str, tuple[str, ...]] = {
    "worker": ("worker:worker_command",),
    "scheduler": ("scheduler:scheduler_command",),
    "dashboard": ("dashboard:dashboard",),
    "exporter": ("exporter:exporter",),
}
"""Where the console's commands stand that run for long."""
COMPLETION: Mapping[str, tuple[str, ...]] = {"completion": ("completion:completion",)}


@click.command("version", cls=Command)
@click.pass_obj
def version(session: Session) -> None:
    """Show the version."""
    number = importlib.metadata.version("taskq-asynq")
    if session.output.as_json:
        session.output.json({"version": number})
    else:
        session.output.line(number)


def make_root(services: Mapping[str, click.Command | tuple[str, ...]], *, is_hosted: bool = False) -> Root:
    """Return the whole command.

    Args:
        services: The commands that run for long, or where they stand: worker, scheduler, dashboard, exporter.
        is_hosted: It runs inside a framework, which says where the broker is and completes nothing.
    """
    return Root(
        "taskq",
        help="Run workers, and manage queues and tasks.",
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
        no_args_is_help=True,
        commands=LazyCommands({**services, **TOOLS, **({} if is_hosted else COMPLETION)}),
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
        return told(lambda: root.main(words, "taskq", COMPLETE_VARIABLE, standalone_mode=False, obj=session))
    finally:
        session.close()


root = make_root(SERVICES)
"""The console's command."""
