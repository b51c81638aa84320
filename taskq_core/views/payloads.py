"""Format payloads as text, and check edited payloads."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from taskq_core.errors import PayloadError
from taskq_core.handles.records import TaskInfo
from taskq_core.tasks.limits import HEADER as LIMITS
from taskq_core.tasks.task import Task
from taskq_core.views.tasks import TaskRecord
from taskq_core.wire import TaskState

EDITED_BYTES = 64 * 1024
"""Maximum size in bytes of a payload that can be edited."""
LAID_OUT_BYTES = 256 * 1024
"""Maximum number of bytes of an indented payload. Indenting can make deeply nested JSON a thousand times longer."""
JSON_DEPTH_MAX = 64
"""Maximum number of nesting levels of JSON that forms accept, and that the JSON API shows as JSON."""
EDITABLE_STATES = (
    *(TaskState.PENDING, TaskState.SCHEDULED, TaskState.RETRY, TaskState.AGGREGATING, TaskState.ARCHIVED),
)
"""States in which a payload can be changed."""


def is_editable(task: TaskRecord) -> bool:
    """Return whether a payload can be edited: the task waits or is archived, and its payload is a short text."""
    if not isinstance(task, TaskInfo) or task.state not in EDITABLE_STATES or len(task.payload) > EDITED_BYTES:
        return False
    try:
        return "\0" not in task.payload.decode()
    except UnicodeDecodeError:
        return False


def without_payload(task: TaskRecord) -> TaskRecord:
    """Return a task as a person sees it who may not see payloads.

    It has no payload, no result, no tracebacks, no message of its progress, and no header of its limits, because all of
    them may contain arguments.
    """
    if not isinstance(task, TaskInfo):
        return replace(task, message=b"")
    return replace(
        task,
        payload=b"",
        result=b"",
        headers={name: text for name, text in task.headers.items() if name != LIMITS},
        attempts=tuple(replace(each, traceback="") for each in task.attempts),
        last_attempt=task.last_attempt and replace(task.last_attempt, traceback=""),
        progress=task.progress and replace(task.progress, message=""),
    )


def as_text(payload: bytes) -> str:
    """Return an editable payload as text. JSON is indented unless that makes it too long."""
    try:
        text = msgspec.json.format(payload, indent=2)
        return (text if len(text) <= LAID_OUT_BYTES else payload).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload.decode("utf-8", "replace")


def digest(task: TaskInfo) -> str:
    """Return a hash by which a form detects that the task or its payload is another one than when it was shown."""
    return hashlib.sha256(task.generation.encode() + b"\0" + task.payload).hexdigest()


def edited_payload(task: TaskInfo, text: str, known: Task[Any, Any] | None) -> bytes:
    """Return the payload for edited text.

    Args:
        task: The current task.
        text: The edited text.
        known: The registered task with its name, if any.

    Raises:
        PayloadError: The payload does not fit the task, or is not JSON although the old payload is.
    """
    text = text.replace("\r\n", "\n")
    if text == as_text(task.payload):
        return task.payload
    payload = text.encode("utf-8", "replace")
    if known is None and not _is_json(task.payload):
        return payload  # another program owns the task and does not use JSON
    payload = compact_json(payload, task.name)
    if known is not None:
        known.codec.decode(payload)
    return payload


def compact_json(data: bytes, task: str) -> bytes:
    """Return JSON without spaces between its parts. Numbers keep all their digits.

    Raises:
        PayloadError: The data is not JSON.
    """
    try:
        data = msgspec.json.format(data, indent=-1)
        msgspec.json.decode(data, type=msgspec.Raw)  # `Raw` allows numbers of any size
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadError(task, "", f"the payload is not JSON: {error}") from None
    return data


def check_json(value: Any) -> None:
    """Refuse a value that a JSON response cannot contain.

    Such values are objects of other types, numbers that are not finite, lone surrogates, and deep nesting.

    Raises:
        ValueError: A response cannot contain the value. TypeError and RecursionError have the same meaning.
    """
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    if any(depth > JSON_DEPTH_MAX for depth, _level in enumerate(json_levels(value), 1)):
        raise ValueError(f"the value is nested deeper than {JSON_DEPTH_MAX} levels")


def json_levels(value: Any) -> Iterator[list[Any]]:
    """Yield the values on each level of nesting, the outermost first. The keys of an object count as its values."""
    level = [value]
    while level:
        yield level
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += [*each, *each.values()]
            elif isinstance(each, list | tuple):
                inner += each
        level = inner


def _is_json(payload: bytes) -> bool:
    try:
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
