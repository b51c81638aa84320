"""Find the queues of a worker that have keys of one kind. If no queue has such a key, this takes one command.

Without this, each service would ask Redis for each queue, and the commands of an idle worker would grow with its
queues.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.services import count_keys
from taskq_core.clock import Clock
from taskq_core.errors import BrokerError
from taskq_core.wire import QueueKeys

PARTS = 16
"""Number of parts into which queues are divided, if some but not all of them have the keys."""
FEW = 10
"""Number of keys above which all queues are returned, because it costs less to ask each queue."""

Send = Callable[[Sequence[Operation[Any]]], Awaitable[list[Any]]]


async def find_queues(queues: Sequence[QueueKeys], names: Sequence[str], send: Send) -> list[QueueKeys]:
    """Return the queues that have at least one of some keys, in their order; all queues if more than `FEW` keys exist.

    Args:
        queues: The queues. In a cluster, only one.
        names: Attributes of `QueueKeys` that name the keys.
        send: Sends operations in one write, and returns the replies.

    Raises:
        BrokerError: Redis refused or could not be reached.
    """
    found: set[QueueKeys] = set()
    parts = [queues]
    while parts:
        keys = [[getattr(queue, name) for queue in part for name in names] for part in parts]
        counts = await send([count_keys(each) for each in keys])
        for count in counts:
            if isinstance(count, BrokerError):
                raise count
        if sum(counts) > FEW:
            return list(queues)
        smaller: list[Sequence[QueueKeys]] = []
        for part, count in zip(parts, counts, strict=True):
            if count and len(part) == 1:
                found.update(part)
            elif count:
                size = math.ceil(len(part) / PARTS)
                smaller += [part[first : first + size] for first in range(0, len(part), size)]
        parts = smaller
    return [queue for queue in queues if queue in found]


class KeyCheck:
    """Shares one answer of `find_queues` between the services of all queues, for a short time.

    Args:
        runner: Sends operations.
        clock: Source of time.
        queues: The queues. In a cluster, only one.
        names: Attributes of `QueueKeys` that name the keys.
    """

    FRESH_S = 1.0
    """Seconds for which an answer is used."""

    def __init__(self, runner: AsyncRunner, clock: Clock, queues: Sequence[QueueKeys], names: Sequence[str]) -> None:
        self._runner = runner
        self._clock = clock
        self._queues = queues
        self._names = names
        self._turn = asyncio.Lock()
        self._asked_at = -math.inf
        self._found: frozenset[str] = frozenset()

    async def has(self, queue: QueueKeys) -> bool:
        """Return whether the queue may have one of the keys. A single queue is always asked.

        Raises:
            BrokerError: Redis refused or could not be reached.
        """
        async with self._turn:
            now = self._clock.monotonic()
            if len(self._queues) == 1 or now - self._asked_at >= self.FRESH_S:
                found = await find_queues(self._queues, self._names, self._send)
                self._found, self._asked_at = frozenset(each.name for each in found), now
        return queue.name in self._found

    async def _send(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        return [await self._runner.run(each) for each in operations]
