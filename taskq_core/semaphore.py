"""A semaphore in Redis: it limits how many tasks run a block of code at the same time, over all workers.

The semaphore has the format of Asynq's semaphore (`x/rate`), so Go and Python tasks with the same scope share its
permits. The holder of a permit is identified by a task id. Each permit expires at a deadline, even if the worker of its
holder has died.
"""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import TracebackType

from taskq_core.app import TaskQ
from taskq_core.broker.operations import semaphores
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import ask
from taskq_core.errors import BrokerError, ConfigurationError, SemaphoreFullError
from taskq_core.execution.context import current
from taskq_core.settings import Duration, check_whole, seconds
from taskq_core.wire import validate_scope, validate_task_id

logger = logging.getLogger("taskq.semaphore")

FIRST_PAUSE_S = 0.05
"""Maximum seconds between the first and the second attempt of a waiting caller. The pause doubles with each attempt."""
LONGEST_PAUSE_S = 1.0
"""Maximum seconds between two attempts of a waiting caller to take a permit."""
LIMIT_MAX = 1_000_000
"""Maximum number of permits of a semaphore."""


class Semaphore:
    """Limits how many holders work at the same time. Each holder takes a permit, and the number of permits is limited.

    Args:
        app: The queue application whose Redis stores the permits.
        scope: Name of the semaphore. Go semaphores with this scope share it.
        limit: Number of permits, 1 to 1,000,000. Use the same number in all programs, because Redis does not store it.

    Raises:
        ConfigurationError: The scope or the limit is not valid.
    """

    def __init__(self, app: TaskQ, scope: str, limit: int) -> None:
        self.scope = validate_scope(scope)
        check_whole("limit", limit, least=1, most=LIMIT_MAX)
        self.limit = limit
        self._app = app

    def __repr__(self) -> str:
        return f"<Semaphore {self.scope!r} of {self.limit}>"

    # --- permits ------------------------------------------------------------------------------------------------------

    def acquire(self, *, holder: str | None = None, deadline: datetime | Duration | None = None) -> bool:
        """Take a permit if one is free. Do not wait.

        A holder that already has a permit keeps it until the new deadline.

        Args:
            holder: Id of the holder. None: the id of the current task.
            deadline: Time at which the permit expires if it was not released: an aware datetime, or seconds or a
                timedelta from now by Redis's clock. The deadline is rounded up to whole seconds. None: the deadline of
                the current task.

        Returns:
            False if all permits are held.

        Raises:
            ConfigurationError: A value is not valid, or is missing where no task with a deadline runs.
            BrokerError: Redis refuses the request or does not answer within the enqueue timeout.
        """
        return self._app.runtime.source.run(ask(self._acquire(self._holder(holder), deadline)))

    async def aacquire(self, *, holder: str | None = None, deadline: datetime | Duration | None = None) -> bool:
        """Take a permit from a coroutine, as `acquire` does."""
        return await self._app.runtime.source.arun(ask(self._acquire(self._holder(holder), deadline)))

    def release(self, *, holder: str | None = None) -> bool:
        """Release a permit.

        Args:
            holder: Id of the holder. None: the id of the current task.

        Returns:
            False if the holder had no permit, for example because its deadline had passed.

        Raises:
            ConfigurationError: `holder` is missing where no task runs.
            BrokerError: Redis refuses the request or does not answer. The permit expires at its deadline.
        """
        return self._app.runtime.source.run(ask(semaphores.release(self._key, holder=self._holder(holder))))

    async def arelease(self, *, holder: str | None = None) -> bool:
        """Release a permit from a coroutine, as `release` does."""
        return await self._app.runtime.source.arun(ask(semaphores.release(self._key, holder=self._holder(holder))))

    def hold(
        self, *, holder: str | None = None, deadline: datetime | Duration | None = None, wait: Duration = 0
    ) -> "Hold":
        """Hold a permit while a `with` or an `async with` block runs.

        Args:
            holder: As for `acquire`. Two blocks of one holder share one permit; the first block that ends releases it.
            deadline: As for `acquire`.
            wait: Maximum time to wait for a permit. A waiting task occupies its slot of the worker. To free the slot,
                do not wait, and raise `Snooze` instead.

        Raises:
            SemaphoreFullError: No permit was released during `wait`. Raised at the start of the block.
            ConfigurationError: An argument is not valid.
        """
        return Hold(self, self._holder(holder), deadline, seconds("wait", wait))

    # --- rules --------------------------------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return self._app.runtime.keys.semaphore(self.scope)

    def _holder(self, given: str | None) -> str:
        if given is not None:
            return validate_task_id(given)
        context = current.get()
        if context is None:
            raise ConfigurationError("no task runs here; pass holder=, the id of the holder of the permit")
        return context.id

    def _acquire(self, holder: str, deadline: datetime | Duration | None) -> Operation[bool]:
        until_s: int | None = None
        for_ms = 0
        if deadline is None:
            context = current.get()
            deadline = None if context is None else context.deadline
            if deadline is None:
                raise ConfigurationError(
                    "no task with a deadline runs here; pass deadline=, the time at which the permit expires"
                )
        if isinstance(deadline, datetime):
            if deadline.tzinfo is None:
                raise ConfigurationError(f"deadline must have a time zone, got {deadline!r}")
            until_s = math.ceil(deadline.timestamp())
        else:
            for_ms = math.ceil(seconds("deadline", deadline, allow_zero=False) * 1000)
        return semaphores.acquire(self._key, limit=self.limit, holder=holder, until_s=until_s, for_ms=for_ms)


class Hold:
    """A permit of a semaphore, held while a block runs. Made by `Semaphore.hold`."""

    def __init__(
        self, semaphore: Semaphore, holder: str, deadline: datetime | timedelta | float | None, wait_s: float
    ) -> None:
        self._semaphore = semaphore
        self._wait_s = wait_s
        self._deadline = deadline
        self.holder = holder
        """Id of the holder of the permit."""

    def _pauses(self) -> Iterator[float]:
        """Yield the seconds until each further attempt. Raise SemaphoreFullError when the time to wait is over."""
        until = time.monotonic() + self._wait_s
        pause_s = FIRST_PAUSE_S
        while (left_s := until - time.monotonic()) > 0:
            yield min(left_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        raise SemaphoreFullError(self._semaphore.scope, self._semaphore.limit)

    def _log_failed_release(self, error: BrokerError) -> None:
        # Do not raise the error. The block has done its work, and raising would make the task repeat this work.
        logger.warning(
            "a permit of semaphore %r cannot be released, and expires at its deadline: %s",
            self._semaphore.scope,
            error,
        )

    def __enter__(self) -> "Hold":
        pauses = self._pauses()
        try:
            while not self._semaphore.acquire(holder=self.holder, deadline=self._deadline):
                time.sleep(next(pauses))
        except Exception:
            raise
        except BaseException:  # the task was interrupted, but Redis may already have stored its permit
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
            self._log_failed_release(failure)

    async def __aenter__(self) -> "Hold":
        pauses = self._pauses()
        try:
            while True:
                if await self._semaphore.aacquire(holder=self.holder, deadline=self._deadline):
                    return self
                await asyncio.sleep(next(pauses))
        except asyncio.CancelledError:  # Redis may already have stored the permit of this holder
            with contextlib.suppress(BrokerError):
                await self._semaphore.arelease(holder=self.holder)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._semaphore.arelease(holder=self.holder)
        except BrokerError as failure:
            self._log_failed_release(failure)
