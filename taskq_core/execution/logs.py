"""Add the fields of the task, the request and the trace to log records: a filter, a structlog processor and formatters.

Task arguments are never logged.
"""

import json
import logging
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

from taskq_core.execution.context import current
from taskq_core.execution.propagation import REQUEST_ID, request_id
from taskq_core.telemetry import current_ids, is_log_exporter
from taskq_core.wire.quoting import clean

FIELDS = ("task_id", "task_name", "queue", "attempt", "request_id", "trace_id", "span_id")
"""Names of the fields of a log record that describe the task, the request and the trace."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def task_fields() -> dict[str, Any]:
    """Return the `FIELDS` of the task, the request and the trace in which this code runs; None for unknown values."""
    context = current.get()
    trace_id, span_id = current_ids()
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    if context is not None:
        fields |= {
            "task_id": context.id,
            "task_name": context.name,
            "queue": context.queue,
            "attempt": context.attempt,
            "request_id": context.headers.get(REQUEST_ID),
        }
    fields["request_id"] = request_id.get() or fields["request_id"]
    fields["trace_id"], fields["span_id"] = trace_id or None, span_id or None
    return fields


class TaskFilter(logging.Filter):
    """Adds the `FIELDS` to each log record: task id, name and queue, attempt, request, trace. Add it to a handler.

    Fields that a record already has are not changed. Records of the worker have them.

    Args:
        name: Name of the filter, as for every `logging.Filter`.
        default: Value of a field that is unknown, for example outside of a task.
    """

    def __init__(self, name: str = "", *, default: Any = "-") -> None:
        super().__init__(name)
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the `FIELDS` to a record as attributes. Return True."""
        values = vars(record)
        for name, value in task_fields().items():
            values.setdefault(name, value or self._default)
        return bool(super().filter(record))


class _KnownFields(logging.Filter):
    """Adds the known `FIELDS` to each log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in task_fields().items():
            if value is not None:
                vars(record).setdefault(name, value)
        return True


def complete_exported_logs() -> None:
    """Let OpenTelemetry's handlers of the root logger export the `FIELDS` of tasks with each log record."""
    for handler in logging.getLogger().handlers:
        if is_log_exporter(handler) and not any(isinstance(each, _KnownFields) for each in handler.filters):
            handler.addFilter(_KnownFields())


def add_task_fields(logger: object, method_name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the known `FIELDS` to an event. A processor for structlog.

    Example:
        `structlog.configure(processors=[add_task_fields, ..., structlog.processors.JSONRenderer()])`.
    """
    for name, value in task_fields().items():
        if value is not None:
            event.setdefault(name, value)
    return event


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON.

    Its keys: `time` (RFC 3339, UTC), `level`, `logger`, `message`, the known `FIELDS`, the values of `extra`, and
    `exception` and `stack` as text. A value of `extra` without a JSON form is written as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in line}
        known = {name: value for name, value in task_fields().items() if value is not None and name not in given}
        line |= known | {name: value for name, value in given.items() if value not in ("", "-", None)}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _json(line)


def _json(line: Mapping[str, Any]) -> str:
    try:
        return json.dumps(line, default=_text, allow_nan=False)
    # The line contains NaN, a key that is not text, or a value that contains itself.
    except (ValueError, TypeError, RecursionError):
        return json.dumps(
            {name: value if isinstance(value, str | int) else _text(value) for name, value in line.items()}
        )


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # log the record even if `__str__` fails
        return f"({type(value).__qualname__}, whose text cannot be read)"


class LineFormatter(logging.Formatter):
    """Writes the message of a record on one line, with line breaks and control characters escaped.

    The lines of a traceback follow, indented, so that no text of an exception can look like another record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, followed by the indented lines of its traceback."""
        first, *more = super().format(record).split("\n")
        return "\n".join([first, *[f"  {clean(line)}" for line in more]])

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the record's own line, without a traceback."""
        return clean(super().formatMessage(record))
