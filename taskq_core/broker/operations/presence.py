"""Read who is there: workers with what they run, schedulers with their entries, and the store itself."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from taskq_core.broker.operations.operation import Operation, integer, text, time_argument
from taskq_core.broker.scripts import load
from taskq_core.wire import QueueKeys


def list_alive(index_key: str, *, skip: int, count: int, now_ns: int | None = None) -> Operation[list[str]]:
    """Read the members of an index that have not expired; `count` is at most 1000.

    Pass them through `keys_of_index` before you read them as keys.
    """
    return Operation(
        "list_alive",
        load("alive"),
        (index_key,),
        (time_argument(now_ns), skip, count),
        lambda reply: [member.decode("utf-8", "surrogateescape") for member in reply],
    )


def keys_of_index(index_key: str, members: Iterable[str]) -> list[str]:
    """Return the members of an index that are keys of its servers or schedulers.

    Any client that may write to the index can add any name. Without this check, tools would read and show that key.
    """
    return [member for member in members if member.startswith(index_key + ":{")]


def read_server(server_key: str) -> Operation[bytes | None]:
    """Read what a worker process says of itself. Reads as ServerInfo bytes, None if it is gone."""
    return Operation("read_server", None, (server_key,), ("GET", server_key), lambda reply: reply)


def read_servers(server_keys: Sequence[str]) -> Operation[list[bytes | None]]:
    """Read what several worker processes say of themselves, at most 1000; in a cluster, those of one slot.

    Reads as ServerInfo bytes, None where one is gone.
    """
    return Operation("read_servers", None, tuple(server_keys), ("MGET", *server_keys), list)


def list_peers(queue: QueueKeys, place: str, token: str, record: bytes, *, kept_s: int) -> Operation[dict[str, bytes]]:
    """Record a worker process among those of its host, for so many seconds. Reads as the records of the others."""

    def read(reply: Any) -> dict[str, bytes]:
        words = iter(reply)
        return {peer.decode("utf-8", "replace"): data for peer, data in zip(words, words, strict=True)}

    return Operation("list_peers", load("peers"), (queue.peers(place),), (token, record, kept_s), read)


def forget_peer(queue: QueueKeys, place: str, token: str) -> Operation[int]:
    """Delete the record of a worker process."""
    key = queue.peers(place)
    return Operation("forget_peer", None, (key,), ("HDEL", key, token), integer)


def read_running(workers_key: str) -> Operation[list[bytes]]:
    """Read what a worker process runs; as many as its concurrency. Reads as WorkerInfo bytes."""
    return Operation("read_running", None, (workers_key,), ("HVALS", workers_key), list)


def read_entries(scheduler_key: str, *, skip: int, count: int) -> Operation[list[bytes]]:
    """Read some entries of a scheduler. Reads as SchedulerEntry bytes."""
    command = ("LRANGE", scheduler_key, skip, skip + count - 1)
    return Operation("read_entries", None, (scheduler_key,), command, list)


def read_events(history_key: str, *, skip: int, count: int) -> Operation[list[bytes]]:
    """Read firings of an entry, the newest first. Reads as SchedulerEnqueueEvent bytes."""
    command = ("ZREVRANGE", history_key, skip, skip + count - 1)
    return Operation("read_events", None, (history_key,), command, list)


def read_schedules(schedules_key: str) -> Operation[dict[str, bytes]]:
    """Read the schedules that were added or paused at run time. Reads as the fields of the hash."""

    def read(reply: Any) -> dict[str, bytes]:
        words = iter(reply)
        return {field.decode("utf-8", "replace"): value for field, value in zip(words, words, strict=True)}

    return Operation("read_schedules", None, (schedules_key,), ("HGETALL", schedules_key), read)


def write_schedule(schedules_key: str, field: str, value: bytes, *, only_new: bool = False) -> Operation[int]:
    """Add, change or pause a schedule. Reads as 1 if it is new. With `only_new` an existing one stays as it is."""
    command = ("HSETNX" if only_new else "HSET", schedules_key, field, value)
    return Operation("write_schedule", None, (schedules_key,), command, integer)


def delete_schedule(schedules_key: str, *fields: str) -> Operation[int]:
    """Remove or resume a schedule."""
    return Operation("delete_schedule", None, (schedules_key,), ("HDEL", schedules_key, *fields), integer)


def send_control(channel: str, request: bytes) -> Operation[int]:
    """Send a request to workers. Reads as the number of subscribers, of all databases."""
    return Operation("send_control", None, (channel,), ("PUBLISH", channel, request), integer)


def _read_info(reply: Any) -> Mapping[str, str | int]:
    found: dict[str, str | int] = {}
    for line in text(reply).splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            found[name] = int(value) if value.isascii() and value.isdigit() else value
    return found


def server_info() -> Operation[Mapping[str, str | int]]:
    """Read what the store says of itself (`INFO`); of a cluster, one of its nodes."""
    return Operation("server_info", None, (), ("INFO",), _read_info)


_SLOTS = ("CLUSTER", "SLOTS")


def _read_slots(slot: int) -> Any:
    def read(reply: Any) -> list[str]:
        nodes = [node for first, last, *shard in reply if int(first) <= slot <= int(last) for node in shard]
        return [f"{text(node[0])}:{int(node[1])}" for node in nodes]

    return read


def list_nodes(slot: int) -> Operation[list[str]]:
    """Ask a cluster which nodes hold a slot. Reads as host:port, the primary first."""
    return Operation("list_nodes", None, (), _SLOTS, _read_slots(slot))


def read_shards() -> Operation[list[Any]]:
    """Ask a node of a cluster who serves which slots. Reads as (first, last, primary, replicas...)."""
    return Operation("read_shards", None, (), _SLOTS, list)
