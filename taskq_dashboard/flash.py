"""A message for the next page, in a cookie. Pages show it as plain text, because a user can change the cookie."""

import base64
import binascii
import json

COOKIE = "taskq_message"
LEVELS = ("success", "warning", "error")
TEXT_MAX = 1000
"""Maximum number of characters of a message, because a cookie holds 4096 bytes."""


def packed(level: str, text: str) -> str:
    """Return the value of the cookie for a message."""
    data = json.dumps([level, text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"], ensure_ascii=False)
    encoded = base64.urlsafe_b64encode(data.encode("utf-8", "replace"))
    return encoded.decode() if len(encoded) <= 3800 else packed(level, text[: len(text) // 2] + "…")


def unpacked(cookie: str) -> tuple[str, str] | None:
    """Return the level and the text of the message in a cookie. None if it is not valid."""
    try:
        level, text = json.loads(base64.urlsafe_b64decode(cookie.encode("ascii")))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return None
    return (level, text[:TEXT_MAX]) if level in LEVELS and isinstance(text, str) else None
