"""How an exporter is set up."""

from dataclasses import dataclass
from pathlib import Path

from taskq_core.errors import ConfigurationError
from taskq_core.service.port import is_loopback
from taskq_core.settings import Duration, check_whole, seconds

LIMIT_MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterConfig:
    """How an exporter is set up.

    Raises:
        ConfigurationError: A value is not usable, or everybody could read it without being meant to.
    """

    host: str = "127.0.0.1"
    """Address to listen at. Another than one of this machine's own needs `auth_file`, or `is_open`."""
    port: int = 9876
    """Port to listen at; 0 takes a free one."""
    timeout: Duration = 5.0
    """Longest that Redis may take for a reading: more than 0 s, at most a minute. A scrape that says it waits less is
    answered half a second sooner than that."""
    max_queues: int = 200
    """Most queues that are told apart, 1 to 10,000. The others are told together as `_other`."""
    max_types: int = 200
    """Most task types, of each queue, that are told apart in all, 0 to 10,000. The others are told together, by queue,
    as `_other`."""
    auth_file: Path | None = None
    """File with a line `name:password` for each who may scrape, by HTTP Basic. It is read at each scrape."""
    tls_cert: Path | None = None
    """File with the certificate, and those between it and the authority, to speak TLS with (PEM)."""
    tls_key: Path | None = None
    """File with the key of the certificate (PEM)."""
    is_open: bool = False
    """Let whoever reaches the port read the metrics, from other machines too."""

    def __post_init__(self) -> None:
        """Refuse what is not usable."""
        if not isinstance(self.host, str) or not self.host.strip():
            raise ConfigurationError(f"host must be an address, got {self.host!r}")
        check_whole("port", self.port, least=0, most=65_535)
        if not 0 < self.timeout_s <= 60:
            raise ConfigurationError(f"timeout must be more than 0 and at most 60 s, got {self.timeout_s:g} s")
        check_whole("max_queues", self.max_queues, least=1, most=LIMIT_MOST)
        check_whole("max_types", self.max_types, least=0, most=LIMIT_MOST)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("tls_cert and tls_key go together")
        if self.auth_file is not None and self.is_open:
            raise ConfigurationError("auth_file lets some people in, is_open everybody; give one")
        if self.auth_file is None and not self.is_open and not self.is_local:
            raise ConfigurationError(
                f"{self.host!r} may be reached from other machines: listen at 127.0.0.1, name who may scrape with "
                "auth_file (--auth-file), or let everybody in with is_open (--open)"
            )

    @property
    def timeout_s(self) -> float:
        """`timeout` in seconds."""
        return seconds("timeout", self.timeout)

    @property
    def is_local(self) -> bool:
        """Whether the address is reached from this machine only. A name but `localhost` counts as one that is not."""
        if self.host == "localhost":
            return True
        try:
            return is_loopback(self.host)
        except ValueError:
            return False
