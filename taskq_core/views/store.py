"""Read facts about the Redis server: version, memory, clients, user, and the places of queues in a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from taskq_core.broker.operations import diagnosis, presence, views
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.clock import utc_datetime
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError
from taskq_core.inspector.presence import key_slot
from taskq_core.wire import Keys

T = TypeVar("T")

PLACES_MAX = 100
"""Maximum number of queues whose cluster slot and nodes are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlace:
    """The cluster slot of a queue, and the nodes that store it.

    Attributes:
        name: Name of the queue.
        slot: Cluster slot of the queue.
        nodes: host:port of the nodes that store the slot, the primary first.
    """

    name: str
    slot: int
    nodes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRow:
    """Facts about the store, or about one node of a cluster. An unknown fact is None.

    Attributes:
        kind: `Redis`, `Valkey`, or "" if it is unknown.
        version: Version of the server, "" if it is unknown.
        uptime: Time since its start.
        memory: Used memory in bytes.
        memory_peak: Maximum of used memory in bytes.
        memory_limit: Limit of used memory in bytes. None: no limit.
        fragmentation: Memory that the system has allocated, as a multiple of used memory.
        clients: Number of connections.
        replicas: Number of connected replicas.
        saved_at: Time of the last snapshot.
        changes_since_save: Number of changes since the last snapshot.
        user: Name of the ACL user of this connection.
        info: Answer of `INFO`, by name.
        is_cluster: Whether it is a node of a cluster.
        cluster: Answer of `CLUSTER INFO`, by name.
        places: Places of queues in the cluster, at most `PLACES_MAX`.
    """

    kind: str
    version: str
    uptime: timedelta | None
    memory: int | None
    memory_peak: int | None
    memory_limit: int | None
    fragmentation: float | None
    clients: int | None
    replicas: int | None
    saved_at: datetime | None
    changes_since_save: int | None
    user: str | None
    info: Mapping[str, str | int]
    is_cluster: bool
    cluster: Mapping[str, str]
    places: Sequence[QueuePlace]


def read_store(keys: Keys) -> RequestPlan[StoreRow]:
    """Return facts about the Redis server.

    On a cluster, return facts about one node, and the slots and nodes of the queues.
    """
    info: Mapping[str, str | int] = (yield from _if_allowed(presence.server_info())) or {}
    user = yield from _if_allowed(diagnosis.whoami())
    is_cluster = info.get("cluster_enabled") == 1
    cluster: Mapping[str, str] = {}
    places: list[QueuePlace] = []
    if is_cluster:
        cluster = (yield from _if_allowed(diagnosis.cluster_info())) or {}
        for name in (yield from ask(views.list_queues(keys.queues)))[:PLACES_MAX]:
            slot = key_slot(keys, name)
            nodes = (yield from _if_allowed(presence.list_nodes(slot))) or []
            places.append(QueuePlace(name=name, slot=slot, nodes=nodes))
    return _row(info, user, cluster, places, is_cluster=is_cluster)


def _if_allowed(operation: Operation[T]) -> RequestPlan[T | None]:
    """Run a command and return its result. Return None if this Redis user may not run it."""
    try:
        return (yield from ask(operation))
    except (BrokerAuthenticationError, BrokerReplyError):
        return None


def _row(
    info: Mapping[str, str | int],
    user: str | None,
    cluster: Mapping[str, str],
    places: Sequence[QueuePlace],
    *,
    is_cluster: bool,
) -> StoreRow:
    def number(name: str) -> int | None:
        value = info.get(name)
        return value if isinstance(value, int) else None

    uptime_s, saved_s = number("uptime_in_seconds"), number("rdb_last_save_time")
    version = info.get("valkey_version") or info.get("redis_version")
    kind = "Valkey" if "valkey_version" in info else "Redis"
    return StoreRow(
        kind=kind if version else "",
        version=str(version or ""),
        uptime=None if uptime_s is None else timedelta(seconds=uptime_s),
        memory=number("used_memory"),
        memory_peak=number("used_memory_peak"),
        memory_limit=number("maxmemory") or None,
        fragmentation=_decimal(info.get("mem_fragmentation_ratio")),
        clients=number("connected_clients"),
        replicas=number("connected_slaves"),
        saved_at=None if saved_s is None else utc_datetime(saved_s),
        changes_since_save=number("rdb_changes_since_last_save"),
        user=user,
        info=info,
        is_cluster=is_cluster,
        cluster=cluster,
        places=tuple(places),
    )


def _decimal(value: str | int | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None
