"""The root command `taskq` with all subcommands. The console script uses it, and so does `manage.py taskq`."""

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
    run_reporting,
)
from taskq_core.cli.session import Session
from taskq_core.version import installed_version

EPILOG = """\
examples:
  %(prog)s stats
  %(prog)s task list --queue default --state retry
  %(prog)s task run --queue default --id 1f3a...
  %(prog)s doctor

exit status:
  0  done
  1  failed; standard error gives the reason. With several items, the others are still processed
  2  the command line is wrong
"""


TOOLS: Mapping[str, str] = {
    "stats": "stats",
    "queue": "queue past",
    "task": "task change enqueue bulk",
    "inbox": "inbox",
    "group": "queue",
    "limit": "limit",
    "workflow": "workflow",
    "server": "server",
    "cron": "cron",
    "doctor": "doctor",
    "health": "health",
    "explain": "explain",
    "acl": "acl",
    "version": "command",
}
"""The modules of each command, by the name of the command. See `LazyCommands`."""
SERVICES: Mapping[str, str] = {"worker": "worker", "scheduler": "scheduler"}
"""The modules of the console's long-running commands."""


@click.command("version", cls=Command)
@click.pass_obj
def version(session: Session) -> None:
    """Show the version."""
    number = installed_version()
    if session.output.as_json:
        session.output.json({"version": number})
    else:
        session.output.line(number)


def make_root(services: Mapping[str, click.Command | str], *, is_hosted: bool = False) -> Root:
    """Return the root command.

    Args:
        services: The long-running commands, or their modules: worker and scheduler.
        is_hosted: Whether the command runs inside a framework, which sets the Redis URL and has no shell completion.
    """
    return Root(
        "taskq",
        help="Run workers, and manage queues and tasks.",
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
        no_args_is_help=True,
        commands=LazyCommands({**services, **TOOLS, **({} if is_hosted else {"completion": "completion"})}),
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
        click.echo(installed_version())
        context.exit()


def _open_devnull(mode: str) -> Any:
    # Do not close the file: the process may write to it until it ends.
    return open(os.devnull, mode, encoding="utf-8")


def main(arguments: Sequence[str] | None = None, *, stdout: TextIO | None = None) -> int:
    """Run the `taskq` command and return its exit status.

    Args:
        arguments: The words after `taskq`; None takes those of this process.
        stdout: Receives results; None is standard output.

    Returns:
        0 for success, 1 for a failure and 2 for a wrong command line. Errors are on standard error.
    """
    # A stream is None if the parent process has closed it, as a shell does with `<&-`.
    sys.stdin = sys.stdin or _open_devnull("r")
    sys.stdout = sys.stdout or _open_devnull("w")
    sys.stderr = sys.stderr or _open_devnull("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # escape characters that the terminal cannot encode
    session = Session(stdout=stdout)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return run_reporting(lambda: root.main(words, "taskq", COMPLETE_VARIABLE, standalone_mode=False, obj=session))
    finally:
        session.close()


root = make_root(SERVICES)
"""The command `taskq` of the console."""
