"""Fetch tasks for free slots, and carry outcomes on the way.

A `turn` is one exchange with Redis on one pipeline: the outcomes that wait, then a dequeue for the slots that are free
or become free with them. Both go in one write on one connection, or as one script (`fused_exchange`), so Redis settles
before it hands out, and this worker never has more than `concurrency` tasks. If Redis refuses to settle but hands out
tasks, it has at most twice as many, because no tasks are taken for outcomes that are sent again. With several
pipelines, Redis works on one turn while Python runs the tasks of another.

When all queues are empty the worker waits for a wake token instead of asking again. What asks behind such a wait, in
the same write (`waker`), has a turn too: while it is on its way it keeps some of the free slots for itself.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from taskq_core.broker.operations.operation import BATCH_MAX, Operation
from taskq_core.broker.operations.runs import Dequeued
from taskq_core.broker.pipelines import Pipeline
from taskq_core.errors import BrokerError, BrokerReplyError
from taskq_core.service.user_code import is_cancelled
from taskq_core.wire import QueueOrder
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.exchange_spans import ExchangeSpans
from taskq_core.worker.fused_exchange import FusedExchange
from taskq_core.worker.settler import SettleBatch, Settler
from taskq_core.worker.starts import Starts
from taskq_core.worker.turn import Turn

logger = logging.getLogger("taskq.worker")

SPIN_S = 0.0005
"""Seconds an answer usually takes below which it is awaited without sleeping while nothing else is to be done."""
AHEAD_QUEUES = 4
"""Most queues that are asked ahead: each costs a script at every token, whichever queue that is of."""
AHEAD_TASKS = 2
"""Most tasks asked for ahead of one queue. With one it would not be seen that there are no more."""
IDLE_S = 30.0
"""Seconds after which a connection that nothing was sent on is closed. It is opened again when it is needed."""
LONGEST_PAUSE_S = 2.0
"""Longest time between two attempts while Redis does not answer, in seconds."""


class Fetcher:
    """Takes tasks for free slots.

    Args:
        context: The worker.
        settler: Its outcomes are sent, and it returns slots.
        starts: Starts fetched tasks.
    """

    def __init__(self, context: WorkerContext, settler: Settler, starts: Starts) -> None:
        config = context.config
        self._context = context
        self._clock = context.clock
        self._metrics = context.metrics
        self._spans = ExchangeSpans.wanted(context.app.runtime.tracing)
        self._order = QueueOrder(config.queues, config.strict_priority, random.Random())  # noqa: S311 - fairness
        self._settler = settler
        settler.release = self.release
        self._starts = starts
        self._asked: Counter[str] = Counter()
        self._calls = itertools.count(1)
        self._fused = FusedExchange()
        self._asleep: deque[asyncio.Future[None]] = deque()
        self._is_waking = False
        self._idle = asyncio.Event()
        self._sure = asyncio.Event()
        self._failures = 0
        self._wakes = 0
        self._is_probing = True  # one pipeline asks first, and others join only if there is more
        self._probing: set[Turn] = set()  # those that ask while no other is to
        self._concurrency = config.concurrency
        self._pipeline_turns: list[Turn] = []
        self._in_turns = 0  # slots asked for, and outcomes carried, by turns on their way
        self._covered = 0  # slots asked for that the outcomes carried by the same turn give back before
        self._usual_answer_s = math.inf
        self.free = config.concurrency
        """Slots that have no task and for which no pipeline has asked."""
        self.ahead = 0
        """Those of them that are kept for tasks asked for ahead."""
        self.doubts = 0
        """Turns ahead whose answer may still bring tasks."""
        self.is_hungry = True
        """True while a queue may have pending tasks."""
        self.is_fetching = True
        """False once the worker takes no new tasks."""
        self.is_closing = False
        """True if pipelines end as soon as nothing is left to settle."""
        self.dropped = 0
        """Ids that were listed without a message."""
        self.last_answer: float | None = None
        """Monotonic second of the last answered dequeue."""
        self.turns = 0
        """Exchanges so far."""

    def notify(self) -> None:
        """Wake one idle pipeline to look for work. If it leaves work, it wakes the next."""
        if self._is_waking:
            return
        while self._asleep:
            waiter = self._asleep.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._is_waking = True
                return

    def release(self, slots: int) -> None:
        """Take slots back, and send waiting outcomes."""
        self.free += slots
        if slots and self._starts.caps:  # another task of a queue with a cap may start
            self.wake()
        else:
            self.notify()

    def resize(self, slots: int) -> None:
        """Change the number of slots. With fewer slots than running tasks, `free` is negative until tasks end."""
        self.free += slots - self._concurrency
        self._concurrency = slots
        for turn in self._pipeline_turns:
            turn.share = min(-(-slots // len(self._pipeline_turns)), BATCH_MAX)
        self.wake()

    def wake(self) -> None:
        """A queue may have pending tasks."""
        self._wakes += 1
        self.is_hungry = True
        self.notify()

    def probe(self) -> None:
        """Probe the queues with one pipeline. The others join when it gets as many tasks as it asked for."""
        self._is_probing = True
        self.wake()

    @property
    def is_failing(self) -> bool:
        """True while Redis does not answer."""
        return self._failures > 0

    @property
    def can_take(self) -> bool:
        """True if a slot is free and tasks are taken."""
        return self.free > 0 and self.is_fetching

    @property
    def is_empty(self) -> bool:
        """True if all slots are free, and no answer can bring tasks for them."""
        return self.free >= self._concurrency and not self.doubts

    @property
    def is_idle(self) -> bool:
        """True if slots are free and all queues were found empty."""
        return not self.is_hungry and not self._probing and self.can_take

    async def wait_until_idle(self) -> None:
        """Wait until slots are free and all queues were found empty."""
        while not self.is_idle:
            self._idle.clear()
            await self._idle.wait()

    async def wait_until_sure(self, timeout_s: float) -> None:
        """Wait until no answer to what was asked ahead is missing, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.doubts:
                    self._sure.clear()
                    await self._sure.wait()

    @property
    def left(self) -> int:
        """Slots that a further turn may ask for."""
        return self.free + self._covered - self.ahead

    @property
    def _has_work(self) -> bool:
        return self._settler.count > 0 or (self.is_fetching and self.is_hungry and self.left > 0)

    async def serve(self, pipeline: Pipeline, number: int, share: int) -> None:
        """Take turns on one pipeline until closing.

        Args:
            pipeline: A reserved connection.
            number: Number of the pipeline.
            share: Most tasks to take in one turn.
        """
        turn = Turn(self._context, pipeline, f"-{number}", share)
        self._pipeline_turns.append(turn)
        has_failed = False
        while True:
            try:
                if has_failed:
                    has_failed = False
                    await asyncio.sleep(0)
                if not await self._serve_once(turn):
                    self.notify()
                    return
            except MemoryError:  # a task has taken it all, so that not even a failure could be told of
                has_failed = True

    async def _serve_once(self, turn: Turn) -> bool:
        """Take a turn, or wait until there is something to do. False once all is done."""
        if not self._has_work and turn.in_doubt is None:
            if self.is_closing:
                return False
            if self.is_idle:
                self._idle.set()
            if not await self._sleep(turn):
                await turn.pipeline.close()
            return True
        try:
            try:
                await self._take_turn(turn)
            finally:
                self._probing.discard(turn)
            self._failures = 0
            await asyncio.sleep(0)  # quick functions end meanwhile, and their outcomes travel together
        except BrokerError as error:
            self._failures += 1
            self.notify()  # other pipelines may still be connected
            pause_s = min(0.05 * 2 ** min(self._failures, 10), LONGEST_PAUSE_S)
            if self._failures in (1, 10) or self._failures % 100 == 0:
                logger.error("%s; trying again", error)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)  # noqa: S311 - jitter, no secret
            if self.is_closing and turn.in_doubt is not None and turn.is_off:  # to call it off is tried once
                self._forget(turn)
        except Exception:
            self._failures += 1
            self.notify()
            logger.exception("a turn of the fetcher failed; trying again")
            await asyncio.sleep(LONGEST_PAUSE_S)
        return True

    async def _sleep(self, turn: Turn) -> bool:
        """Wait until `notify` wakes this pipeline. Return False once its connection was not used for `IDLE_S`."""
        loop = asyncio.get_running_loop()
        left_s = turn.used_at + IDLE_S - self._clock.monotonic() if turn.pipeline.is_connected else math.inf
        waiter: asyncio.Future[None] = loop.create_future()
        self._asleep.append(waiter)
        timer = loop.call_later(max(0.0, left_s), waiter.cancel) if left_s < math.inf else None
        try:
            await waiter
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            return False
        finally:
            if timer is not None:
                timer.cancel()
            if waiter.done() and not waiter.cancelled():
                self._is_waking = False
        return True

    def _forget(self, turn: Turn) -> None:
        self._keep_slots(turn, -turn.asked)
        turn.in_doubt = None

    def _keep_slots(self, turn: Turn, count: int) -> None:
        """Keep free slots for a turn, or with a negative count no longer."""
        assert turn.queue is not None
        self._asked[turn.queue.name] += count
        if turn.is_ahead:
            self.ahead += count
        else:
            self.free -= count

    async def _take_turn(self, turn: Turn) -> None:
        """Send what waits and ask one queue after the other until the slots are filled or all were asked."""
        queues: Sequence[str] = ()
        if turn.in_doubt is None and self.is_fetching and self.is_hungry:
            queues = self._order.next()
            if self._is_probing:
                self._is_probing = self.is_hungry = False
                self._probing.add(turn)
        wakes = self._wakes
        asked = 0
        found_all = False
        while True:
            # Idle pipelines share outcomes that arrive together: one script that settles all of them would delay tasks
            # that could run next.
            batches = self._settler.take(turn.share if self._asleep else BATCH_MAX)
            carried = sum([batch.slots for batch in batches])
            if turn.in_doubt is None and asked < len(queues) and self.is_fetching:
                limit = min(self.left + carried, turn.share)
                if limit > 0:
                    self._ask(turn, queues[asked], limit)
                    asked += 1
            if not batches and turn.in_doubt is None:
                if asked < len(queues) and self.left > 0 and self.is_fetching:
                    continue  # this worker runs all it may of that queue
                if queues and wakes == self._wakes and asked >= len(queues):
                    self.is_hungry = False
                return
            # A repeat may be answered though these outcomes never arrive.
            covered = 0 if turn.in_doubt is None or turn.is_repeat else min(turn.asked, carried)
            self._covered += covered
            try:
                if self._has_work:
                    self.notify()
                found_all = await self._exchange(turn, batches, carried)
            finally:
                self._covered -= covered
            if found_all:
                return  # there may be more, and the slots are taken: the next turn asks again
            if asked >= len(queues):
                if queues and wakes == self._wakes:
                    self.is_hungry = False
                return

    def _ask(self, turn: Turn, queue: str, limit: int) -> None:
        """Prepare a dequeue, unless this worker runs all it may of the queue."""
        most = None
        if self._starts.caps:
            left, most = self._starts.room(queue)
            if left is not None:
                limit = min(limit, left - self._asked[queue])
                if limit < 1:
                    return
        turn.ask(self._context.keys.queue(queue), limit, call=next(self._calls), max_active=most)
        self._keep_slots(turn, limit)

    def has_room(self, queue: str) -> bool:
        """Whether this worker may run another task of a queue."""
        left = self._starts.room(queue)[0]
        return left is None or left > self._asked[queue]

    @property
    def _running(self) -> int:
        """Tasks that run and are not being settled."""
        return self._concurrency - self.free - self._in_turns

    def _learn(self, answer_s: float) -> None:
        """Note how long Redis took to answer while nothing else was to be done."""
        usual_s = self._usual_answer_s
        self._usual_answer_s = answer_s if usual_s == math.inf else usual_s + 0.1 * (answer_s - usual_s)

    async def _exchange(self, turn: Turn, batches: list[SettleBatch], carried: int) -> bool:
        """Exchange once with Redis. True if a dequeue gave all it was asked for."""
        operations: list[Operation[Any]] = [batch.operation for batch in batches]
        joined = None
        is_repeat = turn.is_repeat and turn.in_doubt is not None
        turn.is_off = is_repeat and not self.is_fetching
        if is_repeat:
            # The first may still arrive, with nobody to take what it hands out. Redis knows its number from now on.
            operations.append(turn.call_off())
        elif turn.in_doubt is not None:
            operations.append(turn.in_doubt)
            if turn.queue is not None:
                joined = self._fused.join(batches, turn.queue, turn.in_doubt)
        spans = self._spans
        turn.started_ns = started_ns = 0 if spans is None else spans.now_ns()
        sent_at = turn.used_at = self._clock.monotonic()
        self.turns += 1
        slots = carried if turn.in_doubt is None else turn.asked + carried
        self._in_turns += slots
        is_waiting = turn.in_doubt is not None and self._running <= 0
        try:
            spin_s = 2 * self._usual_answer_s if is_waiting and self._usual_answer_s < SPIN_S else 0.0
            answers = None
            if joined is not None:
                answers = self._fused.part(batches[0], *await turn.pipeline.exchange((joined,), spin_s=spin_s))
            if answers is None:
                answers = await turn.pipeline.exchange(operations, spin_s=spin_s)
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
            found_all, refused = self._read(turn, answers[-1], sent_at)
            failure = refused or failure
            if is_repeat and refused is None:
                self.wake()  # it has asked what was handed out, and for nothing new
        if failure is not None:
            raise failure
        return found_all

    def _read(self, turn: Turn, answer: Any, sent_at: float) -> tuple[bool, BrokerError | None]:
        """Read the answer to a dequeue. Return whether all that was asked for came, and why it is to be asked again."""
        if isinstance(answer, BrokerReplyError):
            self._forget(turn)
            assert turn.queue is not None
            logger.error("nothing can be taken from queue %s: %s", turn.queue.name, answer)  # but from others
        elif isinstance(answer, BrokerError):
            if not turn.is_repeat:  # otherwise the first time may have handed out what only a repeat returns
                self._forget(turn)  # refused whole: nothing was handed out
                self.is_hungry = True  # a probe or another pipeline has assumed that this queue was asked
            return False, answer
        else:
            return self._accept(turn, answer, sent_at), None
        return False, None

    # --- ahead --------------------------------------------------------------------------------------------------------

    def ask_ahead(self, turns: Mapping[str, Turn]) -> list[Turn]:
        """Prepare dequeues that Redis runs when a token arrives, for some of these queues, in their order.

        Return none while a task runs here: it might block this loop, and new tasks would wait for it while other
        workers are idle. Each asks for at most `AHEAD_TASKS` tasks, because these wait for the end of their lease if
        this process hangs. Other pipelines cannot use the reserved slots. The caller passes each outcome to
        `answered_ahead` or `unanswered_ahead`.
        """
        if self._running > 0:
            return []
        names = [name for name in self._order.next() if name in turns and self.has_room(name)]
        names = names[: min(AHEAD_QUEUES, self.left)]
        asked: list[Turn] = []
        for name in names:
            turn = turns[name]
            self._ask(turn, name, min(AHEAD_TASKS, max(1, self.left // (len(names) - len(asked)))))
            if turn.in_doubt is not None:
                asked.append(turn)
        self.doubts += len(asked)
        return asked

    def answered_ahead(self, turn: Turn, answer: Any, sent_at: float) -> BrokerError | None:
        """Read what a dequeue ahead was answered. Return why it was refused, if it was."""
        self._resolve_doubt()
        if self._spans is not None:
            turn.started_ns = self._spans.now_ns()  # the wait before it is no part of it
        found_all, refused = self._read(turn, answer, sent_at)
        if found_all:
            self.wake()  # there may be more
        self.notify()  # what was given back is to be sent
        return refused

    def unanswered_ahead(self, turn: Turn) -> None:
        """Give up the slots of a dequeue ahead that got no answer. It stays in doubt until it is `called_off`."""
        self._keep_slots(turn, -turn.asked)
        turn.asked = 0

    def called_off(self, turn: Turn, answer: Any, sent_at: float) -> BrokerError | None:
        """Read what calling off a dequeue was answered. Return why that is to be done again, if it is.

        Others may have its slots by now, so what it had handed out goes back to the head of its queue.
        """
        if isinstance(answer, BrokerError) and not isinstance(answer, BrokerReplyError):
            return answer
        self._resolve_doubt()
        turn.is_off = True
        self._read(turn, answer, sent_at)
        self.notify()
        return None

    def _resolve_doubt(self) -> None:
        self.doubts -= 1
        if not self.doubts:
            self._sure.set()

    def give_up(self, turn: Turn) -> None:
        """Leave a dequeue in doubt that cannot be called off: what it handed out comes back once its lease ends."""
        self._resolve_doubt()
        turn.in_doubt = None

    def _accept(self, turn: Turn, answer: Dequeued, sent_at: float) -> bool:
        """Start what was handed out. True if all that was asked for came, so that there may be more."""
        queue, asked = turn.queue, turn.asked
        turn.in_doubt = None
        assert queue is not None
        now = self.last_answer = self._clock.monotonic()
        self._context.redis_clock.learn(answer.now_ns, now)
        self._keep_slots(turn, -asked)
        self.free -= len(answer.tasks)
        is_wanted = not turn.is_off and (self.is_fetching or not turn.is_ahead)
        self.turns += turn.is_ahead and bool(answer.tasks)
        self.dropped += answer.dropped
        lease_until = sent_at + answer.lease_expiry_s - answer.now_ns / 1e9
        runs = self._starts.receive(queue, turn.call, answer, lease_until, now, is_wanted=is_wanted)
        if self._spans is not None:
            self._spans.received(queue, runs, turn.started_ns)
        found_all = len(answer.tasks) + answer.dropped >= asked
        self.is_hungry = self.is_hungry or found_all  # a probe has taken for granted that there is nothing
        return found_all
