"""Decide how a run ends: from what its function returned or raised to what is stored. Pure."""

import logging
import math
from dataclasses import dataclass
from datetime import timedelta

from taskq_core.broker.operations import Outcome, Settlement
from taskq_core.codec import encode_result
from taskq_core.errors import Discard, PayloadError, ResultValueError, Retry, SkipRetry, Snooze
from taskq_core.retry import asynq_default
from taskq_core.settings import Duration, seconds
from taskq_core.telemetry import Outcome as Word
from taskq_core.wire import archived_message, completed_message, encode_message, retried_message
from taskq_core.worker.run import Ending, Run

logger = logging.getLogger("taskq.worker")

YOUNG_S = 1.0
"""Seconds below which a run counts as young: its id stands near the left end of the active list."""


class UnknownTaskError(Exception):
    """No task of this name is registered here."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f'handler not found for task "{self.name}": no worker that took it has this task registered'


@dataclass(slots=True)
class _Failure:
    text: str
    error: BaseException
    delay: Duration | None = None
    is_final: bool = False


def settle(run: Run, result: object, error: BaseException | None, *, now_s: int, duration_s: float) -> Settlement:
    """Return what is stored for a run whose function has ended.

    Args:
        run: The run.
        result: What the function returned.
        error: What it raised, None if it returned.
        now_s: Unix second by Redis's clock, for the times inside the message.
        duration_s: Seconds it ran.
    """
    is_young = duration_s < YOUNG_S
    if run.ending is Ending.SHUTDOWN and error is not None:
        return Settlement(run.task_id, Outcome.REQUEUE, is_young=is_young)
    if error is None and run.ending in (None, Ending.SHUTDOWN):
        settlement = _success(run, result, now_s)
        if isinstance(settlement, Settlement):
            settlement.is_young = is_young
            return settlement
        error = settlement
    failure = _failure(run, error)
    if failure is None:
        settlement = _steered(run, error)
    else:
        settlement = _failed(run, failure, now_s)
    settlement.is_young = is_young
    return settlement


def _success(run: Run, result: object, now_s: int) -> Settlement | ResultValueError:
    message = run.message
    if not message.retention:
        return Settlement(run.task_id, Outcome.DONE, unique_key=message.unique_key)
    data = b""
    if result is not None:
        try:
            data = encode_result(result)
        except ResultValueError as error:
            return error
    return Settlement(
        run.task_id,
        Outcome.COMPLETE,
        message=completed_message(message, now_s),
        seconds=message.retention,
        unique_key=message.unique_key,
        result=data,
    )


def _steered(run: Run, error: BaseException | None) -> Settlement:
    if isinstance(error, Snooze):
        delay_ms = _milliseconds(error.after)
        return Settlement(run.task_id, Outcome.RETRY_UNCOUNTED, message=encode_message(run.message), delay_ms=delay_ms)
    return Settlement(run.task_id, Outcome.DONE, unique_key=run.message.unique_key)  # Discard


def _failure(run: Run, error: BaseException | None) -> _Failure | None:
    """Return the failure, or None when the task asked to be snoozed or discarded."""
    if run.ending is Ending.TIMEOUT:
        return _Failure(Ending.TIMEOUT.value, error if isinstance(error, Exception) else TimeoutError())
    if run.ending is Ending.CANCELLED:
        # Unlike upstream, a task that somebody cancelled is not run again behind their back.
        return _Failure(Ending.CANCELLED.value, error or TimeoutError(), is_final=True)
    assert error is not None
    if isinstance(error, Snooze | Discard):
        return None
    if isinstance(error, SkipRetry):
        return _Failure(error.reason, error, is_final=True)
    if isinstance(error, Retry):
        cause = error.__cause__ or error.__context__
        text = describe(cause) if cause is not None else "the task asked to be retried"
        return _Failure(text, error, delay=error.after)
    if isinstance(error, PayloadError):
        return _Failure(str(error), error, is_final=True)
    if isinstance(error, ResultValueError):
        return _Failure(f"the task returned, but {error}", error, is_final=True)
    if isinstance(error, UnknownTaskError):
        return _Failure(str(error), error)
    is_final = False
    if run.task is not None:
        options = run.task.options
        is_final = isinstance(error, options.no_retry_on) if options.no_retry_on else False
        if options.retry_on and not isinstance(error, options.retry_on):
            is_final = True
    return _Failure(describe(error), error, is_final=is_final)


def _failed(run: Run, failure: _Failure, now_s: int) -> Settlement:
    message = run.message
    if failure.is_final or message.retried >= message.retry:
        stored = archived_message(message, error=failure.text, failed_at_s=now_s)
        return Settlement(run.task_id, Outcome.ARCHIVE, message=stored)
    delay = failure.delay if failure.delay is not None else _delay(run, failure.error)
    stored = retried_message(message, error=failure.text, failed_at_s=now_s, counts=True)
    return Settlement(run.task_id, Outcome.RETRY, message=stored, delay_ms=_milliseconds(delay))


def _delay(run: Run, error: BaseException) -> Duration:
    retried = run.message.retried
    if run.task is None:
        return asynq_default(retried, error)
    try:
        delay = run.task.options.policy(retried, error)
        return max(0.0, delay.total_seconds() if isinstance(delay, timedelta) else float(delay))
    except Exception:
        logger.exception(
            "the retry_delay of task %s failed; Asynq's default is used",
            run.message.type,
            extra={"queue": run.queue.name, "task_id": run.task_id},
        )
        return asynq_default(retried, error)


def _milliseconds(delay: Duration) -> int:
    value = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not math.isfinite(value) or value < 0:
        value = 0.0
    return math.ceil(seconds("after", min(value, 3_000_000_000.0)) * 1000)


def describe(error: BaseException) -> str:
    """Return the text stored for an exception: its class and message."""
    try:
        text = str(error)
    except Exception:  # a broken __str__ must not lose the outcome
        text = "(its text cannot be read)"
    name = type(error).__name__
    return f"{name}: {text}" if text else name


_STATES = {
    Outcome.DONE: "deleted",
    Outcome.COMPLETE: "completed",
    Outcome.RETRY: "retry",
    Outcome.RETRY_UNCOUNTED: "retry",
    Outcome.ARCHIVE: "archived",
    Outcome.REQUEUE: "pending",
}
_WORDS = {
    Outcome.DONE: Word.COMPLETED,
    Outcome.COMPLETE: Word.COMPLETED,
    Outcome.RETRY: Word.RETRIED,
    Outcome.RETRY_UNCOUNTED: Word.SNOOZED,
    Outcome.ARCHIVE: Word.ARCHIVED,
    Outcome.REQUEUE: Word.REQUEUED,
}


def state_after(settlement: Settlement) -> str:
    """Return the state a settlement leaves its task in."""
    return _STATES[settlement.outcome]


def word(settlement: Settlement, error: BaseException | None) -> Word:
    """Return the outcome as metrics, logs and listeners say it."""
    return Word.DISCARDED if isinstance(error, Discard) else _WORDS[settlement.outcome]
