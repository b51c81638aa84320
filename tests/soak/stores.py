"""What Redis is made of in a soak: one server, a primary with a replica and Sentinels, or a cluster."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import redis
import redis.sentinel
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from taskq_core.errors import BrokerUnavailableError
from tests.redis_cluster import owner_of
from tests.redis_server import RedisServer, start_cluster
from tests.soak.processes import until

T = TypeVar("T")

LOGGED_MS = 0.5
"""Calls that take longer stand in Redis's slow log, from which the longest is read."""
OPTIONS = {
    "appendfsync": "everysec",
    "enable-debug-command": "yes",
    "slowlog-log-slower-than": str(int(LOGGED_MS * 1000)),
    "slowlog-max-len": "10000",
}
NEVER_LONG: dict[str, Any] = {"socket_timeout": 1.0, "retry": Retry(NoBackoff(), 0)}
"""Options of clients that never wait long: Redis may be frozen by the one who asks."""
PATIENCE_S = 30.0
DOWN_AFTER_S = 3.0
"""Seconds of silence after which a Sentinel calls a primary dead."""


def raw_client(server: RedisServer) -> Any:
    """Return a redis-py client of one server, past every relay."""
    return redis.Redis(unix_socket_path=str(server.socket_path), **NEVER_LONG)


class Store(Protocol):
    """What holds the queue.

    Attributes:
        servers: All servers with data.
        url: How processes reach it, where there are no relays.
        relayed: What a relay before each process passes on to; None where clients learn addresses from the store.
    """

    servers: list[RedisServer]
    url: str
    relayed: Path | None

    def open(self) -> None:
        """Start it."""
        ...

    def client(self) -> Any:
        """Return a new client that finds the server in charge by itself."""
        ...

    def close(self) -> None: ...


class OneServer:
    """A single server, whose data stands in the folder."""

    def __init__(self, folder: Path) -> None:
        self.server = RedisServer(appendonly=True, options={**OPTIONS, "dir": str(folder)})
        self.servers = [self.server]
        self.url = self.server.unix_url
        self.relayed: Path | None = self.server.socket_path

    def open(self) -> None:
        self.server.start()

    def client(self) -> Any:
        return raw_client(self.server)

    def close(self) -> None:
        self.server.close()


class Sentinels:
    """A primary, a replica and three Sentinels."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []
        self.url = ""
        self.relayed: Path | None = None

    def open(self) -> None:
        """Start all, and return when the Sentinels know each other and the replica."""
        primary = RedisServer(tcp=True, appendonly=True, options=OPTIONS)
        self.servers.append(primary)
        primary.start()
        replica = RedisServer(tcp=True, appendonly=True, options=OPTIONS, replica_of=primary)
        self.servers.append(replica)
        replica.start()
        for _ in range(3):
            sentinel = RedisServer(sentinel_of=primary, quorum=2)
            self.sentinels.append(sentinel)
            sentinel.start()
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{RedisServer.MASTER_NAME}"
        until(self._are_met, "the Sentinels know each other and the replica", timeout_s=PATIENCE_S)
        for sentinel in self.sentinels:  # else a busy machine is a dead primary
            name = RedisServer.MASTER_NAME
            sentinel.command("SENTINEL", "SET", name, "down-after-milliseconds", int(DOWN_AFTER_S * 1000))

    def _are_met(self) -> bool:
        for sentinel in self.sentinels:
            said = sentinel.client.sentinel_master(RedisServer.MASTER_NAME)
            if said["num-other-sentinels"] != 2 or said["num-slaves"] != 1:
                return False
        return True

    def client(self) -> Any:
        hosts = [("127.0.0.1", each.port) for each in self.sentinels]
        found = redis.sentinel.Sentinel(hosts, sentinel_kwargs=NEVER_LONG)
        return found.master_for(RedisServer.MASTER_NAME, **NEVER_LONG)

    @property
    def primary(self) -> RedisServer:
        """The server that the Sentinels name."""
        _, port = self.sentinels[0].client.sentinel_get_master_addr_by_name(RedisServer.MASTER_NAME)
        return next(each for each in self.servers if each.port == int(port))

    def close(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.close()


class Cluster:
    """Three primaries with a replica each."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[RedisServer] = []
        self.url = ""
        self.relayed: Path | None = None
        self._stack = contextlib.ExitStack()

    def open(self) -> None:
        """Start all, and return when each replica has its first copy."""
        # A replica that a busy machine has kept from its primary for a while may take over all the same.
        options = {**OPTIONS, "cluster-replica-validity-factor": "0"}
        self.servers = self._stack.enter_context(start_cluster(3, replicas=1, appendonly=True, options=options))
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.servers)

    def client(self) -> Any:
        nodes = [ClusterNode("127.0.0.1", each.port) for each in self.servers if each.is_running]
        return redis.RedisCluster(startup_nodes=nodes, **NEVER_LONG)

    @property
    def running(self) -> list[RedisServer]:
        """Servers that run, of which the first is asked how things stand."""
        return [each for each in self.servers if each.is_running]

    def owner(self, slot: int) -> RedisServer:
        """The primary of a slot."""
        return owner_of(self.running, slot)

    def close(self) -> None:
        self._stack.close()


def wait_for_copy(server: RedisServer) -> Iterator[float]:
    """Wait, step by step, until a server that was started as a replica is one that has all; a part of a fault."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            said = server.client.info("replication")
            if said["role"] == "slave" and said["master_link_status"] == "up":
                return
        yield 0.1


def patiently(look: Callable[[], T]) -> T:
    """Look until the store is there to answer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return look()
        except (redis.ConnectionError, redis.TimeoutError, BrokerUnavailableError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


STORES = {"one": OneServer, "sentinel": Sentinels, "cluster": Cluster}
"""By the name that profiles use."""
