"""Wait at the start of a process until Redis answers.

A worker that starts before Redis waits, because an exit would only make a process manager restart it. An error that
time does not resolve, such as a wrong password or an untrusted certificate, ends the wait at once.
"""

import asyncio
import logging

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import views
from taskq_core.errors import BrokerError, BrokerUnavailableError
from taskq_core.service.loop import backoff
from taskq_core.service.outage import start_problem

WAITING = "waiting"
"""Status of a process in its health response while it waits for Redis."""


def is_temporary(error: BrokerError) -> bool:
    """Return whether Redis may answer later without a change of the configuration."""
    return isinstance(error, BrokerUnavailableError) and not error.is_permanent


class RedisWait:
    """Waits for Redis, with one log line when it begins to wait and one when Redis answers.

    Args:
        runner: Sends operations.
        what: Name of the process for the log, such as `worker`.
        stopping: Ends the wait when set.
        is_enabled: False: raise the first error instead of waiting.

    Attributes:
        reason: Why the process is not ready, "" if it does not wait.
    """

    def __init__(self, runner: AsyncRunner, what: str, stopping: asyncio.Event, *, is_enabled: bool = True) -> None:
        self._runner = runner
        self._what = what
        self._logger = logging.getLogger(f"taskq.{what}")
        self._stopping = stopping
        self._is_enabled = is_enabled
        self.reason = ""

    async def run(self) -> bool:
        """Return True as soon as Redis answers, or False if `stopping` is set before.

        Raises:
            BrokerError: Redis refuses the request for a reason that time does not resolve, or must not be waited for.
            ConfigurationError: The embedded server cannot be used.
        """
        await self._runner.endpoint.aopen()
        loop = asyncio.get_running_loop()
        began, failures = loop.time(), 0
        while not self._stopping.is_set():
            answer = asyncio.create_task(self._runner.run(views.ping()))
            if not await self._first_of(answer):
                return False
            try:
                answer.result()
            except BrokerError as error:
                if not (self._is_enabled and is_temporary(error)):
                    raise
                failures += 1
                self._report(error, failures)
                await self._first_of(asyncio.create_task(asyncio.sleep(backoff(failures))))
                continue
            if failures:
                self._logger.info("Redis answers after %.1f s; the %s continues", loop.time() - began, self._what)
            self.reason = ""
            return True
        return False

    def _report(self, error: BrokerError, failures: int) -> None:
        self.reason = f"Redis is unavailable: {error}"
        if failures == 1:
            self._logger.error("the %s waits for Redis: %s", self._what, start_problem(error))
        else:
            self._logger.debug("the %s still waits for Redis: %s", self._what, error)

    async def _first_of(self, task: "asyncio.Task[object]") -> bool:
        """Wait for an asyncio task. If `stopping` is set before it ends, cancel it and return False."""
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if is_late := not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return not is_late
