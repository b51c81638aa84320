"""Notice new tasks of idle queues without polling.

`Waker` waits for the wake tokens that taskq's enqueue, forward and requeue scripts put, and sends dequeues with the
wait. `Watcher` serves producers that put no token, such as Go's. The worker that leads the queue notices changes of the
pending list, and puts a token for all workers.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from taskq_core.broker.failures import is_unanswered
from taskq_core.broker.operations.operation import REQUEST_LIFETIME_S
from taskq_core.broker.operations.services import Notified, count_keys, notify, wait_for_wake, watch_pending
from taskq_core.broker.operations.views import ping
from taskq_core.errors import BrokerError
from taskq_core.service.loop import jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext, WorkerService
from taskq_core.worker.fetcher import Fetcher
from taskq_core.worker.leadership import Leadership, QueueService
from taskq_core.worker.turn import Turn

FULL_S = 0.05
"""Seconds until the next check whether this worker may take tasks, while the caps of all queues allow it no further
task."""


class Waker(WorkerService):
    """Waits for wake tokens while the worker is idle.

    The waker sends dequeues behind the request that waits, in the same write. When a token comes, Redis answers the
    wait and the dequeues together. So Redis and this process each wake up only once before a task starts, instead of
    twice. ::

        worker   BLPOP wake   dequeue call 7 |................| 1, task      BLPOP wake   dequeue call 8 ...
        Redis                                  token: both run

    Redis may run such a dequeue after the worker has stopped waiting: the worker stops, the connection breaks, or
    another server has become the primary. The worker then calls it off on a new connection, by a dequeue with the same
    number that takes nothing. If the first dequeue handed out tasks, the second one returns them, and they go back to
    the head of their queue. The second dequeue also records the number, so a first dequeue that arrives later hands out
    nothing.

    The connection of a killed worker closes. The connection of a hanging worker stays open. A hanging worker may
    receive up to two tasks of a queue. They are recovered when their leases end, like its running tasks. So the worker
    sends no dequeue ahead while tasks run here, because they may block the loop. Leases count from before the wait, so
    the wait lasts at most a quarter of a lease.

    Args:
        context: The worker.
        queues: Queues whose tokens one connection waits for. On a cluster one queue.
        fetcher: Prepares the dequeues, and is woken by tokens.
        leaderships: Leaderships of the queues, by name. The leaderships know whether a worker watches for tasks that
            come without tokens.
    """

    name = "waker"

    def __init__(
        self,
        context: WorkerContext,
        queues: Sequence[QueueKeys],
        fetcher: Fetcher,
        leaderships: Mapping[str, Leadership],
    ) -> None:
        super().__init__(context)
        self._leaderships = leaderships
        self._queues = {queue.wake: queue for queue in queues}
        pipeline = self._pipeline = context.new_pipeline()
        self._fetcher = fetcher
        self._safety_net_s = context.config.span("safety_net")
        self._longest_s = min(context.lease_s / 4, REQUEST_LIFETIME_S / 2)
        self._turns: dict[str, Turn] = {}
        if _asks_ahead(context):
            self._turns = {queue.name: Turn(context, pipeline, "-ahead", is_ahead=True) for queue in queues}
        self._in_doubt: list[Turn] = []
        self._is_waiting = self._is_called_off = False

    async def work(self) -> float:
        """Wait for a wake token and start received tasks. Return the seconds until the next call."""
        try:
            return await self._work()
        except BrokerError:
            # The lost connection may have received a wake token. So the fetcher queries the queues.
            self._fetcher.probe()
            raise

    async def _work(self) -> float:
        await self._call_off_unanswered()
        await self._fetcher.wait_until_idle()
        if self._turns and not self._pipeline.is_connected:
            await self._pipeline.run(ping())  # connect first: `call_off` can only end a wait on an open connection
            return 0.0
        keys = tuple(key for key, queue in self._queues.items() if self._fetcher.has_room(queue.name))
        if not keys:  # the worker is at the caps of all its queues: leave the wake tokens to other workers
            return FULL_S
        turns = self._fetcher.ask_ahead(self._turns)
        sent_at = self._clock.monotonic()
        results = await self._wait(keys, turns)
        if not results:
            return 0.0
        key, *answers = results
        failure = key if isinstance(key, BrokerError) else None
        for turn, answer in zip(turns, answers, strict=True):
            if is_unanswered(answer):
                self._fetcher.unanswered_ahead(turn)
                self._in_doubt.append(turn)
                failure = failure or answer
            else:
                refused = self._fetcher.answered_ahead(turn, answer, sent_at)
                failure = failure or refused
        if failure is not None:
            raise failure
        asked = [turn.queue.wake for turn in turns if turn.queue is not None]
        if key in asked or (key is None and len(asked) == len(keys)):
            return 0.0
        is_taken = key is not None and self._fetcher.can_take and self._fetcher.has_room(self._queues[key].name)
        if key is not None and not is_taken:
            # Put the wake token back for another worker, because this worker takes no more tasks now.
            await self._pipeline.run(notify(self._queues[key]))
        if key is None and not await self._pipeline.run(count_keys([each.pending for each in self._queues.values()])):
            self._fetcher.last_answer = self._clock.monotonic()
        else:
            self._fetcher.probe()
        return 0.0

    async def _wait(self, keys: tuple[str, ...], turns: list[Turn]) -> list[Any]:
        """Wait for a wake token. Return its key (None on timeout), and the replies to the dequeues sent with the wait.

        Return an empty list if the wait was called off.
        """
        wait_s = jittered(self._safety_net_s)
        if turns and all(self._leaderships[queue.name].is_led for queue in self._queues.values()):
            wait_s = max(wait_s, self._longest_s)
        dequeues = [turn.in_doubt for turn in turns if turn.in_doubt is not None]
        wait = wait_for_wake(keys, timeout_s=min(wait_s, self._longest_s) if turns else wait_s)
        self._is_waiting, self._is_called_off = True, False
        try:
            return await self._pipeline.exchange([wait, *dequeues])
        except BaseException as error:
            for turn in turns:
                self._fetcher.unanswered_ahead(turn)
            self._in_doubt = turns
            if not self._is_called_off or not isinstance(error, BrokerError):
                raise
        finally:
            self._is_waiting = False
        self._fetcher.probe()
        await self._call_off_unanswered()
        return []

    def call_off(self) -> None:
        """End the current wait, because this worker takes no new tasks or another server has become the primary."""
        if self._is_waiting:
            self._is_called_off = True
            self._pipeline.abort()

    async def _call_off_unanswered(self) -> None:
        """Call off dequeues that got no reply. Tasks that they handed out return to their queue.

        A stopping worker tries once. If Redis does not answer, the tasks are recovered when their leases end.
        """
        while self._in_doubt:
            turn = self._in_doubt[-1]
            sent_at = self._clock.monotonic()
            try:
                (answer,) = await self._pipeline.exchange([turn.call_off()])
            except BrokerError as error:
                answer = error
            refused = self._fetcher.called_off(turn, answer, sent_at)
            if refused is None:
                self._in_doubt.pop()
            elif self._fetcher.is_fetching:
                raise refused
            else:
                while self._in_doubt:
                    self._fetcher.give_up(self._in_doubt.pop())


def _asks_ahead(context: WorkerContext) -> bool:
    """Return whether to send dequeues together with the wait for a wake token. If not, the fetcher sends them later.

    With caps, this is not possible: the end of a task lets another task of the queue start, but puts no token. In burst
    mode, a dequeue in progress would always count as work. A cluster may redirect the wait to another node. The
    connections of an in-memory store cannot break.
    """
    endpoint = context.runner.endpoint
    return not (context.caps or context.config.burst or endpoint.is_cluster or endpoint.is_memory)


class Watcher(QueueService):
    """Puts wake tokens for tasks that were enqueued without a token, while this worker leads the queue."""

    name = "watcher"
    SHORTEST_S = 0.001
    """Minimum seconds between two checks for new tasks, while tasks arrive without a wake token."""
    SELDOM_S = 0.016
    """Maximum seconds between two checks for new tasks while all tasks arrive with a wake token."""
    LONGEST_S = 1.0
    """Maximum seconds between two checks for new tasks while tasks stay pending because all workers are busy."""
    HELD_S = 0.25
    """Seconds between two checks while no task of the queue may start, because the queue is paused or at its cap."""

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        self._feed = leadership.feed
        self._pipeline = context.new_pipeline()  # waits for pending tasks if Redis does not report changes
        self._feed.watch((queue.pending,), self._changes.set)
        self._watch_s = 2 * context.leader_s * context.pace
        cap = context.caps.get(queue.name)
        self._max_active = None if cap is None else cap.concurrency
        self._pause_s = self.SHORTEST_S

    async def work(self) -> float:
        """Put a wake token if tasks are pending, and wait for the next task. Return the seconds until the next call."""
        self._changes.clear()
        if not self._leadership.leads:
            await self._changes.wait_for(self._watch_s)
            return 0.0
        # A single write also reads the pending list, because Redis reports the next change of a key only after a read.
        questions = (count_keys((self._queue.pending,)), notify(self._queue, max_active=self._max_active))
        answers = await self._feed.exchange(questions)
        failure = next((each for each in answers if isinstance(each, BrokerError)), None)
        if failure is not None:
            raise failure
        notified = answers[1]
        if notified is Notified.HELD:
            return self.HELD_S
        if notified is Notified.PUT:
            self._pause_s = self.SHORTEST_S
        else:
            most_s = self.SELDOM_S if notified is Notified.NOTHING else self.LONGEST_S
            self._pause_s = min(2 * self._pause_s, most_s)
        await asyncio.sleep(self._pause_s)
        if not self._feed.is_tracking:
            await self._pipeline.run(watch_pending(self._queue, timeout_s=self._watch_s))
        else:
            await self._changes.wait_for(self._watch_s if notified is Notified.NOTHING else self.LONGEST_S)
        return 0.0
