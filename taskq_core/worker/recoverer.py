"""Take back tasks whose worker went silent.

Every `interval` the recoverer asks for leases that ran out longer ago than the grace and moves each task to `retry`, or
to `archived` when no attempt is left. What cannot be read is set aside with its bytes, what has no hash is dropped;
neither stops the others. A task may run twice; it is never lost. Any number of workers may run a recoverer at once: the
move is one Lua script that reads the lease again, and the second caller finds nothing to do.
"""

import logging
import math
from collections.abc import Callable

from taskq_core.app import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import ARCHIVE
from taskq_core.broker.operations.services import ExpiredTask, Recovery, Verdict, count_keys, list_expired, recover
from taskq_core.errors import LeaseLostError, WireFormatError
from taskq_core.execution.context import TaskContext
from taskq_core.handles.attempts import record_attempt
from taskq_core.service.loop import jittered
from taskq_core.settings import ArchiveLimits
from taskq_core.tasks.retry import delay_after
from taskq_core.wire import QueueKeys, TaskMessage, archived_message, decode_message, retried_message
from taskq_core.worker.outcome import counts_as_failure
from taskq_core.worker.run import Ending

logger = logging.getLogger("taskq.worker")

BATCH = 100
"""Most tasks one script call takes back."""
LOST_TEXT = "asynq: task lease expired"
"""Error text of a task whose worker was lost; Go's own, so that tools know it."""
NOT_STARTED_TEXT = f"{LOST_TEXT}: the worker was lost before the run started; no attempt is used"
"""Error text of a task whose last run was lost before it started."""
OVERRUN_TEXT = Ending.TIMEOUT.value
"""Error text of a task that did not end when its time was over."""


def always(message: TaskMessage) -> bool:
    """Every lost lease is a failure."""
    return True


def never(message: TaskMessage) -> bool:
    """Nobody wants to be told."""
    return False


def judge(
    task: ExpiredTask,
    now_s: int,
    counts: Callable[[TaskMessage], bool] = always,
    archived: Callable[[TaskMessage], bool] = never,
    *,
    is_overrun: bool = False,
    delay: Callable[[TaskMessage, Exception], float] = lambda message, error: 0.0,
) -> Recovery:
    """Return what becomes of a task whose worker was lost. Pure.

    Args:
        task: As listed.
        now_s: Unix second by Redis's clock.
        counts: Whether its lost lease is a failure, which uses an attempt.
        archived: Whether it is to be told of the task if it is archived.
        is_overrun: Whether its worker was ended because this task did not end when its time was over.
        delay: Returns the seconds until the next attempt.
    """
    if not task.message:
        return Recovery(task, Verdict.DROP)
    try:
        message = decode_message(task.message)
    except WireFormatError:
        return Recovery(task, Verdict.QUARANTINE)
    is_last = message.retried >= message.retry
    is_unstarted = is_last and not task.has_start_mark and not is_overrun
    error: Exception = LeaseLostError(message.queue, message.id, before_start=is_unstarted)
    if is_overrun:
        error = TimeoutError("the time of the task is over, and its process was ended")
    record = record_attempt(
        message.retried + 1, worker=task.owner, started_s=task.started_s, ended_s=now_s, error=error
    )
    if is_unstarted:
        stored = retried_message(message, error=NOT_STARTED_TEXT, failed_at_s=now_s, counts=False)
        return Recovery(task, Verdict.RETRY_UNCOUNTED, stored, record=record)
    if is_last:
        text = f"{LOST_TEXT}: the worker that ran it was lost, and no attempt is left"
        stored = archived_message(message, error=OVERRUN_TEXT if is_overrun else text, failed_at_s=now_s)
        return Recovery(task, Verdict.ARCHIVE, stored, record=record, is_told=archived(message))
    is_counted = is_overrun or counts(message)
    text = OVERRUN_TEXT if is_overrun else LOST_TEXT
    delay_ms = math.ceil(delay(message, error) * 1000)
    stored = retried_message(message, error=text, failed_at_s=now_s, counts=is_counted)
    verdict = Verdict.RETRY if is_counted else Verdict.RETRY_UNCOUNTED
    return Recovery(task, verdict, stored, delay_ms=delay_ms, record=record)


def loss_counts(app: TaskQ, queue: QueueKeys, message: TaskMessage) -> bool:
    """Whether it is a failure that the worker of a task was lost, as the task's `is_failure` says."""
    is_failure = app.find_handler(message.type).options.is_failure
    error = LeaseLostError(queue.name, message.id)
    return counts_as_failure(is_failure, error, name=message.type, queue=queue.name, task_id=message.id)


def delay_after_loss(app: TaskQ, queue: QueueKeys, message: TaskMessage, error: Exception) -> float:
    """Return the seconds until the next attempt of a task that was lost with its process or worker.

    A `retry_delay` that is set for the task, or for all tasks, applies as after any other attempt. Without one a task
    runs again at once after its first loss: most tasks that are lost did not end their worker. After a second loss in a
    row, or when the task exceeded its time, Asynq's default applies. The same holds for types that are unknown here.
    """
    options = app.find_handler(message.type).options
    is_first_loss = isinstance(error, LeaseLostError) and message.error_msg != LOST_TEXT
    if options.retry_delay is None and is_first_loss:
        return 0.0
    context = TaskContext(
        id=message.id,
        name=message.type,
        queue=queue.name,
        retried=message.retried,
        max_retry=message.retry,
        headers=dict(message.headers),
    )
    return delay_after(options.policy, message.retried, error, context)


class Recoverer:
    """Takes back lost tasks of one queue.

    Args:
        queue: Key names of the queue.
        runner: Sends operations.
        every_s: Seconds between two looks.
        grace_s: Seconds after which a lapsed lease is acted on.
        archive: How much of the archive is kept.
        counts: Whether the lost lease of a task is a failure, which uses an attempt.
        archived: Whether it is to be told of a task that is archived.
        delay: Returns the seconds until the next attempt of a task, given its message and the error.
    """

    def __init__(
        self,
        queue: QueueKeys,
        runner: AsyncRunner,
        *,
        every_s: float,
        grace_s: float,
        archive: ArchiveLimits = ARCHIVE,
        counts: Callable[[TaskMessage], bool] = always,
        archived: Callable[[TaskMessage], bool] = never,
        delay: Callable[[TaskMessage, Exception], float] = lambda message, error: 0.0,
    ) -> None:
        self._delay = delay
        self._queue = queue
        self._runner = runner
        self._every_s = every_s
        self._archive = archive
        self._counts = counts
        self._archived = archived
        self._grace_s = int(-(-grace_s // 1))
        self.recovered = 0
        """Tasks taken back so far."""

    async def work(self) -> float:
        """Take back what was lost; return the seconds until the next look."""
        if not await self._runner.run(count_keys((self._queue.lease,))):
            return jittered(self._every_s)  # nothing is active
        while True:
            expired = await self._runner.run(list_expired(self._queue, grace_s=self._grace_s, limit=BATCH))
            if not expired.tasks:
                break
            recoveries = [
                judge(task, expired.now_ns // 1_000_000_000, self._counts, self._archived, delay=self._delay)
                for task in expired.tasks
            ]
            codes = await self._runner.run(
                recover(self._queue, recoveries, grace_s=self._grace_s, archive=self._archive)
            )
            for recovery, code in zip(recoveries, codes, strict=True):
                if code == "1":
                    self.recovered += 1
                    self._log(recovery)
            if "1" not in codes or (len(expired.tasks) < BATCH and "2" not in codes):
                break
        return jittered(self._every_s)

    def _log(self, recovery: Recovery) -> None:
        words = {
            Verdict.RETRY: "will be retried",
            Verdict.RETRY_UNCOUNTED: "will be retried",
            Verdict.ARCHIVE: "is archived: no attempt is left",
            Verdict.QUARANTINE: "cannot be read and is set aside",
            Verdict.DROP: "has no data any more and is dropped",
        }
        logger.warning(
            "a task's worker went silent; the task %s",
            words[recovery.verdict],
            extra={"queue": self._queue.name, "task_id": recovery.task.task_id},
        )
