"""The kinds of Redis in a soak: one server, a primary with a replica and Sentinels, or a cluster."""

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
"""Commands that take longer are in Redis's slow log, from which the monitor reads the longest."""
OPTIONS = {
    "appendfsync": "everysec",
    "enable-debug-command": "yes",
    "slowlog-log-slower-than": str(int(LOGGED_MS * 1000)),
    "slowlog-max-len": "10000",
}
SHORT_TIMEOUTS: dict[str, Any] = {"socket_timeout": 1.0, "retry": Retry(NoBackoff(), 0)}
"""Client options with a short timeout and no retries: the conductor may have frozen Redis itself."""
PATIENCE_S = 30.0
DOWN_AFTER_S = 3.0
"""Seconds without a response after which a Sentinel regards a primary as down."""


def raw_client(server: RedisServer) -> Any:
    """Return a redis-py client of one server, past every relay."""
    return redis.Redis(unix_socket_path=str(server.socket_path), **SHORT_TIMEOUTS)


class Store(Protocol):
    """The Redis of a soak.

    Attributes:
        servers: All servers with data.
        url: URL for processes that connect without a relay.
        relayed: Socket to which the relays connect; None for Sentinel and Cluster, where clients learn addresses.
    """

    servers: list[RedisServer]
    url: str
    relayed: Path | None

    def open(self) -> None:
        """Start the servers."""
        ...

    def client(self) -> Any:
        """Return a new client that finds the primary."""
        ...

    def close(self) -> None: ...


class OneServer:
    """A single server with its data in the folder."""

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
        """Start the servers and wait until the Sentinels know each other and the replica."""
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
        until(self._know_each_other, "the Sentinels know each other and the replica", timeout_s=PATIENCE_S)
        for sentinel in self.sentinels:  # the default is too short for a busy machine
            name = RedisServer.MASTER_NAME
            sentinel.command("SENTINEL", "SET", name, "down-after-milliseconds", int(DOWN_AFTER_S * 1000))

    def _know_each_other(self) -> bool:
        for sentinel in self.sentinels:
            info = sentinel.client.sentinel_master(RedisServer.MASTER_NAME)
            if info["num-other-sentinels"] != 2 or info["num-slaves"] != 1:
                return False
        return True

    def client(self) -> Any:
        hosts = [("127.0.0.1", each.port) for each in self.sentinels]
        found = redis.sentinel.Sentinel(hosts, sentinel_kwargs=SHORT_TIMEOUTS)
        return found.master_for(RedisServer.MASTER_NAME, **SHORT_TIMEOUTS)

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
        """Start the servers and wait until each replica has its first copy of the data."""
        # 0: a replica may become primary even if a busy machine has interrupted its replication for a while.
        options = {**OPTIONS, "cluster-replica-validity-factor": "0"}
        self.servers = self._stack.enter_context(start_cluster(3, replicas=1, appendonly=True, options=options))
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.servers)

    def client(self) -> Any:
        nodes = [ClusterNode("127.0.0.1", each.port) for each in self.servers if each.is_running]
        return redis.RedisCluster(startup_nodes=nodes, **SHORT_TIMEOUTS)

    @property
    def running(self) -> list[RedisServer]:
        """Servers that run. The first one is asked for the state of the cluster."""
        return [each for each in self.servers if each.is_running]

    def owner(self, slot: int) -> RedisServer:
        """The primary of a slot."""
        return owner_of(self.running, slot)

    def close(self) -> None:
        self._stack.close()


def wait_for_copy(server: RedisServer) -> Iterator[float]:
    """Wait until a restarted server is a replica with a complete copy. A generator, to be used by a fault."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            info = server.client.info("replication")
            if info["role"] == "slave" and info["master_link_status"] == "up":
                return
        yield 0.1


def retry_while_unavailable(call: Callable[[], T]) -> T:
    """Call a function until it succeeds, as long as Redis is unavailable."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except (redis.ConnectionError, redis.TimeoutError, BrokerUnavailableError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


STORES = {"one": OneServer, "sentinel": Sentinels, "cluster": Cluster}
"""Kinds of Redis by the name in `Profile.store`."""
