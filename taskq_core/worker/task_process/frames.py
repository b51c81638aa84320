"""Frames between a worker and a process that runs tasks for it: a kind, a length, bytes. Pure.

A worker sends `BOOT` once, `LOAD` before the first task of each module, and `TASK` and `MESSAGE` for each task. The
process answers the first two with `READY` once it has done so, or with `FAILURE`; and each task with `STARTED`, any
number of `PROGRESS`, `WRITTEN` and `WRITTEN_OVERSIZED`, and `RESULT`, `OVERSIZED` or `FAILURE`.
"""

import struct
from collections.abc import Iterator

_HEAD = struct.Struct("!cI")
_NUMBER = struct.Struct("!Q")

BOOT = b"B"
"""JSON: where code is found, and how it is set up."""
LOAD = b"L"
"""Name of a module that is to be imported."""
TASK = b"T"
"""JSON: what is run and what is known of the run beside its message."""
MESSAGE = b"M"
"""Bytes of the task's message."""
INTERRUPT = b"I"
"""What runs is to end. A signal would not do: one may come from elsewhere, as to all processes of a unit. Empty."""
READY = b"Y"
"""What it was told to load is there. Empty."""
STARTED = b"S"
"""The task has begun: from here on it must not be given to another process. Empty."""
PROGRESS = b"P"
"""Number of the run; how far the task is, as it is stored."""
WRITTEN = b"W"
"""Number of the run; a result on the way, as it is stored."""
WRITTEN_OVERSIZED = b"w"
"""Number of the run; size and limit of a result on the way that is too large to be stored."""
RESULT = b"R"
"""JSON of what the function returned; empty where nobody keeps it."""
OVERSIZED = b"O"
"""In place of `RESULT`: size and limit of a result that is too large to be stored."""
FAILURE = b"F"
"""JSON of what it raised."""


def encode(kind: bytes, data: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEAD.pack(kind, len(data)) + data


def numbered(number: int, data: bytes) -> bytes:
    """Return the content of a frame that belongs to one run."""
    return _NUMBER.pack(number) + data


def read_number(content: bytes) -> tuple[int, bytes]:
    """Return the number of the run that a frame belongs to, and the rest of its content."""
    return _NUMBER.unpack_from(content)[0], content[_NUMBER.size :]


class Frames:
    """Takes bytes as they come and gives whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Add bytes and yield the frames that are whole now, as kind and content."""
        self._data += data
        while len(self._data) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._data)
            end = _HEAD.size + length
            if len(self._data) < end:
                return
            content = bytes(self._data[_HEAD.size : end])
            del self._data[:end]
            yield kind, content
