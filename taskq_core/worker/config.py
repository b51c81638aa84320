"""Configuration of a worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from taskq_core.broker.operations.repair import LONGEST_LEASE_S
from taskq_core.errors import ConfigurationError
from taskq_core.settings import (
    CONCURRENCY_MAX,
    Duration,
    Settings,
    check_health_address,
    check_queues,
    check_whole,
    seconds,
)

_MAY_BE_ZERO = {"shutdown_grace", "interrupt_grace", "unknown_task_timeout", "lease_grace"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Configuration of one worker process."""

    queues: Mapping[str, int] = field(default_factory=lambda: {"default": 1})
    """Queues that the worker serves, with their weights."""
    strict_priority: bool = False
    """Serve a queue only while all queues with larger weights are empty."""
    concurrency: int = 10
    """Number of tasks that run concurrently. At least 1."""
    shutdown_grace: Duration = 30.0
    """Seconds that running tasks get to finish when the worker stops. Then they go back to the head of their queue."""
    interrupt_grace: Duration = 2.0
    """Seconds that interrupted functions get to end. After that, their tasks return to their queue anyway."""
    unknown_task_timeout: Duration = 3600.0
    """Seconds for which tasks of unknown types go back to the queue for other workers, without using an attempt. After
    that, they are archived. 0 archives them at once."""
    burst: bool = False
    """Stop the worker when no task is pending or running."""
    lease: Duration = 30.0
    """Seconds for which a fetched task belongs to this worker without a heartbeat, 1 to 3600. Go Asynq uses 30."""
    heartbeat: Duration = 5.0
    """Seconds between two heartbeats, which extend the leases. At most a third of the lease."""
    lease_grace: Duration = 30.0
    """Seconds to wait after the end of a lease before the task is recovered. Go Asynq uses 30."""
    recover_every: Duration = 15.0
    """Seconds between two searches for tasks of workers that no longer extend their leases."""
    clean_every: Duration = 8.0
    """Seconds between two deletions of expired data."""
    reconcile_every: Duration = 300.0
    """Seconds between two passes over a queue. Each pass finds and repairs damage."""
    aggregate_every: Duration = 1.0
    """Seconds between two checks for groups of tasks that are due."""
    dispatch_every: Duration = 0.5
    """Seconds between two checks for due workflow steps, while there are workflows."""
    relay_every: Duration = 1.0
    """Seconds between two checks for tasks that wait in an outbox."""
    dead_letters_every: Duration = 5.0
    """Seconds between two searches for archived tasks whose handlers must run. Tasks that this worker archives need no
    search."""
    leader_lease: Duration = 5.0
    """Seconds after which another worker takes over a service from a leader that no longer renews its lease."""
    safety_net: Duration = 5.0
    """Maximum seconds to wait for a wake token. After that, the worker asks its queues for tasks anyway."""
    task_processes: bool = True
    """Run tasks with `executor="process"` in separate processes. False: in threads, as in `taskq_core.testing`."""
    with_scheduler: bool | None = None
    """Run a scheduler, which enqueues periodic tasks, in this worker. None: yes, except in burst mode. Any number of
    schedulers may run at the same time; each firing is enqueued once."""
    wait_for_redis: bool = True
    """Wait at the start until Redis answers. False: a worker that cannot reach Redis then ends with an error."""
    health_host: str = "127.0.0.1"
    """Address of the worker's health endpoints."""
    health_port: int | None = None
    """Port of the health endpoints, 0 for any free port. None: no health endpoints."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "queues", MappingProxyType(check_queues(self.queues)))
        check_whole("concurrency", self.concurrency, least=1, most=CONCURRENCY_MAX)
        if self.with_scheduler is None:
            object.__setattr__(self, "with_scheduler", not self.burst)
        for each in fields(self):
            if each.type == Duration:
                value = seconds(each.name, getattr(self, each.name), allow_zero=each.name in _MAY_BE_ZERO)
                object.__setattr__(self, each.name, value)
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
        """Return the worker configuration in a queue application's settings, with some values replaced."""
        names = ("queues", "strict_priority", "concurrency", "shutdown_grace", "unknown_task_timeout")
        return cls(**{**{name: getattr(settings, name) for name in names}, **overrides})

    def span(self, name: str) -> float:
        """Return the setting `name` of this configuration, which is a duration, in seconds."""
        return seconds(name, getattr(self, name))
