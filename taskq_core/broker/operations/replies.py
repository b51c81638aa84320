"""Read replies of Redis."""

from collections.abc import Iterable
from typing import Any


def text(reply: Any) -> str:
    """Read a text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def optional_text(reply: Any) -> str | None:
    """Read a text, or None for nil."""
    return None if reply is None else text(reply)


def name(raw: bytes) -> str:
    """Read an id or a key that is sent to Redis again. Bytes that are not UTF-8 are preserved (`pack`)."""
    return raw.decode("utf-8", "surrogateescape")


def names(reply: Any) -> list[str]:
    """Read ids or keys that are sent to Redis again."""
    return [each.decode("utf-8", "surrogateescape") for each in reply]


def shown(raw: bytes) -> str:
    """Read a text for display. Bytes that are not UTF-8 are replaced."""
    return raw.decode("utf-8", "replace")


def pairs(reply: Any) -> Iterable[tuple[Any, Any]]:
    """Read the pairs of a flat list, such as the fields and values of a hash."""
    words = iter(reply)
    return zip(words, words, strict=True)


def shown_fields(reply: Any) -> dict[str, Any]:
    """Read the fields of a hash with names for display, and their values as bytes."""
    return {shown(field): value for field, value in pairs(reply)}


def texts(reply: Any) -> dict[str, str]:
    """Read a flat list in which names and texts alternate."""
    return {text(each): text(value) for each, value in pairs(reply)}


def flags(reply: Any) -> list[bool]:
    """Read a text with one character per item, "1" for True."""
    return [code == "1" for code in text(reply)]


def time_ms(reply: Any) -> int:
    """Read the answer to the command TIME as Unix milliseconds."""
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def integer(reply: Any) -> int:
    """Read a number."""
    return int(reply)


def boolean(reply: Any) -> bool:
    """Read a number as True if it is 1."""
    return int(reply) == 1


def is_given(reply: Any) -> bool:
    """Read True unless the reply is nil."""
    return reply is not None


def nothing(reply: Any) -> None:
    """Ignore the reply."""
    return
