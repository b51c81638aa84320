"""Open connections to Redis. An `Endpoint` names the server: from a URL or from an existing redis-py client.

======================================================  ====================================================
``redis://user:password@host:6379/0``                   one server
``redis://user@host/0?password_file=/path``             one server; each new connection reads the password
``rediss://host:6380/0?ssl_ca_certs=/path``             the same over TLS; certificate and host name are verified
``unix:///path/to/socket?db=0``                         one server on a unix socket
``redis+sentinel://h1:26379,h2/master?db=0``            the primary that Sentinels name (``rediss+sentinel`` for TLS)
``redis+cluster://h1:6379,h2``                          a Redis Cluster (``rediss+cluster`` for TLS)
``embedded://`` or ``embedded:///folder``               a private redis-server for development
======================================================  ====================================================

The defaults of redis-py (ten silent retries, a hundred connections, long timeouts) are wrong for a queue, because a
request that is sent twice runs twice. The connections of an `Endpoint` do not retry and have explicit timeouts; the
runners decide which requests are repeated. No repr, error or log line contains a password. New connections use the
current content of files with passwords and certificates.
"""

import asyncio
import itertools
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskq_core.broker import sentinel
from taskq_core.broker.cluster import Server, SlotMap
from taskq_core.broker.credentials import PasswordFile
from taskq_core.broker.follower import Follower
from taskq_core.broker.plans import arun_plan, run_plan
from taskq_core.errors import ConfigurationError

if TYPE_CHECKING:
    from taskq_core.broker.embedded import EmbeddedRedis

CONNECT_TIMEOUT_S = 2.0
"""Seconds to establish a connection."""
ANSWER_TIMEOUT_S = 3.0
"""Seconds to wait for an answer. Shorter than the heartbeat, so that a worker detects a silent server before a lease
expires."""
LEAST_S = 0.001
"""Minimum timeout in seconds, so that a reply that arrives at the deadline is still read."""

_KINDS = {
    "redis": ("standalone", False),
    "rediss": ("standalone", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "embedded": ("embedded", False),
}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = {
    "standalone": ("db", "password_file"),
    "unix": ("db", "password_file"),
    "sentinel": ("db", "password_file", "sentinel_username", "sentinel_password", "sentinel_password_file"),
    "cluster": ("password_file",),
    "embedded": (),
}
_NO_HOST = re.compile(r"[\s\x00-\x1f\x7f/#\\]")
_DEFAULT_PORTS = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A parsed broker URL.

    Attributes:
        kind: standalone, unix, sentinel, cluster or embedded.
        hosts: Host and port pairs.
        path: Socket (unix) or folder (embedded).
        master: Name of the primary (sentinel).
        db: Number of the database.
        password_file: File with the password, read for every connection, or "".
        sentinel_password_file: File with the password of the Sentinels, or "".
        tls: True for TLS.
        tls_options: Files for TLS: ssl_ca_certs, ssl_certfile, ssl_keyfile.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    password_file: str = ""
    sentinel_password_file: str = ""
    tls: bool = False
    tls_options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the URL without its password."""
        scheme = next(name for name, kind in _KINDS.items() if kind == (self.kind, self.tls))
        if self.kind == "embedded":
            return f"embedded://{self.path}"
        has_password = self.password is not None or self.password_file
        user = f"{self.username or ''}:***@" if has_password else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        if self.kind == "unix":
            return f"unix://{user}{self.path}?db={self.db}"
        if self.kind == "sentinel":
            return f"{scheme}://{user}{hosts}/{self.master}?db={self.db}"
        return f"{scheme}://{user}{hosts}" + ("" if self.kind == "cluster" else f"/{self.db}")


def _refuse(problem: str) -> ConfigurationError:
    return ConfigurationError(f"cannot use the broker URL: {problem}")


def _parse_hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in text.split(","):
        # The error does not quote the host. If the user forgot "@host", the quoted text would be the password.
        if _NO_HOST.search(part):
            raise _refuse("a host must be written host or host:port, without blanks or control characters")
        try:
            split = urlsplit(f"//{part}")
            host, port = split.hostname, split.port
        except ValueError:
            raise _refuse("a host must be written host:port with a port from 1 to 65535") from None
        if not host:
            raise _refuse("it has no host")
        if port == 0:
            raise _refuse(f"the port of {host!r} must be from 1 to 65535, got 0")
        hosts.append((host, port or default_port))
    return tuple(hosts)


def parse_url(url: str) -> Address:
    """Parse a broker URL.

    Raises:
        ConfigurationError: The URL has none of the forms above. The message does not contain the password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _KINDS:
        known = ", ".join(f"{name}://" for name in _KINDS)
        if not separator or len(scheme) > 40 or "@" in scheme:
            raise _refuse(f"it must begin with one of {known}, as in redis://localhost:6379/0")
        raise _refuse(f"{scheme!r} is not a known scheme; known are {known}")
    kind, tls = _KINDS[scheme]
    rest, _, query = rest.partition("?")
    if "@" in query:
        raise _refuse("an @ follows a ?; write ? in a user or password as %3F, and @ in an option as %40")
    if kind == "embedded" or rest.startswith("/"):
        credentials, location = "", rest  # a path may contain an @
    else:
        credentials, _, location = rest.rpartition("@")
    username, _, password = credentials.partition(":")
    hosts_text, slash, path = location.partition("/")
    options = _read_options(query, scheme)
    if kind == "embedded":
        return Address(kind=kind, path=unquote(hosts_text + slash + path))
    hosts = _parse_hosts(hosts_text, _DEFAULT_PORTS[kind]) if kind != "unix" else ()
    if kind == "unix" and (hosts_text or not path):
        raise _refuse("unix:// needs an absolute path, as in unix:///run/redis.sock")
    if kind == "sentinel" and not path:
        raise _refuse("redis+sentinel:// needs the primary's name, as in redis+sentinel://h1,h2/mymaster")
    if kind == "cluster" and path:
        raise _refuse(f"a cluster has no numbered databases, got {path!r}")
    if kind == "standalone" and len(hosts) > 1:
        raise _refuse("several hosts need redis+sentinel:// or redis+cluster://")
    db = options.get("db", "0")
    return Address(
        kind=kind,
        hosts=hosts,
        path="/" + unquote(path) if kind == "unix" else "",
        master=unquote(path) if kind == "sentinel" else "",
        db=_database(path or db if kind == "standalone" else db),
        username=unquote(username) or None,
        password=unquote(password) if ":" in credentials else None,
        password_file=_password_file(options, "password_file", has_password=":" in credentials),
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        sentinel_password_file=_password_file(
            options, "sentinel_password_file", has_password="sentinel_password" in options
        ),
        tls=tls,
        tls_options={name: options[name] for name in _TLS_OPTIONS if name in options},
    )


def _read_options(query: str, scheme: str) -> dict[str, str]:
    kind, tls = _KINDS[scheme]
    options = dict(parse_qsl(query, keep_blank_values=True))
    allowed = _OPTIONS[kind] + (_TLS_OPTIONS if tls else ())
    for name in options:
        if name not in allowed:
            expected = f"known are {', '.join(allowed)}" if allowed else f"{scheme}:// takes none"
            raise _refuse(f"unknown option {name!r}; {expected}")
    return options


def _password_file(options: Mapping[str, str], name: str, *, has_password: bool) -> str:
    path = options.get(name)
    if path is None:
        return ""
    if has_password:
        raise _refuse(f"it has both a password and {name}; remove one of them")
    if not path or "\0" in path:
        raise _refuse(f"{name} must be the path of a file")
    return path


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise _refuse(f"the database must be a number, got {text!r}")
    return int(text)


_COMMON: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "health_check_interval": 0,
    "decode_responses": False,
    "protocol": 2,
    # Without `driver_info`, redis-py would read its package metadata for each connection.
    "driver_info": redis.DriverInfo(lib_version=redis.__version__),
}


_OF_KIND: dict[Any, dict[str, Any]] = {
    redis: _COMMON | {"retry": Retry(NoBackoff(), 0)},
    # The asyncio runner limits each round trip itself, so the socket has no timeout.
    redis.asyncio: _COMMON | {"retry": AsyncRetry(NoBackoff(), 0), "socket_timeout": None},
}
"""Options of all connections, by the package of redis-py that makes the connection."""

_TAKEN_OVER = frozenset(
    {
        *("host", "port", "path", "db", "username", "password", "credential_provider", "client_name"),
        *("socket_keepalive_options", "socket_type"),
        *("server", "version", "server_type", "lua_modules", "client_class"),  # options of fakeredis clients
    }
)
"""Options of a redis-py client that an endpoint uses for its own connections. Timeouts, retries and options of the
connection pool are not used."""


def _login(username: str | None, password: str | None, password_file: str) -> dict[str, Any]:
    """Return the connection options that contain the user and the password."""
    if password_file:
        return {"credential_provider": PasswordFile(password_file, username)}
    return {"username": username, "password": password}


def _tls_options(address: Address) -> dict[str, Any]:
    if not address.tls:
        return {}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **address.tls_options}


class Endpoint:
    """Opens connections to one Redis server, primary or cluster.

    Attributes:
        address: Printable address without a password.
        is_cluster: True for a Redis Cluster, where each request goes to the node of its keys.
        is_node: True for one node of a cluster.
        slots: The node of each slot of a cluster; unused without a cluster.
        is_memory: True for a fake server in the memory of this process.
        clock_offset_s: Unix time of the server minus monotonic time of this process, None while it is unknown.
        follower: Follows the primary in a thread, None without Sentinels. Tell it before each use of a connection.
        takeovers: Number of failovers that `follow_primary` has detected. A connection that was opened before the last
            failover leads to the old primary.
        count_steps: Called when a request has stored steps of workflows, with queue, name of the task and their number.
    """

    def __init__(self, source: "str | Address | redis.Redis | redis.asyncio.Redis", *, embedded_folder: Path) -> None:
        self._embedded: EmbeddedRedis | None = None
        self._embedded_folder = embedded_folder
        self._address: Address | None = None
        self._turn = itertools.count()
        self._nodes: dict[Server, Endpoint] = {}
        self.is_cluster = False
        self.is_memory = False
        self.is_node = False
        self.takeovers = 0
        self._primary: Server | None = None
        self._asked_at = -math.inf  # monotonic time at which the Sentinels were last asked which server is the primary
        self.follower: Follower | None = None
        self.clock_offset_s: float | None = None
        self.count_steps: Callable[[str, str, int], None] = lambda *_: None
        self.slots = SlotMap(())
        self.server: Server | None = None
        if isinstance(source, str):
            source = parse_url(source)
        if isinstance(source, Address):
            self._address = source
            self.follower = Follower(self) if self.has_sentinels else None
            self.address = str(source)
            self.is_cluster = source.kind == "cluster"
            self.slots = SlotMap(source.hosts)
            if source.hosts:
                self.server = source.hosts[0]
            elif source.kind == "unix":
                self.server = (source.path, 0)
        else:
            self._from_client(source)

    def __repr__(self) -> str:
        return f"Endpoint({self.address!r})"

    def _from_client(self, client: Any) -> None:
        pool = getattr(client, "connection_pool", None)
        if isinstance(client, redis.cluster.RedisCluster | redis.asyncio.cluster.RedisCluster):
            raise ConfigurationError(
                "a RedisCluster client cannot be used as the broker; give redis+cluster://host:port instead"
            )
        if isinstance(pool, redis.sentinel.SentinelConnectionPool | redis.asyncio.sentinel.SentinelConnectionPool):
            raise ConfigurationError(
                "a client of a Sentinel cannot be used as the broker; give redis+sentinel://host:port/master instead"
            )
        if pool is None:
            raise ConfigurationError(
                f"the broker must be a URL or a redis-py client, got {type(client).__module__}.{type(client).__name__}"
            )
        options = pool.connection_kwargs
        self._client_options = {
            name: value
            for name, value in options.items()
            if name in _TAKEN_OVER or (name.startswith("ssl_") and ("ocsp" not in name or value))
        }
        self._client_classes = _connection_classes(pool.connection_class)
        self.is_memory = _is_fake(pool.connection_class)
        if "path" in options:
            self.server = (options["path"], 0)
            self.address = f"unix://{options['path']}?db={options.get('db', 0)}"
        else:
            host, port = options.get("host", "localhost"), int(options.get("port", 6379))
            self.server = (host, port)
            self.address = f"redis://{host}:{port}/{options.get('db', 0)}"

    def open(self) -> None:
        """Start the embedded server if this endpoint has one. The method blocks until the server runs."""
        if self._address is not None and self._address.kind == "embedded" and self._embedded is None:
            from taskq_core.broker.embedded import open_embedded  # imported here, because few programs need it

            folder = Path(self._address.path) if self._address.path else self._embedded_folder
            self._embedded = open_embedded(folder)

    async def aopen(self) -> None:
        """Do the same in a thread, so that the event loop is not blocked. Without such a server, start no thread."""
        if self._address is not None and self._address.kind == "embedded":
            await asyncio.to_thread(self.open)

    def close(self) -> None:
        """Release the embedded server if this endpoint has one. The server stops once no process uses it."""
        if self._embedded is not None:
            self._embedded.close()
            self._embedded = None

    def _resolved(self) -> Address:
        assert self._address is not None
        if self._address.kind != "embedded":
            return self._address
        self.open()
        assert self._embedded is not None
        return Address(kind="unix", path=str(self._embedded.socket_path))

    def learn_time(self, server_ms: int, sent_at: float) -> float:
        """Record the time of the server (Unix ms), which answered a request sent at a monotonic time (s).

        Return the server's clock minus the monotonic clock of this process, in seconds. If the answer is slow, the
        server's clock seems to be ahead, so deadlines may be late but are never too early.
        """
        offset_s = self.clock_offset_s = server_ms / 1000 - sent_at
        return offset_s

    def node(self, host: str, port: int) -> "Endpoint":
        """Return the endpoint of one server of the cluster. It has the same user and TLS options as the cluster."""
        assert self._address is not None  # only an endpoint for a client, which is no cluster, has no address
        node = self._nodes.get((host, port))
        if node is None:
            address = replace(self._address, kind="standalone", hosts=((host, port),))
            node = self._nodes[(host, port)] = Endpoint(address, embedded_folder=self._embedded_folder)
            node.is_node = True
            node.count_steps = self.count_steps
        return node

    def connection(self, *, timeout_s: float = ANSWER_TIMEOUT_S, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> Any:
        """Return a new blocking connection that is not connected yet. For a cluster, each call uses the next node.

        If the endpoint has Sentinels, this method asks them for the primary and may raise redis-py's errors.
        """
        options = _OF_KIND[redis] | {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": min(connect_timeout_s, CONNECT_TIMEOUT_S),
        }
        kind, place = self._place(redis)
        if self.has_sentinels:
            plan = sentinel.find(self._sentinels(), self._resolved().master, timeout_s=connect_timeout_s)
            self._go_to(place, run_plan(plan, partial(self._ask_sentinel, redis, sentinel.ask)))
        return kind(**place, **options)

    async def async_connection(self) -> Any:
        """Return a new asyncio connection. Like `connection`, for coroutines."""
        kind, place = self._place(redis.asyncio)
        if self.has_sentinels:
            plan = sentinel.find(self._sentinels(), self._resolved().master, timeout_s=CONNECT_TIMEOUT_S)
            ask = partial(self._ask_sentinel, redis.asyncio, sentinel.aask)
            self._go_to(place, await arun_plan(plan, ask))
        return kind(**place, **_OF_KIND[redis.asyncio])

    def _place(self, library: Any) -> tuple[Any, dict[str, Any]]:
        """Return redis-py's class for a connection to this server, and the options for its address and credentials."""
        if self._address is None:
            kind, place = self._client_classes[library is redis.asyncio], dict(self._client_options)
        else:
            address = self._resolved()
            place = _login(address.username, address.password, address.password_file) | _tls_options(address)
            kind = library.SSLConnection if address.tls else library.Connection
            if address.kind != "cluster":
                place["db"] = address.db
            if address.kind == "unix":
                kind, place["path"] = library.UnixDomainSocketConnection, address.path
            elif address.kind != "sentinel":
                place["host"], place["port"] = self._next_host(address)
        if "path" not in place:
            place["socket_keepalive"] = True
        return kind, place

    @property
    def has_sentinels(self) -> bool:
        """True if Sentinels name the primary."""
        return self._address is not None and self._address.kind == "sentinel"

    def _go_to(self, place: dict[str, Any], primary: Server) -> None:
        place["host"], place["port"] = primary
        self._primary = self._primary or primary

    async def follow_primary(self) -> None:
        """Ask the Sentinels whether another server has become the primary. If it has, increase `takeovers`.

        Another primary is accepted only if more than half of the Sentinels name it.
        """
        self._asked_at = time.monotonic()
        plan = sentinel.agree(self._sentinels(), timeout_s=CONNECT_TIMEOUT_S)
        self._compare(await arun_plan(plan, partial(self._ask_sentinel, redis.asyncio, sentinel.aask)))

    def follow_primary_blocking(self, *, unless_within_s: float) -> None:
        """Ask the Sentinels as `follow_primary`, from blocking code, unless they were just asked."""
        if time.monotonic() - self._asked_at < unless_within_s:
            return
        self._asked_at = time.monotonic()
        plan = sentinel.agree(self._sentinels(), timeout_s=CONNECT_TIMEOUT_S)
        self._compare(run_plan(plan, partial(self._ask_sentinel, redis, sentinel.ask)))

    def _compare(self, found: Server | None) -> None:
        if found is not None and self._primary != found:
            self.takeovers += self._primary is not None
            self._primary = found

    def _next_host(self, address: Address) -> Server:
        return self.slots.sources()[0] if address.kind == "cluster" else address.hosts[0]

    def _sentinels(self) -> Sequence[Server]:
        """Return the list of Sentinels. Each call returns the list with another Sentinel in front."""
        hosts = self._resolved().hosts
        start = next(self._turn) % len(hosts)
        return hosts[start:] + hosts[:start]

    def _ask_sentinel(self, library: Any, ask: Callable[..., Any], options: Mapping[str, Any]) -> Any:
        """Ask one Sentinel for the primary. `options` has its address; `ask` is `sentinel.ask` or `sentinel.aask`."""
        address = self._resolved()
        login = _login(address.sentinel_username, address.sentinel_password, address.sentinel_password_file)
        kind = library.SSLConnection if address.tls else library.Connection
        return ask(kind, {**_OF_KIND[library], **_tls_options(address), **login, **options}, address.master)


def _is_fake(connection_class: Any) -> bool:
    return str(connection_class.__module__).startswith("fakeredis")


def _connection_classes(given: Any) -> tuple[Any, Any]:
    """Return the blocking and the asyncio connection class that correspond to a client's connection class."""
    pairs: list[tuple[Any, Any]] = [
        (redis.SSLConnection, redis.asyncio.SSLConnection),
        (redis.UnixDomainSocketConnection, redis.asyncio.UnixDomainSocketConnection),
        (redis.Connection, redis.asyncio.Connection),
    ]
    if _is_fake(given):
        from fakeredis import FakeAsyncRedis, FakeRedis

        return FakeRedis().connection_pool.connection_class, FakeAsyncRedis().connection_pool.connection_class
    for pair in pairs:
        if issubclass(given, pair):
            return pair
    raise ConfigurationError(
        f"clients with connections of type {given.__module__}.{given.__qualname__} are not supported; give a URL"
    )
