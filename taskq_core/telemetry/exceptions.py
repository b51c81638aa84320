"""Record shortened exceptions in spans."""

import traceback

from opentelemetry.trace import Span, Status, StatusCode

from taskq_core.service.user_code import text_of
from taskq_core.telemetry import names

MESSAGE_LIMIT = 4 * 1024
"""Maximum length of an exception's message in a span, in characters."""
STACKTRACE_LIMIT = 16 * 1024
"""Maximum length of a traceback in a span, in characters. Longer ones are cut in the middle."""


def record_error(span: Span, error: BaseException | None, error_type: str | None) -> None:
    """Record a failure in a span: an event for the exception, the attribute `error.type`, and the status.

    Args:
        span: A recording span.
        error: The exception, None for a failure without an exception.
        error_type: Name of a failure without an exception. It replaces the class of `error`.
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
    """Return the class name of an exception for spans and metrics: with its module, unless it is a builtin."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _cut_middle(text: str, limit: int) -> str:
    """Shorten a traceback by leaving out its middle.

    Keep the beginning, with the outermost calls, and the end, with the exception.
    """
    if len(text) <= limit:
        return text
    mark = "\n[...]\n"
    half = (limit - len(mark)) // 2
    return text[:half] + mark + text[-half:]
