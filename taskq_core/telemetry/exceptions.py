"""Exceptions in spans, shortened."""

import traceback

from opentelemetry.trace import Span, Status, StatusCode

from taskq_core.service.user_code import text_of
from taskq_core.telemetry import names

MESSAGE_LIMIT = 4 * 1024
"""Characters of an exception's message that go into a span; more is cut."""
STACKTRACE_LIMIT = 16 * 1024
"""Characters of a traceback that go into a span; more is cut in the middle."""


def note_error(span: Span, error: BaseException | None, error_type: str | None) -> None:
    """Say in a span what went wrong: an event of the exception, `error.type` and the status.

    Args:
        span: A recording span.
        error: The exception, if it was one.
        error_type: Names a failure without an exception; wins over the class of `error`.
    """
    description = None
    if error is not None:
        event = {names.EXCEPTION_TYPE: type_name(error)}
        message = text_of(error)
        if message:
            description = event[names.EXCEPTION_MESSAGE] = _cut_middle(message, MESSAGE_LIMIT)
        event[names.EXCEPTION_STACKTRACE] = _cut_middle("".join(traceback.format_exception(error)), STACKTRACE_LIMIT)
        span.add_event(names.EXCEPTION_EVENT, event)
        error_type = error_type or event[names.EXCEPTION_TYPE]
    if error_type is not None:
        span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, description))


def type_name(error: BaseException) -> str:
    """Name of an exception's class as spans and metrics give it: with its module, unless it is a builtin."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _cut_middle(text: str, limit: int) -> str:
    """Keep beginning and end: in a traceback they are where it started and what was raised."""
    if len(text) <= limit:
        return text
    mark = "\n[...]\n"
    half = (limit - len(mark)) // 2
    return text[:half] + mark + text[-half:]
