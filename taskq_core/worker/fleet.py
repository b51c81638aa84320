"""Read how many tasks the workers of each queue run, and how many they can run."""

from collections.abc import Mapping

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.presence import keys_of_index, list_alive, read_server
from taskq_core.clock import Clock
from taskq_core.errors import WireFormatError
from taskq_core.wire import Keys, ServerInfo
from taskq_core.wire.samples import SAMPLE_S

WORKERS_MOST = 1000
"""Maximum number of workers whose load is read."""


class Fleet:
    """Reads the load of each queue's workers from their presence in Redis, at most every ten seconds.

    Args:
        keys: Key names.
        runner: Sends operations.
        clock: Source of time.
    """

    def __init__(self, keys: Keys, runner: AsyncRunner, clock: Clock) -> None:
        self._keys = keys
        self._runner = runner
        self._clock = clock
        self._read_at: float | None = None
        self._by_queue: Mapping[str, tuple[int, int]] = {}

    async def of(self, queue: str) -> tuple[int, int]:
        """Return how many tasks the running workers of a queue run now, and how many they can run at once."""
        now = self._clock.monotonic()
        if self._read_at is None or now - self._read_at >= SAMPLE_S * 0.9:
            self._read_at = now
            self._by_queue = await self._read()
        return self._by_queue.get(queue, (0, 0))

    async def _read(self) -> Mapping[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        members = await self._runner.run(list_alive(self._keys.servers, skip=0, count=WORKERS_MOST))
        for key in keys_of_index(self._keys.servers, members):
            data = await self._runner.run(read_server(key))
            try:
                info = ServerInfo.decode(data) if data else None
            except WireFormatError:
                continue
            if info is None:
                continue
            for name in info.queues:
                busy, slots = found.get(name, (0, 0))
                found[name] = (busy + info.active_worker_count, slots + info.concurrency)
        return found
