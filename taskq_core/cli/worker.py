"""Run a worker from a command line: its options, its banner and its line per task.

Shared by `taskq worker` and Django's `manage.py runworker`: both make their options from `OPTIONS`, one for click, one
for argparse, and call `run`. What a worker does is the business of `taskq_core.worker`.
"""

import argparse
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click

from taskq_core.app import TaskQ
from taskq_core.cli.base import Command
from taskq_core.cli.render import clean
from taskq_core.cli.session import Session
from taskq_core.context import TaskContext
from taskq_core.logs import LineFormatter
from taskq_core.scheduler import SchedulerConfig
from taskq_core.settings import Settings, parse_queues, seconds
from taskq_core.worker import Worker, WorkerConfig, WorkerListener
from taskq_core.worker.autoreload import FolderWatch, Reloading, run_with_autoreload

RELOAD_HELP = "start anew when code below this folder changes, after running tasks have finished; for development"
DESCRIPTION = "Take tasks from the queues and run them until told to stop."
LOG_LEVELS = (logging.ERROR, logging.INFO, logging.INFO, logging.DEBUG)
"""What the log tells, by verbosity."""
_TASKS_SHOWN = 20


class Output(Protocol):
    """Where to write: a text file, or what stands for one in a framework."""

    def write(self, text: str, /) -> object:
        """Write a text, which ends with a line break."""
        ...

    def flush(self) -> object:
        """Make it seen."""
        ...


def epilog(target: str = "") -> str:
    """Return the part of the help below the options. `target` is what has to stand after the command's name."""
    return f"""\
examples:
  %(prog)s {target}
      serve the queues of the settings
  %(prog)s {target}--queues critical=6,default=3,low=1 --concurrency 20
      20 tasks at a time; of ten tasks six are critical ones while all queues are full
  %(prog)s {target}--queues critical=2,default=1 --strict
      take from default only while critical is empty
  %(prog)s {target}--burst
      run what is there and exit, for example in a cron job or a test

signals:
  SIGTERM, SIGINT (Ctrl-C)   take no new task, let running ones finish for SHUTDOWN_GRACE seconds, put the rest back at
                             the head of their queue without using an attempt, exit
  the same once more         put running tasks back and exit at once
  SIGTSTP                    take no new task, let running ones finish, stay (before a deploy)

exit status:
  0  it stopped when told to, or the queues were empty (--burst)
  1  it could not start or had to give up; the message or the log says why
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOption:
    """One option of the worker, from which both argparse's and click's are made.

    Attributes:
        flag: What is typed. Its text behind the dashes, with underscores, is the name of the value.
        help: What it does, as the rest of a sentence.
        metavar: What stands for the value; "" makes it a switch without one.
        kind: Type of the value: text or a whole number.
        off: A second flag that turns a switch off; without either the value is None.
        default: What holds without the option, in words, from the settings; None when that goes without saying.
    """

    flag: str
    help: str
    metavar: str = ""
    kind: type[str] | type[int] = str
    off: str = ""
    default: Callable[[Settings], object] | None = None

    @property
    def name(self) -> str:
        """Name of the value among the parsed ones."""
        return self.flag.lstrip("-").replace("-", "_")

    def full_help(self, settings: Settings | None) -> str:
        """The help, with what holds without the option; its value if the settings are known."""
        if self.default is None:
            return self.help
        shown = "as in the settings" if settings is None else self.default(settings)
        return f"{self.help} (default: {shown})"


OPTIONS = (
    WorkerOption(
        flag="--queues",
        metavar="NAME[=WEIGHT],...",
        help="queues to serve; of two full queues, one with twice the weight is served twice as often",
        default=lambda settings: queues_text(settings.queues),
    ),
    WorkerOption(
        flag="--concurrency",
        metavar="N",
        kind=int,
        help="tasks to run at the same time",
        default=lambda settings: settings.concurrency,
    ),
    WorkerOption(
        flag="--strict",
        help="serve a queue only while those of larger weight are empty",
        default=lambda settings: "on" if settings.strict_priority else "off",
    ),
    WorkerOption(flag="--burst", help="exit when no task is pending, due, limited by a rate or running"),
    WorkerOption(
        flag="--with-scheduler",
        off="--no-scheduler",
        help="enqueue periodic tasks as well; Django's runworker does so unless told not to, but for --burst",
    ),
    WorkerOption(
        flag="--health-port",
        metavar="PORT",
        kind=int,
        help="tell over HTTP whether it lives and works, at /livez and /readyz of this port",
    ),
    WorkerOption(
        flag="--health-host",
        metavar="ADDRESS",
        help="address to tell it at; 0.0.0.0 for all of this machine (default: 127.0.0.1)",
    ),
)
"""The worker's options, the same for `taskq worker` and Django's commands."""


HEALTH_OPTIONS = tuple(option for option in OPTIONS if option.name.startswith("health_"))
"""Those that a scheduler has, too."""


def add_arguments(
    parser: argparse.ArgumentParser, settings: Settings | None = None, options: Sequence[WorkerOption] = OPTIONS
) -> None:
    """Add the worker's options to a parser. Given `settings`, the help shows their values as defaults."""
    for option in options:
        shown = option.full_help(settings).replace("%", "%%")  # argparse formats the help
        if option.metavar:
            parser.add_argument(option.flag, type=option.kind, metavar=option.metavar, help=shown)
        elif option.off:
            parser.add_argument(option.flag, action="store_true", default=None, help=shown)
            parser.add_argument(
                option.off, action="store_false", dest=option.name, default=None, help=f"not {option.flag}"
            )
        else:
            parser.add_argument(option.flag, action="store_true", help=shown)


def click_options(settings: Settings | None = None, options: Sequence[WorkerOption] = OPTIONS) -> list[click.Option]:
    """Return the worker's options for click. As `add_arguments`."""
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


def worker_config(settings: Settings, options: Mapping[str, Any]) -> WorkerConfig:
    """Return the worker's configuration: what the command line says over the settings.

    Raises:
        ConfigurationError: A value is not usable.
    """
    overrides: dict[str, Any] = {"burst": bool(options.get("burst"))}
    if options.get("queues") is not None:
        overrides["queues"] = parse_queues(options["queues"], where="--queues")
    if options.get("concurrency") is not None:
        overrides["concurrency"] = options["concurrency"]
    if options.get("strict"):
        overrides["strict_priority"] = True
    for name in ("with_scheduler", "health_port", "health_host"):
        if options.get(name) is not None:
            overrides[name] = options[name]
    return WorkerConfig.from_settings(settings, **overrides)


def banner(app: TaskQ, config: WorkerConfig, *, all_tasks: bool = False) -> str:
    """Return what a worker says of itself when it starts. The broker's address has no password."""
    order = "strictly in this order" if config.strict_priority else "by weight"
    queues = queues_text(config.queues) + (f" ({order})" if len(config.queues) > 1 else "")
    lines = [
        f"taskq worker {importlib.metadata.version('taskq-asynq')}",
        f"  broker       {app.runtime.endpoint.address}",
        f"  queues       {queues}",
        f"  concurrency  {config.concurrency}",
        f"  pid          {os.getpid()}",
        *(["  scheduler    runs as well"] if config.with_scheduler else []),
        *([f"  health       {health_url(config)}"] if config.health_port else []),
        f"  tasks        {len(app.tasks) or 'none registered: every task will be put off, then archived'}",
    ]
    shown = sorted(app.tasks) if all_tasks else sorted(app.tasks)[:_TASKS_SHOWN]
    width = max(map(len, shown), default=0)
    for name in shown:
        task = app.tasks[name]
        kind = "coroutine" if task.is_coroutine else "thread"
        lines.append(f"    {name:<{width}}  {kind:<9}  {task.options.queue}")
    if len(shown) < len(app.tasks):
        lines.append(f"    and {len(app.tasks) - len(shown)} more (-v 2 shows all)")
    if not config.burst:
        grace = f"{seconds('shutdown_grace', config.shutdown_grace):g} s"
        lines.append(f"Ctrl-C stops it: running tasks get {grace} to finish. Once more stops it at once.")
    return "\n".join(lines)


class Narrator(WorkerListener):
    """Writes when the worker is ready and, if wanted, one line per task.

    Args:
        stdout: Where to write.
        per_task: Whether to write a line when a task has ended.
    """

    def __init__(self, stdout: Output, *, per_task: bool) -> None:
        self._stdout = stdout
        self.per_task = per_task

    def started(self, worker: Worker) -> None:
        """Say that tasks are taken from now on."""
        self.write("ready")

    def task_ended(self, context: TaskContext, outcome: str, duration_s: float, error: BaseException | None) -> None:
        """Say how a task ended: outcome, name, id, attempt, time, and what it raised. Arguments are not shown."""
        problem = "" if error is None else f"  {type(error).__name__}: {_first_line(error)}"
        line = f"{outcome:<9}  {context.name}  {context.id}  attempt {context.attempt}  {duration_s * 1000:.0f} ms"
        self.write(clean(line + problem))

    def write(self, line: str) -> None:
        """Write a line, if somebody is there to read it."""
        try:
            self._stdout.write(line + "\n")
            self._stdout.flush()
        except (OSError, ValueError):
            pass  # whoever read it is gone, or a character cannot be shown; no reason to stop working


def make_worker(app: TaskQ, options: Mapping[str, Any], *, stdout: Output, per_task: bool = False) -> Worker:
    """Return a worker as the options say, its banner written.

    Args:
        app: Queue application whose tasks it runs.
        options: Parsed command line: queues, concurrency, strict, burst, verbosity.
        stdout: Where banner and task lines go; nothing does at verbosity 0.
        per_task: Write a line per task whatever the verbosity, unless that is 0.

    Raises:
        ConfigurationError: A value is not usable.
    """
    verbosity = int(options.get("verbosity", 1))
    config = worker_config(app.settings, options)
    if verbosity == 0:
        return Worker(app, config)
    stdout.write(banner(app, config, all_tasks=verbosity >= 2) + "\n")
    stdout.flush()
    return Worker(app, config, listener=Narrator(stdout, per_task=per_task or verbosity >= 2))


def run(app: TaskQ, options: Mapping[str, Any], *, stdout: Output, per_task: bool = False) -> int:
    """Run a worker until it is told to stop, and return the exit status. Arguments and errors as in `make_worker`."""
    return make_worker(app, options, stdout=stdout, per_task=per_task).run()


def queues_text(queues: Mapping[str, int]) -> str:
    """Queues as they are given on the command line, the heaviest first."""
    return ",".join(f"{name}={weight}" for name, weight in sorted(queues.items(), key=lambda item: (-item[1], item[0])))


def health_url(config: WorkerConfig | SchedulerConfig) -> str:
    """Return where health is told."""
    host = f"[{config.health_host}]" if ":" in config.health_host else config.health_host
    return f"http://{host}:{config.health_port}/readyz"


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else ""


def make_command(
    work: Callable[..., object], *, description: str, epilog: str, settings: Settings | None = None
) -> click.Command:
    """Return a `worker` command for click.

    Args:
        work: Runs it, with click's decorators for what it takes besides the worker's options.
        description: What it does.
        epilog: What stands below the options.
        settings: The settings, where they are known already; the help shows their values.
    """
    command = click.command(
        "worker", cls=Command, help=description, short_help="Run tasks until told to stop.", epilog=epilog
    )(work)
    command.params += click_options(settings)
    return command


def verbosity_option(what: str) -> Callable[[Any], Any]:
    """Return the decorator that adds `--verbosity`; `what` is what 2 tells one line of."""
    return click.option(
        "-v",
        "--verbosity",
        type=click.IntRange(0, 3),
        default=1,
        metavar="0-3",
        help=f"0 says nothing, 1 what is run (default), 2 also one line per {what}, 3 also the log's details",
    )


def set_up_log(verbosity: int) -> None:
    """Write the log to standard error: errors only at verbosity 0, all details at 3."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=LOG_LEVELS[verbosity], handlers=[handler])


@click.argument("app", metavar="MODULE:ATTRIBUTE", required=False)
@click.option("--reload", is_flag=True, help=RELOAD_HELP)
@verbosity_option("task")
@click.pass_obj
def _work(session: Session, /, app: str | None, reload: bool, verbosity: int, **options: Any) -> int:
    options["verbosity"] = verbosity

    def make() -> Worker:
        return make_worker(session.app, options, stdout=session.output.stdout, per_task=True)

    if reload:
        session.name_app(app)  # and loads it in the child only: its code may be in the middle of an edit
        set_up_log(verbosity)
        return run_with_autoreload(make, _reloading())
    target = session.named_app(app)
    set_up_log(verbosity)
    return run(target, options, stdout=session.output.stdout)


def _reloading() -> Reloading:
    """How `taskq worker` is started anew: by the same command line, for the Python files below this folder."""
    folder = Path.cwd()
    flags = [f"-W{each}" for each in sys.warnoptions]
    return Reloading(
        watch=lambda loaded_since: FolderWatch(folder, loaded_since),
        command=[sys.executable, *flags, "-m", "taskq_core", *sys.argv[1:]],
    )


worker_command = make_command(_work, description=DESCRIPTION, epilog=epilog("shop.queue:taskq "))
"""`taskq worker`. The argument is the `TaskQ` object, for example `shop.queue:taskq`."""
