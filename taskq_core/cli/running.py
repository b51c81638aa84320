"""Run a worker from a command line: configuration, banner and log.

`taskq worker` and Django's `manage.py runworker` call `run` with the options of `taskq_core.cli.worker`.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from taskq_core.app import TaskQ
from taskq_core.cli.processes import processes_text, recycling, supervisor_config
from taskq_core.errors import ConfigurationError
from taskq_core.execution.context import current
from taskq_core.execution.logs import LineFormatter
from taskq_core.service.line_handler import LineHandler
from taskq_core.settings import Settings, parse_queues, seconds
from taskq_core.supervisor import Limits, Member, SupervisorConfig
from taskq_core.supervisor.channel import VARIABLE
from taskq_core.telemetry import flush_at_end, is_log_exporter
from taskq_core.version import installed_version
from taskq_core.wire.quoting import clean
from taskq_core.worker import Worker, WorkerConfig, WorkerListener

if TYPE_CHECKING:  # not imported at run time, so that workers start faster
    from taskq_core.scheduler import SchedulerConfig

logger = logging.getLogger("taskq.worker")

DESCRIPTION = "Run tasks from the queues until stopped."
SHORT_DESCRIPTION = "Run tasks until stopped."
LOG_LEVELS = (logging.ERROR, logging.INFO, logging.INFO, logging.DEBUG)
"""Log level of a worker, by the value of the option `--verbosity`."""
_TASKS_SHOWN = 20


class Output(Protocol):
    """A text file, or a framework's object with the same methods."""

    def write(self, text: str, /) -> object:
        """Write a text that ends with a line break."""
        ...

    def flush(self) -> object:
        """Flush the output."""
        ...


def epilog(target: str = "") -> str:
    """Return the text at the end of the help. `target` follows the command's name in its examples."""
    modules = (
        f"""
  %(prog)s {target}shop.tasks shop.reports
      import these modules for their tasks
"""
        if target
        else ""
    )
    return f"""\
examples:
  %(prog)s {target}
      serve the queues of the settings{modules.rstrip()}
  %(prog)s {target}--queues critical=6,default=3,low=1 --concurrency 20
      run 20 tasks at a time; while all queues are full, six of ten come from critical
  %(prog)s {target}--queues critical=2,default=1 --strict
      serve default only while critical is empty
  %(prog)s {target}--processes auto --max-memory 300MB
      run one process per core, and replace each that uses more memory
  %(prog)s {target}--burst
      run the tasks in the queues and exit, for example in a cron job or a test

signals:
  SIGTERM, SIGINT (Ctrl-C)   stop taking tasks, give running ones SHUTDOWN_GRACE seconds to finish, put the rest back
                             at the head of their queue without using an attempt, and exit
  a second one               put running tasks back and exit at once
  SIGTSTP                    stop taking tasks, let running ones finish, and stay (before a deploy)
  SIGHUP                     with --processes: replace the processes one after the other, with the new code and without
                             a gap. With one process, or when the terminal closes: as SIGTERM. Ignored under nohup

exit status:
  0  the worker was stopped, or the queues were empty (--burst)
  1  the worker could not start or had to give up; the message or the log gives the reason
  2  the command line is wrong, or no tasks are registered
"""


def check_tasks(app: TaskQ, hint: str = "") -> None:
    """Check that the application has tasks or other work for a worker.

    Args:
        app: The queue application.
        hint: Text for the error that says how to name the modules with tasks; "" for the text of `taskq worker`.

    Raises:
        ConfigurationError: The application has no tasks, no handlers, no periodic tasks and no outbox.
    """
    if not app.has_work:
        hint = hint or (
            'name the modules that define them: TaskQ(include=["shop.tasks"]), the setting INCLUDE, or '
            "taskq worker shop.queue:taskq shop.tasks"
        )
        raise ConfigurationError(f"no tasks are registered, so this worker has nothing to run; {hint}")


def worker_config(settings: Settings, options: Mapping[str, Any]) -> WorkerConfig:
    """Return the worker's configuration: the settings, overridden by the command line.

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
    overrides["wait_for_redis"] = not options.get("no_wait")
    return WorkerConfig.from_settings(settings, **overrides)


def banner(
    app: TaskQ, config: WorkerConfig, supervision: SupervisorConfig | None = None, *, all_tasks: bool = False
) -> str:
    """Return the banner of a worker. The address has no password."""
    order = "strictly in this order" if config.strict_priority else "by weight"
    queues = queues_text(config.queues) + (f" ({order})" if len(config.queues) > 1 else "")
    lines = [
        f"taskq worker {installed_version()}",
        f"  broker       {app.runtime.endpoint.address}",
        f"  queues       {queues}",
        *processes_text(config, supervision),
        f"  pid          {os.getpid()}",
        *([] if config.with_scheduler else ["  scheduler    off: this worker enqueues no periodic tasks"]),
        *([f"  health       {health_url(config)}"] if config.health_port else []),
        f"  tasks        {len(app.tasks)}",
    ]
    shown = sorted(app.tasks) if all_tasks else sorted(app.tasks)[:_TASKS_SHOWN]
    width = max(map(len, shown), default=0)
    queues_of = app.task_queues()
    for name in shown:
        task = app.tasks[name]
        kind = "coroutine" if task.is_coroutine else "process" if task.runs_in_process else "thread"
        its_queues = [queue for queue, names in queues_of.items() if name in names] or [task.options.queue]
        where = ", ".join(
            f"{each}{'' if each in config.queues else ' (not served by this worker)'}" for each in its_queues
        )
        lines.append(f"    {name:<{width}}  {kind:<9}  {where}")
    if len(shown) < len(app.tasks):
        lines.append(f"    and {len(app.tasks) - len(shown)} more (-v 2 shows all)")
    if not config.burst:
        grace = f"{seconds('shutdown_grace', config.shutdown_grace):g} s"
        lines.append(f"Ctrl-C stops the worker: running tasks get {grace} to finish. A second Ctrl-C stops it at once.")
    return "\n".join(lines)


class StatusWriter(WorkerListener):
    """Writes status lines to the terminal: one when the worker is ready, and the status lines of its supervisor.

    Args:
        stdout: Receives the lines.
    """

    def __init__(self, stdout: Output) -> None:
        self._stdout = stdout

    def started(self, worker: Worker) -> None:
        """Write that the worker is ready."""
        self.write("ready")

    def write(self, line: str) -> None:
        """Write a line, unless the reader has closed the pipe."""
        try:
            self._stdout.write(line + "\n")
            self._stdout.flush()
        except (OSError, ValueError):
            pass  # The pipe is closed, or a character cannot be encoded. The worker continues without status lines.


def make_worker(app: TaskQ, options: Mapping[str, Any], *, stdout: Output) -> Worker:
    """Return a worker for the options, and write its banner.

    Args:
        app: The queue application.
        options: Parsed command line: queues, concurrency, strict, burst, verbosity.
        stdout: Receives the banner, except at verbosity 0.

    Raises:
        ConfigurationError: A value is not usable.
    """
    verbosity = int(options.get("verbosity", 1))
    config = worker_config(app.settings, options)
    if verbosity == 0:
        return Worker(app, config)
    stdout.write(banner(app, config, all_tasks=verbosity >= 2) + "\n")
    stdout.flush()
    return Worker(app, config, listener=StatusWriter(stdout))


def run(
    app: TaskQ,
    options: Mapping[str, Any],
    *,
    stdout: Output,
    command: Callable[[], Sequence[str]],
) -> int:
    """Run a worker until it is stopped, and return the exit status.

    If the options or settings ask for several processes, or for the replacement of processes, this process is their
    supervisor.

    Args:
        app: The queue application.
        options: Parsed command line, as for `make_worker`.
        stdout: Receives the banner, except at verbosity 0.
        command: Returns the command line of another process.

    Raises:
        ConfigurationError: A value is not usable.
    """
    member = Member.from_environment()
    config = worker_config(app.settings, options)
    if member is not None:
        limits = recycling(app.settings, options)
        worker = Worker(app, replace(config, health_port=None))  # the supervisor answers the health checks
        return member.run(worker, Limits.drawn(limits.tasks, limits.memory))
    supervision = supervisor_config(app.settings, options, config, has_lifespans=bool(app.lifespans))
    if supervision is None:
        worker = make_worker(app, options, stdout=stdout)
        if sys.platform != "win32":
            worker.on_exhausted = partial(_retire, worker)
        try:
            status = worker.run()
        finally:
            flush_at_end()
        if worker.has_retired:
            _replace_process(command())
        return status
    from taskq_core.supervisor.supervisor import Supervisor  # imported late, because a single process needs no parent

    status_writer = StatusWriter(stdout)
    verbosity = int(options.get("verbosity", 1))
    supervisor = Supervisor(app, supervision, command(), write_line=status_writer.write if verbosity else _discard)
    if verbosity:
        status_writer.write(banner(app, config, supervision, all_tasks=verbosity >= 2))
    return supervisor.run()


def _retire(worker: Worker, problem: str) -> None:
    """Let a worker finish its running tasks and stop, so that its process can be replaced."""
    if not worker.is_retiring:
        logger.warning("this process is replaced after its running tasks have ended: %s", problem)
    worker.retire()


def _replace_process(command: Sequence[str]) -> None:
    """Replace this process by a new one with the same pid. This also ends threads whose functions did not return."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # the stream may be a closed pipe, or None
            stream.flush()
    os.execv(command[0], list(command))  # noqa: S606 - our own command line


def _discard(line: str) -> None:
    """Ignore a status line, because the verbosity is 0."""


def queues_text(queues: Mapping[str, int]) -> str:
    """Return queues in the form of `--queues`, the largest weight first."""
    return ",".join(f"{name}={weight}" for name, weight in sorted(queues.items(), key=lambda item: (-item[1], item[0])))


def health_url(config: "WorkerConfig | SchedulerConfig") -> str:
    """Return the URL of the readiness check."""
    host = f"[{config.health_host}]" if ":" in config.health_host else config.health_host
    return f"http://{host}:{config.health_port}/readyz"


class WorkerFormatter(LineFormatter):
    """Adds the name and id of a task to log lines of the task's code, and to log lines of the worker about the task."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the log line with name and id of the task appended."""
        line = super().formatMessage(record)
        context = current.get()
        task_id = clean(str(getattr(record, "task_id", None) or ("" if context is None else context.id)))
        if not task_id or task_id in line:
            return line
        name = getattr(record, "task_name", None) or ("task" if context is None else context.name)
        return f"{line} [{clean(str(name))} {task_id}]"


def set_up_log(verbosity: int, logger: str = "") -> None:
    """Write the log to standard error, unless the program has configured logging.

    Args:
        verbosity: 0 logs only errors, 1 and 2 also information, 3 also debug messages.
        logger: Name of the logger that gets the handler; "" is the root.
    """
    target = logging.getLogger(logger)
    found = {*target.handlers, *logging.getLogger().handlers, *logging.getLogger("taskq").handlers}
    # A handler that only exports records, for example the one of OpenTelemetry's launcher, writes no line here.
    if not all(map(is_log_exporter, found)):
        return
    # A supervisor sets the environment variable for its processes, whose log lines then show their process ids.
    process = f"[{os.getpid()}] " if VARIABLE in os.environ else ""
    formatter = WorkerFormatter(f"%(asctime)s {process}%(levelname)s %(name)s: %(message)s")
    target.addHandler(LineHandler(formatter, process))
    target.setLevel(LOG_LEVELS[verbosity])
