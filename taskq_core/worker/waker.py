"""Notice new tasks without polling.

`Waker` waits for the tokens that our own enqueue, forward and requeue scripts put. `Watcher` serves producers that put
none, Go's among them: one worker per queue, by lease, waits on the pending list itself and puts a token for all.
"""

import asyncio
from collections.abc import Sequence

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.lanes import Lane
from taskq_core.broker.operations import lead, rouse, wait_for_wake, watch_pending
from taskq_core.clock import Clock
from taskq_core.errors import BrokerError
from taskq_core.service import jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.fetcher import Fetcher

FULL_S = 0.05
"""Seconds until a worker that runs all it may of its queues looks again whether it waits for others."""


class Waker:
    """Waits for wake tokens while the worker is idle.

    Args:
        queues: Queues whose tokens one connection waits for. On a cluster one queue.
        lane: A reserved connection.
        fetcher: Woken by a token.
        safety_net_s: Longest wait; then the queues are tried all the same.
    """

    def __init__(self, queues: Sequence[QueueKeys], lane: Lane, fetcher: Fetcher, *, safety_net_s: float) -> None:
        self._queues = {queue.wake: queue for queue in queues}
        self._lane = lane
        self._fetcher = fetcher
        self._safety_net_s = safety_net_s

    async def work(self) -> float:
        """Wait for one token or the safety net."""
        await self._fetcher.wait_until_idle()
        keys = tuple(key for key, queue in self._queues.items() if self._fetcher.has_room(queue.name))
        if not keys:  # it runs all it may of every queue; the tokens are other workers'
            return FULL_S
        try:
            key = await self._lane.run(wait_for_wake(keys, timeout_s=jittered(self._safety_net_s)))
        except BrokerError:
            self._fetcher.wake()  # the answer that was lost may have been a token
            raise
        is_taken = key is not None and self._fetcher.can_take and self._fetcher.has_room(self._queues[key].name)
        if key is not None and not is_taken:
            await self._lane.run(rouse(self._queues[key]))  # no task is taken any more: the token is another worker's
        self._fetcher.wake()
        return 0.0


class Watcher:
    """Watches one queue for tasks that came without a token.

    Args:
        queue: Key names of the queue.
        runner: Sends operations.
        lane: A reserved connection.
        clock: Source of monotonic time.
        owner: Token of the worker.
        leader_s: Seconds after which another worker takes over.
    """

    SHORTEST_S = 0.002
    """Seconds between a task's arrival and its token; in it, our own producers' token has done its work."""
    LONGEST_S = 1.0
    """Longest time between two tokens while tasks stay pending, which means that all workers are busy."""

    def __init__(
        self, queue: QueueKeys, runner: AsyncRunner, lane: Lane, clock: Clock, *, owner: str, leader_s: float
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._lane = lane
        self._clock = clock
        self._owner = owner
        self._leader_s = leader_s
        self._pause_s = self.SHORTEST_S

    async def work(self) -> float:
        """Watch for a while if this worker leads or takes the lead."""
        leader_ms = int(self._leader_s * 1000)
        if not await self._runner.run(lead(self._queue, "watcher", owner=self._owner, leader_ms=leader_ms)):
            return jittered(self._leader_s / 3)
        until = self._clock.monotonic() + self._leader_s / 2
        while (left := until - self._clock.monotonic()) > 0:
            started = self._clock.monotonic()
            if not await self._lane.run(watch_pending(self._queue, timeout_s=left)):
                break
            # Tasks that are there at once are left over: nobody is idle, and asking again soon would only burn.
            waited_s = self._clock.monotonic() - started
            self._pause_s = self.SHORTEST_S if waited_s > self._pause_s else min(2 * self._pause_s, self.LONGEST_S)
            await asyncio.sleep(self._pause_s)
            await self._runner.run(rouse(self._queue))
        return 0.0
