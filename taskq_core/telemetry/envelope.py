"""Carry a trace inside the payload, for Asynq peers whose messages have no headers (older than 0.26).

The payload then reads `{"traceparent": "...", "data": {...}}`, where `data` is the task's own payload, byte for byte.
It is written only on request. It is read only if the payload has exactly these two keys, a `traceparent` that W3C's
syntax allows and that is not all zero, and an object as `data`, and if the task has no parameter of either name. Any
other payload is the task's own and is not changed.
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
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!#-\[\]-~]*)?"
)
_VERSION_00_LENGTH = 55
_LENGTH_MAX = 256
_OPENING = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"(?:traceparent|data)"')


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    traceparent: str
    data: msgspec.Raw


def is_valid_traceparent(value: str) -> bool:
    """Whether a text is a `traceparent` by W3C's syntax, with ids that are not all zero."""
    if len(value) > _LENGTH_MAX or _TRACEPARENT.fullmatch(value) is None:
        return False
    return len(value) == _VERSION_00_LENGTH or not value.startswith("00")


def trace_id(headers: Mapping[str, str]) -> str | None:
    """Return the id of the trace that a task's headers name, 32 hexadecimal digits, or None."""
    traceparent = headers.get(TRACEPARENT, "")
    return traceparent.split("-")[1] if is_valid_traceparent(traceparent) else None


def wrap(payload: bytes, headers: Mapping[str, str], parameters: Collection[str] = ()) -> bytes:
    """Put the `traceparent` of a task's headers around its payload.

    Args:
        payload: The task's own payload.
        headers: Headers into which the trace was injected.
        parameters: Names of the task's parameters, if known.

    Returns:
        The wrapped payload. The payload itself without a valid `traceparent`, if the payload is not a JSON object,
        or if the task has a parameter named `traceparent` or `data`, so that a worker could not recognize the envelope.
    """
    traceparent = headers.get(TRACEPARENT, "")
    if not is_valid_traceparent(traceparent) or not KEYS.isdisjoint(parameters) or not _is_object(payload):
        return payload
    return b'{"traceparent":"%b","data":%b}' % (traceparent.encode(), payload)


def unwrap(payload: bytes, parameters: Collection[str]) -> tuple[bytes, str | None]:
    """Take a payload out of its envelope, if it has one.

    Args:
        payload: The payload of a message. One without an envelope costs one match of its first bytes.
        parameters: Names of the task's parameters.

    Returns:
        The task's own payload and the `traceparent`, or the payload as it was and None.
    """
    if _OPENING.match(payload) is None or not KEYS.isdisjoint(parameters):
        return payload, None
    try:
        envelope = msgspec.json.decode(payload, type=_Envelope)
    except (msgspec.DecodeError, RecursionError):
        return payload, None
    data = bytes(envelope.data)
    if not is_valid_traceparent(envelope.traceparent) or not data.startswith(b"{"):
        return payload, None
    return data, envelope.traceparent


def _is_object(data: bytes) -> bool:
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        return False
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
