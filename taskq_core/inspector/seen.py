"""Which ids were seen before, in little memory, whatever their number."""

import hashlib
import os


class Seen:
    """Remembers ids in four bytes each, whatever their number: a Bloom filter.

    What was added is always known. Of the rest one in some thousands is taken for known; the next pass, with other
    hashes, takes another one.
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
        """Remember an id. True if it was known before."""
        known = True
        for at in self._positions(task_id):
            byte, bit = at >> 3, 1 << (at & 7)
            if not self._bits[byte] & bit:
                known = False
                self._bits[byte] |= bit
        return known
