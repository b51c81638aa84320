"""Encode and decode frames (kind, length, content) between a worker and a task process. Pure functions.

A worker sends `BOOT` once, and `TASK` and `MESSAGE` for each task. The process answers `BOOT` with `READY`. For a task,
it first imports the module of the task, and then sends `STARTED`, any number of `PROGRESS`, `WRITTEN` and
`WRITTEN_OVERSIZED`, and at the end `RESULT`, `OVERSIZED` or `FAILURE`. If the import fails, it only sends `FAILURE`.
"""

import struct
from collections.abc import Iterator

_HEAD = struct.Struct("!cI")
_NUMBER = struct.Struct("!Q")

BOOT = b"B"
"""JSON: module path, setup function, broker and log level."""
TASK = b"T"
"""JSON: task name, queue and other facts of the run that are not in its message."""
MESSAGE = b"M"
"""Bytes of the task's message."""
INTERRUPT = b"I"
"""Request to interrupt the running task. The frame is empty. A signal is not enough: other programs may send it."""
READY = b"Y"
"""The setup of the process succeeded. The frame is empty."""
STARTED = b"S"
"""The task has begun, after the import of its module. Another process must not run it any more. The frame is empty."""
PROGRESS = b"P"
"""Number of the run, then the progress in the form that Redis stores."""
WRITTEN = b"W"
"""Number of the run, then an intermediate result in the form that Redis stores."""
WRITTEN_OVERSIZED = b"w"
"""Number of the run, then size and limit of an intermediate result that is too large to store."""
RESULT = b"R"
"""JSON of the function's result. Empty if it is None or not retained."""
OVERSIZED = b"O"
"""In place of `RESULT`: size and limit of a result that is too large to store."""
FAILURE = b"F"
"""JSON of the function's exception."""


def encode(kind: bytes, data: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return _HEAD.pack(kind, len(data)) + data


def numbered(number: int, data: bytes) -> bytes:
    """Return the content of a frame that belongs to a run."""
    return _NUMBER.pack(number) + data


def read_number(content: bytes) -> tuple[int, bytes]:
    """Return the number of the run to which a frame belongs, and the remaining content of the frame."""
    return _NUMBER.unpack_from(content)[0], content[_NUMBER.size :]


class Frames:
    """Splits received bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Add bytes, and yield the kind and content of each complete frame."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._data)
            end = _HEAD.size + length
            if len(self._data) < end:
                return
            content = bytes(self._data[_HEAD.size : end])
            del self._data[:end]
            yield kind, content
