"""The size limit of results. Instead of a result over the limit, its size and the limit are stored.

A result over the limit does not fail the run, because a retry would only repeat the work. The worker stores the size
and the limit in a separate field. The field `result` stays empty, because Go's tools read it as the result.
"""

import re
from dataclasses import dataclass

RESULT_MAX = 16 << 20
"""Default of the option `max_result_bytes`: 16 MiB, as for payloads."""
LARGEST_RESULT = 512 << 20
"""Largest allowed `max_result_bytes`: the largest value that Redis accepts, 512 MiB."""

_STORED = re.compile(rb"([0-9]{1,18}) ([0-9]{1,18})( unread)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class OversizedResult:
    """A result that was not stored, or was not read for a list or a page, because it is over the limit.

    Attributes:
        size: Size of the result in bytes. For a return value this is the size of its JSON.
        limit: Maximum bytes that the task may store (`max_result_bytes`), or that lists and pages read (32 MiB).
        is_stored: Whether the result is stored, and only too large to be read for a list or a page.
    """

    size: int
    limit: int
    is_stored: bool = False

    def __str__(self) -> str:
        if self.is_stored:
            return f"{self.size:,} bytes are stored, but not read here: the limit is {self.limit:,}"
        return f"{self.size:,} bytes are not stored: the limit is {self.limit:,} (task option max_result_bytes)"

    @property
    def stored(self) -> bytes:
        """The record in the format that is stored in Redis."""
        return b"%d %d" % (self.size, self.limit)


def within_limit(data: bytes | bytearray | memoryview, limit: int) -> bytes | OversizedResult:
    """Return the bytes of a result, or an `OversizedResult` if they exceed the limit. Do not copy oversized bytes."""
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    return OversizedResult(size=size, limit=limit) if size > limit else bytes(data)


def read_oversized(data: bytes) -> OversizedResult | None:
    """Decode a record in the format of `OversizedResult.stored`. Return None if the record is empty or not valid."""
    found = _STORED.fullmatch(data)
    return (
        None
        if found is None
        else OversizedResult(size=int(found[1]), limit=int(found[2]), is_stored=found[3] is not None)
    )
