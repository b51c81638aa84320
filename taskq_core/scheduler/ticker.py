"""Enqueue what is due: the part of a scheduler that acts.

Any number of schedulers may run. For each set of entries one leads, by a lease that it renews four times before it
ends; the others look whether it is free. The lease only saves work. That each firing is enqueued once, and none is left
out, is the business of the marks: the task is stored and the mark moved on in one script, which refuses a firing unless
the mark stands at the firing before it. A leader that froze past its lease therefore finds the mark elsewhere when it
wakes up, and reads anew how far its entries have come.

::

    lead --> adopt the marks --> enqueue what is due --> wait for the next firing or for the lease
      ^            ^                     |                              |
      |            +---- superseded -----+                              |
      +-----------------------------------------------------------------+
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.broker import operations
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import (
    ADOPT_MAX,
    BATCH_BYTES,
    TICK_MAX,
    Mark,
    Operation,
    ReceiptLane,
    Tick,
    TickCode,
)
from taskq_core.clock import Clock, RedisClock, utc_datetime
from taskq_core.errors import BrokerError, BrokerUnavailableError, ConfigurationError, EnqueueError
from taskq_core.ids import new_token
from taskq_core.periodic import Firing, FiringOutcome, HookFunction
from taskq_core.preparer import Prepared
from taskq_core.scheduler.calls import call as call_user
from taskq_core.scheduler.config import SchedulerConfig
from taskq_core.scheduler.entries import Entry, EntryBook
from taskq_core.service import jittered
from taskq_core.wire import QueueKeys, SchedulerEnqueueEvent

logger = logging.getLogger("taskq.scheduler")

AFTER_S = 0.002
"""Seconds after a second of Redis's clock at which its firings are sent: the clocks are compared over a network."""
PATIENCE_S = 5.0
"""Seconds in which a batch that got no answer is sent again; Redis recognises it."""
HOOK_S = 5.0
"""Seconds a hook may take."""
IDLE_S = 1.0
"""Seconds between two looks whether there are entries now."""
HISTORY_KEPT_S = 7 * 86_400
"""Seconds the history of an entry is kept after the last scheduler that knew it."""
HISTORY_REFRESH_S = 3600.0
"""Seconds between two extensions of the time that histories are kept."""

_TICK_IDS = uuid.UUID("ce8714d3-7d56-5a42-a1bd-e7cfeb76a8fd")


def tick_task_id(entry_id: str, task_name: str, at_s: int) -> str:
    """Return the id of the task that a firing enqueues: a UUID that is the same on every scheduler."""
    return str(uuid.uuid5(_TICK_IDS, f"{entry_id}\n{task_name}\n{at_s}"))


@dataclass(slots=True)
class _Candidate:
    """A firing on its way to Redis."""

    entry: Entry
    firing: Firing
    tick: Tick
    prepared: Prepared[Any] | None
    error: Exception | None = None


_OUTCOMES = {
    TickCode.STORED: FiringOutcome.ENQUEUED,
    TickCode.ID_CONFLICT: FiringOutcome.ID_TAKEN,
    TickCode.DUPLICATE: FiringOutcome.DUPLICATE,
    TickCode.DROPPED: FiringOutcome.REFUSED,
}


class Ticker:
    """Leads a set of entries and enqueues what is due.

    Args:
        app: The queue application.
        book: Its entries.
        runner: Sends operations.
        clock: Source of monotonic time.
        redis_clock: Redis's time.
        config: Times.
        fired: Told of each firing and what became of it.
    """

    def __init__(
        self,
        app: TaskQ,
        book: EntryBook,
        runner: AsyncRunner,
        clock: Clock,
        redis_clock: RedisClock,
        *,
        config: SchedulerConfig,
        fired: Callable[[Firing, FiringOutcome, Exception | None], None],
    ) -> None:
        self._app = app
        self._keys = app.runtime.keys
        self._preparer = app.runtime.preparer
        self._book = book
        self._runner = runner
        self._clock = clock
        self._redis_clock = redis_clock
        self._leader_s = config.span("leader_lease")
        self._refresh_s = config.span("refresh")
        self._fired = fired
        self._owner = new_token()
        self._receipts = ReceiptLane(new_token())
        self._leader_key = ""
        self._led_at = self._adopted_at = self._histories_kept_at = -math.inf
        self._failure: BrokerError | None = None  # of one queue; the others must not wait for it
        self.leads = False
        """True while this scheduler holds the lease, as far as it knows."""

    async def work(self) -> float:
        """Enqueue what is due, if this scheduler leads; return the seconds until the next look."""
        await self._forget_removed()
        await self._follow_book()
        if not self._book.entries:
            return IDLE_S
        while True:
            await self._lead()
            if not self.leads:
                return jittered(self._leader_s / 4)
            self._failure = None
            await self._adopt()
            was_due = await self._enqueue_due()
            if self._failure is not None:
                raise self._failure
            if not was_due:
                return self._pause()

    def _pause(self) -> float:
        until_renewal = self._led_at + self._leader_s / 4 - self._clock.monotonic()
        firings = [each.next_s for each in self._book.entries.values() if each.next_s is not None]
        until_firing = min(firings) + AFTER_S - self._redis_clock.time() if firings else math.inf
        return max(0.0, min(until_renewal, until_firing))

    # --- the lease ----------------------------------------------------------------------------------------------------

    async def _follow_book(self) -> None:
        """Give up the lease of a set of entries that is not ours any more."""
        key = self._keys.scheduler_leader(self._book.digest) if self._book.entries else ""
        if key != self._leader_key:
            await self.resign()
            self._leader_key = key
            self._led_at = -math.inf

    async def _lead(self) -> None:
        now = self._clock.monotonic()
        if self.leads and now - self._led_at < self._leader_s / 4:
            return
        led = self.leads
        try:
            self.leads = await self._runner.run(
                operations.lead_entries(self._leader_key, owner=self._owner, leader_ms=int(self._leader_s * 1000))
            )
        except BrokerError:
            self.leads = False
            raise
        self._led_at = now
        if self.leads and not led:
            logger.info("leads %d periodic tasks", len(self._book.entries))
            self._adopted_at = self._histories_kept_at = -math.inf
        elif led and not self.leads:
            logger.info("another scheduler leads now")

    async def resign(self) -> None:
        """Give up the lease, so that another scheduler takes over at once."""
        if self.leads:
            self.leads = False
            await self._runner.run(operations.resign_entries(self._leader_key, owner=self._owner))

    # --- how far entries have come ------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Read marks that are not known, and now and then all of them."""
        is_stale = self._clock.monotonic() - self._adopted_at >= self._refresh_s
        for queue, entries in self._book.by_queue().items():
            wanted = entries if is_stale else [each for each in entries if each.mark is None]
            for start in range(0, len(wanted), ADOPT_MAX):
                batch = wanted[start : start + ADOPT_MAX]
                try:
                    answer = await self._runner.run(operations.adopt(queue, [each.key for each in batch]))
                except BrokerError as error:
                    self._failure = error
                    break
                self._learn(answer.now_ns)
                for entry, mark in zip(batch, answer.marks, strict=True):
                    entry.move(mark)
        if is_stale and self._failure is None:
            self._adopted_at = self._clock.monotonic()
        if self._clock.monotonic() - self._histories_kept_at >= HISTORY_REFRESH_S:
            self._histories_kept_at = self._clock.monotonic()
            await self._send_all(
                [
                    operations.keep_history(self._keys.scheduler_history(entry_id), kept_s=HISTORY_KEPT_S)
                    for entry_id in self._book.entries
                ],
                "keeping histories",
            )

    def _learn(self, now_ns: int) -> None:
        self._redis_clock.learn(now_ns, self._clock.monotonic())

    # --- what is due --------------------------------------------------------------------------------------------------

    async def _enqueue_due(self) -> bool:
        """Send at most one batch a queue. Return False if nothing was due."""
        now_s = math.floor(self._redis_clock.time())
        was_due = False
        for queue, entries in self._book.by_queue().items():
            batch: list[_Candidate] = []
            size = 0
            # Those furthest behind come last: what one has to catch up must not keep the others from their second.
            for entry in sorted(entries, key=lambda each: each.next_s or 0, reverse=True):
                if len(batch) >= TICK_MAX or size >= BATCH_BYTES:
                    break
                size += await self._gather(entry, now_s, batch, size)
            if batch:
                was_due = True
                try:
                    await self._send(queue, batch)
                except BrokerError as error:
                    self._failure = error
        return was_due

    async def _gather(self, entry: Entry, now_s: int, batch: list[_Candidate], size: int) -> int:
        """Add the due firings of an entry to a batch as far as they fit, and return the bytes added."""
        added = 0
        firings = entry.due(now_s, TICK_MAX - len(batch))
        if firings:
            assert entry.mark is not None
            before_s = entry.mark.at_s
            for at_s in firings:
                if size + added >= BATCH_BYTES:
                    break
                candidate = await self._prepare(entry, before_s, at_s)
                batch.append(candidate)
                added += 0 if candidate.tick.task is None else len(candidate.tick.task.message)
                before_s = at_s
        return added

    async def _prepare(self, entry: Entry, before_s: int, at_s: int) -> _Candidate:
        call = entry.task.call
        task_id = call.task.options.task_id or tick_task_id(entry.task.id, call.task.name, at_s)
        firing = Firing(entry=entry.task, at=utc_datetime(at_s), task_id=task_id)
        await self._tell(self._app.timetable.told_before, firing)
        tick = Tick(entry.key, before_s, at_s, None)
        try:
            if self._preparer.middleware.sees_calls:
                call = await call_user(self._preparer.middleware.aoutgoing, call)
            # In a context of its own: each firing begins a trace, whatever span this code may run in.
            prepared = Context().run(self._preparer.prepare, call, self._app.async_client, task_id=task_id)
            if prepared.queue.name != entry.queue.name:
                raise ConfigurationError(
                    f"a middleware moved a periodic task from queue {entry.queue.name!r} to {prepared.queue.name!r}; "
                    "give the entry the option queue= instead"
                )
        except Exception as error:
            return _Candidate(entry, firing, tick, None, error)
        tick.task = prepared.task
        return _Candidate(entry, firing, tick, prepared)

    async def _send(self, queue: QueueKeys, batch: Sequence[_Candidate]) -> None:
        started = time.monotonic()
        operation = operations.tick(queue, [each.tick for each in batch], self._receipts)
        try:
            await self._register(queue)
            answer = await self._runner.run(operation, patience_s=PATIENCE_S)
        except BrokerError as cause:
            self._receipts = ReceiptLane(new_token())  # the call may still be on its way and write its receipt late
            for each in batch:
                error = None if each.prepared is None else each.prepared.failure(cause)
                await self._note(each, FiringOutcome.FAILED, error or each.error, started)
            raise
        self._learn(answer.now_ns)
        events: list[Operation[Any]] = []
        for each, code in zip(batch, answer.codes, strict=True):
            if code == TickCode.SUPERSEDED:
                each.entry.mark = None  # to be read anew
            elif code != TickCode.EARLY:
                outcome = _OUTCOMES[TickCode(code)]
                await self._settle(each, outcome, code, started)
                if outcome is FiringOutcome.ENQUEUED:
                    events.append(self._event(each.firing, answer.now_ns))
        await self._send_all(events, "writing histories")

    async def _settle(self, candidate: _Candidate, outcome: FiringOutcome, code: str, started: float) -> None:
        entry, at_s = candidate.entry, candidate.tick.at_s
        if entry.mark is not None:
            entry.move(Mark(at_s, at_s if outcome is FiringOutcome.ENQUEUED else entry.mark.enqueued_s))
        error = candidate.error
        if candidate.prepared is not None:
            error = candidate.prepared.settle(code)
        else:
            logger.error(
                "periodic task %s was not enqueued for %s: %s", entry.task.id, candidate.firing.at.isoformat(), error
            )
        await self._note(candidate, outcome, error, started)

    async def _note(
        self, candidate: _Candidate, outcome: FiringOutcome, error: Exception | None, started: float
    ) -> None:
        if candidate.prepared is not None:
            assert error is None or isinstance(error, EnqueueError)
            self._preparer.note_sent(candidate.prepared, error, started)
        self._fired(candidate.firing, outcome, error)
        await self._tell(self._app.timetable.told_after, candidate.firing, outcome, error)

    async def _register(self, queue: QueueKeys) -> None:
        operation = self._preparer.unregistered(queue)
        if operation is not None:
            await self._runner.run(operation, patience_s=PATIENCE_S)
            self._preparer.note_registered(queue)

    # --- history ------------------------------------------------------------------------------------------------------

    def _event(self, firing: Firing, now_ns: int) -> Operation[Any]:
        event = SchedulerEnqueueEvent(task_id=firing.task_id, enqueue_time_ns=now_ns)
        return operations.record_firing(
            self._keys.scheduler_history(firing.entry.id),
            event.encode(),
            at_s=now_ns // 1_000_000_000,
            kept_s=HISTORY_KEPT_S,
        )

    async def _forget_removed(self) -> None:
        removed = [self._keys.scheduler_history(task.id) for task in self._book.take_removed()]
        await self._send_all([operations.delete_history(key) for key in removed], "deleting histories")

    async def _send_all(self, sent: Sequence[Operation[Any]], what: str) -> None:
        """Send what only tools look at: if it fails, that is logged and nothing else."""
        for start in range(0, len(sent), 16):
            answers = await asyncio.gather(
                *(self._runner.run(each) for each in sent[start : start + 16]), return_exceptions=True
            )
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            for failure in failures:
                if not isinstance(failure, BrokerError):
                    raise failure
            if failures:
                logger.warning("%s of periodic tasks failed: %s", what, failures[0])
            if any(isinstance(failure, BrokerUnavailableError) for failure in failures):
                return  # the others would wait for it as well

    # --- hooks --------------------------------------------------------------------------------------------------------

    async def _tell(self, hooks: Sequence[HookFunction], *told: object) -> None:
        for hook in hooks:
            try:
                async with asyncio.timeout(HOOK_S):
                    await call_user(hook, *told)
            except Exception:
                logger.exception("a hook of periodic tasks failed")
