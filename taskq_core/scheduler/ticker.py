"""Enqueue the due firings of the schedule entries of one queue.

Each entry has a mark in Redis: its last handled firing. Marks ensure that each firing is enqueued exactly once. One
script stores the task and moves the mark. It refuses a firing unless the mark is at the firing before it. So when a
leader that was frozen past its lease continues, the script refuses its firings, and the leader reads the marks again.

::

    adopt the marks --> enqueue due firings --> wait for the next firing
          ^                     |                        |
          +---- superseded -----+------------------------+
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations import schedules
from taskq_core.broker.operations.new_tasks import ReceiptSlot, register_queue
from taskq_core.broker.operations.operation import BATCH_BYTES
from taskq_core.broker.operations.schedules import ADOPT_MAX, MARK_KEPT_S, TICK_MAX, Mark, Tick, TickCode
from taskq_core.client.preparer import Prepared
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerError, BrokerUnavailableError, ConfigurationError, EnqueueError
from taskq_core.scheduler.context import SchedulerContext
from taskq_core.scheduler.entries import Entry
from taskq_core.scheduler.health import TurnState
from taskq_core.service.calls import Caller, HangError
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.periodic import Firing, FiringOutcome, HookFunction
from taskq_core.wire import QueueKeys, SchedulerEnqueueEvent
from taskq_core.wire.durations import NS_PER_S
from taskq_core.wire.tokens import new_token

logger = logging.getLogger("taskq.scheduler")

AFTER_S = 0.002
"""Seconds to wait after the second of a firing, because this process knows Redis's clock only approximately."""
PATIENCE_S = 5.0
"""Seconds for which a batch of firings is sent again while Redis does not answer. Redis recognizes a repeated batch."""
HOOK_S = 5.0
"""Timeout of a hook in seconds."""
MIDDLEWARE_S = 5.0
"""Seconds to wait for the middleware of a firing. If it takes longer, the firing is postponed. Meanwhile, the other due
firings of the queue wait."""
PUT_OFF_S = 5.0
"""Seconds until a postponed firing is tried again. Other firings of the queue do not wait for it."""
HISTORIES_AT_ONCE = 16
"""Maximum number of firing histories that are written concurrently."""

_TICK_IDS = uuid.UUID("ce8714d3-7d56-5a42-a1bd-e7cfeb76a8fd")


def tick_task_id(entry_id: str, task_name: str, at_s: int) -> str:
    """Return the id of the task that a firing enqueues: a UUID that is equal on every scheduler."""
    return str(uuid.uuid5(_TICK_IDS, f"{entry_id}\n{task_name}\n{at_s}"))


class _Candidate(Struct):
    """A due firing of a schedule, until Redis has answered whether this scheduler enqueued it."""

    entry: Entry
    firing: Firing
    tick: Tick
    prepared: Prepared[Any] | None
    error: Exception | None = None
    is_paused: bool = False


_Settled = tuple[_Candidate, FiringOutcome, Exception | None]
"""A firing, the outcome of its enqueue, and the error of the enqueue or None."""

_OUTCOMES = {
    TickCode.STORED: FiringOutcome.ENQUEUED,
    TickCode.ID_CONFLICT: FiringOutcome.ID_TAKEN,
    TickCode.DUPLICATE: FiringOutcome.DUPLICATE,
    TickCode.EXISTING: FiringOutcome.DUPLICATE,
    TickCode.CHANGED: FiringOutcome.DUPLICATE,
    TickCode.DROPPED: FiringOutcome.REFUSED,
}


class Ticker:
    """Enqueues the due firings of the schedule entries of one queue.

    Args:
        context: The scheduler.
        queue: Key names of the queue.
        call: Calls hooks and middleware.
        fired: Called with each firing and its outcome.
    """

    def __init__(
        self,
        context: SchedulerContext,
        queue: QueueKeys,
        *,
        call: Caller,
        fired: Callable[[Firing, FiringOutcome, Exception | None], None],
    ) -> None:
        self._queue = queue
        self._app = context.app
        self._preparer = context.app.runtime.preparer
        self._book = context.book
        self._runner = context.runner
        self._clock = context.clock
        self._redis_clock = context.redis_clock
        self._call = call
        self._fired = fired
        self._check_every_s = context.config.span("leader_lease") / 4
        self._refresh_s = context.config.span("refresh")
        self._receipts = ReceiptSlot(new_token())
        self._adopted_at = -math.inf
        self.is_busy = False
        """True while `work` checks for due firings."""
        self.is_ending = False
        """Set to True to prevent further turns (calls of `work`)."""
        self._ended_at = context.clock.monotonic()
        self._problem = ""

    def forget(self) -> None:
        """Read all marks again in the next turn, because another leader may have moved them."""
        self._adopted_at = -math.inf

    @property
    def state(self) -> TurnState:
        """Age and error of the last turn (call of `work`)."""
        return TurnState(self._clock.monotonic() - self._ended_at, self._problem)

    async def work(self) -> float:
        """Read marks and enqueue at most one batch. Return the seconds until the next turn."""
        entries = self._book.by_queue.get(self._queue, [])
        self.is_busy = True
        try:
            await self._adopt(entries)
            was_due = await self._enqueue_due(entries)
            self._problem = ""
        except Exception as error:
            self._problem = str(error) or type(error).__name__
            raise
        finally:
            self.is_busy = False
            self._ended_at = self._clock.monotonic()
        if was_due or self.is_ending:
            return 0.0
        now, now_s = self._clock.monotonic(), self._redis_clock.time()
        waits = [max(each.next_s + AFTER_S - now_s, each.put_off_until - now) for each in entries if each.next_s]
        return max(0.0, min([self._check_every_s, *waits]))

    # --- marks --------------------------------------------------------------------------------------------------------

    async def _adopt(self, entries: Sequence[Entry]) -> None:
        """Read the unknown marks of entries from Redis, and every `refresh` seconds all marks."""
        now = self._clock.monotonic()
        is_stale = now - self._adopted_at >= self._refresh_s
        wanted = entries if is_stale else [each for each in entries if each.mark is None]
        for start in range(0, len(wanted), ADOPT_MAX):
            batch = wanted[start : start + ADOPT_MAX]
            answer = await self._runner.run(schedules.adopt(self._queue, [each.key for each in batch]))
            self._learn(answer.now_ns)
            for entry, mark in zip(batch, answer.marks, strict=True):
                entry.move(mark)
        if is_stale:
            self._adopted_at = now

    def _learn(self, now_ns: int) -> None:
        self._redis_clock.learn(now_ns, self._clock.monotonic())

    # --- due firings --------------------------------------------------------------------------------------------------

    async def _enqueue_due(self, entries: Sequence[Entry]) -> bool:
        """Send at most one batch of due firings. Return False if nothing was due."""
        now, now_s = self._clock.monotonic(), math.floor(self._redis_clock.time())
        candidates = [each for each in entries if each.put_off_until <= now]
        chosen: list[tuple[Entry, int, int]] = []
        size = 0
        # Entries that are furthest behind come last, so that they do not delay the other entries.
        for entry in sorted(candidates, key=lambda each: each.next_s or 0, reverse=True):
            if len(chosen) >= TICK_MAX or size >= BATCH_BYTES:
                break
            mark = entry.mark
            if mark is not None:
                before_s = mark.at_s
                for at_s in entry.due(now_s, TICK_MAX - len(chosen)):
                    if size >= BATCH_BYTES:
                        break
                    chosen.append((entry, before_s, at_s))
                    size += len(entry.task.payload)
                    before_s = at_s
        if chosen:
            # Prepare all firings concurrently, so that a slow hook or middleware delays only its own firing.
            batch = await asyncio.gather(*(self._prepare(*each) for each in chosen))
            held_up = [each for each in batch if isinstance(each.error, HangError)]
            if held_up:
                await self._put_off(held_up)
            ready = [each for each in batch if not isinstance(each.error, HangError)]
            if ready:
                await self._send(ready)
        return bool(chosen)

    async def _prepare(self, entry: Entry, before_s: int, at_s: int) -> _Candidate:
        call = entry.task.call
        tick = Tick(entry.key, before_s, at_s, None, entry.task.run_key)
        task_id = call.task.options.task_id or tick_task_id(entry.task.id, call.task.name, at_s)
        firing = Firing(entry=entry.task, at=utc_datetime(at_s), task_id=task_id)
        if entry.is_paused:
            return _Candidate(entry, firing, tick, None, is_paused=True)
        await self._call_hooks(self._app.timetable.before_hooks, firing)
        try:
            if self._preparer.middleware.sees_calls:
                call = await self._call(self._apply_middleware, call, timeout_s=MIDDLEWARE_S)
            # An empty context starts a new trace for each firing.
            prepared = Context().run(self._preparer.prepare, call, task_id=task_id)
            if prepared.queue.name != entry.queue.name:
                raise ConfigurationError(
                    f"a middleware moved a periodic task from queue {entry.queue.name!r} to {prepared.queue.name!r}; "
                    "give the entry the option queue= instead"
                )
        except Exception as error:
            return _Candidate(entry, firing, tick, None, error)
        tick.task = prepared.task
        return _Candidate(entry, firing, tick, prepared)

    async def _apply_middleware(self, call: Signature[Any]) -> Signature[Any]:
        guard = self._app.timetable.guard
        return await self._preparer.middleware.aoutgoing(
            call, blocking=lambda enqueue, changed: self._call(guard(enqueue), changed)
        )

    async def _put_off(self, batch: Sequence[_Candidate]) -> None:
        """Report firings whose middleware hung.

        Their marks are not moved, so these firings are tried again after `PUT_OFF_S`.
        """
        for entry in {each.entry for each in batch}:
            logger.error(
                "periodic task %s is postponed by %g s: its middleware hangs, or no thread is free for it",
                entry.task.id,
                PUT_OFF_S,
            )
            entry.put_off_until = self._clock.monotonic() + PUT_OFF_S
        failed = [(each, FiringOutcome.FAILED, each.error) for each in batch]
        self._report(failed, time.monotonic())
        await self._call_after_hooks(failed)

    async def _send(self, batch: Sequence[_Candidate]) -> None:
        started = time.monotonic()
        operation = schedules.tick(self._queue, [each.tick for each in batch], self._receipts)
        try:
            await self._register()
            answer = await self._runner.run(operation, patience_s=PATIENCE_S)
        except BrokerError as cause:
            # Use a new receipt, because the failed call may still reach Redis and write its receipt.
            self._receipts = ReceiptSlot(new_token())
            failed = [
                (each, FiringOutcome.FAILED, each.prepared.failure(cause) if each.prepared else each.error)
                for each in batch
                if not each.is_paused
            ]
            self._report(failed, started)
            await self._call_after_hooks(failed)
            raise
        self._learn(answer.now_ns)
        settled: list[_Settled] = []
        for each, code in zip(batch, answer.codes, strict=True):
            if code == TickCode.SUPERSEDED:
                each.entry.mark = None  # another scheduler changed the mark: read it from Redis in the next turn
            elif code != TickCode.EARLY and each.is_paused:
                self._skip_paused(each)
            elif code != TickCode.EARLY:
                settled.append(self._settle(each, code))
        self._report(settled, started)
        enqueued = [each.firing for each, outcome, _ in settled if outcome is FiringOutcome.ENQUEUED]
        await self._record_history(enqueued, answer.now_ns)  # recorded before the hooks, which may be slow
        await self._call_after_hooks(settled)

    async def _record_history(self, enqueued: Sequence[Firing], now_ns: int) -> None:
        """Add firings to the histories of their entries, which Asynq's tools show.

        If this fails, only log the error.
        """
        for start in range(0, len(enqueued), HISTORIES_AT_ONCE):
            operations = [
                schedules.record_firing(
                    self._preparer.keys.scheduler_history(firing.entry.id),
                    SchedulerEnqueueEvent(task_id=firing.task_id, enqueue_time_ns=now_ns).encode(),
                    at_s=now_ns // NS_PER_S,
                    kept_s=MARK_KEPT_S,
                )
                for firing in enqueued[start : start + HISTORIES_AT_ONCE]
            ]
            answers = await asyncio.gather(*map(self._runner.run, operations), return_exceptions=True)
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            if failures:
                logger.warning("writing histories of periodic tasks failed: %s", failures[0])
            for failure in failures:
                if not isinstance(failure, BrokerError):
                    raise failure
                if isinstance(failure, BrokerUnavailableError):
                    return

    @staticmethod
    def _skip_paused(candidate: _Candidate) -> None:
        """Set the entry's mark to a firing that was skipped because the entry is paused. Call no hooks."""
        entry = candidate.entry
        if entry.mark is not None:
            entry.move(Mark(candidate.tick.at_s, entry.mark.enqueued_s))

    def _settle(self, candidate: _Candidate, code: str) -> _Settled:
        entry, at_s, error = candidate.entry, candidate.tick.at_s, candidate.error
        outcome = _OUTCOMES[TickCode(code)]
        if entry.mark is not None:
            entry.move(Mark(at_s, at_s if outcome is FiringOutcome.ENQUEUED else entry.mark.enqueued_s))
        if candidate.prepared is not None:
            error = candidate.prepared.settle(code)
        else:
            logger.error(
                "periodic task %s was not enqueued for %s: %s", entry.task.id, candidate.firing.at.isoformat(), error
            )
        return candidate, outcome, error

    def _report(self, settled: Sequence[_Settled], started: float) -> None:
        for candidate, outcome, error in settled:
            if candidate.prepared is not None:
                assert error is None or isinstance(error, EnqueueError)
                self._preparer.record_sent(candidate.prepared, error, started)
            self._fired(candidate.firing, outcome, error)

    async def _call_after_hooks(self, settled: Sequence[_Settled]) -> None:
        observer = self._app.observer
        if observer is not None and observer.wants_enqueued():
            enqueued = (each for each, outcome, _ in settled if outcome is FiringOutcome.ENQUEUED)
            handles = [each.prepared.handle for each in enqueued if each.prepared is not None]
            await self._call_hooks((self._app.timetable.guard(observer.notify_enqueued),), handles)
        hooks = self._app.timetable.after_hooks
        if hooks:
            await asyncio.gather(
                *(self._call_hooks(hooks, each.firing, outcome, error) for each, outcome, error in settled)
            )

    async def _register(self) -> None:
        if self._preparer.is_unregistered(self._queue):
            operation = register_queue(self._preparer.keys.queues, (self._queue.name,))
            await self._runner.run(operation, patience_s=PATIENCE_S)
            self._preparer.record_registered(self._queue)

    # --- hooks --------------------------------------------------------------------------------------------------------

    async def _call_hooks(self, hooks: Sequence[HookFunction], *arguments: object) -> None:
        for hook in hooks:
            try:
                await self._call(hook, *arguments, timeout_s=HOOK_S)
            except Exception:
                logger.exception("a hook of periodic tasks failed")
