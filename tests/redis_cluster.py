"""Move slots of a Redis Cluster, in the same steps as redis-cli."""

import time
from collections.abc import Sequence

from tests.redis_server import RedisServer


def node_id(server: RedisServer) -> str:
    """Return the id of a server in the cluster."""
    return str(server.command("CLUSTER", "MYID").decode())


def owner_of(servers: Sequence[RedisServer], slot: int) -> RedisServer:
    """Return the primary of a slot, according to the first server that responds."""
    for first, last, primary, *_ in shards(servers[0]):
        if first <= slot <= last:
            return next(server for server in servers if server.port == primary[1])
    raise AssertionError(f"no server owns slot {slot}")


def shards(server: RedisServer) -> list[list[object]]:
    """Return the raw response to CLUSTER SLOTS."""
    connection = server.client.connection_pool.get_connection()
    try:
        connection.send_command("CLUSTER", "SLOTS")
        reply: list[list[object]] = connection.read_response()
        return reply
    finally:
        server.client.connection_pool.release(connection)


def open_slot(slot: int, source: RedisServer, target: RedisServer) -> None:
    """Begin to move a slot. From then on its keys may be on either server."""
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))


def move_keys(slot: int, source: RedisServer, target: RedisServer, *, most: int | None = None) -> int:
    """Move keys of a slot that is being moved, and return their number."""
    moved = 0
    while most is None or moved < most:
        keys = source.command("CLUSTER", "GETKEYSINSLOT", slot, min(100, most - moved if most is not None else 100))
        if not keys:
            return moved
        secret = ("AUTH", source.password) if source.password else ()
        source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, *secret, "KEYS", *keys)
        moved += len(keys)
    return moved


def close_slot(slot: int, target: RedisServer, servers: Sequence[RedisServer]) -> None:
    """End the move of a slot after all keys were moved. The target is notified first, so that the slot has an owner."""
    for server in (target, *(each for each in servers if each is not target)):
        if server.command("ROLE")[0] == b"master":
            server.command("CLUSTER", "SETSLOT", slot, "NODE", node_id(target))


def move_slot(
    slot: int, source: RedisServer, target: RedisServer, servers: Sequence[RedisServer], *, step: int | None = None
) -> None:
    """Move a slot with all its keys while it is used. With `step`, move this many keys at a time, with pauses."""
    open_slot(slot, source, target)
    deadline = time.monotonic() + 30
    while True:
        move_keys(slot, source, target, most=step)
        if step is not None:
            time.sleep(0.003)  # so that other requests run in between
        if not source.command("CLUSTER", "COUNTKEYSINSLOT", slot):
            break
        assert time.monotonic() < deadline, "keys are created faster than they are moved"
    close_slot(slot, target, servers)
