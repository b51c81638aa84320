"""Context that a task propagates from its enqueue to its run, in headers: request id, language, time zone.

The adapter of a framework writes the values that are active at the enqueue, and activates them around the run. Tasks
without these headers run unchanged.
"""

from contextvars import ContextVar

REQUEST_ID, LANGUAGE, TIME_ZONE = "taskq-request-id", "taskq-language", "taskq-timezone"
LONGEST = 200
"""Maximum length of a propagated value, in characters."""

request_id: ContextVar[str] = ContextVar("taskq_request_id", default="")
"""Id of the current request, "" outside of a request. Adapters set it in requests, and in runs of tasks."""


def readable(value: object) -> str:
    """Convert a propagated value to header text; "" if it is None, too long, or has unprintable characters."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if 0 < len(text) <= LONGEST and text.isprintable() else ""
