"""What of its surroundings a task carries to its run, in headers of its own: request id, language, time zone.

A framework's adapter knows what is in force where a task is enqueued, and puts it in force around the run. Tasks of
producers that write no such headers run as ever.
"""

from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar

from taskq_core.telemetry.propagation import USER_HEADERS_LIMIT, headers_size
from taskq_core.wire import ENQUEUED

REQUEST_ID, LANGUAGE, TIME_ZONE = "taskq-request-id", "taskq-language", "taskq-timezone"
LONGEST = 200
"""Most characters of a value that is carried."""

request_id: ContextVar[str] = ContextVar("taskq_request_id", default="")
"""Id of the request that this code works for, "" for none: set by an adapter, in a request and in a task of it."""


def carry(headers: MutableMapping[str, str], carried: Mapping[str, str]) -> None:
    """Add propagated headers to a task's own headers while there is room. The enqueue time is always added."""
    for name, value in carried.items():
        if name == ENQUEUED or headers_size(headers) + headers_size({name: value}) <= USER_HEADERS_LIMIT:
            headers[name] = value


def readable(value: object) -> str:
    """Return a value to be carried as text, "" if it is none, too long, or holds what does not print."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if 0 < len(text) <= LONGEST and text.isprintable() else ""
