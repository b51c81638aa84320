"""Read keys of queues on one connection.

Redis then reports changes of these keys on this connection (client-side caching).

After each read of a key, Redis reports the next change of the key by any client, including Go's client and `redis-cli`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import Operation


class ChangeFeed:
    """Reads keys of queues, and calls back when another client changes them.

    Args:
        runner: Opens the connection on first use.
    """

    def __init__(self, runner: AsyncRunner) -> None:
        self._pipeline = runner.new_tracking_pipeline(self._on_change)
        self._turn = asyncio.Lock()
        self._watchers: dict[str, list[Callable[[], object]]] = {}

    @property
    def is_tracking(self) -> bool:
        """Whether Redis reports changes of read keys to this connection. A cluster, for example, does not."""
        return self._pipeline.is_tracking

    def watch(self, keys: Sequence[str], changed: Callable[[], object]) -> None:
        """Call a function when a key that the caller has read changes, or when the connection ends."""
        for key in keys:
            self._watchers.setdefault(key, []).append(changed)

    def _on_change(self, names: Sequence[str] | None) -> None:
        lists = self._watchers.values() if names is None else [self._watchers.get(name, []) for name in names]
        for changed in {changed for each in lists for changed in each}:
            changed()

    async def exchange(self, operations: Sequence[Operation[Any]]) -> list[Any]:
        """Send operations to Redis in one write and return the replies, as `Pipeline.exchange` does."""
        async with self._turn:
            return await self._pipeline.exchange(operations)

    async def close(self) -> None:
        """Close the connection."""
        await self._pipeline.close()
