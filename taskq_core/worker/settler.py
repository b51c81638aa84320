"""Settle runs: collect outcomes and send them in batches, one script call per queue.

If Redis does not answer a settlement, it is sent again until the lease has certainly passed to another worker. The
script recognizes the repetition. The slot of a run becomes free only when its settlement is being sent, so a worker
that dies loses at most `concurrency` outcomes.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX, Operation
from taskq_core.broker.operations.runs import Outcome, SettleCode, Settlement, settle_done
from taskq_core.broker.operations.runs import settle as settle_operation
from taskq_core.broker.operations.services import SETTLE_CANCELS
from taskq_core.errors import BrokerError, Discard, Retry, Snooze, TaskPaused, UnknownTaskError
from taskq_core.service.user_code import readable
from taskq_core.tasks.observer import Observer
from taskq_core.telemetry import RunOutcome, type_name
from taskq_core.wire import QueueKeys
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.counted_log import CountedLog
from taskq_core.worker.dispatcher import Dispatcher
from taskq_core.worker.listener import call_guarded
from taskq_core.worker.outcome import YOUNG_S, lease_lost, run_outcome, settle, state_after
from taskq_core.worker.reporter import ErrorReporter
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.run_counters import RunCounters
from taskq_core.worker.run_log import RunLog

logger = logging.getLogger("taskq.worker")

_COMPLETED = RunOutcome.COMPLETED.value  # a constant, because each access to an enum member's value is slow
PLAIN_DONE = Settlement("", Outcome.DONE, run=0)
"""Shared settlement of all runs that succeeded without data to store or a lock to release, and that were not sent
before."""


class SettleBatch(Struct):
    """A batch of settlements of one queue that is being sent to Redis.

    Attributes:
        queue: The queue.
        runs: The settled runs.
        operation: The operation that settles them.
        slots: Number of slots that become free when Redis gets the batch. Runs whose settlement was sent before do not
            count.
        is_plain: Whether all runs have the settlement `PLAIN_DONE`.
    """

    queue: QueueKeys
    runs: list[Run]
    operation: Operation[str]
    slots: int
    is_plain: bool


class Settler:
    """Collects the outcomes of ended runs, and handles Redis's replies to their settlements.

    Args:
        context: The worker.
        counters: Counts settled runs.
        dispatcher: Dispatches workflow steps to other queues.

    Attributes:
        notify: `Fetcher.notify`, which the fetcher sets. Called when an outcome waits to be sent.
        release: `Fetcher.release`, which the fetcher sets.
        count: Number of outcomes that wait to be sent.
        ended_count: Number of runs of this worker that have ended, with any outcome.
    """

    def __init__(
        self,
        context: WorkerContext,
        *,
        counters: RunCounters,
        dispatcher: Dispatcher,
    ) -> None:
        app = context.app
        self._context = context
        self._clock = context.clock
        self._metrics = context.metrics
        self._listener = context.listener if context.listener.per_task else None
        self._log = RunLog(app.runtime.redaction, app.settings.log.retry_level)
        self._unknown_timeout_s = context.config.span("unknown_task_timeout")
        self._log_unknown = CountedLog(
            logger,
            logging.WARNING,
            "Tasks without a handler on this worker: %d of type %r; they return to the queue for other workers, and "
            f"are archived after {self._unknown_timeout_s:g} s",
            field="task_name",
        )
        self._reporter = ErrorReporter(context)
        self._is_observed = (app.observer or Observer()).wants_ended
        self._counters = counters
        self._dispatcher = dispatcher
        self._waiting: dict[QueueKeys, list[Run]] = {}
        self.notify: Callable[[], None] = lambda: None
        self.release: Callable[[int, str | None], None] = lambda slots, ended_in: None
        self.count = 0
        self.ended_count = 0

    def add(self, run: Run) -> None:
        """Decide the outcome of a run whose function has ended, and send it with the next batch."""
        if run.settlement is not None:
            return  # the worker requeued the run, because its function did not end in time
        duration_s = run.duration_s = self._clock.monotonic() - run.started
        if run.ending is None and run.error is None and duration_s < YOUNG_S:
            message = run.message
            # Nearly all runs take this branch. A shared settlement saves time.
            is_plain = not message.retention and not message.unique_key
            if is_plain and not self._is_observed(_COMPLETED):
                run.settlement = PLAIN_DONE
                run.outcome = RunOutcome.COMPLETED
                if run.span is not None or self._metrics.is_active or self._listener is not None:
                    self._report_end(run, RunOutcome.COMPLETED, "deleted", duration_s)
                else:
                    self._log.completed(run, duration_s)
                self._add_waiting(run)
                return
        if run.ending is Ending.LEASE_LOST:
            self._lose(run, duration_s)
            return
        try:
            settlement = settle(
                run,
                run.result,
                run.error,
                now_s=self._context.redis_clock.time(),
                duration_s=duration_s,
                worker=self._context.token,
                unknown_timeout_s=self._unknown_timeout_s,
            )
        # The user's code or types caused the error. Settle the run anyway, because otherwise its slot never becomes
        # free.
        except BaseException as problem:
            logger.error(
                "the outcome of task %s cannot be stored; the task runs again when its lease ends",
                run.name,
                exc_info=readable(problem),
            )
            self._lose(run, duration_s)
            return
        if settlement.outcome is Outcome.ARCHIVE:
            settlement.is_dead_letter = self._context.dead_letters[run.queue.name].expects(run.message)
        elif isinstance(run.error, UnknownTaskError) and run.failure is None:
            self._log_unknown.add(1, run.name)
        run.settlement = settlement
        run.outcome = run_outcome(settlement, run.failure or run.error)
        # A cancellation may still replace `Outcome.WAIT`, so `_finish` reports the outcome later.
        if settlement.outcome is not Outcome.WAIT:
            self._report_end(run, run.outcome, state_after(settlement), duration_s)
            if run.failure is not None or self._is_observed(run.outcome.value):
                self._report(run)
        run.result = None
        self._add_waiting(run)

    def requeue(self, run: Run) -> None:
        """Settle a run as requeued, because its function still runs or was never called.

        The caller sets `run.settlement` first.
        """
        run.outcome = RunOutcome.REQUEUED
        self._report_end(run, RunOutcome.REQUEUED, "pending", self._clock.monotonic() - run.started)
        self._add_waiting(run)

    def return_unstarted(self, run: Run, now: float, why: str) -> None:
        """Requeue a task that has not started. Its lease may have ended, or the worker no longer takes tasks.

        Unless another worker has the task, it goes to the head of its queue. Requeueing uses no attempt.
        """
        run.started = now
        run.settlement = Settlement(run.task_id, Outcome.REQUEUE, run.number, unique_key=run.message.unique_key)
        logger.warning(
            "task %s %s; it returns to its queue",
            run.name,
            why,
            extra=run.facts,
        )
        self.requeue(run)

    def _lose(self, run: Run, duration_s: float) -> None:
        logger.warning(
            "task %s lost its lease after %.3f s; its outcome is dropped, because another worker may run the task",
            run.name,
            duration_s,
            extra={"queue": run.queue.name, "task_id": run.task_id, "attempt": run.message.retried + 1},
        )
        self._report_end(run, RunOutcome.LOST, "active", duration_s)
        run.failure = None  # `_report_lost` creates a LeaseLostError instead
        self._report_lost(run)
        self._finish((run,))

    def _report(self, run: Run) -> None:
        self._reporter.report(run, self._reported)

    def _reported(self, run: Run) -> None:
        if run.is_over:
            self.release(1, None)

    def _report_lost(self, run: Run) -> None:
        """Call error handlers for a run that lost its task to another worker, unless its failure was reported."""
        if run.failure is None and run.context is not None:  # a run without a context never called its function
            run.outcome = RunOutcome.LOST
            run.failure = lease_lost(run, run.error)
            self._report(run)

    def _add_waiting(self, run: Run) -> None:
        waiting = self._waiting.get(run.queue)
        if waiting is None:
            waiting = self._waiting[run.queue] = []
        waiting.append(run)
        self.count += 1
        self.notify()

    def _send_again(self, run: Run) -> None:
        """Send the settlement of a run again with a later batch, because Redis refused or did not answer it.

        The slot of the run stays in use. Otherwise, repeated refusals would let in more and more tasks.
        """
        run.was_sent = True
        run.settlement = _settlement(run)
        self._add_waiting(run)

    def _report_end(self, run: Run, outcome: RunOutcome, state: str, duration_s: float) -> None:
        """Write span, metrics and log of an ended run, with the same error that error handlers receive."""
        error = run.failure or run.error
        if isinstance(error, TaskPaused):
            error = None  # a pause is not a failure
        if run.span is not None:
            run.span.end(state, error, error_type="lease_lost" if outcome is RunOutcome.LOST else None)
        if self._metrics.is_active:
            is_failure = error is not None and not isinstance(error, Retry | Snooze | Discard)
            self._metrics.record(
                run.queue.name,
                run.name,
                outcome,
                duration_s,
                type_name(error) if is_failure and error is not None else None,
                context=None if run.span is None else run.span.context,
            )
        if outcome is RunOutcome.COMPLETED:
            self._log.completed(run, duration_s)
        else:
            self._log.ended(run, outcome, duration_s)
        if self._listener is not None and run.context is not None:
            call_guarded(self._listener.task_ended, run.context, outcome.value, duration_s, error)

    def flush_log(self) -> None:
        """Write the log lines of runs that wait to be written together."""
        self._log.flush()

    def take(self, most: int = BATCH_MAX) -> list[SettleBatch]:
        """Return waiting outcomes as batches, one per queue, each with at most `most` runs and about `BATCH_BYTES`."""
        if self._metrics.is_active:
            self._metrics.flush()
        batches = []
        for queue in list(self._waiting):
            runs = self._waiting.pop(queue)
            is_plain = all([run.settlement is PLAIN_DONE for run in runs])  # noqa: C419 - called once, not for each
            count = min(len(runs), most) if is_plain else _fitting(runs, most)
            if count < len(runs):
                self._waiting[queue] = runs[count:]
                runs = runs[:count]
            self.count -= count
            if is_plain:
                operation = settle_done(queue, [(run.task_id, run.number) for run in runs], owner=self._context.token)
            else:
                operation = settle_operation(
                    queue,
                    [_settlement(run) for run in runs],
                    owner=self._context.token,
                    archive=self._context.app.settings.archive.limits(queue.name),
                )
            slots = count if is_plain else sum([not (run.is_reported or run.was_sent) for run in runs])
            batches.append(SettleBatch(queue, runs, operation, slots, is_plain))
        return batches

    def answered(self, batches: Sequence[SettleBatch], answers: Sequence[Any]) -> BrokerError | None:
        """Handle the replies to batches. Return an error if a batch must be sent again."""
        failure = None
        for batch, answer in zip(batches, answers, strict=False):  # `answers` may also contain the answer to a dequeue
            if isinstance(answer, BrokerError):
                failure = answer
                self.unanswered(batch)
            else:
                self.settled(batch, answer)
        return failure

    def settled(self, batch: SettleBatch, codes: str) -> None:
        """Handle Redis's reply to a settle batch."""
        if codes.count(SettleCode.SETTLED) == len(batch.runs):
            self._counters.add(batch.queue, batch.runs)
            self._finish(batch.runs)
            return
        released, settled = [], []
        for run, code in zip(batch.runs, codes, strict=True):
            if code == SettleCode.SEND_AGAIN:
                self._send_again(run)
                continue
            if code in SETTLE_CANCELS:
                run.ending, run.cancel_outcome = Ending.CANCELLED, SETTLE_CANCELS[code]
                run.settlement, run.was_sent = None, True
                self.add(run)
                continue
            released.append(run)
            if code == SettleCode.NOT_OWNED:
                logger.warning(
                    "the outcome (%s) of task %s %s",
                    run.outcome,
                    run.name,
                    "is unknown: it was sent twice, and the first answer was lost"
                    if run.repeated
                    else "was refused: another worker has the task, or the task was deleted",
                    extra=run.facts,
                )
                if not run.repeated:
                    self._report_lost(run)
                continue
            settled.append(run)
            if code == SettleCode.SETTLED_DISPATCH:
                self._dispatcher.call(batch.queue.name)
        self._counters.add(batch.queue, settled)
        self._finish(released)

    def unanswered(self, batch: SettleBatch) -> None:
        """Send the settlements of an unanswered batch again, except for runs whose lease has certainly ended."""
        now = self._clock.monotonic()
        given_up = []
        for run in batch.runs:
            run.repeated = True
            if now < run.lease_until + self._context.grace_s:
                self._send_again(run)
            else:
                logger.error(
                    "the outcome (%s) of task %s could not be stored before its lease ended; it may run again",
                    run.outcome,
                    run.name,
                    extra=run.facts,
                )
                self._report_lost(run)
                given_up.append(run)
        self._finish(given_up)

    def _finish(self, runs: Sequence[Run]) -> None:
        """Remove runs of one queue whose settlement is known, and return their slots."""
        running = self._context.running
        self.ended_count += len(runs)
        slots = len(runs)
        for run in runs:
            if run.error is not None and run.settlement is not None and run.settlement.outcome is Outcome.WAIT:
                assert run.outcome is not None
                self._report_end(run, run.outcome, "scheduled", run.duration_s)
                if run.failure is None and self._is_observed(run.outcome.value):
                    self._report(run)
            # Break the reference cycles, so that the objects are freed without a garbage collection.
            run.context = run.error = run.failure = run.coroutine = None
            # After a lost lease, a later run of the same task may be registered under the same key.
            if running.get(run.key) is run:
                del running[run.key]
            if run.is_reported:  # the slot becomes free when all error handlers have returned
                run.is_over = True
                slots -= 1
        self.release(slots, runs[0].queue.name if runs else None)


def _settlement(run: Run) -> Settlement:
    assert run.settlement is not None
    if run.settlement is PLAIN_DONE:
        return Settlement(run.task_id, PLAIN_DONE.outcome, run.number)
    return run.settlement


def _fitting(runs: Sequence[Run], most: int) -> int:
    """Return how many of the waiting runs fit into one batch of `BATCH_BYTES`."""
    size = 0
    for count, run in enumerate(runs, start=1):
        assert run.settlement is not None
        settlement = run.settlement
        size += len(settlement.message) + len(settlement.result) + len(settlement.record)
        if count >= most or size >= BATCH_BYTES:
            return count
    return len(runs)
