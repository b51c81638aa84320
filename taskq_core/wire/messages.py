"""Decode the stored message of a task, encode new messages fast, and encode changed messages without losing fields.

Decoding returns protobuf's own `TaskMessage`. A `MessageTemplate` encodes new messages. The part that all tasks of a
kind share is encoded only once. The encoded bytes are those of protobuf's deterministic encoding, except for the order
of two headers if the name of one is a prefix of the other (protobuf's own runtimes differ there). A stored message is
changed by decoding, copying and encoding, which keeps fields that this release does not know.

All errors are `WireFormatError`s. They never contain a payload or a header.
"""

import re
from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError

from taskq_core.errors import WireFormatError
from taskq_core.wire.asynq_pb2 import TaskMessage

MAX_ERROR_BYTES: Final = 4096
"""Maximum length of a stored error text, in bytes of UTF-8."""

_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
_CUT = "..."
_UNREAD = re.compile(rb"\0([0-9]{1,18}) ([0-9]{1,18})")
_NO_HEADERS: Mapping[str, str] = {}

# Field tags of proto3: field number * 8, plus 2 for text and bytes, or plus 0 for numbers.
_TYPE, _PAYLOAD, _ID, _QUEUE, _UNIQUE_KEY, _GROUP_KEY, _HEADER = (
    b"\x0a",
    b"\x12",
    b"\x1a",
    b"\x22",
    b"\x52",
    b"\x72",
    b"\x7a",
)
_RETRY, _TIMEOUT, _DEADLINE, _RETENTION = b"\x28", b"\x40", b"\x48", b"\x60"


def varint(number: int) -> bytes:
    """Return a number in protobuf's varint encoding."""
    number &= 0xFFFF_FFFF_FFFF_FFFF  # 64-bit two's complement: protobuf writes negative numbers in this way
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Heads(dict[int, bytes]):
    """Cache of the encoded tag and length that precede a text in a message, by the length of the text.

    A lookup is three times as fast as encoding. Lengths up to `SMALL`, which most texts have, are cached.
    """

    SMALL = 2048

    def __init__(self, tag: bytes) -> None:
        super().__init__()
        self._tag = tag

    def __missing__(self, size: int) -> bytes:
        head = self._tag + varint(size)
        if size <= self.SMALL:
            self[size] = head
        return head


_LENGTHS, _PAYLOAD_HEADS, _ID_HEADS, _HEADER_HEADS = map(_Heads, (b"", _PAYLOAD, _ID, _HEADER))
_ID_HEADS[0] = b""  # protobuf omits an empty text


def _bytes_field(tag: bytes, value: bytes) -> bytes:
    return b"".join((tag, varint(len(value)), value)) if value else b""


def _number_field(tag: bytes, value: int) -> bytes:
    return tag + varint(value) if value else b""


def _checked_text(field: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise WireFormatError(f"{field} contains a lone surrogate, which UTF-8 cannot encode") from None


def _checked_number(field: str, value: int, limit: int) -> int:
    if not -limit - 1 <= value <= limit:
        raise WireFormatError(f"{field} must fit {limit.bit_length() + 1} bits, got {value}")
    return value


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return the encoded headers of a message, in the order of their names.

    Raises:
        WireFormatError: A header is not valid UTF-8.
    """
    parts: list[bytes] = []
    try:
        for name in sorted(headers) if len(headers) > 1 else headers:
            key, value = name.encode(), headers[name].encode()
            key_size, value_size = len(key), len(value)
            key_length = _LENGTHS[key_size]
            value_length = _LENGTHS[value_size]
            size = 2 + len(key_length) + key_size + len(value_length) + value_size
            head = _HEADER_HEADS[size]
            parts += (head, b"\x0a", key_length, key, b"\x12", value_length, value)
    except UnicodeEncodeError:
        raise WireFormatError("a header contains a lone surrogate, which UTF-8 cannot encode") from None
    return b"".join(parts)


class MessageTemplate:
    """Encodes messages of tasks. The fields that all of them share are encoded once, when the template is created.

    Args:
        type: Task type.
        queue: Queue name.
        retry: Maximum number of retries.
        timeout: Maximum duration of a run in seconds, 0 for no limit.
        deadline: Latest end of a run in Unix seconds, 0 for no deadline.
        retention: Seconds for which the task is kept after success, 0 to delete it at once.
        group_key: Group name, empty for no group.

    Raises:
        WireFormatError: A text is not valid UTF-8 or a number does not fit its field.
    """

    __slots__ = ("_deadline", "_head", "_middle", "_rest", "_tail")

    def __init__(
        self,
        type: str,  # noqa: A002 - the field's name on the wire
        queue: str,
        retry: int = 0,
        timeout: int = 0,
        deadline: int = 0,
        retention: int = 0,
        group_key: str = "",
    ) -> None:
        self._head = _bytes_field(_TYPE, _checked_text("type", type))
        self._middle = b"".join(
            (
                _bytes_field(_QUEUE, _checked_text("queue", queue)),
                _number_field(_RETRY, _checked_number("retry", retry, _INT32_MAX)),
                _number_field(_TIMEOUT, _checked_number("timeout", timeout, _INT64_MAX)),
            )
        )
        self._deadline = _number_field(_DEADLINE, _checked_number("deadline", deadline, _INT64_MAX))
        self._tail = b"".join(
            (
                _number_field(_RETENTION, _checked_number("retention", retention, _INT64_MAX)),
                _bytes_field(_GROUP_KEY, _checked_text("group_key", group_key)),
            )
        )
        self._rest = self._middle + self._deadline + self._tail

    def encode(
        self,
        task_id: str,
        payload: bytes | None,
        headers: bytes = b"",
        unique_key: str = "",
        *,
        deadline: int | None = None,
    ) -> bytes:
        """Return the message of one task, byte-equal to protobuf's deterministic encoding.

        Args:
            task_id: Id of the task.
            payload: Payload bytes; None and empty bytes result in the same message.
            headers: From `encode_headers`.
            unique_key: Key of the unique lock, empty for no lock.
            deadline: Unix seconds; replaces the template's deadline.

        Raises:
            WireFormatError: The id or the lock is not valid UTF-8, or the deadline does not fit 64 bits.
        """
        try:
            ident = task_id.encode()
            id_head = _ID_HEADS[len(ident)]
            if payload:
                payload_head = _PAYLOAD_HEADS[len(payload)]
            else:
                payload_head = payload = b""
            if not unique_key and deadline is None:
                return b"".join((self._head, payload_head, payload, id_head, ident, self._rest, headers))
            until = self._deadline
            if deadline is not None:
                until = _number_field(_DEADLINE, _checked_number("deadline", deadline, _INT64_MAX))
            lock = _bytes_field(_UNIQUE_KEY, unique_key.encode())
        except UnicodeEncodeError:
            raise WireFormatError(
                "the task id or the unique lock contains a lone surrogate, which UTF-8 cannot encode"
            ) from None
        middle = (self._middle, until, lock, self._tail)
        return b"".join((self._head, payload_head, payload, id_head, ident, *middle, headers))

    def around_payload(self, task_id: str, headers: bytes = b"") -> tuple[bytes, bytes]:
        """Return the bytes before and after the payload field of a message.

        Raises:
            WireFormatError: The id is not valid UTF-8.
        """
        return self._head, b"".join((_bytes_field(_ID, _checked_text("task id", task_id)), self._rest, headers))


def build_message(
    *, payload: bytes | None = None, headers: Mapping[str, str] = _NO_HEADERS, **fields: str | int
) -> TaskMessage:
    """Return a message with the given fields, by their names on the wire.

    For messages without a template: tasks that are read and enqueued again, tools, tests.

    Raises:
        WireFormatError: A field is unknown, of a wrong type, not valid UTF-8 or out of range.
    """
    try:
        return TaskMessage(payload=payload or b"", headers=dict(headers), **fields)  # type: ignore[arg-type]  # protobuf checks
    except (TypeError, ValueError) as exc:  # ValueError includes UnicodeError
        raise WireFormatError(
            f"not a task message: {type(exc).__name__} in one of {sorted(fields)} or a header"
        ) from None


def decode_message(data: bytes) -> TaskMessage:
    """Decode a stored message.

    Raises:
        WireFormatError: The bytes are not a task message, or it was too large to be read. The error does not show them.
    """
    try:
        return TaskMessage.FromString(data)
    except (DecodeError, UnicodeDecodeError):  # protobuf's pure Python runtime raises UnicodeDecodeError
        problem = unread_size(data) or f"{len(data)} bytes are not a task message"
        raise WireFormatError(problem) from None


def unread_size(data: bytes) -> str:
    """Return why a script did not read a message that is too large, "" if it did. See `broker/lua/_message.lua`."""
    found = _UNREAD.fullmatch(data)
    if found is None:
        return ""
    return f"its message has {int(found[1]):,} bytes, more than {int(found[2]):,}, and is not read"


def encode_message(message: TaskMessage) -> bytes:
    """Encode a message for Redis, with headers ordered by name and unknown fields at the end."""
    return message.SerializeToString(deterministic=True)


def retried_message(message: TaskMessage, *, error: str, failed_at_s: int, counts: bool) -> bytes:
    """Return the encoded message of a task that failed and will be retried.

    Args:
        message: The message that the worker received; not changed.
        error: Text of the failure; `clean_text` is applied to it.
        failed_at_s: Unix seconds of the failure.
        counts: Whether the failure uses up a retry.
    """
    changed = _copy(message)
    changed.error_msg = clean_text(error)
    changed.last_failed_at = failed_at_s
    if counts and changed.retried < _INT32_MAX:
        changed.retried += 1
    return encode_message(changed)


def archived_message(message: TaskMessage, *, error: str, failed_at_s: int) -> bytes:
    """Return the encoded message of a task that is archived after a failure. Its number of retries is not changed.

    Args:
        message: The message that the worker received; not changed.
        error: Text of the failure; `clean_text` is applied to it.
        failed_at_s: Unix seconds of the failure.
    """
    return retried_message(message, error=error, failed_at_s=failed_at_s, counts=False)


def completed_message(message: TaskMessage, completed_at_s: int) -> bytes:
    """Return the encoded message of a task that succeeded and is kept for its retention.

    Args:
        message: The message that the worker received; not changed.
        completed_at_s: End of the run in Unix seconds.
    """
    changed = _copy(message)
    changed.completed_at = completed_at_s
    return encode_message(changed)


def clean_text(text: str, limit_bytes: int = MAX_ERROR_BYTES) -> str:
    """Return the text as valid UTF-8 (which every protobuf reader accepts), cut to the limit.

    A lone surrogate becomes U+FFFD. A text that was cut ends in `...`, within the limit.

    Args:
        text: Any string.
        limit_bytes: Maximum number of bytes of UTF-8, at least 3.
    """
    # Cut the text before encoding it, because it may have many megabytes.
    head = text[: limit_bytes + 1]
    if not head.isascii():
        head = _SURROGATE.sub("\ufffd", head)
    encoded = head.encode()
    if len(encoded) <= limit_bytes:
        return head
    return encoded[: limit_bytes - len(_CUT)].decode(errors="ignore") + _CUT


def _copy(message: TaskMessage) -> TaskMessage:
    copy = TaskMessage()
    copy.CopyFrom(message)
    return copy
