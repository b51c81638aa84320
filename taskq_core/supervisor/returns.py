"""What a supervisor asks of Redis: to take back what a dead process held, and what a silent one holds.

It has no connection before the first process has ended.
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
from taskq_core.worker import hand_back
from taskq_core.worker.executor import STUCK_S

logger = logging.getLogger("taskq.supervisor")

SECOND_LOOK_S = 1.0
"""Seconds after which it is looked again what a dead process held: a call of its own may have been on the way."""
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0


class Returns:
    """Gives back what processes held.

    Args:
        app: The queue application.
    """

    def __init__(self, app: TaskQ) -> None:
        self._app = app
        self._runner: AsyncRunner | None = None

    async def give_back(self, child: Child, *, patience_s: float) -> None:
        """Give back what a process held that has ended, and take it off the list of those that live.

        Args:
            child: The process.
            patience_s: Seconds for which it is tried again while Redis is away. Then the leases end by themselves.
        """
        looks, failures, until = 0, 0, time.monotonic() + patience_s
        while looks < 2:
            try:
                count = await self._look(child)
                if looks == 0:
                    await self._forget(child)
            except BrokerError as error:
                failures += 1
                if time.monotonic() > until:
                    logger.error(
                        "what process %d (pid %d) held is left to the end of its leases: %s",
                        child.place,
                        child.pid,
                        error,
                    )
                    return
                if failures == 1:
                    logger.warning("what a process held cannot be given back yet: %s; trying again", error)
                await asyncio.sleep(min(_PAUSE_S * failures, _LONGEST_PAUSE_S))
                continue
            if count:
                logger.info("%d tasks that process %d (pid %d) held are given back", count, child.place, child.pid)
            looks += 1
            if child.ends_in_order:  # no call of its can be on the way
                return
            if looks < 2:
                await asyncio.sleep(SECOND_LOOK_S)

    async def _look(self, child: Child) -> int:
        runner, queues = await self._runner_and_queues(child)
        return await hand_back.hand_back(runner, queues, str(child.who["token"]), self._app, overran=child.overran)

    async def list_overrun(self, child: Child) -> list[tuple[str, str]]:
        """Return queue and id of what a process holds and should have ended; nothing while Redis is away."""
        try:
            runner, queues = await self._runner_and_queues(child)
            return await hand_back.list_overrun(runner, queues, str(child.who["token"]), grace_s=STUCK_S)
        except BrokerError:
            return []  # asked again; in the end the silence of the process counts

    async def _runner_and_queues(self, child: Child) -> tuple[AsyncRunner, list[QueueKeys]]:
        runtime = self._app.runtime
        if self._runner is None:
            await asyncio.to_thread(runtime.endpoint.open)
            self._runner = self._runner or AsyncRunner(runtime.endpoint)  # another process may have died meanwhile
        return self._runner, [runtime.keys.queue(name) for name in child.who["queues"]]

    async def _forget(self, child: Child) -> None:
        runner, _ = await self._runner_and_queues(child)
        keys, who = self._app.runtime.keys, (str(child.who["host"]), child.pid, str(child.who["server_id"]))
        server, workers = keys.server(*who), keys.workers_of(*who)
        await runner.run(services.unindex_presence(keys.servers, server))
        await runner.run(services.unindex_presence(keys.workers, workers))
        await runner.run(services.clear_presence(server, workers))

    async def close(self) -> None:
        """Close the connections."""
        if self._runner is not None:
            await self._runner.aclose()
