"""How a worker runs: one checked record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from taskq_core.broker.operations.repair import LONGEST_LEASE_S
from taskq_core.errors import ConfigurationError
from taskq_core.service.health import check_health_address
from taskq_core.settings import CONCURRENCY_MAX, Duration, Settings, check_queues, check_whole, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Configuration of one worker process."""

    queues: Mapping[str, int] = field(default_factory=lambda: {"default": 1})
    """Queues it serves, with their weights."""
    strict_priority: bool = False
    """Serve a queue only while those of larger weight are empty."""
    concurrency: int = 10
    """Tasks that run at the same time. At least 1."""
    shutdown_grace: Duration = 30.0
    """Seconds running tasks get to finish once it stops; then they go back to the head of their queue."""
    interrupt_grace: Duration = 2.0
    """Seconds that functions get which were told to end; then their tasks are given back all the same."""
    unknown_task_timeout: Duration = 3600.0
    """Seconds for which tasks of types that this worker does not know go back for other workers, without using an
    attempt; then they are archived. 0 archives them at once."""
    burst: bool = False
    """Stop by itself when no task is pending or running."""
    lease: Duration = 30.0
    """Seconds a fetched task stays this worker's without a heartbeat, 1 to 3600. Go Asynq uses 30."""
    heartbeat: Duration = 5.0
    """Seconds between two heartbeats, which extend the leases. At most a third of the lease."""
    lease_grace: Duration = 30.0
    """Seconds after which a lapsed lease is acted on. Go Asynq uses 30."""
    recover_every: Duration = 15.0
    """Seconds between two looks for tasks whose worker went silent."""
    clean_every: Duration = 8.0
    """Seconds between two deletions of what is kept no longer."""
    reconcile_every: Duration = 300.0
    """Seconds between two passes over a queue that find damage and repair it."""
    aggregate_every: Duration = 1.0
    """Seconds between two looks for groups that are due."""
    carry_every: Duration = 0.5
    relay_every: Duration = 1.0
    """Seconds between two looks for tasks that wait in an outbox."""
    letters_every: Duration = 5.0
    """Seconds between two looks for archived tasks that are to be told of, beside those it archives itself."""
    leader_lease: Duration = 5.0
    """Seconds after which another worker takes over a service whose leader went silent."""
    safety_net: Duration = 5.0
    """Longest wait for a wake token, in seconds; then the queues are tried all the same."""
    task_processes: bool = True
    """Run tasks with `executor="process"` in processes of their own. False: in threads, as in `taskq_core.testing`."""
    with_scheduler: bool | None = None
    """Run a scheduler, which enqueues periodic tasks, in this worker. None: yes, except in burst mode. Any number of
    schedulers may run at the same time; each firing is enqueued once."""
    health_host: str = "127.0.0.1"
    """Address at which its health is told over HTTP."""
    health_port: int | None = None
    """Port at which its health is told, 0 for any free one. None: its health is not told."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "queues", MappingProxyType(check_queues(self.queues)))
        check_whole("concurrency", self.concurrency, least=1, most=CONCURRENCY_MAX)
        if self.with_scheduler is None:
            object.__setattr__(self, "with_scheduler", not self.burst)
        for name in ("shutdown_grace", "interrupt_grace", "unknown_task_timeout", "lease_grace"):
            object.__setattr__(self, name, seconds(name, getattr(self, name)))
        for name in (
            "lease",
            "heartbeat",
            "recover_every",
            "clean_every",
            "reconcile_every",
            "aggregate_every",
            "carry_every",
            "relay_every",
            "letters_every",
            "leader_lease",
            "safety_net",
        ):
            object.__setattr__(self, name, seconds(name, getattr(self, name), allow_zero=False))
        check_health_address(self.health_host, self.health_port)
        lease_s, heartbeat_s = seconds("lease", self.lease), seconds("heartbeat", self.heartbeat)
        if not 1 <= lease_s <= LONGEST_LEASE_S or lease_s != int(lease_s):
            raise ConfigurationError(f"lease must be whole seconds from 1 to {LONGEST_LEASE_S}, got {self.lease!r}")
        if heartbeat_s > lease_s / 3:
            raise ConfigurationError(
                f"heartbeat must be at most a third of the lease, got {heartbeat_s} of {lease_s} s"
            )

    @classmethod
    def from_settings(cls, settings: Settings, **overrides: Any) -> "WorkerConfig":
        """Take what a queue application's settings say about workers, with single values replaced."""
        values = {
            "queues": settings.queues,
            "strict_priority": settings.strict_priority,
            "concurrency": settings.concurrency,
            "shutdown_grace": settings.shutdown_grace,
            "unknown_task_timeout": settings.unknown_task_timeout,
            **overrides,
        }
        return cls(**values)

    def span(self, name: str) -> float:
        """Return a duration of this record in seconds."""
        return seconds(name, getattr(self, name))
