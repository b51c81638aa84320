"""Cursors: texts with which a caller continues a search, a list or an action that has ended early.

A cursor contains a position, such as the queue, the state and the last task that was read. Callers do not interpret it.
"""

import base64
import json
from typing import Annotated, TypeVar

import msgspec

from taskq_core.errors import ConfigurationError
from taskq_core.inspector.known import check_text

Place = TypeVar("Place")
RedisCursor = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,20}$")]
"""The cursor of a scan in Redis. "0" is both its start and its end."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""A number of records that a cursor contains."""


def write_cursor(place: object) -> str:
    """Encode a position as a cursor. The position is a record of values that JSON can represent."""
    text = json.dumps(msgspec.to_builtins(place))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, kind: type[Place]) -> Place:
    """Return the position that a cursor contains.

    Raises:
        ConfigurationError: The text is not a cursor for a position of this kind.
    """
    check_text("cursor", cursor)
    try:
        text = base64.urlsafe_b64decode(cursor + "==")
        return msgspec.convert(json.loads(text), kind)  # the parser of msgspec refuses queue names that are not UTF-8
    except (ValueError, RecursionError):
        raise ConfigurationError(f"cursor must come from the previous call, got {cursor[:80]!r}") from None
