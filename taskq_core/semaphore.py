"""Limit how many tasks do a thing at the same time, over all workers: a semaphore whose places are held in Redis.

It is Asynq's (`x/rate`), key and bytes: Go and Python tasks with the same scope share its places. A holder is a task
id, and holds its place until a deadline at the latest, so a worker that dies leaves no place taken for ever.
"""

import asyncio
import contextlib
import logging
import math
import random
import time
from datetime import datetime, timedelta
from types import TracebackType

from taskq_core.app import TaskQ
from taskq_core.broker.operations import semaphores
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerError, ConfigurationError, SemaphoreFullError
from taskq_core.execution.context import current
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.wire import validate_scope, validate_task_id

logger = logging.getLogger("taskq.semaphore")

FIRST_PAUSE_S = 0.05
"""Seconds until a waiting caller asks again; doubled each time."""
LONGEST_PAUSE_S = 1.0
"""Longest time between two attempts, in seconds."""
LIMIT_MAX = 1_000_000
"""Most places of a semaphore."""


class Semaphore:
    """A number of places that tasks hold while they do something.

    Args:
        app: The queue application in whose Redis the places are.
        scope: Name of what is limited. Go's semaphore of this scope is the same one.
        limit: Places, 1 to 1 000 000. Every user of a scope should give the same number; each is held to its own.

    Raises:
        ConfigurationError: Scope or limit is not usable.
    """

    def __init__(self, app: TaskQ, scope: str, limit: int) -> None:
        self.scope = validate_scope(scope)
        check_whole("limit", limit, least=1, most=LIMIT_MAX)
        self.limit = limit
        self._app = app

    def __repr__(self) -> str:
        return f"<Semaphore {self.scope!r} of {self.limit}>"

    # --- places -------------------------------------------------------------------------------------------------------

    def acquire(self, *, holder: str | None = None, deadline: datetime | Duration | None = None) -> bool:
        """Take a place, without waiting for one.

        A holder that has a place already keeps it until the new deadline.

        Args:
            holder: Who takes it. None: the id of the task that runs here.
            deadline: Until when it is held at the latest: an aware moment, or seconds or a timedelta from now by
                Redis's clock. None: the deadline of the task that runs here. Rounded up to whole seconds.

        Returns:
            False if all places are held.

        Raises:
            ConfigurationError: No task with a deadline runs here to take holder or deadline from, or one is not usable.
            BrokerError: The store refuses or does not answer within the enqueue timeout.
        """
        runtime = self._app.runtime
        return runtime.runner.run(self._acquire(self._holder(holder), deadline), patience_s=self._patience_s)

    async def aacquire(self, *, holder: str | None = None, deadline: datetime | Duration | None = None) -> bool:
        """Take a place from a coroutine. As `acquire`."""
        runtime = self._app.runtime
        operation = self._acquire(self._holder(holder), deadline)
        return await runtime.async_runner.run(operation, patience_s=self._patience_s)

    def release(self, *, holder: str | None = None) -> bool:
        """Give a place back.

        Args:
            holder: Who held it. None: the id of the task that runs here.

        Returns:
            False if the holder had none, for example because its deadline had passed.

        Raises:
            ConfigurationError: No task runs here to take the holder from.
            BrokerError: The store refuses or does not answer; the place becomes free at its deadline.
        """
        runtime = self._app.runtime
        return runtime.runner.run(self._release(self._holder(holder)), patience_s=self._patience_s)

    async def arelease(self, *, holder: str | None = None) -> bool:
        """Give a place back from a coroutine. As `release`."""
        runtime = self._app.runtime
        return await runtime.async_runner.run(self._release(self._holder(holder)), patience_s=self._patience_s)

    def hold(
        self, *, holder: str | None = None, deadline: datetime | Duration | None = None, wait: Duration = 0
    ) -> "Hold":
        """Hold a place for the time of a `with` or an `async with` block.

        Args:
            holder: As for `acquire`. Two blocks of one holder share one place, which the first to end gives back.
            deadline: As for `acquire`.
            wait: How long to wait for a place. Waiting keeps the task's slot; raising `Snooze` gives it to others.

        Raises:
            SemaphoreFullError: By the block's beginning: all places are held, and were for `wait`.
            ConfigurationError: An argument is not usable.
        """
        return Hold(self, self._holder(holder), deadline, seconds("wait", wait))

    # --- rules --------------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return self._app.runtime.keys.semaphore(self.scope)

    @property
    def _patience_s(self) -> float:
        return seconds("enqueue_timeout", self._app.settings.enqueue_timeout)

    def _holder(self, given: str | None) -> str:
        if given is not None:
            return validate_task_id(given)
        context = current.get()
        if context is None:
            raise ConfigurationError("no task runs here whose id could hold a place; give holder=")
        return context.id

    def _acquire(self, holder: str, deadline: datetime | Duration | None) -> Operation[bool]:
        until_s: int | None = None
        for_ms = 0
        if deadline is None:
            context = current.get()
            deadline = None if context is None else context.deadline
            if deadline is None:
                raise ConfigurationError("no task with a deadline runs here, so give deadline=: a place has to end")
        if isinstance(deadline, datetime):
            if deadline.tzinfo is None:
                raise ConfigurationError(f"deadline must have a time zone, got {deadline!r}")
            until_s = math.ceil(deadline.timestamp())
        else:
            for_ms = math.ceil(seconds("deadline", deadline, allow_zero=False) * 1000)
        return semaphores.acquire(self._key, limit=self.limit, holder=holder, until_s=until_s, for_ms=for_ms)

    def _release(self, holder: str) -> Operation[bool]:
        return semaphores.release(self._key, holder=holder)


class Hold:
    """A place of a semaphore, held for the time of a block. Made by `Semaphore.hold`."""

    def __init__(
        self, semaphore: Semaphore, holder: str, deadline: datetime | timedelta | float | None, wait_s: float
    ) -> None:
        self._semaphore = semaphore
        self._wait_s = wait_s
        self._deadline = deadline
        self.holder = holder
        """Who holds the place."""

    def _full(self) -> SemaphoreFullError:
        return SemaphoreFullError(self._semaphore.scope, self._semaphore.limit)

    def _keeps(self, error: BrokerError) -> None:
        # What the block did is done; to fail now would do it again.
        logger.warning("a place of semaphore %r stays taken until its deadline: %s", self._semaphore.scope, error)

    def __enter__(self) -> "Hold":
        until = time.monotonic() + self._wait_s
        pause_s = FIRST_PAUSE_S
        try:
            while not self._semaphore.acquire(holder=self.holder, deadline=self._deadline):
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise self._full()
                time.sleep(min(left_s, _jittered(pause_s)))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except Exception:
            raise
        except BaseException:  # interrupted: the place may have been taken
            with contextlib.suppress(BrokerError):
                self._semaphore.release(holder=self.holder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._semaphore.release(holder=self.holder)
        except BrokerError as failure:
            self._keeps(failure)

    async def __aenter__(self) -> "Hold":
        clock = asyncio.get_running_loop().time
        until = clock() + self._wait_s
        pause_s = FIRST_PAUSE_S
        try:
            while not await self._semaphore.aacquire(holder=self.holder, deadline=self._deadline):
                left_s = until - clock()
                if left_s <= 0:
                    raise self._full()
                await asyncio.sleep(min(left_s, _jittered(pause_s)))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except asyncio.CancelledError:  # the place may have been taken
            with contextlib.suppress(BrokerError):
                await self._semaphore.arelease(holder=self.holder)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._semaphore.arelease(holder=self.holder)
        except BrokerError as failure:
            self._keeps(failure)


def _jittered(pause_s: float) -> float:
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
