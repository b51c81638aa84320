"""A Bloom filter for task ids, which needs four bytes per id."""

import hashlib
import os


class BloomFilter:
    """A set of ids that needs little memory. The set may report that it contains an id that was never added.

    It is used to recognize ids that were read before. An added id is always found. About one of several thousand other
    ids is found by mistake. The hashes have a random key, so each new filter makes mistakes for different ids.

    Args:
        expected: Approximate number of ids that will be added. More ids make mistakes more frequent.
    """

    def __init__(self, expected: int) -> None:
        bits = 1 << max(20, (32 * expected).bit_length())  # at least 128 KiB, because `expected` may be too low
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
        """Add an id. Return whether the filter contained it before."""
        known = True
        for at in self._positions(task_id):
            byte, bit = at >> 3, 1 << (at & 7)
            if not self._bits[byte] & bit:
                known = False
                self._bits[byte] |= bit
        return known
