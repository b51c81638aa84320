"""`taskq dash`: the terminal dashboard. It needs the packages of the extra `dash`, which no other command imports."""

import os
import sys
from datetime import timedelta
from typing import Any, Literal

import click

from taskq_core.cli.plugin import DURATION, Command, Session
from taskq_core.errors import ConfigurationError

_MISSING = "taskq dash needs a package that is not installed: pip install 'taskq-asynq[dash]'"
_NO_TERMINAL = "taskq dash needs a terminal; taskq stats works without one"


@click.command(
    "dash",
    cls=Command,
    epilog="""\
examples:
  %(prog)s
      the queues of TASKQ_URL; ? shows the keys
  %(prog)s --url redis.internal:6379 --refresh 5 --read-only
      another Redis, read every five seconds, without changes
""",
)
@click.option(
    "--refresh", default="2", show_default=True, type=DURATION, metavar="SECONDS", help="time between updates"
)
@click.option("--read-only", is_flag=True, help="allow no changes")
@click.option(
    "--hide-payloads", is_flag=True, help="hide payloads, results and tracebacks, and exclude them from searches"
)
@click.option(
    "--theme",
    type=click.Choice(["auto", "dark", "light"]),
    default="auto",
    show_default=True,
    help="colors for a dark or light background; auto reads COLORFGBG, else dark",
)
@click.pass_obj
def dash(
    session: Session, refresh: timedelta, read_only: bool, hide_payloads: bool, theme: Literal["auto", "dark", "light"]
) -> None:
    """Show a live dashboard in this terminal."""
    if session.output.as_json:
        raise click.UsageError("taskq dash has no --json; use taskq stats --json", click.get_current_context())
    program = _program()
    if not has_terminal():
        raise ConfigurationError(_NO_TERMINAL)
    colour = session.given.get("color", "auto")
    if colour == "never":
        os.environ["NO_COLOR"] = "1"  # the library textual reads NO_COLOR
    elif colour == "always":
        os.environ.pop("NO_COLOR", None)
    config = program.DashConfig(
        refresh=refresh,
        read_only=read_only,
        payloads=not hide_payloads,
        theme=background(os.environ.get("COLORFGBG", "")) if theme == "auto" else theme,
    )
    program.DashApp(session.app, config).run()


def has_terminal() -> bool:
    """Return whether standard input, output and error are a terminal."""
    return all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def background(value: str) -> Literal["dark", "light"]:
    """Return the background of a terminal: "dark" or "light".

    Args:
        value: The content of `COLORFGBG`: color numbers, as `15;0` or `0;default;15`.
    """
    return "light" if value.rpartition(";")[2] in ("7", "15") else "dark"


def _program() -> Any:
    try:
        from taskq_terminal import app
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("textual"):
            raise
        raise ConfigurationError(f"{_MISSING} ({error})") from None
    return app
