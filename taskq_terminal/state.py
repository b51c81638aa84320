"""The state that all screens of the terminal dashboard share."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from taskq_core import TaskQ
from taskq_core.errors import BrokerError, BrokerUnavailableError, ConfigurationError
from taskq_core.inspector import AsyncInspector
from taskq_core.views import AsyncDashboard, utc_now
from taskq_core.views.access import read_refusal
from taskq_terminal.figures import Palette

REFRESH_MIN_S, REFRESH_MAX_S = 0.2, 3600.0
READ_ONLY = "--read-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class DashConfig:
    """Configuration of the terminal dashboard.

    Attributes:
        refresh: Time between two reads, 0.2 seconds to an hour.
        read_only: Whether changes are disabled.
        payloads: Whether payloads, results, tracebacks and other texts that may contain arguments are shown.
        theme: Colors for a dark or light background.
    """

    refresh: timedelta = timedelta(seconds=2)
    read_only: bool = False
    payloads: bool = True
    theme: Literal["dark", "light"] = "dark"

    def __post_init__(self) -> None:
        seconds = self.refresh.total_seconds()
        if not REFRESH_MIN_S <= seconds <= REFRESH_MAX_S:
            raise ConfigurationError(
                f"refresh must be {REFRESH_MIN_S:g} to {REFRESH_MAX_S:.0f} seconds, got {seconds:g}"
            )


class DashState:
    """The state that all screens share: the connection to Redis, whether Redis answers, and what the user may do.

    Args:
        taskq: The queue application.
        config: Configuration of the dashboard.

    Attributes:
        inspector: Reads and changes queues and tasks.
        dashboard: Reads the records that screens show.
        palette: The colors.
        away_since: Time since which Redis does not answer, None while it answers.
        is_refused: True if Redis answers, but refuses the request.
        trouble: Text of the last error of Redis.
        read_at: Time of the last successful read.
        refusal: Why changes are not possible. "" if changes are possible, None if this is not known yet.
        queue_order: How the list of queues is sorted.
        changes: Number of changes in progress.
        is_warned: Whether the user was warned that quitting interrupts a change.
    """

    def __init__(self, taskq: TaskQ, config: DashConfig) -> None:
        self.taskq = taskq
        self.config = config
        self.inspector = AsyncInspector(taskq)
        self.dashboard = AsyncDashboard(self.inspector)
        self.palette = Palette(is_dark=config.theme == "dark")
        self.away_since: datetime | None = None
        self.is_refused = False
        self.trouble = ""
        self.read_at: datetime | None = None
        self.refusal: str | None = READ_ONLY if config.read_only else None
        self.queue_order = "name"
        self.changes = 0
        self.is_warned = False

    @property
    def may_change(self) -> bool:
        """Whether changes are possible."""
        return self.refusal == ""

    def now(self) -> datetime:
        """Return the time of this machine."""
        return utc_now()

    async def check_rights(self) -> None:
        """Ask Redis whether this user may make changes, unless the answer is known.

        Raises:
            BrokerError: Redis does not answer.
        """
        if self.refusal is None:
            self.refusal = await self.inspector.run_plan(read_refusal)

    def forget_rights(self) -> None:
        """Let `check_rights` ask Redis again. The rights of the user may have changed, or another server answers."""
        if not self.config.read_only:
            self.refusal = None

    def answered(self) -> None:
        """Record that Redis has answered."""
        self.away_since, self.trouble, self.read_at = None, "", self.now()

    def failed(self, error: BrokerError) -> None:
        """Record that Redis does not answer, or refuses."""
        is_refused = not isinstance(error, BrokerUnavailableError)
        if self.away_since is None or is_refused is not self.is_refused:
            self.away_since, self.is_refused = self.now(), is_refused
        self.trouble = str(error).rstrip(".")
        self.forget_rights()
