"""The configuration of an exporter."""

from dataclasses import dataclass

from taskq_core.cli.plugin import Duration, check_whole, is_loopback, seconds
from taskq_core.errors import ConfigurationError

LIMIT_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterConfig:
    """Configuration of an exporter.

    Raises:
        ConfigurationError: A value is not usable, or other machines could read the metrics without `is_open`.
    """

    host: str = "127.0.0.1"
    """Address to listen on. If other machines can reach the address, `is_open` must be set."""
    port: int = 9876
    """Port to listen on; 0 takes a free one."""
    timeout: Duration = 5.0
    """Maximum time for reading Redis: more than 0 s, at most 60 s. If Prometheus sends a shorter timeout, the exporter
    answers half a second before that timeout."""
    max_queues: int = 200
    """Maximum number of queues with metrics, 1 to 10,000. `taskq_exporter_omitted` counts the others."""
    max_types: int = 200
    """Maximum number of pairs of queue and task type with metrics, 0 to 10,000. `taskq_exporter_omitted` counts the
    others."""
    wait_for_redis: bool = True
    """Wait at the start until Redis answers; until then, scrapes get `taskq_up 0`. False: end with an error."""
    is_open: bool = False
    """Let other machines read the metrics, without a login."""

    def __post_init__(self) -> None:
        """Refuse unusable values."""
        if not isinstance(self.host, str) or not self.host.strip():
            raise ConfigurationError(f"host must be an address, got {self.host!r}")
        check_whole("port", self.port, least=0, most=65_535)
        if not 0 < self.timeout_s <= 60:
            raise ConfigurationError(f"timeout must be more than 0 and at most 60 s, got {self.timeout_s:g} s")
        check_whole("max_queues", self.max_queues, least=1, most=LIMIT_MAX)
        check_whole("max_types", self.max_types, least=0, most=LIMIT_MAX)
        if not self.is_open and not self.is_local:
            raise ConfigurationError(
                f"{self.host!r} may be reached from other machines: listen on 127.0.0.1 behind a proxy with a login, "
                "or allow everybody with is_open (--open)"
            )

    @property
    def timeout_s(self) -> float:
        """`timeout` in seconds."""
        return seconds("timeout", self.timeout)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address. Host names except `localhost` do not count as local."""
        if self.host == "localhost":
            return True
        try:
            return is_loopback(self.host)
        except ValueError:
            return False
