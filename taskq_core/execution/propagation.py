"""Context that a task propagates from its enqueue to its run, in headers: request id, language, time zone.

The adapter of a framework writes the values that are active at the enqueue, and activates them around the run. Tasks
without these headers run unchanged.
"""

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar

from taskq_core.telemetry.propagation import USER_HEADERS_LIMIT, headers_size
from taskq_core.wire import ENQUEUED

REQUEST_ID, LANGUAGE, TIME_ZONE = "taskq-request-id", "taskq-language", "taskq-timezone"
LONGEST = 200
"""Maximum characters of a propagated value."""

request_id: ContextVar[str] = ContextVar("taskq_request_id", default="")
"""Id of the current request, "" outside of a request. Adapters set it in requests, and in runs of tasks."""


def add_propagated(headers: MutableMapping[str, str], propagated: Mapping[str, str]) -> None:
    """Add propagated headers to a task's own headers, as far as the size limit allows. Always add the enqueue time."""
    for name, value in propagated.items():
        if name == ENQUEUED or headers_size(headers) + headers_size({name: value}) <= USER_HEADERS_LIMIT:
            headers[name] = value


def readable(value: object) -> str:
    """Convert a propagated value to header text; "" if it is None, too long, or has unprintable characters."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if 0 < len(text) <= LONGEST and text.isprintable() else ""
