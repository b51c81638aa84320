"""Carry a trace inside the payload, for Asynq peers whose messages have no headers (older than 0.26).

The payload then reads `{"traceparent": "...", "data": {...}}`, where `data` is the task's own payload, byte for byte.
It is written only on request. It is read only where nothing else can be meant: exactly these two keys, each once, in
either order; a `traceparent` that W3C's syntax allows and that is not all zero; an object as `data`; and a task that
has no parameter of either name. Any other payload is the task's own and stays as it is.
"""

import re
from collections.abc import Collection, Mapping

import msgspec

from taskq_core.telemetry.propagation import TRACEPARENT

DATA = "data"
KEYS = frozenset((TRACEPARENT, DATA))

# https://www.w3.org/TR/trace-context/#traceparent-header: version ff is not allowed, version 00 ends after the flags,
# a later one may go on behind a dash.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!#-\[\]-~]*)?"
)
_VERSION_00_LENGTH = 55
_VALUE = rb"[!#-\[\]-~]{55,256}"  # any text that needs no escape in JSON; judged by _TRACEPARENT afterwards
_WS = rb"[ \t\r\n]*"
_PAIR = rb'"traceparent"' + _WS + rb":" + _WS + rb'"(' + _VALUE + rb')"'
_OPENING = re.compile(_WS + rb"\{" + _WS + rb'(?:"traceparent"|"data")' + _WS + rb":")
_TRACE_FIRST = re.compile(_WS + rb"\{" + _WS + _PAIR + _WS + rb"," + _WS + rb'"data"' + _WS + rb":" + _WS)
_DATA_FIRST = re.compile(_WS + rb"\{" + _WS + rb'"data"' + _WS + rb":" + _WS)
_TRACE_LAST = re.compile(_WS + rb"," + _WS + _PAIR + _WS + rb"\}" + _WS + rb"\Z")
_LONGEST_TAIL = 512
"""Bytes at the end of a payload in which a trailing `traceparent` is looked for."""


def is_valid_traceparent(value: str) -> bool:
    """Whether a text is a `traceparent` by W3C's syntax, with ids that are not all zero."""
    return value.isascii() and _is_valid(value.encode())


def trace_id(headers: Mapping[str, str]) -> str | None:
    """Return the id of the trace that a task's headers name, 32 hexadecimal digits; None for none that is valid."""
    traceparent = headers.get(TRACEPARENT, "")
    return traceparent.split("-")[1] if is_valid_traceparent(traceparent) else None


def _is_valid(value: bytes) -> bool:
    return _TRACEPARENT.fullmatch(value) is not None and (
        len(value) == _VERSION_00_LENGTH or not value.startswith(b"00")
    )


def wrap(payload: bytes, headers: Mapping[str, str], parameters: Collection[str] = ()) -> bytes:
    """Put the `traceparent` of a task's headers around its payload.

    Args:
        payload: The task's own payload.
        headers: Headers into which the trace was injected.
        parameters: Names of the task's parameters, if known.

    Returns:
        The wrapped payload; or the payload as it is when there is no valid `traceparent`, when the payload is no JSON
        object, or when a worker could not tell the two apart because the task has a parameter named `traceparent` or
        `data`.
    """
    traceparent = headers.get(TRACEPARENT, "")
    if not is_valid_traceparent(traceparent) or not KEYS.isdisjoint(parameters) or not _is_object(payload):
        return payload
    return b'{"traceparent":"%b","data":%b}' % (traceparent.encode(), payload)


def unwrap(payload: bytes, parameters: Collection[str]) -> tuple[bytes, str | None]:
    """Take a payload out of its envelope, if it has one.

    Args:
        payload: As it stands in the message. An ordinary one costs one match of its first bytes.
        parameters: Names of the task's parameters.

    Returns:
        The task's own payload and the `traceparent`, or the payload as it was and None.
    """
    opening = _OPENING.match(payload)
    if opening is None or not KEYS.isdisjoint(parameters):
        return payload, None
    first = _TRACE_FIRST.match(payload)
    if first is not None:
        end = payload.rfind(b"}")
        if end < first.end() or payload[end + 1 :].strip(b" \t\r\n"):
            return payload, None
        value, data = first.group(1), payload[first.end() : end]
    else:
        head = _DATA_FIRST.match(payload)
        if head is None:
            return payload, None
        last = _TRACE_LAST.search(payload, max(head.end(), len(payload) - _LONGEST_TAIL))
        if last is None:
            return payload, None
        value, data = last.group(1), payload[head.end() : last.start()]
    data = data.strip(b" \t\r\n")
    # That the rest is one JSON value proves that nothing else stands in the envelope, no third key and no key twice.
    if not _is_valid(value) or not _is_object(data):
        return payload, None
    return data, value.decode()


def _is_object(data: bytes) -> bool:
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        return False
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
