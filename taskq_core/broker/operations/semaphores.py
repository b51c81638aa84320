"""Take and give back the places of a semaphore."""

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
    """Take a place until a Unix second, or for some ms from Redis's now. Reads as False if all are held."""
    end = f"+{for_ms}" if until_s is None else f"={until_s}"
    return script("acquire", (key,), (time_argument(now_ns), limit, holder, end), replies.boolean)


def release(key: str, *, holder: str) -> Operation[bool]:
    """Give a place back. Reads as False if the holder had none."""
    return command("release", ("ZREM", key, holder), replies.boolean)
