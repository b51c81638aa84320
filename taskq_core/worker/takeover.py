"""Take back the tasks of dead workers on this host, without waiting for their leases to end.

A killed worker cannot give its tasks back. Each worker records its token in Redis, by queue and host. A worker reads
the records of the other workers at its start and with each heartbeat. If a process has provably ended (`liveness`), it
takes back the tasks of this process at once. All other leases must expire first; the recoverer handles them.

A worker of many queues reads the records of only some of them with each heartbeat. It also reads one record of all
workers of the host, which shows new workers. So it knows each worker of the host after one heartbeat.

A task cannot be taken back twice, because the script compares the lease and the token of its holder. Late requests of
the dead worker do no harm: a settlement is refused once the task was taken back, and a second pass takes back tasks
that a late dequeue handed out.
"""

import asyncio
import logging
import math
import socket
from collections.abc import Mapping, Sequence

from taskq_core.broker.operations import presence, services
from taskq_core.errors import BrokerError
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import MANY_QUEUES, WorkerContext, WorkerService
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
    """Takes back the tasks of some queues from dead workers of this host.

    Args:
        context: The worker.
        queues: Key names of the queues. In a cluster, only one.
        here: Digest of this worker's socket namespace; see `liveness.place`.
        supervisor: Name that the worker's supervisor holds, "" if the worker has no supervisor.
    """

    name = "takeover"

    def __init__(self, context: WorkerContext, queues: Sequence[QueueKeys], here: str, supervisor: str = "") -> None:
        super().__init__(context)
        self._every_s = context.heartbeat_s
        self._host = None
        if len(queues) > MANY_QUEUES:
            self._host = _Records(context, context.keys.peers(here), supervisor)
        self._queues = [QueueTakeover(context, queue, here, supervisor) for queue in queues]
        self._known: set[str] = set()
        self._next = 0
        self.has_checked = asyncio.Event()
        """Set after the first pass, which releases leases of dead workers. `Leadership` waits for it."""

    async def work(self) -> float:
        """Record this process and take back tasks of dead workers. Return the seconds until the next call.

        Raises:
            BrokerError: Redis refused or could not be reached. The other queues were checked.
        """
        try:
            return await self._check()
        finally:
            self.has_checked.set()

    async def _check(self) -> float:
        failure: BrokerError | None = None
        pause_s = self._every_s
        for queue, is_read in await self._order():
            try:
                if is_read:
                    await queue.read()
                if await queue.take():
                    pause_s = min(pause_s, SECOND_PASS_S)
            except BrokerError as error:
                failure = failure or error
        if failure is not None:
            self._known.clear()
            raise failure
        return pause_s

    async def _order(self) -> "list[tuple[QueueTakeover, bool]]":
        """Return all queues, and whether to read the records of each: of all queues if a worker is new."""
        due = range(len(self._queues))
        if self._host is not None:
            tokens = set(await self._host.read()) | {self._context.token}
            if tokens <= self._known:
                due = range(self._next, self._next + MANY_QUEUES)
            self._known |= tokens
            self._next = due.stop % len(self._queues)
        # The other queues are not read, but their known workers are checked, which needs no request.
        is_read = {number % len(self._queues) for number in due}
        return [(queue, number in is_read) for number, queue in enumerate(self._queues)]

    async def resign(self) -> None:
        """Delete the records of this process in Redis, because it has no tasks any more."""
        if self._host is not None:
            await self._host.forget(self._context.token)
        for queue in self._queues:
            await queue.records.forget(self._context.token)


class _Records:
    """The records of the workers of this host in one key.

    Args:
        context: The worker.
        key: The key: of a queue, or of all workers of the host.
        supervisor: Stored in the record of this worker.
    """

    def __init__(self, context: WorkerContext, key: str, supervisor: str) -> None:
        self._runner = context.runner
        self._key = key
        self._token = context.token
        self._record = supervisor.encode()
        # A worker of many queues reads, and so extends, the records of a queue less often.
        self._kept_s = context.lock_s + KEPT_S + math.ceil(2 * context.heartbeat_s * (context.pace - 1))

    async def read(self) -> Mapping[str, bytes]:
        """Store the record of this worker, and return the records of the others, by token."""
        return await self._runner.run(presence.list_peers(self._key, self._token, self._record, kept_s=self._kept_s))

    async def forget(self, token: str) -> None:
        """Delete the record of a worker."""
        await self._runner.run(presence.forget_peer(self._key, token))


class QueueTakeover:
    """Takes back the tasks of one queue from dead workers of this host. The arguments are those of `Takeover`."""

    def __init__(self, context: WorkerContext, queue: QueueKeys, here: str, supervisor: str) -> None:
        self._runner = context.runner
        self._clock = context.clock
        self._app = context.app
        self._queue = queue
        self.records = _Records(context, queue.peers(here), supervisor)
        self._others: Mapping[str, bytes] = {}
        self._dead_since: dict[str, float] = {}
        self._taken_at: dict[str, float] = {}

    async def read(self) -> None:
        """Record this process, and read the records of the other processes."""
        self._others = await self.records.read()
        for known in (self._dead_since, self._taken_at):
            for token in known.keys() - self._others.keys():
                del known[token]

    async def take(self) -> bool:
        """Take back the tasks of dead workers. Return whether there is a dead worker."""
        dead = [
            token
            for token, supervisor in self._others.items()
            if self._may_take_from(token, supervisor.decode(errors="replace"))
        ]
        for token in dead:
            await self._take_from(token)
        return bool(dead)

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
            await self.records.forget(token)
            self._others = {other: record for other, record in self._others.items() if other != token}


def new_takeovers(context: WorkerContext, held: socket.socket | None, *, supervisor: str) -> list[Takeover]:
    """Return a takeover for each group of queues, or an empty list if this host cannot prove that a worker has ended.

    Args:
        context: The worker.
        held: The socket that holds the worker's name, or None.
        supervisor: Name that the worker's supervisor holds, "" if the worker has no supervisor.
    """
    here = place()
    if held is None or not here or context.runner.endpoint.is_memory:
        return []
    return [Takeover(context, group, here, supervisor) for group in context.groups]
