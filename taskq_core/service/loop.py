"""What the services of workers and schedulers share: a loop that survives whatever one pass meets."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from taskq_core.errors import BrokerError
from taskq_core.service.user_code import is_cancelled

logger = logging.getLogger("taskq.worker")

LONGEST_PAUSE_S = 5.0
"""Longest time between two attempts while a service fails, in seconds."""


async def serve(name: str, work: Callable[[], Awaitable[float]], *, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Call `work` again and again, for as long as `goes_on` says. It returns the seconds until its next call.

    What it raises is logged, and it is called again after a growing pause: a service never ends by an error.
    """
    failures = 0
    while goes_on():
        try:
            try:
                pause_s = await work()
                failures = 0
            except BrokerError as error:
                failures += 1
                pause_s = _backoff(failures)
                if failures in (1, 10) or failures % 100 == 0:
                    logger.error("%s: %s; trying again", name, error)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                failures += 1
                pause_s = _backoff(failures)
                logger.exception("%s failed; trying again", name)
        except MemoryError:  # a task has taken it all, so that not even a failure could be told of
            pause_s = 1.0
        if is_cancelled():  # and what `work` awaited swallowed it, as `asyncio.wait_for` does on Python 3.11
            raise asyncio.CancelledError
        await asyncio.sleep(pause_s)


def _backoff(failures: int) -> float:
    return random.uniform(0.5, 1.0) * min(0.1 * 2.0 ** min(failures, 10), LONGEST_PAUSE_S)  # noqa: S311 - jitter


def jittered(seconds: float) -> float:
    """Return a time within a fifth of the one given, so that workers started together drift apart."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret
