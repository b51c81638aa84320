"""What all screens share: whom they ask, how they look, and how Redis is doing."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from taskq_core.app import TaskQ
from taskq_core.cli.terminal.figures import DARK, LIGHT, Paces, Palette
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import BrokerError, BrokerUnavailableError, ConfigurationError
from taskq_core.inspector import AsyncInspector
from taskq_core.tasks.limits import HEADER as LIMITS
from taskq_core.views import AsyncDashboard
from taskq_core.views.access import read_refusal

Theme = Literal["dark", "light"]
REFRESH_LEAST_S, REFRESH_MOST_S = 0.2, 3600.0
CANCELLING_S = 60.0
"""How long a task is said to be cancelled after its worker was asked: Redis keeps no note of that."""
READ_ONLY = "--read-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class DashConfig:
    """How the terminal dashboard runs.

    Attributes:
        refresh: Time between two looks, 0.2 seconds to an hour.
        read_only: Whether nothing may be changed.
        payloads: Whether payloads, results, tracebacks and what else may hold arguments are shown.
        theme: Which background colours have to suit.
    """

    refresh: timedelta = timedelta(seconds=2)
    read_only: bool = False
    payloads: bool = True
    theme: Theme = "dark"

    def __post_init__(self) -> None:
        seconds = self.refresh.total_seconds()
        if not REFRESH_LEAST_S <= seconds <= REFRESH_MOST_S:
            raise ConfigurationError(
                f"refresh must be {REFRESH_LEAST_S:g} to {REFRESH_MOST_S:.0f} seconds, got {seconds:g}"
            )


class Desk:
    """What the screens of one dashboard share.

    Args:
        taskq: The queue application that is looked at.
        config: How the dashboard runs.

    Attributes:
        inspector: Looks at the store and changes it.
        dashboard: What an operator looks at.
        paces: How fast queues went since the dashboard runs.
        wake: Set to have the screen read at once.
        away_since: Since when Redis has not told what was asked, None while it does.
        is_refused: Whether it answers, but refuses that.
        trouble: Why it has not.
        read_at: When something was read last.
        refusal: Why nothing can be changed, "" if it can; None while that is not known.
        memory: Notes of the screens that outlive them, as how a table is sorted.
        changes: How many changes are asked for or under way.
        is_warned: Whether it was said that quitting would end them.
    """

    def __init__(self, taskq: TaskQ, config: DashConfig) -> None:
        self.taskq = taskq
        self.config = config
        self.inspector = AsyncInspector(taskq)
        self.dashboard = AsyncDashboard(self.inspector)
        self.paces = Paces()
        self.wake = asyncio.Event()
        self.theme: Theme = config.theme
        self.away_since: datetime | None = None
        self.is_refused = False
        self.trouble = ""
        self.read_at: datetime | None = None
        self.refusal: str | None = READ_ONLY if config.read_only else None
        self.memory: dict[str, str] = {}
        self.changes = 0
        self.is_warned = False
        self._cancelling: dict[tuple[str, str], float] = {}

    @property
    def palette(self) -> Palette:
        """The colours."""
        return LIGHT if self.theme == "light" else DARK

    @property
    def may_change(self) -> bool:
        """Whether something can be changed."""
        return self.refusal == ""

    def now(self) -> datetime:
        """The time of this machine."""
        return utc_datetime(SYSTEM_CLOCK.time())

    async def learn_rights(self) -> None:
        """Find out whether something can be changed, unless that is known.

        Raises:
            BrokerError: Redis does not answer.
        """
        if self.refusal is None:
            self.refusal = await self.inspector.run_plan(read_refusal)

    def answered(self) -> None:
        """Note that Redis has answered."""
        self.away_since, self.trouble, self.read_at = None, "", self.now()

    def failed(self, error: BrokerError) -> None:
        """Note that it has not; whoever answers next may be another server."""
        is_refused = not isinstance(error, BrokerUnavailableError)
        if self.away_since is None or is_refused is not self.is_refused:
            self.away_since, self.is_refused = self.now(), is_refused
        self.trouble = str(error).rstrip(".")
        if not self.config.read_only:
            self.refusal = None

    def cancelling(self, queue: str, task_id: str) -> None:
        """Note that the worker of a task was asked to cancel it."""
        now = time.monotonic()
        self._cancelling = {key: until for key, until in self._cancelling.items() if until > now}
        self._cancelling[queue, task_id] = now + CANCELLING_S

    def is_cancelling(self, queue: str, task_id: str) -> bool:
        """Return whether that was a moment ago."""
        return self._cancelling.get((queue, task_id), 0.0) > time.monotonic()

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a task that are shown: keys of limits come from its arguments."""
        return {name: text for name, text in sorted(headers.items()) if self.config.payloads or name != LIMITS}
