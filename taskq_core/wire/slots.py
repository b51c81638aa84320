"""Which slot of a Redis Cluster holds a key."""

from binascii import crc_hqx

SLOTS = 16_384
"""Number of slots of a cluster."""


def key_slot(key: str) -> int:
    """Return the slot of a key, 0 to 16383: of the text between its first braces where there is any, else of all."""
    name = key.encode("utf-8", "surrogateescape")
    _, opened, rest = name.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc_hqx(tag if opened and closed and tag else name, 0) % SLOTS
