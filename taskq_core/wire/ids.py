"""Random task ids: UUIDs of version 4. The random bytes of many ids are read from the operating system at once."""

import os
from collections import deque

_BATCH = 256
_ready: deque[str] = deque()


def new_task_id() -> str:
    """Return a random UUIDv4 as 36 characters of text (RFC 9562, section 5.4)."""
    try:
        return _ready.pop()
    except IndexError:
        first, *others = _draw(_BATCH)
        _ready.extend(others)
        return first


def _draw(count: int) -> list[str]:
    digits = os.urandom(16 * count).hex()
    ids = []
    for start in range(0, 32 * count, 32):
        part = digits[start : start + 32]
        variant = "89ab"[int(part[16], 16) & 3]
        ids.append(f"{part[:8]}-{part[8:12]}-4{part[13:16]}-{variant}{part[17:20]}-{part[20:]}")
    return ids


def worker_token(worker_id: str) -> str:
    """Return the token that identifies a worker in tasks and leases, derived from the worker's id."""
    return worker_id.replace("-", "")[:16]


def new_token() -> str:
    """Return 16 random hex characters that identify a connection, a worker or a lease holder."""
    return os.urandom(8).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ready.clear)  # a forked child must not return the same ids as its parent
