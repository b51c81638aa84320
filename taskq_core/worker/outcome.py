"""Decide the outcome of a run from its function's result or error. Pure functions."""

import asyncio
import logging
import math
import random
import re
from collections.abc import Callable

from msgspec import Struct

from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.broker.operations.services import CancelOutcome
from taskq_core.codec import encode_result_within
from taskq_core.codec.oversized import OversizedResult
from taskq_core.errors import (
    Discard,
    LeaseLostError,
    MissingReferenceError,
    PayloadError,
    ResultValueError,
    Retry,
    SkipRetry,
    Snooze,
    StepError,
    TaskCancelledError,
    TaskExpiredError,
    TaskPaused,
    TaskWaiting,
    UnknownTaskError,
)
from taskq_core.execution.retry import asynq_default, delay_after, delay_s, is_delay
from taskq_core.handles.attempts import record_attempt
from taskq_core.handles.expiry import is_discarded_when_expired
from taskq_core.service.user_code import describe, readable, text_of
from taskq_core.settings import Duration
from taskq_core.telemetry import FIRST_RUN, RUN, RunOutcome
from taskq_core.wire import (
    EXPIRES,
    TaskMessage,
    archived_message,
    clean_text,
    completed_message,
    encode_message,
    retried_message,
)
from taskq_core.worker.run import Ending, Run
from taskq_core.workflow.sending import WORKFLOW

logger = logging.getLogger("taskq.worker")

YOUNG_S = 1.0
"""Maximum duration in seconds of a young run. The settle script searches its id from the left end of the active list,
where new ids are."""
PUT_BACK_MIN_S, PUT_BACK_MAX_S = 1.0, 60.0
"""Minimum and maximum seconds for which a task of an unknown type waits before it is offered to workers again."""
COUNTED_MAX_S = 300
"""A worker refuses a task of an unknown type. At most this many seconds between two refusals count towards
`unknown_task_timeout`."""
_WAITED = re.compile(r" \(waiting for a worker that has it: (\d{1,9}) s so far\)$")


class _Failure(Struct):
    text: str
    error: BaseException
    delay: Duration | None = None
    is_final: bool = False
    is_dropped: bool = False


def settle(
    run: Run,
    result: object,
    error: BaseException | None,
    *,
    now_s: float,
    duration_s: float,
    worker: str = "",
    unknown_timeout_s: float = 0.0,
) -> Settlement:
    """Return the settlement of a run whose function has ended. Set `failure` of the run if it failed.

    Args:
        run: The run.
        result: Return value of the function.
        error: Exception that the function raised, or None.
        now_s: Unix seconds by Redis's clock.
        duration_s: Duration of the run.
        worker: Token of the worker.
        unknown_timeout_s: Seconds for which a task of an unknown type goes back to its queue for other workers.
    """
    try:
        settlement = None
        if isinstance(error, UnknownTaskError) and error.name == run.name and run.ending is None:
            settlement = _put_back(run, error, now_s=int(now_s), timeout_s=unknown_timeout_s, worker=worker)
        if settlement is None:
            settlement = _settle(run, result, error, now_s=now_s, duration_s=duration_s, worker=worker)
    except BaseException as problem:  # encoding the result runs user code, which may raise anything
        unsettled = _unsettled(error, problem)
        settlement = _settle(run, None, unsettled, now_s=now_s, duration_s=duration_s, worker=worker)
    settlement.unique_key = run.message.unique_key
    return settlement


def _unsettled(error: BaseException | None, problem: BaseException) -> BaseException:
    """Return the error of a run whose outcome could not be decided, because user code failed during the decision."""
    text = f"the outcome of the run cannot be decided: {describe(problem)}"
    unsettled = ResultValueError(text) if error is None else RuntimeError(f"{describe(error)}, but {text}")
    unsettled.__cause__ = readable(problem)
    return unsettled


def requeued(run: Run) -> Settlement:
    """Return the settlement that returns a run to the head of its queue."""
    return Settlement(run.task_id, Outcome.REQUEUE, run.number, unique_key=run.message.unique_key)


def _settle(
    run: Run, result: object, error: BaseException | None, *, now_s: float, duration_s: float, worker: str
) -> Settlement:
    is_young = duration_s < YOUNG_S
    if run.span is not None and WORKFLOW in run.message.headers and run.span.traceparent is not None:
        run.message.headers[RUN] = run.span.traceparent
    if error is not None and run.ending in (None, Ending.SHUTDOWN):
        pause = pause_of(error)
        if isinstance(pause, TaskWaiting):
            _store_first_run_trace(run)
            run.message.headers.pop(EXPIRES, None)  # a task must start before EXPIRES, but it may continue later
            return Settlement(
                run.task_id,
                Outcome.WAIT,
                run.number,
                message=encode_message(run.message),
                delay_ms=pause.until_ms,
                record=f"{pause.emitted} {pause.wait}".encode(),
                is_young=is_young,
            )
        if run.ending is Ending.SHUTDOWN or (pause is not None and pause.is_stopping):
            return Settlement(run.task_id, Outcome.REQUEUE, run.number, is_young=is_young)
        if pause is not None:  # a paused task lets the pending tasks of its queue run first
            message = encode_message(run.message)
            return Settlement(run.task_id, Outcome.RETRY_UNCOUNTED, run.number, message=message, is_young=is_young)
    if error is None and run.ending in (None, Ending.SHUTDOWN):
        settlement = _success(run, result, int(now_s))
        if isinstance(settlement, Settlement):
            if settlement.outcome is Outcome.COMPLETE:
                settlement.record = _record(run, None, now_s, duration_s, worker)
            settlement.is_young = is_young
            return settlement
        error = settlement
    failure = _failure(run, error)
    if failure is None:
        settlement = _snoozed_or_discarded(run, error)
    else:
        run.failure = failure.error
        settlement = _failed(run, failure, int(now_s))
        settlement.record = _record(run, failure.error, now_s, duration_s, worker)
    settlement.is_young = is_young
    return settlement


def _put_back(run: Run, error: UnknownTaskError, *, now_s: int, timeout_s: float, worker: str) -> Settlement | None:
    """Return the settlement that puts a task of an unknown type back into its queue for other workers.

    Return None after the timeout.

    The waiting time so far is stored in the text of the task's last error, so that every worker can read it and Go's
    tools show it. Any other error resets the waiting time.
    """
    text = clean_text(text_of(error), 1024)  # leaves space for the waiting time at the end of the text
    waited_s = _waited_s(run.message, clean_text(str(UnknownTaskError(error.name)), 1024), now_s)
    if (waited_s or 0) >= timeout_s:
        return None
    message = retried_message(
        run.message,
        error=f"{text} (waiting for a worker that has it: {waited_s or 0} s so far)",
        failed_at_s=now_s,
        counts=False,
    )
    wait_s = min(max(waited_s or 0, PUT_BACK_MIN_S), PUT_BACK_MAX_S) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    delay_ms = _milliseconds(wait_s)
    settlement = Settlement(run.task_id, Outcome.RETRY_UNCOUNTED, run.number, message=message, delay_ms=delay_ms)
    if waited_s is None:  # record only the first error of an unknown task: more would displace real attempts
        settlement.record = _record(run, error, now_s, 0.0, worker)
    return settlement


def _waited_s(message: TaskMessage, beginning: str, now_s: int) -> int | None:
    """Return for how many seconds workers have refused a task of an unknown type, or None if no worker has refused it.

    Count at most `COUNTED_MAX_S` between two refusals, so that the time while the queue is paused does not count.
    """
    found = _WAITED.search(message.error_msg) if message.error_msg.startswith(beginning) else None
    if found is None:
        return None
    return int(found[1]) + min(max(0, now_s - message.last_failed_at), COUNTED_MAX_S)


def pause_of(error: BaseException | None) -> TaskPaused | None:
    """Return the `TaskPaused` that a function raised, alone or in an exception group, to end its run.

    None: the function raised no such exception.
    """
    if isinstance(error, BaseExceptionGroup):
        pauses = [pause_of(each) for each in error.exceptions]
        return None if None in pauses else pauses[0]
    return error if isinstance(error, TaskPaused) else None


def _success(run: Run, result: object, now_s: int) -> Settlement | ResultValueError:
    message = run.message
    if not message.retention:
        return Settlement(run.task_id, Outcome.DONE, run.number)
    data: bytes | OversizedResult = b""
    if isinstance(result, OversizedResult):  # the separate process of the task found that the result is too large
        data = result
    elif result is not None:
        assert run.task is not None
        try:
            data = encode_result_within(result, run.task.options.max_result_bytes)
        except ResultValueError as error:
            return error
    settlement = Settlement(
        run.task_id,
        Outcome.COMPLETE,
        run.number,
        message=completed_message(message, now_s),
        seconds=message.retention,
    )
    if isinstance(data, OversizedResult):
        warn_oversized(run, data)
        settlement.result, settlement.is_oversized = data.stored, True
    else:
        settlement.result = data
    return settlement


def warn_oversized(run: Run, result: OversizedResult) -> None:
    """Log that a result is not stored because it is too large."""
    logger.warning(
        "the result of task %s is too large: %s",
        run.name,
        result,
        extra={"queue": run.queue.name, "task_id": run.task_id},
    )


def _record(run: Run, error: BaseException | None, now_s: float, duration_s: float, worker: str) -> bytes:
    """Return a record of this attempt, which is stored with the task."""
    number = run.message.retried + 1 if run.failed_step is None else run.failed_step.count
    return record_attempt(number, worker=worker, started_s=now_s - duration_s, ended_s=now_s, error=error)


def _snoozed_or_discarded(run: Run, error: BaseException | None) -> Settlement:
    if isinstance(error, Snooze):
        delay_ms = _milliseconds(error.after)
        _store_first_run_trace(run)
        return Settlement(
            run.task_id, Outcome.RETRY_UNCOUNTED, run.number, message=encode_message(run.message), delay_ms=delay_ms
        )
    return Settlement(run.task_id, Outcome.DONE, run.number)  # the function has raised Discard


def _failure(run: Run, error: BaseException | None) -> _Failure | None:
    """Convert the error of a run to a failure. Return None if the function requested a snooze or a discard."""
    if run.ending is Ending.TIMEOUT:
        cause = error if isinstance(error, Exception) else TimeoutError("the task ran past its timeout or deadline")
        if cause is not error:
            cause.__cause__ = error  # the traceback of `error` shows where the function was interrupted
        return _Failure(Ending.TIMEOUT.value, cause, is_final=_is_final(run, cause))
    if run.ending is Ending.CANCELLED:
        # Unlike in Asynq, a cancelled task does not run again, unless its function raises `Retry` or a similar
        # exception.
        if isinstance(error, Discard):
            return None
        if isinstance(error, SkipRetry):
            return _Failure(text_of(error.reason), error, is_final=True)
        cancelled = TaskCancelledError(run.queue.name, run.task_id)
        cancelled.__cause__ = error
        delay = error.after if isinstance(error, Retry) and error.after is not None and is_delay(error.after) else None
        is_final = run.cancel_outcome is not CancelOutcome.RETRY
        is_dropped = run.cancel_outcome is CancelOutcome.DISCARD
        return _Failure(Ending.CANCELLED.value, cancelled, delay, is_final=is_final, is_dropped=is_dropped)
    assert error is not None
    if isinstance(error, Discard):
        return None
    if isinstance(error, Snooze) and is_delay(error.after):
        return None
    if isinstance(error, SkipRetry):
        return _Failure(text_of(error.reason), error, is_final=True)
    if isinstance(error, Retry) and (error.after is None or is_delay(error.after)):
        origin = error.__cause__ or error.__context__
        text = describe(origin) if origin is not None else "the task asked to be retried"
        return _Failure(text, error, delay=error.after)
    if isinstance(error, Snooze | Retry):
        name = type(error).__name__
        return _Failure(f"{name}(after=) takes seconds or a timedelta, got {type(error.after).__name__}", error)
    if isinstance(error, TaskExpiredError):
        return _Failure(error.reason, error, is_final=True)
    if isinstance(error, PayloadError):
        return _Failure(str(error), error, is_final=True)
    if isinstance(error, ResultValueError):
        return _Failure(f"the task returned, but {error}", error, is_final=True)
    if isinstance(error, MissingReferenceError):
        return _Failure(describe(error), error, is_final=True)
    if isinstance(error, UnknownTaskError):
        return _Failure(str(error), error, is_final=error.name == run.name)
    text = describe(error)
    # Name the origin, because a bare CancelledError looks as if an operator or the worker had cancelled the run.
    if isinstance(error, asyncio.CancelledError):
        text += " (not cancelled by the worker)"
    is_final = (isinstance(error, StepError) and error.is_final) or (
        run.failed_step is not None and run.failed_step.is_final
    )
    return _Failure(text, error, is_final=is_final or _is_final(run, error))


def _is_final(run: Run, error: BaseException) -> bool:
    """Return whether the task's options exclude retries after this error."""
    if run.task is None:
        return False
    options = run.task.options
    if isinstance(error, options.no_retry_on):
        return True
    return bool(options.retry_on) and not isinstance(error, options.retry_on)


def _failed(run: Run, failure: _Failure, now_s: int) -> Settlement:
    message = run.message
    is_expired = isinstance(failure.error, TaskExpiredError)
    if failure.is_dropped or (is_expired and is_discarded_when_expired(message)):
        return Settlement(run.task_id, Outcome.DONE, run.number)
    step = run.failed_step  # failures are counted for each step, and the others for the task
    retried = message.retried if step is None else step.count - 1
    if failure.is_final or retried >= message.retry:
        stored = archived_message(message, error=failure.text, failed_at_s=now_s)
        return Settlement(run.task_id, Outcome.ARCHIVE, run.number, message=stored)
    _store_first_run_trace(run)
    delay = failure.delay if failure.delay is not None else _delay(run, failure.error, max(0, retried))
    is_counted = isinstance(failure.error, Retry) or counts(run, failure.error)
    stored = retried_message(message, error=failure.text, failed_at_s=now_s, counts=is_counted and step is None)
    outcome = Outcome.RETRY if is_counted else Outcome.RETRY_UNCOUNTED
    return Settlement(run.task_id, outcome, run.number, message=stored, delay_ms=_milliseconds(delay))


def _store_first_run_trace(run: Run) -> None:
    """Write the trace of the first run into the task's headers. Later runs link to it."""
    span, headers = run.span, run.message.headers
    if span is not None and FIRST_RUN not in headers:
        traceparent = span.traceparent
        if traceparent is not None:
            headers[FIRST_RUN] = traceparent


def counts(run: Run, error: BaseException) -> bool:
    """Return whether an error of a run counts as a failure, by the options of its task."""
    if run.task is None:
        return True
    return counts_as_failure(
        run.task.options.is_failure, error, name=run.name, queue=run.queue.name, task_id=run.task_id
    )


def counts_as_failure(
    is_failure: Callable[[BaseException], bool] | None, error: BaseException, *, name: str, queue: str, task_id: str
) -> bool:
    """Return whether the option `is_failure` counts an error as a failure.

    Return True if the user's function raises an error.
    """
    if is_failure is None:
        return True
    try:
        return bool(is_failure(error))
    except BaseException as problem:
        logger.error(
            "the option is_failure of task %s failed; the error counts as a failure",
            name,
            exc_info=readable(problem),
            extra={"queue": queue, "task_id": task_id},
        )
        return True


def lease_lost(run: Run, error: BaseException | None) -> LeaseLostError:
    """Return the error that error handlers receive for a lost lease. Its cause is the function's own error."""
    lost = LeaseLostError(run.queue.name, run.task_id)
    lost.__cause__ = error
    return lost


def _delay(run: Run, error: BaseException, retried: int) -> float:
    if run.task is None:
        return asynq_default(retried, error)
    assert run.context is not None
    return delay_after(run.task.options.policy, retried, error, run.context)


def _milliseconds(delay: Duration) -> int:
    return math.ceil(delay_s(delay) * 1000)


_STATES = {
    Outcome.DONE: "deleted",
    Outcome.COMPLETE: "completed",
    Outcome.RETRY: "retry",
    Outcome.RETRY_UNCOUNTED: "retry",
    Outcome.ARCHIVE: "archived",
    Outcome.REQUEUE: "pending",
    Outcome.WAIT: "scheduled",
}
_RUN_OUTCOMES = {
    Outcome.DONE: RunOutcome.COMPLETED,
    Outcome.COMPLETE: RunOutcome.COMPLETED,
    Outcome.RETRY: RunOutcome.RETRIED,
    Outcome.RETRY_UNCOUNTED: RunOutcome.SNOOZED,
    Outcome.ARCHIVE: RunOutcome.ARCHIVED,
    Outcome.REQUEUE: RunOutcome.REQUEUED,
    Outcome.WAIT: RunOutcome.WAITING,
}


def state_after(settlement: Settlement) -> str:
    """Return the state of the task after a settlement."""
    return _STATES[settlement.outcome]


def run_outcome(settlement: Settlement, error: BaseException | None) -> RunOutcome:
    """Return the outcome for metrics, logs and listeners."""
    if isinstance(error, TaskExpiredError) and settlement.outcome in (Outcome.ARCHIVE, Outcome.DONE):
        return RunOutcome.EXPIRED
    is_dropped = isinstance(error, TaskCancelledError) and settlement.outcome is Outcome.DONE
    return RunOutcome.DISCARDED if is_dropped or isinstance(error, Discard) else _RUN_OUTCOMES[settlement.outcome]
