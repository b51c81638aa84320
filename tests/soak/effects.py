"""The side effects of tasks: a table in a file, in which each task sets its own slot to its own value.

Setting a slot twice is setting it once, so the table adds up whatever ran twice, and only if nothing was left out. It
needs no lock: a frozen process cannot hold the others up.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

_SLOT = struct.Struct("<q")


def value_of(slot: int) -> int:
    """Return what a slot holds once its task has run: never 0, and not the same everywhere."""
    return slot * 7919 % 9973 + 1


class Effects:
    """The table.

    Args:
        path: Its file, which is made if needed.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def put(self, slot: int) -> None:
        """Set a slot."""
        os.pwrite(self._file, _SLOT.pack(value_of(slot)), slot * _SLOT.size)

    def get(self, slot: int) -> int:
        """Return what a slot holds, 0 if nothing."""
        data = os.pread(self._file, _SLOT.size, slot * _SLOT.size)
        return _SLOT.unpack(data)[0] if len(data) == _SLOT.size else 0

    def read(self, slots: Iterable[int]) -> dict[int, int]:
        """Return what some slots hold."""
        return {slot: self.get(slot) for slot in slots}

    def close(self) -> None:
        os.close(self._file)
