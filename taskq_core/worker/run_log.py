"""Log how each run ended: one line on `taskq.worker`, with the facts as fields of the record."""

import asyncio
import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from taskq_core.errors import TaskQError, UnknownTaskError
from taskq_core.execution.propagation import REQUEST_ID
from taskq_core.handles.attempts import users_frames
from taskq_core.handles.waits import read_wait
from taskq_core.service.line_handler import LineHandler, handlers_of
from taskq_core.service.user_code import describe
from taskq_core.telemetry import RunOutcome, current_ids
from taskq_core.telemetry.redaction import Redaction
from taskq_core.worker.run import Run

logger = logging.getLogger("taskq.worker")

_LONGEST = 200
"""Maximum length of an exception's text in the log line. The traceback below the line contains the whole text."""
LINES_S = 0.05
"""Maximum seconds for which lines of successful runs wait to be written together."""
LINES_MAX = 256
"""Maximum number of lines that are written together. They fit into the buffer of a pipe."""
_RUNS_SHOWN = 5
_CAUSES_MAX = 10
_COMPLETED = "task completed: name=%s id=%s attempt=%d/%d duration=%.3fs"
_ENDS = {
    RunOutcome.EXPIRED: "task expired",
    RunOutcome.DISCARDED: "task discarded",
    RunOutcome.REQUEUED: "task requeued",
    RunOutcome.SNOOZED: "task snoozed",
    RunOutcome.WAITING: "task waits",
}


class RunLog:
    """Logs the outcome of each run.

    Success is INFO. A failure that will be retried is WARNING, or `LOG["RETRY_LEVEL"]`. The last failure of a task is
    ERROR. Failures have their exception as `exc_info`.

    If only the handler of the command receives the records, the lines of successful runs are written together, without
    records. They wait for at most `LINES_S`.

    Args:
        redaction: Decides which parts of exceptions are shown.
        retry_level: Name of the level of a failure that will be retried.
    """

    def __init__(self, redaction: Redaction, retry_level: str) -> None:
        self._redaction = redaction
        self._retry_level = logging.getLevelNamesMapping()[retry_level]
        self._has_failed = False
        self._lines: LineHandler | None = None
        """The handler that takes the lines of successful runs until the next flush."""
        self._template = ""
        """The template of their lines."""

    def completed(self, run: Run, duration_s: float) -> None:
        """Log the success of a run. Never raises, even if the log is a broken pipe."""
        handler = self._lines
        if handler is None:
            if not logger.isEnabledFor(logging.INFO):
                return
            handler = self._open_lines()
        # A record escapes unprintable characters, and an added line does not.
        if handler is None or not run.task_id.isprintable() or not run.name.isprintable():
            self.ended(run, RunOutcome.COMPLETED, duration_s)
            return
        message = run.message
        values = (run.name, run.task_id, message.retried + 1, message.retry + 1, duration_s)
        if handler.add(self._template, values) >= LINES_MAX:
            handler.flush()

    def ended(self, run: Run, outcome: RunOutcome, duration_s: float) -> None:
        """Log the end of a run once its outcome is decided. Never raises, even if a logging filter of the user does."""
        try:
            self._ended(run, outcome, duration_s)
        except Exception:
            if not self._has_failed and logging.raiseExceptions:
                self._has_failed = True
                traceback.print_exc()  # `logging` does the same with the error of a logging handler

    def flush(self) -> None:
        """Write the lines that wait."""
        handler, self._lines = self._lines, None
        if handler is not None:
            handler.flush()

    def _open_lines(self) -> LineHandler | None:
        """Return the handler that takes lines until the next flush, or None if records are necessary."""
        handlers = handlers_of(logger)
        if len(handlers) != 1 or not isinstance(handlers[0], LineHandler):
            return None
        handler = handlers[0]
        if not handler.takes_all(logger, logging.INFO):
            return None
        self._lines = handler
        self._template = handler.template(logger, "INFO", _COMPLETED)
        asyncio.get_running_loop().call_later(LINES_S, self.flush)
        return handler

    def _ended(self, run: Run, outcome: RunOutcome, duration_s: float) -> None:
        if outcome is RunOutcome.LOST:  # already logged by the code that detected the loss
            return
        message, error = run.message, run.failure
        level, what = logging.INFO, _ENDS.get(outcome, "task completed")
        if error is not None:
            level, what = self._level(outcome), _ENDS.get(outcome, "task failed")
            if outcome is RunOutcome.SNOOZED:
                what = "task failed, without using an attempt"
        # The settler logs unknown tasks at most once a minute for each type.
        elif isinstance(run.error, UnknownTaskError):
            return
        if not logger.isEnabledFor(level):
            return
        facts = {"name": run.name, "id": run.task_id, "attempt": f"{message.retried + 1}/{message.retry + 1}"}
        exc_info: Any = None
        if error is not None:
            _leave_out_frames(error)
            shown = self._redaction.shown(error)
            facts["error"] = describe(shown).partition("\n")[0][:_LONGEST].encode(errors="replace").decode()
            exc_info = (type(shown), shown, shown.__traceback__)
        facts["duration"] = f"{duration_s:.3f}s"
        if outcome in (RunOutcome.RETRIED, RunOutcome.SNOOZED) and run.settlement is not None:
            facts["next_run" if error is None else "next_retry"] = f"{run.settlement.delay_ms / 1000:g}s"
        elif outcome is RunOutcome.WAITING and run.settlement is not None:
            wait = read_wait(run.settlement.record.decode(), None)
            facts["waits_for"] = "" if wait is None else f"{wait.kind} {wait.name!r}"
        elif outcome is RunOutcome.ARCHIVED:
            facts["state"] = "archived"
        trace_id, span_id = ("", "") if run.span is None else current_ids(run.span.context)
        text = f"{what}: {' '.join(f'{name}=%s' for name in facts)}"
        record = logger.makeRecord(logger.name, level, __file__, 0, text, tuple(facts.values()), exc_info, "ended")
        # Set the fields on the record, because `extra` refuses names that the project's record factory has set.
        record.__dict__ |= {
            "queue": run.queue.name,
            "task_id": run.task_id,
            "task_name": run.name,
            "attempt": message.retried + 1,
            "duration_s": duration_s,
            "request_id": message.headers.get(REQUEST_ID, ""),
            "trace_id": trace_id,
            "span_id": span_id,
        }
        logger.handle(record)

    def _level(self, outcome: RunOutcome) -> int:
        if outcome is RunOutcome.ARCHIVED:
            return logging.ERROR
        return self._retry_level if outcome in (RunOutcome.RETRIED, RunOutcome.SNOOZED) else logging.WARNING


def _leave_out_frames(error: BaseException) -> None:
    """Remove the worker's frames above the user's code from tracebacks of an exception and its causes."""
    each: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if each is None:
            break
        stack = users_frames(each.__traceback__)
        if stack is not None or isinstance(each, TaskQError):  # otherwise the error is the worker's, so keep all frames
            each.__traceback__ = stack
        each = each.__cause__ or each.__context__


def warn_with_stack(text: str, *values: object, stack: str, extra: Mapping[str, object] | None = None) -> None:
    """Log a warning about a task, with the stack of its function on the lines after the message."""
    record = logger.makeRecord(
        logger.name, logging.WARNING, __file__, 0, text, values, None, extra=extra, sinfo=stack or None
    )
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def runs_text(runs: Sequence[Run], now: float) -> str:
    """Return the names, ids and ages of the first runs. `now` is a monotonic time."""
    shown = [f"{run.name} (id={run.task_id}, running for {now - run.started:.0f}s)" for run in runs[:_RUNS_SHOWN]]
    more = len(runs) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)
