"""Fetch tasks for free slots, and carry outcomes on the way.

A `turn` is one exchange with Redis on one lane: the outcomes that wait, then a dequeue for the slots that are free or
become free with them. Both go in one write on one connection, so Redis settles before it hands out, and never more
than `concurrency` tasks are this worker's. With several lanes Redis works on one turn while Python runs the tasks of
another.

When all queues are empty the worker waits for a wake token instead of asking again.
"""

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any

from taskq_core.broker.lanes import Lane
from taskq_core.broker.operations import BATCH_MAX, Dequeued, Operation, dequeue
from taskq_core.clock import Clock, RedisClock
from taskq_core.errors import BrokerError, BrokerReplyError, WireFormatError
from taskq_core.limits import HEADER
from taskq_core.telemetry import WorkerMetrics
from taskq_core.wire import Keys, QueueKeys, QueueOrder, decode_message
from taskq_core.worker.exchange_spans import ExchangeSpans
from taskq_core.worker.run import Run
from taskq_core.worker.settler import SettleBatch, Settler

logger = logging.getLogger("taskq.worker")

SPIN_S = 0.0005
"""Seconds an answer usually takes below which it is awaited without sleeping while nothing else is to be done."""
LONGEST_PAUSE_S = 2.0
"""Longest time between two attempts while Redis does not answer, in seconds."""


class Fetcher:
    """Takes tasks for free slots.

    Args:
        keys: Key names.
        order: In which order queues are tried.
        settler: Whose outcomes are carried.
        start: Called with each fetched run and the monotonic second.
        set_aside: Called with queue and id of a task whose message cannot be read; gives its slot back in the end.
        room: Returns how many more tasks of a queue this worker may run, and how many may be active in all; None: any
            number.
        limited: Names of tasks that have limits.
        claim: Called with a run of one of them whose producer knew of none; starts it or gives its slot back.
        clock: Source of monotonic time.
        redis_clock: Learns Redis's time from answers.
        owner: Token of the worker.
        concurrency: Slots.
        lease_s: Seconds of a lease.
        lock_s: Seconds for which a task that starts holds its unique lock at least.
        spans: Told of exchanges, None where nobody asks for that.
        metrics: Told how long tasks were pending, while somebody exports.
    """

    def __init__(
        self,
        keys: Keys,
        order: QueueOrder,
        settler: Settler,
        start: Callable[[Run, float], None],
        set_aside: Callable[[QueueKeys, str], None],
        clock: Clock,
        redis_clock: RedisClock,
        *,
        owner: str,
        concurrency: int,
        lease_s: int,
        lock_s: int,
        room: Callable[[str], tuple[int | None, int | None]] | None = None,
        limited: Container[str] = (),
        claim: Callable[[Run], None] | None = None,
        spans: ExchangeSpans | None = None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._keys = keys
        self._spans = spans
        self._metrics = metrics or WorkerMetrics()
        self._order = order
        self._settler = settler
        self._start = start
        self._set_aside = set_aside
        self._clock = clock
        self._redis_clock = redis_clock
        self._owner = owner
        self._lease_s = lease_s
        self._lock_s = lock_s
        self._limited = limited
        self._room = room
        self._asked: Counter[str] = Counter()
        self._claim = claim
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._failures = 0
        self._wakes = 0
        self._concurrency = concurrency
        self._in_turns = 0  # slots asked for, and outcomes carried, by turns on their way
        self._usual_answer_s = math.inf
        self.free = concurrency
        """Slots that are neither taken nor asked for."""
        self.is_hungry = True
        """True while a queue may have pending tasks."""
        self.is_fetching = True
        """False once the worker takes no new tasks."""
        self.is_closing = False
        """True once lanes end when nothing is left to settle."""
        self.dropped = 0
        """Ids that were listed without a message."""
        self.last_answer: float | None = None
        """Monotonic second of the last answered dequeue."""
        self.turns = 0
        """Exchanges so far."""

    def notify(self) -> None:
        """Let a lane look whether there is something to do."""
        self._work.set()

    def release(self, slots: int) -> None:
        """Give slots back."""
        self.free += slots
        self._work.set()

    def wake(self) -> None:
        """A queue may have pending tasks."""
        self._wakes += 1
        self.is_hungry = True
        self._work.set()

    @property
    def is_failing(self) -> bool:
        """True while Redis does not answer."""
        return self._failures > 0

    @property
    def can_take(self) -> bool:
        """True if a slot is free and tasks are taken."""
        return self.free > 0 and self.is_fetching

    @property
    def is_idle(self) -> bool:
        """True if slots are free and all queues were found empty."""
        return not self.is_hungry and self.can_take

    async def wait_until_idle(self) -> None:
        """Wait until slots are free and all queues were found empty."""
        while not self.is_idle:
            self._idle.clear()
            await self._idle.wait()

    @property
    def _has_work(self) -> bool:
        return self._settler.count > 0 or (self.is_fetching and self.is_hungry and self.free > 0)

    async def serve(self, lane: Lane, number: int, share: int) -> None:
        """Take turns on one lane until closing.

        Args:
            lane: A reserved connection.
            number: Number of the lane.
            share: Most tasks to take in one turn.
        """
        turn = _Turn(lane, f"-{number}", share)
        has_failed = False
        while True:
            try:
                if has_failed:
                    has_failed = False
                    await asyncio.sleep(0)
                if not await self._serve_once(turn):
                    return
            except MemoryError:  # a task has taken it all, so that not even a failure could be told of
                has_failed = True

    async def _serve_once(self, turn: "_Turn") -> bool:
        """Take a turn, or wait until there is something to do. False once all is done."""
        if not self._has_work and turn.in_doubt is None:
            if self.is_closing:
                return False
            self._work.clear()
            if self.is_idle:
                self._idle.set()
            await self._work.wait()
            return True
        try:
            await self._take_turn(turn)
            self._failures = 0
            await asyncio.sleep(0)  # quick functions end meanwhile, and their outcomes travel together
        except BrokerError as error:
            self._failures += 1
            pause_s = min(0.05 * 2 ** min(self._failures, 10), LONGEST_PAUSE_S)
            if self._failures in (1, 10) or self._failures % 100 == 0:
                logger.error("%s; trying again", error)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)  # noqa: S311 - jitter, no secret
            if self.is_closing and turn.in_doubt is not None:
                self._forget(turn)
        except Exception:
            self._failures += 1
            logger.exception("a turn of the fetcher failed; trying again")
            await asyncio.sleep(LONGEST_PAUSE_S)
        return True

    def _forget(self, turn: "_Turn") -> None:
        self.free += turn.asked
        assert turn.queue is not None
        self._asked[turn.queue.name] -= turn.asked
        turn.in_doubt = None

    async def _take_turn(self, turn: "_Turn") -> None:
        """Send what waits and ask one queue after the other until the slots are filled or all were asked."""
        queues: Sequence[str] = ()
        if turn.in_doubt is None and self.is_fetching and self.is_hungry:
            queues = self._order.next()
        wakes = self._wakes
        asked = 0
        found_all = False
        while True:
            batches = self._settler.take()
            carried = sum([batch.slots for batch in batches])
            if turn.in_doubt is None and asked < len(queues) and self.is_fetching:
                limit = min(self.free + carried, turn.share)
                if limit > 0:
                    self._ask(turn, queues[asked], limit)
                    asked += 1
            if not batches and turn.in_doubt is None:
                if asked < len(queues) and self.free > 0 and self.is_fetching:
                    continue  # this worker runs all it may of that queue
                if queues and wakes == self._wakes and asked >= len(queues):
                    self.is_hungry = False
                return
            found_all = await self._exchange(turn, batches, carried)
            if found_all:
                return  # there may be more, and the slots are taken: the next turn asks again
            if asked >= len(queues):
                if queues and wakes == self._wakes:
                    self.is_hungry = False
                return

    def _ask(self, turn: "_Turn", queue: str, limit: int) -> None:
        """Prepare a dequeue, unless this worker runs all it may of the queue."""
        most = None
        if self._room is not None:
            left, most = self._room(queue)
            if left is not None:
                limit = min(limit, left - self._asked[queue])
                if limit < 1:
                    return
        turn.ask(
            self._keys.queue(queue),
            limit,
            owner=self._owner,
            lease_s=self._lease_s,
            lock_s=self._lock_s,
            tell_waits=self._metrics.is_active,
            max_active=most,
        )
        self._asked[queue] += limit
        self.free -= limit

    def has_room(self, queue: str) -> bool:
        """Whether this worker may run another task of a queue."""
        left = None if self._room is None else self._room(queue)[0]
        return left is None or left > self._asked[queue]

    @property
    def _running(self) -> int:
        """Tasks that run and are not being settled."""
        return self._concurrency - self.free - self._in_turns

    def _learn(self, answer_s: float) -> None:
        """Note how long Redis took to answer while nothing else was to be done."""
        usual_s = self._usual_answer_s
        self._usual_answer_s = answer_s if usual_s == math.inf else usual_s + 0.1 * (answer_s - usual_s)

    async def _exchange(self, turn: "_Turn", batches: list[SettleBatch], carried: int) -> bool:
        """Exchange once with Redis. True if a dequeue gave all it was asked for."""
        operations: list[Operation[Any]] = [batch.operation for batch in batches]
        if turn.in_doubt is not None:
            operations.append(turn.in_doubt)
        spans = self._spans
        turn.started_ns = started_ns = 0 if spans is None else spans.now_ns()
        sent_at = self._clock.monotonic()
        self.turns += 1
        slots = carried if turn.in_doubt is None else turn.asked + carried
        self._in_turns += slots
        is_waiting = turn.in_doubt is not None and self._running <= 0
        try:
            spin_s = 2 * self._usual_answer_s if is_waiting and self._usual_answer_s < SPIN_S else 0.0
            answers = await turn.lane.exchange(operations, spin_s=spin_s)
        except BaseException as error:
            turn.is_repeat = True
            for batch in batches:
                self._settler.unanswered(batch)
            if spans is not None:
                spans.unanswered(batches, error, started_ns)
            raise
        finally:
            self._in_turns -= slots
        if is_waiting:
            self._learn(self._clock.monotonic() - sent_at)
        if spans is not None:
            spans.settled(batches, answers, started_ns)
        failure: BrokerError | None = None
        for batch, answer in zip(batches, answers, strict=False):
            if isinstance(answer, BrokerError):
                failure = answer
                self._settler.unanswered(batch)
            else:
                self._settler.settled(batch, answer)
        found_all = False
        if turn.in_doubt is not None:
            answer = answers[-1]
            if isinstance(answer, BrokerReplyError):
                self._forget(turn)
                assert turn.queue is not None
                logger.error("nothing can be taken from queue %s: %s", turn.queue.name, answer)  # but from others
            elif isinstance(answer, BrokerError):
                failure = answer
                if not turn.is_repeat:  # otherwise the first time may have handed out what only a repeat returns
                    self._forget(turn)  # refused whole: nothing was handed out
            else:
                found_all = self._accept(turn, answer, sent_at)
        if failure is not None:
            raise failure
        return found_all

    def _accept(self, turn: "_Turn", answer: Dequeued, sent_at: float) -> bool:
        """Start what was handed out. True if all that was asked for came, so that there may be more."""
        queue, asked = turn.queue, turn.asked
        turn.in_doubt = None
        assert queue is not None
        now = self.last_answer = self._clock.monotonic()
        self._redis_clock.learn(answer.now_ns, now)
        self.free += asked - len(answer.tasks)
        self._asked[queue.name] -= asked
        if answer.dropped:
            self.dropped += answer.dropped
            logger.error("%d ids in queue %s had no message and were dropped", answer.dropped, queue.name)
        lease_until = sent_at + answer.lease_expiry_s - answer.now_ns / 1e9
        runs: list[Run] | None = None if self._spans is None else []
        waits = iter(answer.waits_s) if answer.waits_s else None
        for task_id, data in answer.tasks:
            try:
                message = decode_message(data)
            except WireFormatError:
                if waits is not None:
                    next(waits)
                self._set_aside(queue, task_id)
                continue
            run = Run(queue, task_id, message, lease_until)
            if waits is not None and (wait_s := next(waits)) is not None:
                self._metrics.waited(queue.name, run.name, wait_s)
            if runs is not None:
                runs.append(run)
            if now >= lease_until:  # this process slept, or its loop did
                self._settler.give_back(run, now)
            elif run.name in self._limited and self._claim is not None and HEADER not in message.headers:
                self._claim(run)
            else:
                self._start(run, now)
        if self._spans is not None and runs:
            self._spans.received(queue, runs, turn.started_ns)
        return len(answer.tasks) + answer.dropped >= asked


class _Turn:
    """State of one lane."""

    __slots__ = ("_call", "_name", "asked", "in_doubt", "is_repeat", "lane", "queue", "share", "started_ns")

    def __init__(self, lane: Lane, name: str, share: int) -> None:
        self.lane = lane
        self.share = min(share, BATCH_MAX)
        self._name = name
        self._call = 0
        self.queue: QueueKeys | None = None
        self.asked = 0
        self.in_doubt: Operation[Dequeued] | None = None
        self.is_repeat = False
        self.started_ns = 0

    def ask(
        self,
        queue: QueueKeys,
        limit: int,
        *,
        owner: str,
        lease_s: int,
        lock_s: int,
        tell_waits: bool,
        max_active: int | None,
    ) -> None:
        """Prepare a dequeue; it stays in doubt until it is answered, and is then repeated under the same number."""
        self._call += 1
        self.queue = queue
        self.asked = limit
        self.is_repeat = False
        self.in_doubt = dequeue(
            queue,
            owner=owner,
            lane=self._name,
            call=self._call,
            limit=limit,
            lease_s=lease_s,
            lock_s=lock_s,
            tell_waits=tell_waits,
            max_active=max_active,
        )
