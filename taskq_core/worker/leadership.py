"""Elect one leader per queue. The leader finds out what work the queue has, so that idle services send no requests.

One worker per queue leads, under a lease. The other workers check from time to time whether the lease is free. The
leader reads when the first task is due, and which keys exist. Some keys mean work for a service. The leader then wakes
this service::

    nothing known --read--> no work  <------+   services sleep
                               |            |
                        a key changes --read--> services with work run at their own pace

The leader reads on a connection on which Redis reports changes of these keys by any client, including Go's client and
`redis-cli`. Where Redis does not report changes, for example in a cluster, the leader polls just after each second of
Redis's clock, with one command while the queue has no work. Scores are whole seconds, so more polls gain nothing.

The lease only saves work. Services stay correct if two workers act at the same time.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from taskq_core.broker.operations.diagnosis import read_time
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.operations.services import LOOKOUT, count_keys, first_score, lead, lead_left, renew_lead
from taskq_core.errors import BrokerError, BrokerReplyError
from taskq_core.service.loop import Signal, jittered
from taskq_core.wire import QueueKeys
from taskq_core.worker.change_feed import ChangeFeed
from taskq_core.worker.context import WorkerContext, WorkerService

SERVICE = LOOKOUT
"""Name of the leader lease in Redis."""
AFTER_S = 0.002
"""Seconds to wait after each full second of Redis's clock before a check, because the estimate of Redis's clock is not
exact."""
RENEW_AT = 0.8
"""Fraction of the leader lease's time after which the leader renews the lease."""
LONGEST_S = 60.0
"""Maximum length in seconds of a leader lease that is longer than usual because the worker serves many queues."""
SOON_S = 0.05
"""Seconds after the end of a leader lease at which other workers check whether the leader has renewed it."""
NOBODY_LEADS = -2
"""Redis's reply to PTTL for a key that does not exist: no worker leads."""


class Topic(Enum):
    """Kinds of work that the leader of a queue looks for, besides due tasks."""

    WORKFLOWS = "workflows"
    """Workflow steps to dispatch to another queue, or steps whose end may not have been reported."""
    FAILED_STEPS = "failed_steps"
    """Failed workflow steps that another program may run again, here or in a queue that only Go workers serve."""
    DEAD_LETTERS = "dead_letters"
    """Archived tasks whose dead letter must be handled."""
    GROUPS = "groups"
    """Groups of tasks, or sets taken from groups, that must be combined."""
    LIMITS = "limits"
    """Tasks with limits. The queue has or had such tasks."""
    RETAINED = "retained"
    """Ended tasks or workflows whose retention is not over."""

    def keys(self, queue: QueueKeys) -> tuple[str, ...]:
        """Return the keys that exist if a queue may have this kind of work.

        If none of them exists, the queue has no such work.
        """
        match self:
            case Topic.WORKFLOWS:
                return (
                    queue.workflow_notes,
                    queue.workflows_out,
                    queue.steps,
                    queue.workflows_open,
                    queue.workflows_running,
                )
            case Topic.FAILED_STEPS:
                return (queue.failed_steps, queue.workflow_queues)
            case Topic.DEAD_LETTERS:
                return (queue.letters,)
            case Topic.GROUPS:
                return (queue.groups, queue.aggregation_sets, queue.combined)
            case Topic.LIMITS:
                return (queue.limits, queue.limits_due, queue.limit_checks)
            case Topic.RETAINED:
                return (queue.completed, queue.archived, queue.workflows_ended)


class Leadership(WorkerService):
    """Leads one queue or waits until it can, and reports which work the queue has.

    Args:
        context: The worker.
        queue: Key names of the queue.
        feed: Connection on which the leader reads the queue's keys. Queues may share it.
        after: Events that must be set before the first attempt to take the lease.
    """

    name = "leadership"

    def __init__(
        self, context: WorkerContext, queue: QueueKeys, feed: ChangeFeed, *, after: Sequence[asyncio.Event] = ()
    ) -> None:
        super().__init__(context)
        self._queue = queue
        self.leader_keys = (queue.leader(SERVICE),)
        self._after = after
        self.feed = feed
        """The connection on which the leader reads the queue's keys."""
        self._leader_s = context.leader_s * min(context.pace, max(1.0, LONGEST_S / context.leader_s))
        self._topics = {topic: topic.keys(queue) for topic in Topic}
        self._others = tuple(key for keys in self._topics.values() for key in keys)
        self._dated = (queue.scheduled, queue.retry)
        self._watched = (queue.pending, queue.active, queue.processed, queue.paused)
        feed.watch((*self._others, *self._dated, *self._watched), self._on_change)
        self._led_until = -math.inf
        self._other_leads_until = -math.inf
        self._again_s = 0.0
        self._read_at_s = -math.inf
        self._has_changed = True
        self._wake = Signal()
        self._signals: list[Signal] = []
        self._found: set[Topic] = set()
        self.due_s: float | None = None
        """Unix time by Redis's clock at which the first scheduled task or retry is due. None: no task, or unknown."""
        self.has_checked = False
        """True once this worker has read the queue, or has found that another worker leads it."""

    # --- for services -------------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this worker leads the queue."""
        return self._clock.monotonic() < self._led_until

    @property
    def unchanged_since(self) -> float:
        """Monotonic time since which the queue has not changed, infinity if that is unknown."""
        is_known = self.leads and self.feed.is_tracking and not self._has_changed
        return self._read_at_s if is_known else math.inf

    @property
    def is_led(self) -> bool:
        """Whether this worker or, by its last check, another worker leads the queue."""
        return self.leads or self._clock.monotonic() < self._other_leads_until

    def has(self, topic: Topic) -> bool:
        """Return whether this worker leads the queue, and the queue may have work of this kind."""
        return topic in self._found and self.leads

    def signal(self, signal: Signal | None = None) -> Signal:
        """Return a signal that is set when the leader, the next due time or the work of the queue changes.

        By default, a new signal.
        """
        signal = signal or Signal()
        self._signals.append(signal)
        return signal

    def read_again(self) -> None:
        """Make the leader read the queue again. A service calls this after it has moved due tasks."""
        self.due_s = None
        self._on_change()

    # --- the service --------------------------------------------------------------------------------------------------

    async def work(self) -> float:
        """Read the queue as leader, or try to lead. Return the seconds until the next call."""
        for event in self._after:
            await event.wait()
        if not self.leads and not await self._take_lead():
            return self._again_s
        try:
            now = self._clock.monotonic()
            if now >= self._next_read_at:
                await self._read()
            elif now >= self._renew_at:
                await self._ask()
        except _NoLeaderError:
            self._step_down()
            return 0.0
        except BrokerError:
            self._has_changed = True  # the next call repeats the failed read
            raise
        await self._rest()
        return 0.0

    async def _take_lead(self) -> bool:
        sent_at = self._clock.monotonic()
        if self._led_until > -math.inf:
            self._step_down()
        self._again_s = jittered(self._leader_s / 2)
        # A worker that has just started tries to take the lease at once. Later, it first reads whether the lease is
        # free.
        if self.has_checked:
            left_ms = await self._runner.run(lead_left(self._queue, SERVICE))
            if left_ms != NOBODY_LEADS:
                self._other_leads_until = sent_at + (left_ms / 1000 if left_ms > 0 else self._leader_s)
                if left_ms > 0:
                    self._again_s = min(self._again_s, jittered(left_ms / 1000 + SOON_S))
                return False
        asked = lead(self._queue.leader(SERVICE), owner=self._context.token, leader_ms=self._leader_ms)
        if not await self._runner.run(asked):
            self.has_checked = True
            self._other_leads_until = sent_at + self._leader_s
            self._notify()
            return False
        self._led_until = sent_at + self._leader_s
        self._read_at_s = -math.inf
        self._has_changed = True  # a new leader reads all keys: Redis reports only changes after a read
        self._notify()
        return True

    @property
    def _leader_ms(self) -> int:
        return int(self._leader_s * 1000)

    @property
    def _renew_at(self) -> float:
        return self._led_until - (1 - RENEW_AT) * self._leader_s

    @property
    def _next_read_at(self) -> float:
        """Monotonic time of the next read: at once, just after the next second of Redis's clock, or infinity."""
        if self.feed.is_tracking and not self._has_changed:
            return math.inf
        if self._read_at_s == -math.inf or (self.feed.is_tracking and self._clock.monotonic() - self._read_at_s >= 1):
            return -math.inf
        ahead_s = self._context.redis_clock.time() - self._clock.monotonic()
        return math.floor(self._read_at_s + ahead_s) + 1 + AFTER_S - ahead_s

    async def _rest(self) -> None:
        """Wait for the next read or renewal, or for a change."""
        self._wake.clear()
        left_s = min(self._next_read_at, self._renew_at) - self._clock.monotonic()
        if left_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._wake.wait()

    async def _read(self) -> None:
        self._read_at_s = self._clock.monotonic()
        self._has_changed = False  # reset before the read: a change during the read must cause another read
        due_s: float | None = None
        found: set[Topic] = set()
        is_quiet = not self._found and self.due_s is None
        if not is_quiet or (await self._ask(count_keys((*self._dated, *self._others))))[0]:
            answers = await self._ask(*map(first_score, self._dated), *map(count_keys, self._topics.values()))
            counts = answers[len(self._dated) :]
            due_s = _first(answers[: len(self._dated)])
            found = {topic for topic, count in zip(self._topics, counts, strict=True) if count}
        if self.feed.is_tracking:
            # The values of these keys are not needed. Redis reports the next change of a key only after a read of the
            # key.
            await self._ask(count_keys(self._watched))
        self._learn(due_s, found)

    async def _ask(self, *requests: Operation[Any]) -> list[Any]:
        """Send operations in one write, and renew the lease in the same write if needed.

        Raises:
            _NoLeaderError: Another worker holds the lease.
        """
        operations = list(requests)
        sent_at = self._clock.monotonic()
        is_renewal = sent_at >= self._renew_at
        if is_renewal:
            if self.due_s is not None:
                # Read Redis's clock again, because an operator may have set it while services wait for a due task.
                operations.append(read_time())
            operations.append(renew_lead(self._queue, SERVICE, owner=self._context.token, leader_ms=self._leader_ms))
        answers = await self.feed.exchange(operations)
        for answer in answers:
            if isinstance(answer, BrokerError) and not isinstance(answer, BrokerReplyError):
                raise answer
        if is_renewal:
            if answers.pop() is not True:
                raise _NoLeaderError
            self._led_until = sent_at + self._leader_s
            if len(answers) > len(requests):
                self._context.redis_clock.learn(int(answers.pop() * 1e9), self._clock.monotonic())
                self._notify()
        return answers

    def _learn(self, due_s: float | None, found: set[Topic]) -> None:
        is_new = not self.has_checked or due_s != self.due_s or found != self._found
        self.due_s, self._found, self.has_checked = due_s, found, True
        if is_new:
            self._notify()

    def _step_down(self) -> None:
        self._led_until = self._read_at_s = -math.inf
        self.due_s, self._found, self.has_checked = None, set(), True
        self._notify()

    def _on_change(self) -> None:
        self._has_changed = True
        self._wake.set()

    def _notify(self) -> None:
        for signal in self._signals:
            signal.set()


def _first(scores: Iterable[Any]) -> float | None:
    # Count a key of a wrong type as due: the forwarder reports it until the reconciler moves it aside.
    known = [0.0 if isinstance(each, BrokerReplyError) else each for each in scores]
    return min((each for each in known if each is not None), default=None)


class _NoLeaderError(Exception):
    """Raised when another worker holds the leader lease of the queue."""


class QueueService(WorkerService):
    """Base class of worker services that work on one queue.

    Args:
        context: The worker.
        queue: Key names of the queue.
        leadership: Reports whether this worker leads the queue, and which work the queue has.
    """

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context)
        self._queue = queue
        self._leadership = leadership
        self._changes = leadership.signal()
