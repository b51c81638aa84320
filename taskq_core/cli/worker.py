"""`taskq worker`: its options, and the reload when code changes."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from taskq_core.cli import running
from taskq_core.cli.base import NO_WAIT_HELP, Command
from taskq_core.cli.processes import refuse_processes
from taskq_core.cli.session import Session
from taskq_core.errors import ConfigurationError
from taskq_core.settings import Settings
from taskq_core.worker import Worker

RELOAD_HELP = "for development: restart when a Python file below this folder changes, after running tasks have finished"


def worker_options(settings: Settings | None = None) -> list[click.Option]:
    """Return the options of a worker. Their help shows the settings, if they are known."""

    def default(shown: Callable[[Settings], object]) -> str:
        return f"(default: {'from the settings' if settings is None else shown(settings)})"

    queues = default(lambda found: running.queues_text(found.queues))
    concurrency = default(lambda found: found.concurrency)
    processes = default(lambda found: found.processes)
    tasks = default(lambda found: "never" if found.max_tasks is None else found.max_tasks)
    memory = default(lambda found: "never" if found.max_memory is None else f"{found.max_memory} bytes")
    strict = default(lambda found: "on" if found.strict_priority else "off")
    return [
        click.Option(
            ["--queues"],
            metavar="NAME[=WEIGHT],...",
            help=f"queues to serve; a queue with twice the weight is served twice as often {queues}",
        ),
        click.Option(
            ["--concurrency"], type=int, metavar="N", help=f"number of tasks that run at the same time {concurrency}"
        ),
        click.Option(
            ["--processes"],
            metavar="N|auto",
            help=f"number of worker processes, each with --concurrency tasks; auto: one per core {processes}",
        ),
        click.Option(
            ["--max-tasks"],
            type=int,
            metavar="N",
            help=f"replace a process after about this many tasks, without a gap {tasks}",
        ),
        click.Option(
            ["--max-memory"],
            metavar="SIZE",
            help=f"replace a process that uses more memory than about this, for example 300MB {memory}",
        ),
        click.Option(
            ["--strict"],
            is_flag=True,
            help=f"serve a queue only while all queues of larger weight are empty {strict}",
        ),
        click.Option(["--burst"], is_flag=True, help="exit when no task is pending, due, rate-limited or running"),
        click.Option(
            ["with_scheduler", "--with-scheduler/--no-scheduler"],
            default=None,
            help="run a scheduler, which enqueues periodic tasks (default: yes, except with --burst)",
        ),
        *service_options(),
    ]


def service_options() -> list[click.Option]:
    """Return the options that both a worker and a scheduler have."""
    return [
        click.Option(
            ["--health-port"],
            type=int,
            metavar="PORT",
            help="serve health checks over HTTP on this port, at /livez and /readyz",
        ),
        click.Option(
            ["--health-host"],
            metavar="ADDRESS",
            help="address for --health-port; 0.0.0.0 for all interfaces (default: 127.0.0.1)",
        ),
        click.Option(["--no-wait"], is_flag=True, help=NO_WAIT_HELP),
    ]


def verbosity_option(what: str) -> Callable[[Any], Any]:
    """Return the decorator that adds the option `--verbosity` with the help text `what`."""
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
        # Import the application only in the child process: while code is being edited, the import may fail.
        session.name_app(target)
        running.set_up_log(verbosity)
        # imported late, because only --reload needs it
        from taskq_core.worker.autoreload import FolderWatch, Reloading, run_with_autoreload

        # When a Python file below the working directory changes, start this command again.
        reloading = Reloading(watch=partial(FolderWatch, Path.cwd()), command=_command())
        return run_with_autoreload(make, reloading)
    app = session.named_app(target)
    try:
        running.check_tasks(app)
    except ConfigurationError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    running.set_up_log(verbosity)
    return running.run(app, options, stdout=session.stdout or sys.stdout, command=partial(_command_of_several, session))


def _command_of_several(session: Session) -> list[str]:
    """Return the command line that starts another worker process with the same options.

    Raises:
        ConfigurationError: The command line has an option that only works for one process.
    """
    if session.given.get("ask_password"):
        raise ConfigurationError(
            "--ask-password works with one process only; for several, give the password in TASKQ_URL"
        )
    return _command()


def _command() -> list[str]:
    """Return the command line that starts this program again."""
    flags = [f"-W{each}" for each in sys.warnoptions]
    return [sys.executable, *flags, "-m", "taskq_core", *sys.argv[1:]]


worker = click.command(
    "worker",
    cls=Command,
    help=running.DESCRIPTION,
    short_help=running.SHORT_DESCRIPTION,
    epilog=running.epilog("shop.queue:taskq "),
)(_work)
"""`taskq worker`. The first argument names the `TaskQ` object, for example `shop.queue:taskq`; modules follow."""
worker.params += worker_options()
