"""Move tasks that wait for a rate or concurrency limit to pending, as soon as the limit allows them to start.

The script that releases a permit gives it to the next task. The limiter handles the other cases: new tokens of a rate
limit, and permits that no script released, for example permits of tasks on Go workers. The worker that leads the queue
does the work, if the queue has limits, under a lease that each call renews. The limiter sleeps until the next task may
start. A wake token wakes it earlier if another task may start sooner. Other workers only report from time to time that
they support limits.
"""

import asyncio
import logging

from taskq_core.broker.operations.limits import ADMIT_MAX, AdmittedNow, admit, check_limits, wait_for_limits
from taskq_core.service.loop import jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.leadership import Leadership, QueueService, Topic

logger = logging.getLogger("taskq.worker")

SHORTEST_S = 0.002
"""Minimum seconds between two calls of the script that starts waiting tasks."""
CHECK_COUNT = 200
"""Approximate number of limit holders, and of waiting tasks, that one script call checks."""
REPORT_EVERY_S = 20.0
"""Seconds between two reports to Redis that this worker supports limits. A report is valid for a minute."""
REST_S = 0.02
"""Seconds between two parts of a check of limit holders and waiting tasks."""


class Limiter(QueueService):
    """Moves tasks of one queue that wait for a limit to pending, as soon as the limit allows them to start."""

    name = "limiter"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        self.leader_keys = (queue.leader("limiter"),)
        self._pipeline = context.new_pipeline()  # this connection waits for the limiter's wake tokens
        self._leader_s = context.leader_s
        self._check_every_s = context.config.span("reconcile_every")
        self._next_check = self._clock.monotonic() + self._check_every_s
        self._token: asyncio.Future[bool] | None = None
        self._checking: tuple[str | None, int | None] | None = None
        self._next_page = 0.0
        self._report_at = self._clock.monotonic()

    async def work(self) -> float:
        """Move the tasks that may start now to pending, and sleep until the next task may start.

        Return the seconds until the next call.
        """
        if not self._leadership.has(Topic.LIMITS):
            self._forget_token()
            await self._stand_by()
            return 0.0
        answer = await self._admit()
        if not answer.leads:
            self._forget_token()
            return jittered(self._leader_s / 3)
        wait_s = self._leader_s / 2
        if answer.next_ms is not None:
            wait_s = min(wait_s, max(SHORTEST_S, answer.next_ms / 1000))
        wait_s = min(wait_s, await self._check())
        await self._wait(wait_s)
        return 0.0

    async def _admit(self) -> AdmittedNow:
        context = self._context
        return await self._runner.run(
            admit(self._queue, owner=context.token, leader_ms=context.leader_ms, limit=ADMIT_MAX)
        )

    async def _stand_by(self) -> None:
        """Wait until the queue may have limits. From time to time, report that this worker supports limits."""
        self._changes.clear()
        if not self._leadership.leads and self._clock.monotonic() >= self._report_at:
            self._report_at = self._clock.monotonic() + jittered(REPORT_EVERY_S)
            if await self._context.may_have(self._queue, "limits"):
                await self._admit()
        if self._leadership.has(Topic.LIMITS):  # check after `_admit`, which may have created the first limits
            return
        await self._changes.wait_for(max(0.0, self._report_at - self._clock.monotonic()) or REPORT_EVERY_S)

    async def _check(self) -> float:
        """Check some limit holders and waiting tasks, if a check is due. Return the seconds until the next check."""
        now = self._clock.monotonic()
        if self._checking is None:
            if now < self._next_check:
                return self._next_check - now
            self._checking = ("0", 0)
        elif now < self._next_page:
            return self._next_page - now
        cursor, skip = self._checking
        page = await self._runner.run(check_limits(self._queue, cursor=cursor, skip=skip, count=CHECK_COUNT))
        if page.freed or page.lost:
            logger.info(
                "queue %s: released %d permits of tasks that have ended, rescheduled %d tasks that no limit lists",
                self._queue.name,
                page.freed,
                page.lost,
                extra={"queue": self._queue.name},
            )
        next_cursor = None if cursor is None or page.cursor == "0" else page.cursor
        next_skip = None if skip is None or page.looked < CHECK_COUNT else skip + page.looked - page.lost
        if next_cursor is None and next_skip is None:
            self._checking = None
            self._next_check = now + jittered(self._check_every_s)
            return self._check_every_s
        self._checking = (next_cursor, next_skip)
        self._next_page = now + REST_S
        return REST_S

    async def _wait(self, seconds: float) -> None:
        """Wait at most `seconds` for a wake token.

        The timeout that Redis gets is longer, because Redis does not observe it exactly.
        """
        if self._token is None:
            self._token = asyncio.ensure_future(
                self._pipeline.run(wait_for_limits(self._queue, timeout_s=2 * self._leader_s))
            )
        try:
            done, _ = await asyncio.wait({self._token}, timeout=seconds)
        except asyncio.CancelledError:
            self._forget_token()
            raise
        if done:
            token, self._token = self._token, None
            token.result()

    def _forget_token(self) -> None:
        """Stop waiting for wake tokens, so that the new leader of the queue receives them."""
        if self._token is not None:
            self._token.cancel()
            self._token = None
