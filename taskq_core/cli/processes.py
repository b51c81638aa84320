"""Options and settings for several worker processes."""

from collections.abc import Mapping
from typing import Any

from taskq_core.errors import ConfigurationError
from taskq_core.settings import AUTO, Settings, check_processes, check_whole, memory_bytes, read_processes
from taskq_core.supervisor import Limits, SupervisorConfig, process_count
from taskq_core.worker import WorkerConfig

ENDING_MARGIN_S = 15.0
"""The supervisor waits this many seconds after the grace period for running tasks. Then it kills a process that has not
ended."""


def supervisor_config(
    settings: Settings, options: Mapping[str, Any], config: WorkerConfig, *, has_lifespans: bool = False
) -> SupervisorConfig | None:
    """Return the configuration of the supervisor. Return None if no supervisor is needed: one process without limits.

    `--processes auto` always has a supervisor, even with one core, so that SIGHUP has the same effect on all machines.

    Args:
        settings: The settings of the queue application.
        options: Parsed command line.
        config: The configuration of each worker.
        has_lifespans: Whether a worker has lifespans to close at its end.

    Raises:
        ConfigurationError: A value is not usable.
    """
    limits = recycling(settings, options)
    given = options.get("processes")
    processes = settings.processes if given is None else read_processes("--processes", str(given))
    check_processes("--processes" if given is not None else "PROCESSES", processes)
    count = process_count(processes)
    if count == 1 and processes != AUTO and limits == Limits():
        return None
    interrupt_s, grace_s = config.span("interrupt_grace"), config.span("shutdown_grace")
    return SupervisorConfig(
        processes=count,
        max_tasks=limits.tasks,
        max_memory=limits.memory,
        ending=grace_s + interrupt_s + ENDING_MARGIN_S + (grace_s if has_lifespans else 0.0),
        aborting=interrupt_s + ENDING_MARGIN_S,
        silence=config.span("lease") + config.span("lease_grace"),
        burst=config.burst,
        wait_for_redis=config.wait_for_redis,
        health_host=config.health_host,
        health_port=config.health_port,
    )


def recycling(settings: Settings, options: Mapping[str, Any]) -> Limits:
    """Return the limits of tasks and memory at which a process is replaced.

    Raises:
        ConfigurationError: A value is not usable.
    """
    max_tasks, max_memory = options.get("max_tasks"), options.get("max_memory")
    if max_tasks is not None:
        check_whole("--max-tasks", max_tasks, least=1, most=1_000_000_000)
    memory = settings.max_memory if max_memory is None else memory_bytes("--max-memory", max_memory)
    return Limits(
        tasks=settings.max_tasks if max_tasks is None else max_tasks,
        memory=None if memory is None else memory_bytes("MAX_MEMORY", memory),
    )


def refuse_processes(options: Mapping[str, Any], flag: str) -> None:
    """Refuse options for several processes together with an option for a single process.

    Raises:
        ConfigurationError: One of these options is given.
    """
    for name in ("processes", "max_tasks", "max_memory"):
        if options.get(name) not in (None, "1"):
            raise ConfigurationError(f"{flag} runs a single process; remove --{name.replace('_', '-')}")


def processes_text(config: WorkerConfig, supervision: SupervisorConfig | None) -> list[str]:
    """Return the lines of a worker's banner about its processes."""
    if supervision is None:
        return [f"  concurrency  {config.concurrency}"]
    memory = None if supervision.max_memory is None else f"beyond {supervision.max_memory / 1e6:.0f} MB"
    tasks = None if supervision.max_tasks is None else f"after {supervision.max_tasks} tasks"
    replaced = [each for each in (tasks, memory) if each is not None]
    return [
        f"  processes    {supervision.processes}" + (f" (replaced {' or '.join(replaced)})" if replaced else ""),
        f"  concurrency  {config.concurrency} in each",
        f"  shutdown     at most {supervision.ends_within_s:g} s; a process manager must wait longer before SIGKILL",
    ]
