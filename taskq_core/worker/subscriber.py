"""Receive messages of operators and clients: tasks to cancel, and requests to this worker.

A cancel message is a task id. Any client that may publish can send it. If the task does not run here, the message costs
one dict look-up per queue. Requests use a separate channel, because permission to cancel tasks is not permission to
stop workers.
"""

import logging
from collections.abc import Callable, Mapping

from taskq_core.errors import BrokerAuthenticationError
from taskq_core.worker.context import WorkerContext, WorkerService

logger = logging.getLogger("taskq.worker")


class Subscriber(WorkerService):
    """Receives messages of several Redis channels on one connection.

    Args:
        context: The worker.
        handlers: Called with each message, by channel. If Redis refuses the subscription, only the first channel is
            used.
    """

    name = "subscriber"

    def __init__(self, context: WorkerContext, handlers: Mapping[str, Callable[[str], object]]) -> None:
        super().__init__(context)
        self._handlers = handlers
        self._has_warned = False

    async def work(self) -> float:
        """Receive messages until the connection ends and an error is raised."""
        try:
            subscription = await self._runner.subscribe(*self._handlers)
        except BrokerAuthenticationError as error:
            first, *others = self._handlers
            subscription = await self._runner.subscribe(first)
            if not self._has_warned:
                self._has_warned = True
                logger.warning("requests of operators cannot be received on %s: %s", ", ".join(others), error)
        try:
            while True:
                channel, message = await subscription.next_of_any()
                self._handlers[channel](message)
        finally:
            await subscription.close()


class PrimaryFollower(WorkerService):
    """Asks the Sentinels every second which server is the primary.

    Args:
        context: The worker.
        changed: Called when another server has become the primary. The old primary may still hand out tasks, but it
            forgets them when it becomes a replica.
    """

    name = "follower"

    def __init__(self, context: WorkerContext, changed: Callable[[], None]) -> None:
        super().__init__(context)
        self._changed = changed
        self._seen = self._runner.endpoint.takeovers

    async def work(self) -> float:
        """Ask the Sentinels once. Return the seconds until the next call."""
        pause_s = await self._runner.follow_primary()
        if self._runner.endpoint.takeovers != self._seen:  # a thread of a client may also have asked, and noticed it
            self._seen = self._runner.endpoint.takeovers
            self._changed()
        return pause_s
