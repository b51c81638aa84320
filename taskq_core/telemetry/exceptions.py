"""Exceptions in spans: shortened, and without their messages where those may hold data."""

import traceback

from opentelemetry.trace import Span, Status, StatusCode

from taskq_core.telemetry import names

MESSAGE_LIMIT = 4 * 1024
"""Characters of an exception's message that go into a span; more is cut."""
STACKTRACE_LIMIT = 16 * 1024
"""Characters of a traceback that go into a span; more is cut in the middle."""


def note_error(span: Span, error: BaseException | None, error_type: str | None, *, messages: bool) -> None:
    """Say in a span what went wrong: an event of the exception, `error.type` and the status.

    Args:
        span: A recording span.
        error: The exception, if it was one.
        error_type: Names a failure that is no exception; wins over the class of `error`.
        messages: False leaves the messages of exceptions out. Type and stack stay.
    """
    description = None
    if error is not None:
        event = {names.EXCEPTION_TYPE: type_name(error)}
        if messages:
            description = _cut_middle(_text(error), MESSAGE_LIMIT)
            event[names.EXCEPTION_MESSAGE] = description
            stack = "".join(traceback.format_exception(error))
        else:
            # Frames only: the last line of a full traceback is the message, and so are those of causes.
            stack = "".join(traceback.format_tb(error.__traceback__))
        event[names.EXCEPTION_STACKTRACE] = _cut_middle(stack, STACKTRACE_LIMIT)
        span.add_event(names.EXCEPTION_EVENT, event)
        error_type = error_type or event[names.EXCEPTION_TYPE]
    if error_type is not None:
        span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, description))


def type_name(error: BaseException) -> str:
    """Name of an exception's class as spans and metrics give it: with its module, unless it is a builtin."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a broken __str__ of a user's exception
        return "<no readable message>"


def _cut_middle(text: str, limit: int) -> str:
    """Keep beginning and end: in a traceback they are where it started and what was raised."""
    if len(text) <= limit:
        return text
    mark = "\n[...]\n"
    half = (limit - len(mark)) // 2
    return text[:half] + mark + text[-half:]
