"""What of its surroundings a task carries to its run, in headers of its own: request id, language, time zone.

A framework's adapter knows what is in force where a task is enqueued, and puts it in force around the run. Tasks of
producers that write no such headers run as ever.

`TaskFilter` gives log records what they belong to.
"""

import logging
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any

from taskq_core.context import current
from taskq_core.telemetry.propagation import USER_HEADERS_LIMIT, headers_size

REQUEST_ID, LANGUAGE, TIME_ZONE = "taskq-request-id", "taskq-language", "taskq-timezone"
LONGEST = 200
"""Most characters of a value that is carried."""

request_id: ContextVar[str] = ContextVar("taskq_request_id", default="")
"""Id of the request that this code works for, "" for none: set by an adapter, in a request and in a task of it."""


def carry(headers: MutableMapping[str, str], carried: Mapping[str, str]) -> None:
    """Add what is carried to a task's own headers, as far as there is room beside them."""
    for name, value in carried.items():
        if headers_size(headers) + headers_size({name: value}) <= USER_HEADERS_LIMIT:
            headers[name] = value


def readable(value: object) -> str:
    """Return a value to be carried as text, "" if it is none, too long, or holds what does not print."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if 0 < len(text) <= LONGEST and text.isprintable() else ""


class TaskFilter(logging.Filter):
    """Gives each log record `task_id`, `task_name`, `queue` and `request_id`. It stands at a handler.

    A record that has one of them already keeps it, as those of the worker itself do.

    Args:
        name: As with every `logging.Filter`.
        default: What a record gets that belongs to no task, or to no request.
    """

    def __init__(self, name: str = "", *, default: Any = "-") -> None:
        super().__init__(name)
        self._default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes."""
        context, values = current.get(), vars(record)
        if context is None:
            known = dict.fromkeys(("task_id", "task_name", "queue"))
            of_request = request_id.get()
        else:
            known = {"task_id": context.id, "task_name": context.name, "queue": context.queue}
            of_request = request_id.get() or context.headers.get(REQUEST_ID, "")
        for name, value in {**known, "request_id": of_request}.items():
            values.setdefault(name, value or self._default)
        return bool(super().filter(record))
