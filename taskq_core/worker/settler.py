"""Settle runs: collect outcomes and send them in batches, one script call per queue.

A settlement that got no answer is sent again until the lease has certainly passed to somebody else; the script
recognises the repeat. The slot of a run is free only when its settlement is on its way, so a worker that dies loses
at most its `concurrency` outcomes.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from taskq_core.broker.operations.operation import BATCH_BYTES, BATCH_MAX, Operation
from taskq_core.broker.operations.runs import Outcome as Ended
from taskq_core.broker.operations.runs import SettleCode, Settlement, settle_done
from taskq_core.broker.operations.runs import settle as settle_operation
from taskq_core.clock import Clock
from taskq_core.errors import Discard, Retry, Snooze, TaskPaused, UnknownTaskError
from taskq_core.service.user_code import readable
from taskq_core.settings import ArchiveSettings
from taskq_core.telemetry import Outcome, WorkerMetrics, type_name
from taskq_core.wire import QueueKeys
from taskq_core.worker.listener import WorkerListener
from taskq_core.worker.outcome import YOUNG_S, lease_lost, settle, state_after, word
from taskq_core.worker.refusals import RefusalLog
from taskq_core.worker.run import Ending, Run
from taskq_core.worker.run_log import RunLog

logger = logging.getLogger("taskq.worker")

_COMPLETED = Outcome.COMPLETED.value  # a call of two functions, if asked each time
PLAIN_DONE = Settlement("", Ended.DONE, run=0)
"""The settlement of every run that just succeeded, and was not sent before: nothing to store, no lock to free."""


@dataclass(slots=True)
class SettleBatch:
    """Settlements of one queue on their way.

    Attributes:
        queue: The queue.
        runs: Whose they are.
        operation: What is sent.
        slots: How many slots are free once they have arrived. Of what is sent again that is not counted on.
        is_plain: Whether each run just succeeded, lately.
    """

    queue: QueueKeys
    runs: list[Run]
    operation: Operation[str]
    slots: int
    is_plain: bool


class Settler:
    """Gathers outcomes and reads what became of them.

    Args:
        owner: Token of the worker.
        clock: Source of monotonic time.
        redis_time: Returns Unix seconds by Redis's clock.
        lease_margin_s: Seconds after the end of a lease during which nobody else can take the task.
        metrics: Counts outcomes.
        listener: Told of each end, if it wants to be.
        log: Logs each end.
        released: Called with the runs whose slot is free now.
        archive: How much of each queue's archive is kept.
        report: Called with each run that failed, and with each that `wants` asks for, once its outcome is decided; None
            where nobody wants to know.
        archived: Whether it is to be told of a task that is archived, asked when its run has ended.
        wants: Whether somebody wants to be told of runs with this outcome, though they did not fail.
        settled: Called with the runs of a queue that are settled, before they are released; None where nobody counts.
        carry: Called with the name of a queue in which workflows have something to carry to others.
        unknown_timeout_s: Seconds for which a task of an unknown type goes back for other workers.
    """

    def __init__(
        self,
        owner: str,
        clock: Clock,
        *,
        redis_time: Callable[[], float],
        lease_margin_s: float,
        metrics: WorkerMetrics,
        listener: WorkerListener,
        log: RunLog,
        released: Callable[[Sequence[Run]], None],
        archive: ArchiveSettings | None = None,
        report: Callable[[Run], None] | None = None,
        wants: Callable[[str], bool] = lambda outcome: False,
        settled: Callable[[QueueKeys, Sequence[Run]], None] | None = None,
        carry: Callable[[str], None] = lambda queue: None,
        archived: Callable[[Run], bool] = lambda run: False,
        unknown_timeout_s: float = 0.0,
    ) -> None:
        self._unknown_timeout_s = unknown_timeout_s
        self._refusals = RefusalLog(unknown_timeout_s)
        self._owner = owner
        self._clock = clock
        self._redis_time = redis_time
        self._lease_margin_s = lease_margin_s
        self._metrics = metrics
        self._listener = listener if listener.per_task else None
        self._log = log
        self._released = released
        self._archive = archive or ArchiveSettings()
        self._report = report
        self._wants = wants
        self._count_settled = settled
        self._carry = carry
        self._is_told = archived
        self._waiting: dict[QueueKeys, list[Run]] = {}
        self.count = 0
        """Outcomes that wait to be sent."""

    def add(self, run: Run) -> None:
        """Decide how a run ends and keep it for the next batch."""
        if run.settlement is not None:
            return  # it was given back while its function still ran
        duration_s = run.duration_s = self._clock.monotonic() - run.started
        if run.ending is None and run.error is None and duration_s < YOUNG_S:
            message = run.message
            is_plain = not message.retention and not message.unique_key  # by far the most common end
            if is_plain and not self._wants(_COMPLETED):
                run.settlement = PLAIN_DONE
                run.outcome = Outcome.COMPLETED
                if run.span is not None or self._metrics.is_active or self._listener is not None or self._log.is_active:
                    self._tell(run, Outcome.COMPLETED, "deleted", duration_s)
                self._keep(run)
                return
        if run.ending is Ending.LEASE_LOST:
            self._lose(run, duration_s)
            return
        try:
            settlement = settle(
                run,
                run.result,
                run.error,
                now_s=self._redis_time(),
                duration_s=duration_s,
                worker=self._owner,
                unknown_timeout_s=self._unknown_timeout_s,
            )
        except BaseException as problem:  # code of users raised it, and the slot must become free
            logger.error(
                "the outcome of task %s cannot be stored; its lease ends", run.name, exc_info=readable(problem)
            )
            self._lose(run, duration_s)
            return
        if settlement.outcome is Ended.ARCHIVE:
            settlement.is_told = self._is_told(run)
        elif isinstance(run.error, UnknownTaskError) and run.failure is None:
            self._refusals.note(run, self._clock.monotonic())
        run.settlement = settlement
        run.outcome = word(settlement, run.failure or run.error)
        self._tell(run, run.outcome, state_after(settlement), duration_s)
        if self._report is not None and (run.failure is not None or self._wants(run.outcome.value)):
            self._report(run)
        run.result = None
        self._keep(run)

    def requeue(self, run: Run) -> None:
        """Give a task back that has not ended: the process of this worker ends, or it got the task too late."""
        run.outcome = Outcome.REQUEUED
        self._tell(run, Outcome.REQUEUED, "pending", self._clock.monotonic() - run.started)
        self._keep(run)

    def give_back(self, run: Run, now: float, why: str) -> None:
        """Give a task back that has not begun: another worker may have it by now, or nobody here wants it any more.

        Where none has, it goes back to the head of its queue without using an attempt.
        """
        run.started = now
        run.settlement = Settlement(run.task_id, Ended.REQUEUE, run.number, unique_key=run.message.unique_key)
        logger.warning(
            "task %s %s, and is given back",
            run.name,
            why,
            extra={"queue": run.queue.name, "task_id": run.task_id},
        )
        self.requeue(run)

    def _lose(self, run: Run, duration_s: float) -> None:
        logger.warning(
            "the lease of task %s was lost after %.3f s; its outcome is another worker's",
            run.name,
            duration_s,
            extra={"queue": run.queue.name, "task_id": run.task_id, "attempt": run.message.retried + 1},
        )
        self._tell(run, Outcome.LOST, "active", duration_s)
        run.failure = None  # whatever it was: what is reported is that the lease is lost
        self._report_lost(run)
        self._released((run,))

    def _report_lost(self, run: Run) -> None:
        """Report a run that is another worker's, unless its own failure was reported."""
        if self._report is not None and run.failure is None and run.context is not None:  # else it never began
            run.outcome = Outcome.LOST
            run.failure = lease_lost(run, run.error)
            self._report(run)

    def _keep(self, run: Run) -> None:
        waiting = self._waiting.get(run.queue)
        if waiting is None:
            waiting = self._waiting[run.queue] = []
        waiting.append(run)
        self.count += 1

    def _keep_again(self, run: Run) -> None:
        """Keep a run that was sent and is not known to be settled.

        Nothing is taken in its place before it is: else each refusal would let in another task, without end.
        """
        run.was_sent = True
        run.settlement = _settlement(run)
        self._keep(run)

    def _tell(self, run: Run, outcome: Outcome, state: str, duration_s: float) -> None:
        """Write span, metrics and log of an end, all by the error that error handlers are told."""
        error = run.failure or run.error
        if isinstance(error, TaskPaused):
            error = None  # it went as it should
        if run.span is not None:
            run.span.end(state, error, error_type="lease_lost" if outcome is Outcome.LOST else None)
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
        self._log.ended(run, outcome, duration_s)
        if self._listener is not None and run.context is not None:
            self._listener.task_ended(run.context, outcome.value, duration_s, error)

    def take(self, most: int = BATCH_MAX) -> list[SettleBatch]:
        """Take what waits, as one batch per queue of at most so many tasks and about `BATCH_BYTES`."""
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
                operation = settle_done(queue, [(run.task_id, run.number) for run in runs], owner=self._owner)
            else:
                operation = settle_operation(
                    queue,
                    [_settlement(run) for run in runs],
                    owner=self._owner,
                    archive=self._archive.limits(queue.name),
                )
            slots = count if is_plain else sum([not (run.is_reported or run.was_sent) for run in runs])
            batches.append(SettleBatch(queue, runs, operation, slots, is_plain))
        return batches

    def settled(self, batch: SettleBatch, codes: str) -> None:
        """Read the answer to a batch."""
        if codes.count(SettleCode.SETTLED) == len(batch.runs):
            if self._count_settled is not None:
                self._count_settled(batch.queue, batch.runs)
            self._released(batch.runs)
            return
        released, settled = [], []
        for run, code in zip(batch.runs, codes, strict=True):
            if code == SettleCode.SEND_AGAIN:
                self._keep_again(run)
                continue
            released.append(run)
            if code == SettleCode.NOT_OWNED:
                logger.warning(
                    "the outcome (%s) of task %s %s",
                    run.outcome,
                    run.name,
                    "is unknown: it was sent twice and the first answer is lost"
                    if run.repeated
                    else "was refused: another worker has taken the task over, or it is gone",
                    extra={"queue": run.queue.name, "task_id": run.task_id},
                )
                if not run.repeated:
                    self._report_lost(run)
                continue
            settled.append(run)
            if code == SettleCode.SETTLED_CARRY:
                self._carry(batch.queue.name)
        if settled and self._count_settled is not None:
            self._count_settled(batch.queue, settled)
        self._released(released)

    def unanswered(self, batch: SettleBatch) -> None:
        """Keep a batch that got no answer for a repeat, but for runs whose lease is over for good."""
        now = self._clock.monotonic()
        given_up = []
        for run in batch.runs:
            run.repeated = True
            if now < run.lease_until + self._lease_margin_s:
                self._keep_again(run)
            else:
                logger.error(
                    "the outcome (%s) of task %s could not be stored before its lease ended; it may run again",
                    run.outcome,
                    run.name,
                    extra={"queue": run.queue.name, "task_id": run.task_id},
                )
                self._report_lost(run)
                given_up.append(run)
        self._released(given_up)


def _settlement(run: Run) -> Settlement:
    assert run.settlement is not None
    if run.settlement is PLAIN_DONE:
        return Settlement(run.task_id, PLAIN_DONE.outcome, run.number)
    return run.settlement


def _fitting(runs: Sequence[Run], most: int) -> int:
    """Return how many runs go in one batch."""
    size = 0
    for count, run in enumerate(runs, start=1):
        assert run.settlement is not None
        settlement = run.settlement
        size += len(settlement.message) + len(settlement.result) + len(settlement.record) + len(settlement.cursor)
        if count >= most or size >= BATCH_BYTES:
            return count
    return len(runs)
