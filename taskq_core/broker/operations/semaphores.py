"""Acquire and release permits of a semaphore."""

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import Operation, command, script, time_argument


def acquire(
    key: str,
    *,
    limit: int,
    holder: str,
    until_s: int | None = None,
    for_ms: int = 0,
    now_ns: int | None = None,
) -> Operation[bool]:
    """Acquire a permit until a Unix second, or for some ms from Redis's time. The answer is False if all are taken."""
    end = f"+{for_ms}" if until_s is None else f"={until_s}"
    return script("acquire", (key,), (time_argument(now_ns), limit, holder, end), replies.boolean)


def release(key: str, *, holder: str) -> Operation[bool]:
    """Release a permit. The answer is False if the holder has none."""
    return command("release", ("ZREM", key, holder), replies.boolean)
