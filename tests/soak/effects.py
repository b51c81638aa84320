"""Side effects of tasks: a table in a file. Each task writes a value that depends on its slot number into its slot.

A task that runs twice writes the same value twice. The sum of the table is therefore right exactly if every task ran at
least once. Writers need no lock, so a frozen process does not block the others.
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

_SLOT = struct.Struct("<q")


def value_of(slot: int) -> int:
    """Return the value that a task writes into its slot. It is never 0, and differs between slots."""
    return slot * 7919 % 9973 + 1


class Effects:
    """The table of side effects.

    Args:
        path: File of the table, created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def put(self, slot: int) -> None:
        """Write the value of a slot."""
        os.pwrite(self._file, _SLOT.pack(value_of(slot)), slot * _SLOT.size)

    def get(self, slot: int) -> int:
        """Return the value in a slot, 0 if no task has written it."""
        data = os.pread(self._file, _SLOT.size, slot * _SLOT.size)
        return _SLOT.unpack(data)[0] if len(data) == _SLOT.size else 0

    def read(self, slots: Iterable[int]) -> dict[int, int]:
        """Return the values of these slots."""
        return {slot: self.get(slot) for slot in slots}

    def close(self) -> None:
        os.close(self._file)
