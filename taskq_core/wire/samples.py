"""Samples of a queue: its figures at one moment, encoded compactly, and the intervals at which Redis stores them.

Each `Level` has a list of samples, the newest first. A sample is one byte for the format, the Unix second in four bytes
(big endian, so that scripts can read it), and numbers as varints. A later release may append numbers: an older release
ignores them, and a newer release reads missing numbers as 0. Samples of an unknown format are skipped.
"""

from collections.abc import Iterable
from typing import Self

from msgspec import Struct
from msgspec.structs import astuple

from taskq_core.wire.messages import varint

_FORM = 1
_HEAD_BYTES = 5
_LATEST_S = 2**32 - 1


class Level(Struct, frozen=True, kw_only=True):
    """One resolution at which Redis stores samples of a queue.

    Attributes:
        step_s: Seconds from one sample to the next.
        most: Maximum number of samples that are stored.
    """

    step_s: int
    most: int

    @property
    def span_s(self) -> int:
        """Seconds that the stored samples of this resolution cover together."""
        return self.step_s * self.most


LEVELS = (
    Level(step_s=10, most=400),
    Level(step_s=60, most=1500),
    Level(step_s=600, most=1200),
    Level(step_s=3600, most=750),
)
"""Resolutions, the finest first: 10 s for an hour, a minute for a day, 10 minutes for 8 days, an hour for 31 days."""
SAMPLE_S = LEVELS[0].step_s
"""Seconds from one sample to the next at the finest resolution."""
REST_S = LEVELS[1].step_s
"""Approximate seconds from one sample to the next while a queue is idle and its figures do not change."""
REST_MOST_S = LEVELS[2].step_s
"""Maximum of `REST_S` if the worker that leads the queue serves more than a hundred queues."""


class QueueSample(Struct, frozen=True, kw_only=True):
    """Numbers of tasks, runs and workers of a queue at one moment. All are integers of at least 0."""

    at_s: int
    """Unix second, by Redis's clock."""
    active: int = 0
    pending: int = 0
    aggregating: int = 0
    scheduled: int = 0
    retry: int = 0
    archived: int = 0
    completed: int = 0
    latency_ms: int | None = None
    """Highest latency of the queue since the previous sample: how long its next task had been pending. None if no task
    was pending."""
    processed: int = 0
    """Number of runs since the queue was created, including failed runs."""
    failed: int = 0
    """Number of failed runs since the queue was created."""
    memory_kib: int | None = None
    """Memory of the queue in KiB, None if unknown."""
    busy: int = 0
    """Running tasks, of any queue, of the workers that serve this queue."""
    slots: int = 0
    """Maximum number of concurrent tasks of the workers that serve this queue."""
    is_paused: int = 0

    def encode(self) -> bytes:
        """Return the bytes to store."""
        head = bytes((_FORM,)) + min(max(self.at_s, 0), _LATEST_S).to_bytes(4, "big")
        return head + b"".join(varint(max(0, number)) for number in self._numbers())

    def _numbers(self) -> Iterable[int]:
        """Yield the numbers after the time. A number that may be unknown is stored plus 1, or as 0 if it is unknown."""
        named = zip(_NAMES, astuple(self)[1:], strict=True)
        return ((0 if value is None else value + 1) if name in _OPTIONAL else value for name, value in named)

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """Return the stored sample; None if it has an unknown format or is truncated."""
        if len(data) < _HEAD_BYTES or data[0] != _FORM:
            return None
        numbers, number, shift = [], 0, 0
        for byte in data[_HEAD_BYTES:]:
            number |= (byte & 0x7F) << shift
            if byte & 0x80:
                shift += 7
                continue
            numbers.append(number)
            number = shift = 0
        if shift:
            return None
        read: dict[str, int | None] = dict(zip(_NAMES, numbers, strict=False))
        for name in _OPTIONAL:
            stored = read.get(name) or 0
            read[name] = stored - 1 if stored else None
        return cls(at_s=int.from_bytes(data[1:_HEAD_BYTES], "big"), **read)  # type: ignore[arg-type]  # by their names


_NAMES = QueueSample.__struct_fields__[1:]
_OPTIONAL = ("latency_ms", "memory_kib")
