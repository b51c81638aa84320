"""Read the workers and their running tasks, the schedulers and their entries, and facts about the Redis server."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from taskq_core.broker.operations import replies
from taskq_core.broker.operations.operation import MESSAGE_MAX, NOW, Operation, command, script


def list_alive(index_key: str, *, skip: int, count: int) -> Operation[list[str]]:
    """Read the members of an index that have not expired; `count` is at most 1000.

    Pass them through `keys_of_index` before you read them as keys.
    """
    return script(
        "list_alive",
        (index_key,),
        (NOW, skip, count),
        replies.names,
    )


def keys_of_index(index_key: str, members: Iterable[str]) -> list[str]:
    """Return the members of an index that are valid keys of servers or schedulers, and drop all others.

    Any client that may write to the index can add any name. Without this check, tools would read and show that key.
    """
    return [member for member in members if member.startswith(index_key + ":{")]


def read_server(server_key: str) -> Operation[bytes | None]:
    """Read the record of a worker process: a serialized `ServerInfo`, None if it has expired."""
    return command("read_server", ("GET", server_key), lambda reply: reply)


def read_servers(server_keys: Sequence[str]) -> Operation[list[bytes | None]]:
    """Read the records of up to 1000 worker processes. In a cluster, their keys must all have the same slot.

    Each is a serialized `ServerInfo`, None if it has expired.
    """
    return command("read_servers", ("MGET", *server_keys), list, keys=tuple(server_keys))


def list_peers(peers_key: str, token: str, record: bytes, *, kept_s: int) -> Operation[dict[str, bytes]]:
    """Store the record of a worker process for `kept_s` seconds, and read those of the other processes on its host."""
    return script("list_peers", (peers_key,), (token, record, kept_s), replies.shown_fields)


def forget_peer(peers_key: str, token: str) -> Operation[int]:
    """Delete the record of a worker process."""
    return command("forget_peer", ("HDEL", peers_key, token), replies.integer)


def read_running(workers_key: str) -> Operation[list[bytes]]:
    """Read the running tasks of a worker process, each as a serialized `WorkerInfo`; at most its concurrency.

    Go workers store the payload in this record. A record over `MESSAGE_MAX` bytes is left out.
    """
    return script("read_running", (workers_key,), (MESSAGE_MAX,), list)


def read_entries(scheduler_key: str, *, skip: int, count: int) -> Operation[list[bytes]]:
    """Read a page of the entries of a scheduler. Each is a serialized `SchedulerEntry`."""
    words = ("LRANGE", scheduler_key, skip, skip + count - 1)
    return command("read_entries", words, list)


def read_events(history_key: str, *, skip: int, count: int) -> Operation[list[bytes]]:
    """Read a page of the past firings of an entry, newest first. Each is a serialized `SchedulerEnqueueEvent`."""
    words = ("ZREVRANGE", history_key, skip, skip + count - 1)
    return command("read_events", words, list)


def read_schedules(schedules_key: str) -> Operation[dict[str, bytes]]:
    """Read the schedules that were added or paused at run time: all fields of the hash."""
    return command("read_schedules", ("HGETALL", schedules_key), replies.shown_fields)


def write_schedule(schedules_key: str, field: str, value: bytes, *, only_new: bool = False) -> Operation[int]:
    """Add, change or pause a schedule.

    With `only_new`, an existing one is not changed. The answer is 1 if it is new.
    """
    words = ("HSETNX" if only_new else "HSET", schedules_key, field, value)
    return command("write_schedule", words, replies.integer)


def delete_schedule(schedules_key: str, *fields: str) -> Operation[int]:
    """Delete a schedule that was added at run time, or the mark that pauses a schedule."""
    return command("delete_schedule", ("HDEL", schedules_key, *fields), replies.integer)


def send_control(channel: str, request: bytes) -> Operation[int]:
    """Send a request to workers. The answer is the number of subscribers in all databases."""
    return command("send_control", ("PUBLISH", channel, request), replies.integer)


def _read_info(reply: Any) -> Mapping[str, str | int]:
    found: dict[str, str | int] = {}
    for line in replies.text(reply).splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            found[name] = int(value) if value.isascii() and value.isdigit() else value
    return found


def server_info() -> Operation[Mapping[str, str | int]]:
    """Read the `INFO` of the Redis server; in a cluster, of one node."""
    return command("server_info", ("INFO",), _read_info, keys=())


_SLOTS = ("CLUSTER", "SLOTS")


def _read_slots(slot: int) -> Any:
    def read(reply: Any) -> list[str]:
        nodes = [node for first, last, *shard in reply if int(first) <= slot <= int(last) for node in shard]
        return [f"{replies.text(node[0])}:{int(node[1])}" for node in nodes]

    return read


def list_nodes(slot: int) -> Operation[list[str]]:
    """Read the nodes of a cluster that serve a slot. The answer is host:port of each, the primary first."""
    return command("list_nodes", _SLOTS, _read_slots(slot), keys=())


def read_shards() -> Operation[list[Any]]:
    """Read the slots and nodes of a cluster. The answer has (first slot, last slot, primary, replicas...) per range."""
    return command("read_shards", _SLOTS, list, keys=())
