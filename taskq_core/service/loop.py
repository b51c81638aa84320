"""Base class of the services of workers and schedulers, and a loop that survives errors."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from taskq_core.errors import BrokerError, ConfigurationError
from taskq_core.service.outage import Outage
from taskq_core.service.user_code import is_cancelled

logger = logging.getLogger("taskq.worker")

LONGEST_PAUSE_S = 5.0
"""Maximum seconds between two attempts of a service that fails."""


class Service:
    """A background loop of a worker or scheduler. `serve` calls `work` repeatedly.

    Attributes:
        name: Name of the service in logs.
    """

    name = ""

    @property
    def is_idle(self) -> bool:
        """Whether the service has looked for work and found none.

        A worker in burst mode ends once all services are idle.
        """
        return True

    async def work(self) -> float:
        """Do all work that is due, in one pass. Return the seconds until the next pass."""
        raise NotImplementedError

    async def resign(self) -> None:
        """Give up leases in Redis, so that another process can take over at once. Called after the last `work`.

        Raises:
            BrokerError: Redis refused or could not be reached.
        """


class Signal(asyncio.Event):
    """An asyncio event for which a coroutine can wait with a time limit."""

    async def wait_for(self, seconds: float | None) -> None:
        """Wait until the event is set, at most `seconds`. None: no limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait()


async def serve(
    name: str,
    work: Callable[[], Awaitable[float]],
    *,
    outage: Outage,
    is_needed: Callable[[], bool] = lambda: True,
) -> None:
    """Call `work` repeatedly while `is_needed` returns True. `work` returns the seconds until its next call.

    Log an error of `work`, and call it again after a growing pause. An error never ends a service.
    """
    failures = 0
    while is_needed():
        try:
            try:
                pause_s = await work()
                failures = 0
            except BrokerError as error:
                failures += 1
                pause_s = backoff(failures)
                outage.report(name, error, failures)
            except ConfigurationError as error:
                failures += 1
                pause_s = backoff(failures)
                outage.ask_for_help(name, error)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                failures += 1
                pause_s = backoff(failures)
                logger.exception("%s failed; trying again", name)
        except MemoryError:  # a task used all memory, so even the log call failed
            pause_s = 1.0
        if is_cancelled():  # `work` may have caught the cancellation, as `asyncio.wait_for` does on Python 3.11
            raise asyncio.CancelledError
        await asyncio.sleep(pause_s)


def backoff(failures: int) -> float:
    """Return the seconds to wait after a number of failures in a row. They double up to `LONGEST_PAUSE_S`."""
    return random.uniform(0.5, 1.0) * min(0.1 * 2.0 ** min(failures, 10), LONGEST_PAUSE_S)  # noqa: S311 - jitter


def jittered(seconds: float) -> float:
    """Return a time that is changed randomly by up to 20 %.

    So processes that started together do not act at the same time.
    """
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret
