"""Acquire and release permits of a semaphore."""

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import NOW, Operation, command, script


def acquire(key: str, *, limit: int, holder: str, until_s: int | None = None, for_ms: int = 0) -> Operation[bool]:
    """Acquire a permit until a Unix second, or for some ms from Redis's time. The answer is False if all are taken."""
    end = f"+{for_ms}" if until_s is None else f"={until_s}"
    return script("acquire", (key,), (NOW, limit, holder, end), replies.boolean)


def release(key: str, *, holder: str) -> Operation[bool]:
    """Release a permit. The answer is False if the holder has none."""
    return command("release", ("ZREM", key, holder), replies.boolean)
