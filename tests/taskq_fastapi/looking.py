"""Read what tests check in Redis."""

import time

from tests.redis_server import RedisServer


def pending(server: RedisServer, prefix: str = "asynq") -> list[str]:
    """Return the ids of pending tasks in the queue `default`."""
    return [task_id.decode() for task_id in server.command("LRANGE", f"{prefix}:{{default}}:pending", 0, -1)]


def connections(server: RedisServer, *, expected: int) -> int:
    """Wait for the expected number of connections, without the connection of this check, and return their number.

    Redis notices a closed connection a moment after its client closed it. After 30 s, return the current number.
    """
    deadline = time.monotonic() + 30
    while (found := len(server.client.client_list()) - 1) != expected and time.monotonic() < deadline:
        pass
    return found
