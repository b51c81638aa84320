"""`taskq worker`: its click options, and the reload when code changes."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from taskq_core.cli import running
from taskq_core.cli.base import Command
from taskq_core.cli.processes import refuse_processes
from taskq_core.cli.session import Session
from taskq_core.errors import ConfigurationError
from taskq_core.settings import Settings
from taskq_core.worker import Worker
from taskq_core.worker.autoreload import FolderWatch, Reloading, run_with_autoreload

RELOAD_HELP = "restart when a Python file below this folder changes; running tasks finish first; for development"


def click_options(
    settings: Settings | None = None, options: Sequence[running.WorkerOption] = running.OPTIONS
) -> list[click.Option]:
    """Return the worker's options for click. `add_arguments` does the same for argparse."""
    made = []
    for option in options:
        shown = option.full_help(settings)
        if option.metavar:
            made.append(click.Option([option.flag], type=option.kind, metavar=option.metavar, help=shown))
        elif option.off:
            made.append(click.Option([option.name, f"{option.flag}/{option.off}"], default=None, help=shown))
        else:
            made.append(click.Option([option.flag], is_flag=True, help=shown))
    return made


def make_command(
    work: Callable[..., object], *, description: str, epilog: str, settings: Settings | None = None
) -> click.Command:
    """Return a `worker` command for click.

    Args:
        work: Runs the worker. click's decorators add further parameters.
        description: The help text.
        epilog: The text below the options.
        settings: The settings, if already known. The help shows their values.
    """
    command = click.command(
        "worker", cls=Command, help=description, short_help="Run tasks until stopped.", epilog=epilog
    )(work)
    command.params += click_options(settings)
    return command


def verbosity_option(what: str) -> Callable[[Any], Any]:
    """Return the decorator that adds `--verbosity`; `what` is its help."""
    return click.option(
        "-v",
        "--verbosity",
        type=click.IntRange(0, 3),
        default=1,
        metavar="0-3",
        help=what,
    )


@click.argument("targets", metavar="MODULE:ATTRIBUTE [MODULE]...", nargs=-1)
@click.option("--reload", is_flag=True, help=RELOAD_HELP)
@verbosity_option(
    "log: 0 errors, 1 also each task that ends (default), 2 also a list of all tasks at the start, 3 debug messages"
)
@click.pass_obj
def _work(session: Session, /, targets: tuple[str, ...], reload: bool, verbosity: int, **options: Any) -> int:
    options["verbosity"] = verbosity
    target = targets[0] if targets and ("app" not in session.given or ":" in targets[0]) else None
    session.modules = targets[0 if target is None else 1 :]

    def make() -> Worker:
        running.check_tasks(session.app)
        return running.make_worker(session.app, options, stdout=session.stdout or sys.stdout)

    if reload:
        refuse_processes(options, "--reload")
        session.name_app(target)  # only the child process imports the application, because its code may be half edited
        running.set_up_log(verbosity)
        return run_with_autoreload(make, _reloading())
    app = session.named_app(target)
    try:
        running.check_tasks(app)
    except ConfigurationError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    running.set_up_log(verbosity)
    return running.run(app, options, stdout=session.stdout or sys.stdout, command=partial(_command_of_several, session))


def _command_of_several(session: Session) -> list[str]:
    """Return the command line of another worker process.

    Raises:
        ConfigurationError: The command line has an option that only works for one process.
    """
    if session.given.get("ask_password"):
        raise ConfigurationError(
            "--ask-password works with one process only; for several, give the password in TASKQ_URL"
        )
    return _command()


def _command() -> list[str]:
    """Return a command line that starts this program again."""
    flags = [f"-W{each}" for each in sys.warnoptions]
    return [sys.executable, *flags, "-m", "taskq_core", *sys.argv[1:]]


def _reloading() -> Reloading:
    """Return the reload rules: the same command line, when a Python file below this folder changes."""
    folder = Path.cwd()
    return Reloading(watch=lambda loaded_since: FolderWatch(folder, loaded_since), command=_command())


worker = make_command(_work, description=running.DESCRIPTION, epilog=running.epilog("shop.queue:taskq "))
"""`taskq worker`. The first argument names the `TaskQ` object, for example `shop.queue:taskq`; modules follow."""
