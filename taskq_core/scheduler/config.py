"""The configuration record of a scheduler."""

from dataclasses import dataclass

from taskq_core.errors import ConfigurationError
from taskq_core.settings import Duration, check_health_address, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Configuration of one scheduler."""

    leader_lease: Duration = 8.0
    """Seconds after which another scheduler takes over from a leader that no longer renews its lease. At least 1."""
    heartbeat: Duration = 10.0
    """Seconds between two writes of the entries that tools show. They expire after twice this time. At least 1."""
    refresh: Duration = 60.0
    """Seconds between two reads of all marks by the leader. A mark records the last handled firing of an entry."""
    wait_for_redis: bool = True
    """Wait at the start until Redis answers. False: a scheduler that runs without a worker and cannot reach Redis at
    its start ends with an error."""
    health_host: str = "127.0.0.1"
    """Address of the health endpoints of a scheduler that runs without a worker."""
    health_port: int | None = None
    """Port of the health endpoints, 0 for any free port. None: no health endpoints."""

    def __post_init__(self) -> None:
        for name in ("leader_lease", "heartbeat", "refresh"):
            object.__setattr__(self, name, seconds(name, getattr(self, name), allow_zero=False))
        check_health_address(self.health_host, self.health_port)
        for name in ("leader_lease", "heartbeat"):
            if self.span(name) < 1:
                raise ConfigurationError(f"{name} must be at least 1 second, got {getattr(self, name)!r}")

    def span(self, name: str) -> float:
        """Return a duration of this record in seconds."""
        return seconds(name, getattr(self, name))
