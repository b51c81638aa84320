"""Fetch tasks for free slots, and send the outcomes of ended runs to Redis in the same round trips.

A turn is one fetch cycle on one pipeline: a round trip that settles the runs that have ended, and dequeues tasks for
the free slots, including the slots of these runs. Both go in one write on one connection, or as one script
(`fused_exchange`).

Redis settles before it hands out tasks, so this worker never has more than `concurrency` tasks. If Redis refuses to
settle but hands out tasks, it has at most twice as many, because it takes no tasks for outcomes that are sent again.
With several pipelines, Redis works on one turn while Python runs the tasks of another.

When all queues are empty, the worker waits for a wake token instead of polling. A dequeue can follow such a wait in the
same write (`waker`). Such a dequeue is sent ahead of tasks, and reserves some of the free slots until Redis answers it.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from taskq_core.broker.failures import is_unanswered
from taskq_core.broker.operations.operation import BATCH_MAX, Operation
from taskq_core.broker.operations.runs import Dequeued
from taskq_core.broker.pipelines import Pipeline
from taskq_core.errors import BrokerError, BrokerReplyError
from taskq_core.wire import QueueOrder
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.exchange_spans import ExchangeSpans
from taskq_core.worker.fused_exchange import FusedExchange
from taskq_core.worker.key_check import find_queues
from taskq_core.worker.settler import SettleBatch, Settler
from taskq_core.worker.starts import Starts
from taskq_core.worker.turn import Turn

logger = logging.getLogger("taskq.worker")

SPIN_S = 0.0005
"""Usual response time of Redis in seconds, below which an idle worker polls for the reply instead of sleeping."""
AHEAD_QUEUES = 4
"""Maximum number of dequeues that are sent ahead of tasks. Each of them costs a script call at every wake token."""
EMPTY_QUEUES = 4
"""Number of dequeues in a fetch cycle that did not fill their slots, after which only queues with pending tasks are
asked. If the queues were idle, this applies from the first dequeue on."""
AHEAD_TASKS = 2
"""Maximum number of tasks that a dequeue sent ahead requests. A full reply of 2 shows that more may wait."""
IDLE_S = 30.0
"""Seconds after which an unused connection is closed. The connection is opened again on demand."""
LONGEST_PAUSE_S = 2.0
"""Maximum seconds between two attempts to fetch tasks while Redis does not answer."""


class Fetcher:
    """Takes tasks from the queues for the free slots of the worker, over several pipelines.

    Args:
        context: The worker.
        settler: Supplies the outcomes to send, and returns slots.
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
        settler.notify, settler.release = self.notify, self.release
        self._starts = starts
        self._asked: Counter[str] = Counter()
        self._calls = itertools.count(1)
        self._fused = FusedExchange()
        self._asleep: deque[asyncio.Future[None]] = deque()
        self._is_waking = False
        self._idle = asyncio.Event()
        self._all_answered = asyncio.Event()
        self._failures = 0
        self._wakes = 0
        # True: one pipeline queries the queues. The others join if it gets all tasks that it requested.
        self._is_probing = True
        self._probing: set[Turn] = set()  # fetch cycles that query the queues for all pipelines
        self._concurrency = config.concurrency
        self._pipeline_turns: list[Turn] = []
        self._busy = 0  # number of pipelines that wait for Redis, or pause after an error
        self._in_turns = 0  # number of slots that current requests fill, or free by settling runs
        self._covered = 0  # number of slots that current requests fill after freeing them by settling runs
        self._usual_answer_s = math.inf
        self.free = config.concurrency
        """Number of free slots for which no pipeline has requested a task."""
        self.ahead = 0
        """Number of free slots that are reserved for dequeues sent ahead of tasks."""
        self.in_doubt_count = 0
        """Number of dequeues sent ahead of tasks that Redis has not answered. Such dequeues may still bring tasks."""
        self.may_have_pending = True
        """True while a queue may have pending tasks."""
        self.is_fetching = True
        """False once the worker takes no new tasks."""
        self.is_closing = False
        """Set to True to end the pipelines once the outcomes of all runs are sent."""
        self.dropped = 0
        """Number of task ids that were removed from pending lists, because they had no stored message."""
        self.last_answer: float | None = None
        """Monotonic time of Redis's last reply to a dequeue, None before the first reply."""
        self.turns = 0
        """Number of round trips to Redis so far."""

    def notify(self) -> None:
        """Wake one idle pipeline. If that pipeline does not take all work, it wakes the next one."""
        if self._is_waking:
            return
        while self._asleep:
            waiter = self._asleep.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._is_waking = True
                return

    def release(self, slots: int, ended_in: str | None = None) -> None:
        """Free the slots of ended runs, and wake a pipeline to fill them.

        Args:
            slots: Number of slots. A run whose error handlers still run returns its slot later.
            ended_in: Name of the queue in which runs have ended, if any.
        """
        self.free += slots
        if ended_in in self._context.caps:  # the queue has a cap, which may allow another task now
            self.wake()
        else:
            self.notify()

    def resize(self, slots: int) -> None:
        """Change the number of slots. If more tasks run, `free` is negative until enough tasks end."""
        self.free += slots - self._concurrency
        self._concurrency = slots
        for turn in self._pipeline_turns:
            turn.share = min(-(-slots // len(self._pipeline_turns)), BATCH_MAX)
        self.wake()

    def wake(self) -> None:
        """Make a pipeline query the queues again, because a queue may have pending tasks."""
        self._wakes += 1
        self.may_have_pending = True
        self.notify()

    def probe(self) -> None:
        """Query the queues with one pipeline. If it gets all requested tasks, other pipelines query too."""
        self._is_probing = True
        self.wake()

    @property
    def is_failing(self) -> bool:
        """True while Redis does not answer."""
        return self._failures > 0

    @property
    def can_take(self) -> bool:
        """True if a slot is free and the worker takes tasks."""
        return self.free > 0 and self.is_fetching

    @property
    def is_empty(self) -> bool:
        """True if all slots are free, and no unanswered request can bring tasks."""
        return self.free >= self._concurrency and not self.in_doubt_count

    @property
    def is_idle(self) -> bool:
        """True if slots are free and all queues were found empty."""
        return not self.may_have_pending and not self._probing and self.can_take

    async def wait_until_idle(self) -> None:
        """Wait until `is_idle`."""
        while not self.is_idle:
            self._idle.clear()
            await self._idle.wait()

    async def wait_until_answered(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` until all dequeues sent ahead are answered or called off."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.in_doubt_count:
                    self._all_answered.clear()
                    await self._all_answered.wait()

    @property
    def left(self) -> int:
        """Number of slots for which a fetch cycle may request tasks now."""
        return self.free + self._covered - self.ahead

    @property
    def _has_work(self) -> bool:
        return self._settler.count > 0 or (self.is_fetching and self.may_have_pending and self.left > 0)

    def serve(self, pipeline: Pipeline, number: int, share: int) -> Coroutine[Any, Any, None]:
        """Return a coroutine that runs fetch cycles (turns) on one pipeline until the fetcher closes.

        Call this method for all pipelines before the first coroutine runs.

        Args:
            pipeline: A reserved connection.
            number: Number of the pipeline.
            share: Maximum number of tasks per turn.
        """
        turn = Turn(self._context, pipeline, f"-{number}", min(share, BATCH_MAX))
        self._pipeline_turns.append(turn)
        return self._serve(turn)

    async def _serve(self, turn: Turn) -> None:
        has_failed = False
        while True:
            try:
                if has_failed:
                    has_failed = False
                    await asyncio.sleep(0)
                if not await self._serve_once(turn):
                    self.notify()
                    return
            except MemoryError:  # a task used all memory; a log line would need memory too
                has_failed = True

    async def _serve_once(self, turn: Turn) -> bool:
        """Run one fetch cycle (turn), or wait until there is work. Return False when the pipeline must end."""
        if not self._has_work and turn.in_doubt is None:
            if self.is_closing:
                return False
            if self.is_idle:
                self._idle.set()
            if not await self._sleep(turn):
                await turn.pipeline.close()
            return True
        try:
            self._busy += 1
            try:
                await self._take_turn(turn)
            finally:
                self._busy -= 1
                self._probing.discard(turn)
            self._failures = 0
            await asyncio.sleep(0)  # quick functions end meanwhile, so that one round trip settles all of them
        except BrokerError as error:
            self._failures += 1
            self.notify()  # wake another pipeline, whose connection may still work
            pause_s = min(0.05 * 2 ** min(self._failures, 10), LONGEST_PAUSE_S)
            self._context.outage.report("fetching tasks failed", error, self._failures)
            await self._pause(random.uniform(0.5, 1.0) * pause_s)  # noqa: S311 - jitter, no secret
            # A closing worker calls off the dequeue only once, and then forgets it.
            if self.is_closing and turn.in_doubt is not None and turn.is_off:
                self._forget(turn)
        except Exception:
            self._failures += 1
            self.notify()
            logger.exception("fetching tasks failed; trying again")
            await self._pause(LONGEST_PAUSE_S)
        return True

    async def _pause(self, seconds: float) -> None:
        self._busy += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._busy -= 1

    async def _sleep(self, turn: Turn) -> bool:
        """Wait until `notify` wakes this pipeline. Return False once its connection was unused for `IDLE_S`."""
        left_s = turn.used_at + IDLE_S - self._clock.monotonic() if turn.pipeline.is_connected else math.inf
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asleep.append(waiter)
        try:
            async with asyncio.timeout(None if left_s == math.inf else left_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            if waiter.done() and not waiter.cancelled():
                self._is_waking = False
        return True

    def _forget(self, turn: Turn) -> None:
        self._keep_slots(turn, -turn.asked)
        turn.in_doubt = None

    def _keep_slots(self, turn: Turn, count: int) -> None:
        """Reserve `count` free slots for a turn. A negative count releases them."""
        assert turn.queue is not None
        self._asked[turn.queue.name] += count
        if turn.is_ahead:
            self.ahead += count
        else:
            self.free -= count

    async def _take_turn(self, turn: Turn) -> None:
        """Send waiting outcomes, and dequeue from the queues in order until all slots are filled or all are queried."""
        queues: Sequence[str] = ()
        empty = 0
        if turn.in_doubt is None and self.is_fetching and self.may_have_pending:
            queues = self._order.next()
            if self._is_probing:
                self._is_probing = self.may_have_pending = False
                self._probing.add(turn)
                empty = EMPTY_QUEUES
        is_asking = bool(queues)
        wakes = self._wakes
        asked = 0
        is_full = False
        is_searched = len(queues) <= EMPTY_QUEUES or self._context.runner.endpoint.is_cluster
        while True:
            if empty >= EMPTY_QUEUES and not is_searched and turn.in_doubt is None and self.is_fetching:
                queues, asked, is_searched = await self._find_pending(turn, queues[asked:]), 0, True
            # Leave a part for other pipelines that are ready: a single request for all slots would let Redis and Python
            # wait for each other. If no other pipeline is ready, the rest would wait for a reply, a whole round trip.
            most = turn.share if self._busy < len(self._pipeline_turns) else BATCH_MAX
            batches = self._settler.take(most)
            carried = sum([batch.slots for batch in batches])
            if turn.in_doubt is None and asked < len(queues) and self.is_fetching:
                limit = min(self.left + carried, max(most, carried), BATCH_MAX)
                if limit > 0:
                    self._ask(turn, queues[asked], limit)
                    asked += 1
            if not batches and turn.in_doubt is None:
                if asked < len(queues) and self.left > 0 and self.is_fetching:
                    continue  # the queue was skipped, because it is at its cap on this worker
                if is_asking and wakes == self._wakes and asked >= len(queues):
                    self.may_have_pending = False
                return
            # A repeated dequeue may return tasks even if the outcomes are lost, so it cannot use their slots.
            covered = 0 if turn.in_doubt is None or turn.is_repeat else min(turn.asked, carried)
            self._covered += covered
            empty += turn.in_doubt is not None
            try:
                if self._has_work:
                    self.notify()
                is_full = await self._exchange(turn, batches, carried)
            finally:
                self._covered -= covered
            if is_full:
                return  # all requested slots are filled, but the queue may have more tasks for the next fetch cycle
            if asked >= len(queues):
                if is_asking and wakes == self._wakes:
                    self.may_have_pending = False
                return

    async def _find_pending(self, turn: Turn, queues: Sequence[str]) -> Sequence[str]:
        """Return the queues that have pending tasks, in their order. Without this, each empty queue costs a call."""
        keys = self._context.keys
        try:
            found = await find_queues([keys.queue(name) for name in queues], ("pending",), turn.pipeline.exchange)
        except BaseException:
            self.may_have_pending = True
            raise
        turn.used_at = self.last_answer = self._clock.monotonic()
        return [queue.name for queue in found]

    def _ask(self, turn: Turn, queue: str, limit: int) -> None:
        """Prepare a dequeue, unless this worker already runs as many tasks of the queue as its cap allows."""
        most = None
        if self._context.caps:
            left, most = self._starts.room(queue)
            if left is not None:
                limit = min(limit, left - self._asked[queue])
                if limit < 1:
                    return
        turn.ask(self._context.keys.queue(queue), limit, call=next(self._calls), max_active=most)
        self._keep_slots(turn, limit)

    def has_room(self, queue: str) -> bool:
        """Return whether the queue's cap allows this worker to run another of its tasks."""
        left = self._starts.room(queue)[0]
        return left is None or left > self._asked[queue]

    @property
    def _running(self) -> int:
        """Number of running tasks, without those that are being settled."""
        return self._concurrency - self.free - self._in_turns

    async def _exchange(self, turn: Turn, batches: list[SettleBatch], carried: int) -> bool:
        """Settle the batches and dequeue in one round trip. Return whether the dequeue returned all requested tasks."""
        operations: list[Operation[Any]] = [batch.operation for batch in batches]
        joined = None
        is_repeat = turn.is_repeat and turn.in_doubt is not None
        turn.is_off = is_repeat and not self.is_fetching
        if is_repeat:
            # The first dequeue may still reach Redis, and its tasks would be lost. `call_off` makes Redis refuse it.
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
            answer_s, usual_s = self._clock.monotonic() - sent_at, self._usual_answer_s
            self._usual_answer_s = answer_s if usual_s == math.inf else usual_s + 0.1 * (answer_s - usual_s)
        if spans is not None:
            spans.settled(batches, answers, started_ns)
        failure = self._settler.answered(batches, answers)
        is_full = False
        if turn.in_doubt is not None:
            is_full, refused = self._read(turn, answers[-1], sent_at)
            failure = refused or failure
            if is_repeat and refused is None:
                self.wake()  # the repeated dequeue returned only tasks of the first one, so query the queues again
        if failure is not None:
            raise failure
        return is_full

    def _read(self, turn: Turn, answer: Any, sent_at: float) -> tuple[bool, BrokerError | None]:
        """Handle the reply to a dequeue, and start its tasks.

        Return whether it brought all requested tasks. Also return an error if the dequeue must be repeated.
        """
        if isinstance(answer, BrokerReplyError):
            self._forget(turn)
            assert turn.queue is not None
            # Do not raise the error, because other queues may work.
            logger.error("tasks cannot be fetched from queue %s: %s", turn.queue.name, answer)
        elif isinstance(answer, BrokerError):
            # The failed dequeue may have handed out tasks. Only a repeated dequeue with the same number returns those
            # tasks.
            turn.is_repeat = turn.is_repeat or is_unanswered(answer)
            if not turn.is_repeat:
                self._forget(turn)  # Redis refused the dequeue, so it handed out no task
                # This fetch cycle does not query the queue a second time, so ask for another cycle.
                self.may_have_pending = True
            return False, answer
        else:
            return self._accept(turn, answer, sent_at), None
        return False, None

    # --- turns ahead --------------------------------------------------------------------------------------------------

    def ask_ahead(self, turns: Mapping[str, Turn]) -> list[Turn]:
        """Prepare dequeues from some of these queues, which are sent ahead and which Redis runs at the next wake token.

        Return an empty list while a task runs here: it might block this loop, and new tasks would wait for it while
        other workers are idle. Each dequeue requests at most `AHEAD_TASKS` tasks, because if this process hangs, they
        wait for the end of their lease. Other pipelines cannot use the reserved slots. The caller passes each outcome
        to `answered_ahead` or `unanswered_ahead`.
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
        self.in_doubt_count += len(asked)
        return asked

    def answered_ahead(self, turn: Turn, answer: Any, sent_at: float) -> BrokerError | None:
        """Handle the reply to a dequeue sent ahead, and start its tasks. Return the error if Redis refused it."""
        self._end_doubt()
        if self._spans is not None:
            # Start the span at the reply, because the wait for the wake token is not part of it.
            turn.started_ns = self._spans.now_ns()
        is_full, refused = self._read(turn, answer, sent_at)
        if is_full:
            self.wake()  # the queue may have more tasks
        self.notify()  # wake a pipeline, which settles tasks that must return to their queue
        return refused

    def unanswered_ahead(self, turn: Turn) -> None:
        """Release the slots of an unanswered dequeue. Redis may still hand out tasks until it is called off."""
        self._keep_slots(turn, -turn.asked)
        turn.asked = 0

    def called_off(self, turn: Turn, answer: Any, sent_at: float) -> BrokerError | None:
        """Handle the reply to the request that calls off a dequeue. Return the error if the request must be repeated.

        The slots of the dequeue may be in use again, so tasks that it handed out go back to the head of their queue.
        """
        if isinstance(answer, BrokerError) and not isinstance(answer, BrokerReplyError):
            return answer
        self._end_doubt()
        turn.is_off = True
        self._read(turn, answer, sent_at)
        self.notify()
        return None

    def _end_doubt(self) -> None:
        self.in_doubt_count -= 1
        if not self.in_doubt_count:
            self._all_answered.set()

    def give_up(self, turn: Turn) -> None:
        """Abandon a dequeue that cannot be called off. Tasks that it handed out are recovered when their leases end."""
        self._end_doubt()
        turn.in_doubt = None

    def _accept(self, turn: Turn, answer: Dequeued, sent_at: float) -> bool:
        """Start the tasks that Redis handed out. Return True if these are all requested tasks: more may wait."""
        queue, asked = turn.queue, turn.asked
        turn.in_doubt = None
        assert queue is not None
        now = self.last_answer = self._clock.monotonic()
        self._context.redis_clock.learn(answer.now_ns, now)
        self._context.outage.answered()
        self._keep_slots(turn, -asked)
        self.free -= len(answer.tasks)
        is_wanted = not turn.is_off and (self.is_fetching or not turn.is_ahead)
        self.turns += turn.is_ahead and bool(answer.tasks)
        self.dropped += answer.dropped
        lease_until = sent_at + answer.lease_expiry_s - answer.now_ns / 1e9
        runs = self._starts.receive(queue, turn.call, answer, lease_until, now, is_wanted=is_wanted)
        if self._spans is not None:
            self._spans.received(queue, runs, turn.started_ns)
        is_full = len(answer.tasks) + answer.dropped >= asked
        # A probing fetch cycle has already set `may_have_pending` to False. A full reply sets it to True again.
        self.may_have_pending = self.may_have_pending or is_full
        return is_full
