"""Take back the tasks of dead workers on this host, without waiting for their leases to end.

A killed worker cannot give its tasks back. Each worker records its token in Redis, by queue and host. A worker reads
the records of the other workers at its start and with each heartbeat. If a process has provably ended (`liveness`), it
takes back the tasks of this process at once. All other leases must expire first; the recoverer handles them.

A task cannot be taken back twice, because the script compares the lease and the token of its holder. Late requests of
the dead worker do no harm: a settlement is refused once the task was taken back, and a second pass takes back tasks
that a late dequeue handed out.
"""

import asyncio
import logging
import socket

from taskq_core.broker.operations import presence, services
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext, WorkerService
from taskq_core.worker.liveness import is_held, place
from taskq_core.worker.take_back import take_back

logger = logging.getLogger("taskq.worker")

SECOND_PASS_S = 1.0
"""Seconds until the second pass over a dead worker's tasks. Redis may receive the dead worker's last request late."""
SUPERVISOR_S = 60.0
"""Seconds for which only the supervisor of a dead worker takes back its tasks, because the supervisor knows the cause
of death."""
KEPT_S = 60
"""Seconds for which the record of a worker stays in Redis after its lease and the recoverer's grace."""
LEADERSHIPS = ("lookout", "forwarder", "limiter", "carrier")
"""Names of services of a queue that a dead worker may have led. The leader leases of these services are released at
once."""


class Takeover(WorkerService):
    """Takes back the tasks of one queue from dead workers of this host.

    Args:
        context: The worker.
        queue: Key names of the queue.
        here: Digest of this worker's socket namespace; see `liveness.place`.
        supervisor: Name that the worker's supervisor holds, "" if the worker has no supervisor.
    """

    name = "takeover"

    def __init__(self, context: WorkerContext, queue: QueueKeys, here: str, supervisor: str = "") -> None:
        super().__init__(context)
        self._queue = queue
        self._token = context.token
        self._record = supervisor.encode()
        self._place = here
        self._every_s = context.heartbeat_s
        self._kept_s = context.lock_s + KEPT_S
        self._dead_since: dict[str, float] = {}
        self._taken_at: dict[str, float] = {}
        self.has_checked = asyncio.Event()
        """Set after the first pass, which releases leases of dead workers. The queue's `Leadership` waits for it."""

    async def work(self) -> float:
        """Record this process and take back tasks of dead workers. Return the seconds until the next call."""
        try:
            return await self._check_others()
        finally:
            self.has_checked.set()

    async def _check_others(self) -> float:
        others = await self._runner.run(
            presence.list_peers(self._queue, self._place, self._token, self._record, kept_s=self._kept_s)
        )
        for known in (self._dead_since, self._taken_at):
            for token in known.keys() - others.keys():
                del known[token]
        pause_s = self._every_s
        for token, supervisor in others.items():
            if self._may_take_from(token, supervisor.decode(errors="replace")):
                await self._take_from(token)
                pause_s = min(pause_s, SECOND_PASS_S)
        return pause_s

    def _may_take_from(self, token: str, supervisor: str) -> bool:
        if is_held(token):
            return False
        dead_for_s = self._clock.monotonic() - self._dead_since.setdefault(token, self._clock.monotonic())
        return not supervisor or dead_for_s >= SUPERVISOR_S or not is_held(supervisor)

    async def _take_from(self, token: str) -> None:
        count = await take_back(self._runner, [self._queue], token, self._app)
        if count:
            logger.warning(
                "took back %d tasks of queue %s from a worker of this host whose process has ended",
                count,
                self._queue.name,
            )
        for service in LEADERSHIPS:
            await self._runner.run(services.resign(self._queue.leader(service), owner=token))
        taken_at = self._taken_at.setdefault(token, self._clock.monotonic())
        if self._clock.monotonic() - taken_at >= SECOND_PASS_S:
            await self._runner.run(presence.forget_peer(self._queue, self._place, token))

    async def resign(self) -> None:
        """Delete the record of this process in Redis, because it has no tasks any more."""
        await self._runner.run(presence.forget_peer(self._queue, self._place, self._token))


def new_takeovers(context: WorkerContext, held: socket.socket | None, *, supervisor: str) -> list[Takeover]:
    """Return a takeover for each queue, or an empty list if this host cannot prove that a worker has ended.

    Args:
        context: The worker.
        held: The socket that holds the worker's name, or None.
        supervisor: Name that the worker's supervisor holds, "" if the worker has no supervisor.
    """
    here = place()
    if held is None or not here or context.runner.endpoint.is_memory:
        return []
    return [Takeover(context, queue, here, supervisor) for queue in context.queues]
