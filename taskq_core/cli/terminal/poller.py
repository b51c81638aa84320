"""The state that all screens share, and the loop that reads the visible screen."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from taskq_core.app import TaskQ
from taskq_core.cli.terminal.figures import DARK, LIGHT, Palette
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.errors import BrokerError, BrokerUnavailableError, ConfigurationError, TaskQError
from taskq_core.inspector import AsyncInspector
from taskq_core.tasks.limits import HEADER as LIMITS
from taskq_core.views import AsyncDashboard
from taskq_core.views.access import read_refusal

REFRESH_MIN_S, REFRESH_MAX_S = 0.2, 3600.0
CANCELLING_S = 60.0
"""Seconds for which a task is shown as "cancelling" after the request. Redis does not store the request."""
READ_ONLY = "--read-only"


class Polled(Protocol):
    """The part of a screen that the poller uses; see `DashScreen`."""

    is_ready: bool
    turns: int

    @property
    def has_parts(self) -> bool:
        """Return whether the screen can show results."""
        ...

    async def read(self) -> Any:
        """Read what the screen shows."""
        ...

    def take(self, found: Any, /) -> None:
        """Show a result."""
        ...

    def gone(self, error: TaskQError, /) -> None:
        """Handle an error that ends the screen."""
        ...

    def show_state(self) -> None:
        """Show whether Redis answers."""
        ...


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


class Poller:
    """Reads the visible screen again and again, and keeps the state that screens share.

    Args:
        taskq: The queue application.
        config: Configuration of the dashboard.

    Attributes:
        inspector: Reads and changes queues and tasks.
        dashboard: Reads the records that screens show.
        wake: Set to read the visible screen at once.
        away_since: Time since when Redis does not answer, None while it does.
        is_refused: True if Redis answers with a refusal.
        trouble: The last error of Redis.
        read_at: Time of the last successful read.
        refusal: Why changes are not possible, "" if they are; None while unknown.
        memory: Settings of screens that outlive them, for example how a table is sorted.
        changes: Number of changes in progress.
        is_warned: Whether the user was warned that quitting interrupts a change.
    """

    def __init__(self, taskq: TaskQ, config: DashConfig) -> None:
        self.taskq = taskq
        self.config = config
        self.inspector = AsyncInspector(taskq)
        self.dashboard = AsyncDashboard(self.inspector)
        self.wake = asyncio.Event()
        self.away_since: datetime | None = None
        self.is_refused = False
        self.trouble = ""
        self.read_at: datetime | None = None
        self.refusal: str | None = READ_ONLY if config.read_only else None
        self.memory: dict[str, str] = {}
        self.changes = 0
        self.is_warned = False
        self.reading: asyncio.Task[Any] | None = None
        self._cancelling: dict[tuple[str, str], float] = {}

    @property
    def palette(self) -> Palette:
        """The colors."""
        return LIGHT if self.config.theme == "light" else DARK

    @property
    def may_change(self) -> bool:
        """Whether changes are possible."""
        return self.refusal == ""

    def now(self) -> datetime:
        """Return the time of this machine."""
        return utc_datetime(SYSTEM_CLOCK.time())

    # --- reading ------------------------------------------------------------------------------------------------------

    async def run(self, front: Callable[[], Polled | None]) -> None:
        """Read the visible screen again and again. The next read starts when the previous one has ended."""
        pause_s = self.config.refresh.total_seconds()
        while True:
            self.wake.clear()
            screen = front()
            if screen is not None and screen.is_ready:
                await self._read(screen, front)
            try:
                async with asyncio.timeout(pause_s):
                    await self.wake.wait()
            except TimeoutError:
                pass

    async def _read(self, screen: Polled, front: Callable[[], Polled | None]) -> None:
        """Read a screen and show the result, unless another screen or page was requested in the meantime."""
        turns = screen.turns
        reading = self.reading = asyncio.create_task(self._ask(screen))
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
            self.reading = None
        if reading.cancelled() or screen is not front() or screen.turns != turns or not screen.has_parts:
            return
        error = reading.exception()
        if isinstance(error, BrokerError):
            self._failed(error)
            screen.show_state()
        elif isinstance(error, TaskQError):
            self._answered()
            screen.gone(error)
        elif error is not None:
            raise error
        else:
            self._answered()
            screen.take(reading.result())

    async def _ask(self, screen: Polled) -> Any:
        if self.refusal is None:
            self.refusal = await self.inspector.run_plan(read_refusal)
        return await screen.read()

    def restart(self) -> None:
        """Abandon the current read, and read the visible screen at once."""
        if self.reading is not None:
            self.reading.cancel()
        self.wake.set()

    def _answered(self) -> None:
        self.away_since, self.trouble, self.read_at = None, "", self.now()

    def _failed(self, error: BrokerError) -> None:
        is_refused = not isinstance(error, BrokerUnavailableError)
        if self.away_since is None or is_refused is not self.is_refused:
            self.away_since, self.is_refused = self.now(), is_refused
        self.trouble = str(error).rstrip(".")
        if not self.config.read_only:
            self.refusal = None  # the next answer may come from another server

    # --- records ------------------------------------------------------------------------------------------------------

    def cancelling(self, queue: str, task_id: str) -> None:
        """Remember that the worker of a task was asked to cancel it."""
        now = time.monotonic()
        self._cancelling = {key: until for key, until in self._cancelling.items() if until > now}
        self._cancelling[queue, task_id] = now + CANCELLING_S

    def is_cancelling(self, queue: str, task_id: str) -> bool:
        """Return whether the worker of a task was asked to cancel it a moment ago."""
        return self._cancelling.get((queue, task_id), 0.0) > time.monotonic()

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a task to show. The keys of limits contain arguments."""
        return {name: text for name, text in sorted(headers.items()) if self.config.payloads or name != LIMITS}
