"""Elect the leading scheduler by a lease, and run a ticker (the loop that enqueues due firings) for each queue.

Any number of schedulers may run. For each set of entries, one of them leads. It holds a lease, which it renews four
times per lease time. The others try to take it. The lease only saves work: `ticker` guarantees that each firing is
enqueued once, with any number of leaders.

Queues may be on different servers, and the application's hooks and middleware may hang. So each queue has a separate
ticker, and a slow or unreachable queue does not delay the others.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial

from taskq_core.broker.operations import services
from taskq_core.scheduler.context import SchedulerContext
from taskq_core.scheduler.health import TurnState
from taskq_core.scheduler.ticker import Ticker
from taskq_core.service.calls import Caller
from taskq_core.service.loop import Service, jittered, serve
from taskq_core.tasks.periodic import Firing, FiringOutcome
from taskq_core.wire import QueueKeys
from taskq_core.wire.tokens import new_token

logger = logging.getLogger("taskq.scheduler")

ENDING_S = 2.0
"""Seconds that tickers get to finish their current turn, and again after they were cancelled, because a hook may
hang."""
IDLE_S = 1.0
"""Seconds between two checks for schedule entries while there are none."""


class Leader(Service):
    """Takes and renews the leader lease for a set of schedule entries, and runs the tickers of their queues.

    Args:
        context: The scheduler.
        call: Calls hooks and middleware.
        fired: Called with each firing and its outcome.
        prepare: Reads the entries. Returns 0, or the seconds to wait because some sources of entries have not answered
            yet.
    """

    name = "scheduler"

    def __init__(
        self,
        context: SchedulerContext,
        *,
        call: Caller,
        fired: Callable[[Firing, FiringOutcome, Exception | None], None],
        prepare: Callable[[], float],
    ) -> None:
        self._context = context
        self._keys = context.keys
        self._book = context.book
        self._runner = context.runner
        self._clock = context.clock
        self._call = call
        self._fired = fired
        self._prepare = prepare
        self._lease_s = context.config.span("leader_lease")
        self._owner = new_token()
        self._key = ""
        self._has_lease = False
        self._asked_at = -math.inf
        self._answered_at: float | None = None
        self._tickers: dict[QueueKeys, Ticker] = {}
        self._running: dict[QueueKeys, asyncio.Task[None]] = {}

    @property
    def leads(self) -> bool:
        """True while this scheduler holds the leader lease, by its own clock."""
        return self._has_lease and self._clock.monotonic() - self._asked_at < self._lease_s

    @property
    def answer_age_s(self) -> float | None:
        """Seconds since Redis last answered about the lease, None before the first answer."""
        return None if self._answered_at is None else self._clock.monotonic() - self._answered_at

    @property
    def turns(self) -> dict[str, TurnState]:
        """State of each queue's ticker; empty while another scheduler leads."""
        if not self.leads:
            return {}
        return {queue.name: ticker.state for queue, ticker in self._tickers.items() if queue in self._book.by_queue}

    async def work(self) -> float:
        """Take or renew the lease and start missing tickers. Return the seconds until the next call."""
        if wait_s := self._prepare():
            return wait_s
        await self._follow_book()
        if not self._book.entries:
            return IDLE_S
        await self._ask()
        if self.leads:
            self._run_tickers()
        return jittered(self._lease_s / 4)

    async def _follow_book(self) -> None:
        """Give up the current lease if the set of entries has changed, because each set has a separate lease."""
        key = self._keys.scheduler_leader(self._book.digest) if self._book.entries else ""
        if key != self._key:
            await self.resign()
            self._key = key

    async def _ask(self) -> None:
        led, asked_at = self.leads, self._clock.monotonic()
        operation = services.lead(self._key, owner=self._owner, leader_ms=int(self._lease_s * 1000))
        self._has_lease = await self._runner.run(operation)
        self._asked_at, self._answered_at = asked_at, self._clock.monotonic()
        if self._has_lease and not led:
            logger.info("this scheduler leads now, with %d periodic tasks", len(self._book.entries))
            for ticker in self._tickers.values():
                ticker.forget()
        elif led and not self._has_lease:
            logger.info("another scheduler leads now")

    async def resign(self) -> None:
        """Give up the lease, so that another scheduler can lead without waiting for its expiry."""
        if self._has_lease:
            self._has_lease = False
            await self._runner.run(services.resign(self._key, owner=self._owner))

    # --- tickers ------------------------------------------------------------------------------------------------------

    def _run_tickers(self) -> None:
        """Start a ticker for each queue that has entries and no running ticker.

        Tickers without entries end by themselves.
        """
        for queue in [queue for queue, running in self._running.items() if running.done()]:
            del self._running[queue], self._tickers[queue]
        for queue in self._book.by_queue:
            if queue not in self._running:
                ticker = self._tickers[queue] = Ticker(self._context, queue, call=self._call, fired=self._fired)
                work = serve(
                    f"periodic tasks of queue {queue.name}",
                    ticker.work,
                    outage=self._context.outage,
                    is_needed=partial(self._needs_ticker, queue),
                )
                self._running[queue] = asyncio.create_task(work, name=f"taskq ticker {queue.name}")

    def _needs_ticker(self, queue: QueueKeys) -> bool:
        return self.leads and queue in self._book.by_queue and not self._tickers[queue].is_ending

    async def finish(self) -> None:
        """End the tickers.

        Cancel a ticker that waits. Let the others finish their current turn and report the results of the turn.
        """
        for queue, ticker in self._tickers.items():
            ticker.is_ending = True
            if not ticker.is_busy:
                self._running[queue].cancel()
        left = list(self._running.values())
        for _ in range(2):
            if left:
                await asyncio.wait(left, timeout=ENDING_S)
            for running in left:
                running.cancel()
