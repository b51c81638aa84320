"""Compute the Redis Cluster slot of a key."""

from binascii import crc_hqx

SLOTS = 16_384
"""Number of slots of a Redis Cluster."""


def key_slot(key: str) -> int:
    """Return the slot (0 to 16383) of a key: of its hash tag (the text between the first braces), else of the key."""
    name = key.encode("utf-8", "surrogateescape")
    _, opened, rest = name.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc_hqx(tag if opened and closed and tag else name, 0) % SLOTS
