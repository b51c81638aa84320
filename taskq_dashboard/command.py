"""`taskq dashboard`: serve the web dashboard."""

import importlib
from typing import Any

import click

from taskq_core.cli.plugin import NO_WAIT_HELP, Command, Session, load_object, set_up_log
from taskq_core.errors import ConfigurationError

_MISSING = "taskq dashboard needs packages that are not installed: pip install 'taskq-asynq[dashboard]'"


@click.command(
    "dashboard",
    cls=Command,
    epilog="""\
examples:
  %(prog)s
      at http://127.0.0.1:8080/, for users of this machine
  %(prog)s --app shop.queue:taskq --read-only
      with the tasks of a project, read-only
  %(prog)s --host 0.0.0.0 --login shop.people:who_is_it
      for other machines, with a login
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="address to listen on")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="N",
    help="port to listen on; 0 takes a free one",
)
@click.option("--read-only", is_flag=True, help="allow no changes")
@click.option(
    "--login",
    metavar="MODULE:FUNCTION",
    help="function that returns the user of a request, as taskq_dashboard(login=...) takes it; without it, only this "
    "machine can open the dashboard",
)
@click.option("--no-wait", is_flag=True, help=NO_WAIT_HELP)
@click.pass_obj
def dashboard(session: Session, /, host: str, port: int, read_only: bool, login: str | None, no_wait: bool) -> None:
    """Serve the web dashboard until stopped."""
    serve = _server()
    hook = None if login is None else _loaded(login)
    set_up_log(1)
    serve(
        session.app,
        host=host,
        port=port,
        read_only=read_only,
        login=hook,
        wait_for_redis=not no_wait,
        ready=lambda address: session.output.line(f"The dashboard is at {address} (Ctrl-C ends it)."),
    )


def _server() -> Any:
    """Import the web server, which needs the extra `dashboard`."""
    try:
        return importlib.import_module("taskq_dashboard.serving").serve
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("taskq_"):
            raise
        raise ConfigurationError(f"{_MISSING} ({error})") from None


def _loaded(target: str) -> Any:
    found = load_object(target, "a login hook")
    if not callable(found):
        raise ConfigurationError(f"--login {target} is not a function")
    return found
