"""Return the tasks of dead worker processes to their queues, and find overdue tasks of processes that do not respond.

The supervisor waits for Redis before it starts the first processes, and uses Redis again only after a process has ended
or is overdue.
"""

import asyncio
import logging
import time

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import services
from taskq_core.errors import BrokerError
from taskq_core.supervisor.child import Child
from taskq_core.wire import QueueKeys
from taskq_core.worker import take_back
from taskq_core.worker.executor import STUCK_S

logger = logging.getLogger("taskq.supervisor")

SECOND_PASS_S = 1.0
"""Seconds until the tasks of a dead process are returned a second time."""
_PAUSE_S = 0.5
"""Seconds until the next attempt after the first failure. Each further failure adds as many seconds."""
_LONGEST_PAUSE_S = 5.0
"""Maximum seconds between two attempts to return the tasks of a dead process."""


class Returns:
    """Returns the tasks of ended worker processes to their queues.

    Args:
        app: The queue application.
    """

    def __init__(self, app: TaskQ) -> None:
        self._app = app
        self.runner = AsyncRunner(app.runtime.endpoint)
        """Sends operations."""

    async def return_tasks(self, child: Child, *, patience_s: float) -> None:
        """Return the tasks of an ended process, and remove it from the list of workers.

        Args:
            child: The process.
            patience_s: Seconds for which to retry while Redis does not answer. After this time, the leases of the tasks
                have expired anyway.
        """
        failures, until = 0, time.monotonic() + patience_s
        # After a kill, return tasks twice: the last request of the killed process may still reach Redis and dequeue
        # tasks.
        pauses = [0.0] if child.ends_in_order else [0.0, SECOND_PASS_S]
        while pauses:
            await asyncio.sleep(pauses[0])
            try:
                await self._return_once(child)
                pauses.pop(0)
            except BrokerError as error:
                failures += 1
                name = f"process {child.place} (pid {child.pid})"
                if time.monotonic() > until:
                    logger.error(
                        "tasks of %s cannot be returned now, and run again when their leases have expired: %s",
                        name,
                        error,
                    )
                    return
                if failures == 1:
                    logger.warning("tasks of %s cannot be returned yet: %s; trying again", name, error)
                pauses[0] = min(_PAUSE_S * failures, _LONGEST_PAUSE_S)

    async def _return_once(self, child: Child) -> None:
        queues = self._queues(child)
        token = str(child.identity["token"])
        if count := await take_back.take_back(self.runner, queues, token, self._app, overran=child.overran):
            logger.info("%d tasks of process %d (pid %d) were returned to their queues", count, child.place, child.pid)
        await self._remove_presence(child)

    async def list_overrun(self, child: Child) -> list[tuple[str, str]]:
        """Return queue and id of the overdue tasks of a process. Return an empty list if Redis does not answer."""
        try:
            token = str(child.identity["token"])
            return await take_back.list_overrun(self.runner, self._queues(child), token, grace_s=STUCK_S)
        except BrokerError:
            return []  # the supervisor asks again later

    def _queues(self, child: Child) -> list[QueueKeys]:
        return [self._app.runtime.keys.queue(name) for name in child.identity["queues"]]

    async def _remove_presence(self, child: Child) -> None:
        keys = self._app.runtime.keys
        identity = (str(child.identity["host"]), child.pid, str(child.identity["server_id"]))
        server, workers = keys.server(*identity), keys.workers_of(*identity)
        await self.runner.run(services.unindex_presence(keys.servers, server))
        await self.runner.run(services.unindex_presence(keys.workers, workers))
        await self.runner.run(services.clear_presence(server, workers))

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self.runner.aclose()
