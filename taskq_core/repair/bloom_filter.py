"""A set of ids that takes four bytes each."""

import hashlib
import os


class BloomFilter:
    """Remembers ids in four bytes each.

    An added id is always found. About one other id in some thousands is found by mistake, and another one with each
    new filter, because the hashes have a random key.

    Args:
        expected: About how many ids are added. More ids make mistakes more frequent.
    """

    def __init__(self, expected: int) -> None:
        bits = 1 << max(20, (32 * expected).bit_length())  # at least 128 KiB: more may come than is expected
        self._bits = bytearray(bits // 8)
        self._mask = bits - 1
        self._key = os.urandom(16)

    def _positions(self, task_id: str) -> tuple[int, int, int, int]:
        digest = hashlib.blake2b(task_id.encode("utf-8", "surrogateescape"), digest_size=32, key=self._key).digest()
        mask, read = self._mask, int.from_bytes
        return (
            read(digest[:8]) & mask,
            read(digest[8:16]) & mask,
            read(digest[16:24]) & mask,
            read(digest[24:]) & mask,
        )

    def __contains__(self, task_id: str) -> bool:
        return all(self._bits[at >> 3] >> (at & 7) & 1 for at in self._positions(task_id))

    def add(self, task_id: str) -> bool:
        """Add an id. Return whether it was found before."""
        known = True
        for at in self._positions(task_id):
            byte, bit = at >> 3, 1 << (at & 7)
            if not self._bits[byte] & bit:
                known = False
                self._bits[byte] |= bit
        return known
