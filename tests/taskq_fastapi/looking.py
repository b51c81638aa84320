"""What tests look at in Redis."""

import time

from tests.redis_server import RedisServer


def pending(server: RedisServer, prefix: str = "asynq") -> list[str]:
    """Ids of the tasks that wait in the queue `default`."""
    return [task_id.decode() for task_id in server.command("LRANGE", f"{prefix}:{{default}}:pending", 0, -1)]


def connections(server: RedisServer, *, expected: int) -> int:
    """Connections to the server, the one that asks left out, as soon as they are as many as expected.

    Redis learns of a closed connection a moment later than the one who closed it; after 30 s the number is what it is.
    """
    deadline = time.monotonic() + 30
    while (found := len(server.client.client_list()) - 1) != expected and time.monotonic() < deadline:
        pass
    return found
