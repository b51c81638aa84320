"""Recover the tasks of workers that no longer extend their leases.

Every few seconds the recoverer lists leases that expired more than `lease_grace` ago. It moves each task to `retry`, or
to `archived` when no attempt is left. A task that cannot be decoded is moved to quarantine. An id without a task is
dropped. A task may run twice, but it is never lost. Several recoverers may run at the same time: the Lua script reads
the lease again, so the second one finds nothing to do.
"""

import logging
import math
from collections.abc import Callable

from taskq_core.app import TaskQ
from taskq_core.broker.operations.services import ExpiredTask, Recovery, Verdict, list_expired, recover
from taskq_core.errors import LeaseLostError, WireFormatError
from taskq_core.execution.context import TaskContext
from taskq_core.execution.retry import delay_after
from taskq_core.handles.attempts import record_attempt
from taskq_core.service.loop import jittered
from taskq_core.wire import QueueKeys, TaskMessage, archived_message, decode_message, retried_message
from taskq_core.wire.durations import NS_PER_S
from taskq_core.worker.context import WorkerContext
from taskq_core.worker.leadership import Leadership, QueueService
from taskq_core.worker.outcome import counts_as_failure
from taskq_core.worker.run import Ending

logger = logging.getLogger("taskq.worker")

BATCH = 100
"""Maximum number of lost tasks that one script call handles."""
LOST_TEXT = "asynq: task lease expired"
"""Error text of a task whose worker was lost. Go workers store the same text, so tools recognize it."""
NOT_STARTED_TEXT = f"{LOST_TEXT}: the worker was lost before the run started; no attempt is used"
"""Error text of a task whose last run was lost before it started."""
OVERRUN_TEXT = Ending.TIMEOUT.value
"""Error text of a task that ran past its timeout or deadline."""


def decide(
    app: TaskQ,
    queue: QueueKeys,
    task: ExpiredTask,
    now_s: int,
    needs_dead_letter: Callable[[TaskMessage], bool],
    *,
    is_overrun: bool = False,
) -> Recovery:
    """Decide what happens to a task whose worker was lost: it is retried, archived, quarantined or dropped.

    Args:
        app: The queue application. The options of its tasks apply.
        queue: Key names of the queue.
        task: The task, as listed.
        now_s: Unix second by Redis's clock.
        needs_dead_letter: Returns whether the task needs a dead letter if it is archived.
        is_overrun: Whether the worker was killed because this task ran past its timeout or deadline.
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
        error = TimeoutError("the task ran past its timeout or deadline, and its process was killed")
    record = record_attempt(
        message.retried + 1, worker=task.owner, started_s=task.started_s, ended_s=now_s, error=error
    )
    if is_unstarted:
        stored = retried_message(message, error=NOT_STARTED_TEXT, failed_at_s=now_s, counts=False)
        return Recovery(task, Verdict.RETRY_UNCOUNTED, stored, record=record)
    if is_last:
        text = f"{LOST_TEXT}: the worker that ran it was lost, and no attempt is left"
        stored = archived_message(message, error=OVERRUN_TEXT if is_overrun else text, failed_at_s=now_s)
        return Recovery(task, Verdict.ARCHIVE, stored, record=record, is_dead_letter=needs_dead_letter(message))
    is_failure = app.find_handler(message.type).options.is_failure
    is_counted = is_overrun or counts_as_failure(
        is_failure, LeaseLostError(queue.name, message.id), name=message.type, queue=queue.name, task_id=message.id
    )
    text = OVERRUN_TEXT if is_overrun else LOST_TEXT
    delay_ms = math.ceil(delay_after_loss(app, queue, message, error) * 1000)
    stored = retried_message(message, error=text, failed_at_s=now_s, counts=is_counted)
    verdict = Verdict.RETRY if is_counted else Verdict.RETRY_UNCOUNTED
    return Recovery(task, verdict, stored, delay_ms=delay_ms, record=record)


def delay_after_loss(app: TaskQ, queue: QueueKeys, message: TaskMessage, error: Exception) -> float:
    """Return the seconds until the next attempt of a task that was lost with its process or worker.

    If the task or the defaults of all tasks set `retry_delay`, this option decides, as after any other attempt.
    Otherwise, a task runs again at once after its first loss, because most lost tasks did not cause the loss. After a
    second loss in a row, or if the task exceeded its time, Asynq's default applies. These rules also apply to types
    that this application does not know.
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


def log_recovery(queue: QueueKeys, recovery: Recovery, reason: str) -> None:
    """Log what happened to a lost task.

    Args:
        queue: Key names of the queue.
        recovery: The task, and the decision that was carried out.
        reason: Why the task counts as lost, as a clause for the log line.
    """
    descriptions = {
        Verdict.RETRY: "will be retried",
        Verdict.RETRY_UNCOUNTED: "will be retried",
        Verdict.ARCHIVE: "is archived, because no attempt is left",
        Verdict.QUARANTINE: "cannot be read and is moved to quarantine",
        Verdict.DROP: "has no stored data, and its id is removed",
    }
    facts = {"queue": queue.name, "task_id": recovery.task.task_id}
    logger.warning("%s; the task %s", reason, descriptions[recovery.verdict], extra=facts)


class Recoverer(QueueService):
    """Takes back lost tasks of one queue."""

    name = "recoverer"

    def __init__(self, context: WorkerContext, queue: QueueKeys, leadership: Leadership) -> None:
        super().__init__(context, queue, leadership)
        self._every_s = context.config.span("recover_every")
        self._grace_s = math.ceil(context.grace_s)
        self._archive = context.app.settings.archive.limits(queue.name)
        self._max_message = context.app.settings.max_message_bytes

    async def work(self) -> float:
        """Take back lost tasks. Return the seconds until the next call."""
        if not await self._context.may_have(self._queue, "lease"):
            return jittered(self._every_s)  # no active task, so no lease can have expired
        while True:
            needs_dead_letter = self._context.dead_letters[self._queue.name].expects
            expired = await self._runner.run(
                list_expired(self._queue, grace_s=self._grace_s, limit=BATCH, max_message=self._max_message)
            )
            if not expired.tasks:
                break
            recoveries = [
                decide(self._app, self._queue, task, expired.now_ns // NS_PER_S, needs_dead_letter)
                for task in expired.tasks
            ]
            codes = await self._runner.run(
                recover(
                    self._queue,
                    recoveries,
                    grace_s=self._grace_s,
                    archive=self._archive,
                    max_message=self._max_message,
                )
            )
            for recovery, code in zip(recoveries, codes, strict=True):
                if code == "1":
                    log_recovery(self._queue, recovery, "the worker of a task no longer extends its lease")
            if "1" not in codes or not (expired.has_more or "2" in codes):
                break
        return jittered(self._every_s)
