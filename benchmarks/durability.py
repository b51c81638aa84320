"""Count the acknowledged tasks that Redis loses, by its settings and by the fault: `python -m benchmarks.durability`.

For each setting, the script enqueues tasks one after another, causes the fault right after the last acknowledgement,
and compares the tasks in Redis with the acknowledged tasks. A power loss is simulated: the script kills the server and
cuts its append-only file to the size that it had a second before, because `appendfsync everysec` promises no more. What
a disk keeps of a synced file (`appendfsync always`) cannot be tested without cutting its power.
"""

import argparse
import json
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from taskq_core import EnqueueError, NotReplicatedError, TaskQ
from taskq_core.inspector import Inspector
from tests.redis_server import RedisServer
from tests.relay import Relay

ALWAYS: dict[str, Any] = {"appendonly": True, "options": {"appendfsync": "always"}}
EVERYSEC: dict[str, Any] = {"appendonly": True, "options": {"appendfsync": "everysec"}}
SNAPSHOTS: dict[str, Any] = {"options": {"save": "3600 1 300 100 60 10000"}}
POWER_S = 1.0
"""Seconds of writes that a simulated power loss destroys."""
PATIENCE_S = 60.0

Row = dict[str, Any]


def ids_in(server: RedisServer) -> set[str]:
    """Return the ids of the pending tasks whose messages also exist."""
    listed: list[Any] = server.client.lrange("asynq:{default}:pending", 0, -1)
    ids = {each.decode() for each in listed}
    return {each for each in ids if server.client.hexists(f"asynq:{{default}}:t:{each}", "msg")}


def enqueue(url: str, count: int, *, tick: Callable[[], object] = lambda: None, **options: Any) -> tuple[Row, set[str]]:
    """Enqueue tasks one after another. Return the figures, and the ids that were acknowledged."""
    acknowledged, unconfirmed = set(), 0
    with closing(TaskQ(url, enqueue_timeout=0.2 if options else 5.0)) as app:
        task = app.remote("t", **options)
        started = time.perf_counter()
        for number in range(count):
            try:
                acknowledged.add(task.delay(number=number, text="some text").id)
            except NotReplicatedError:
                unconfirmed += 1
            tick()
        rate = count / (time.perf_counter() - started)
    return {"acknowledged": len(acknowledged), "unconfirmed": unconfirmed, "enqueues_per_s": round(rate)}, acknowledged


def killed(settings: dict[str, Any], count: int) -> Row:
    """Kill Redis (SIGKILL) and start it again with the same data. Count the lost tasks."""
    with RedisServer(**settings) as server:
        row, acknowledged = enqueue(server.url, count)
        server.kill()
        server.start()
        return row | {"lost": len(acknowledged - ids_in(server))}


def power_lost(settings: dict[str, Any], count: int) -> Row:
    """Kill Redis (SIGKILL), cut the last second off its append-only file, and start it again. Count the lost tasks."""
    with RedisServer(**settings) as server:

        def file() -> Path:
            return max(server.folder.glob("**/*.aof"), key=lambda each: each.stat().st_size)

        sizes: list[tuple[float, int]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                sizes.append((time.monotonic(), file().stat().st_size))

        watching = threading.Thread(target=watch)
        watching.start()
        begun = time.monotonic()
        row, acknowledged = enqueue(server.url, count)
        while time.monotonic() < begun + 2 * POWER_S:  # a fast machine needs less than a second for `count` tasks
            more, further = enqueue(server.url, count)
            acknowledged |= further
            row["acknowledged"] += more["acknowledged"]
        at = time.monotonic()
        server.kill()
        done.set()
        watching.join()
        kept = max(size for moment, size in sizes if moment <= at - POWER_S)
        with file().open("r+b") as tail:
            tail.truncate(kept)
        server.start()
        with closing(TaskQ(server.url)) as app:
            findings = len(Inspector(app).reconcile("default").findings)
        return row | {"lost": len(acknowledged - ids_in(server)), "damaged": findings}


@contextmanager
def pair(**options: str) -> Iterator[tuple[RedisServer, Relay, RedisServer]]:
    """Yield a primary, a relay, and a replica that is connected through the relay and has made its first copy."""
    with (
        RedisServer(tcp=True, appendonly=True, options=options) as primary,
        Relay(("127.0.0.1", primary.port)) as relay,
        RedisServer(tcp=True, options={"replicaof": ("127.0.0.1", str(relay.port))}) as replica,
    ):
        until = time.monotonic() + PATIENCE_S
        while replica.client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < until, "the replica did not connect to the primary"
            time.sleep(0.02)
        yield primary, relay, replica


def failed_over(count: int, **options: Any) -> Row:
    """Fail over to a replica that has not received the second half of the tasks. Count the lost tasks."""
    with pair() as (primary, relay, replica):
        half = count // 2
        asked = 0

        def lag() -> None:
            nonlocal asked
            asked += 1
            if asked == half:
                relay.swallow("replies")

        # Each enqueue that no replica confirms waits for its whole timeout, so the second half has only 20 tasks then.
        row, acknowledged = enqueue(primary.url, half + (20 if options else half), tick=lag, **options)
        primary.kill()
        replica.command("REPLICAOF", "NO", "ONE")
        return row | {"lost": len(acknowledged - ids_in(replica))}


def exposed() -> Row:
    """Measure how long a primary acknowledges enqueues after it lost its replica, although one replica is required.

    Redis runs with `min-replicas-to-write 1` and `min-replicas-max-lag 1`.
    """
    with pair(**{"min-replicas-to-write": "1", "min-replicas-max-lag": "1"}) as (primary, relay, _):
        with closing(TaskQ(primary.unix_url, enqueue_timeout=0.2)) as app:
            app.remote("t").delay()
            relay.hold("requests", "replies")
            begun = time.monotonic()
            acknowledged = 0
            while True:
                try:
                    app.remote("t").delay()
                except EnqueueError:
                    break
                acknowledged += 1
                time.sleep(0.001)
        return {"acknowledged": acknowledged, "exposed_s": round(time.monotonic() - begun, 1)}


def replicated_rate(count: int) -> Row:
    """Measure the rate of enqueues that wait for the confirmation of a healthy replica."""
    with pair() as (primary, _, _replica):
        return enqueue(primary.url, count, replicated=True)[0]


def main() -> int:
    """Cause each fault with each setting, and print the numbers of lost tasks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durability", description=__doc__)
    parser.add_argument("--tasks", type=int, default=5000, help="enqueues before each fault (default 5000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    count = options.tasks
    with RedisServer() as server:
        redis = server.client.info("server")["redis_version"]
    rows = {
        "AOF always, kill -9": killed(ALWAYS, count),
        "AOF everysec, kill -9": killed(EVERYSEC, count),
        "AOF everysec, power loss": power_lost(EVERYSEC, count),
        "snapshots only, kill -9": killed(SNAPSHOTS, count),
        "AOF everysec, failover to a lagging replica": failed_over(count),
        "replicated=True, failover to a lagging replica": failed_over(count, replicated=True),
        "replicated=True, a replica that keeps up": replicated_rate(count),
        "min-replicas-to-write 1, lag 1 s, cut off": exposed(),
    }
    command = " ".join(["python -m benchmarks.durability", *sys.argv[1:]])
    print(f"python {platform.python_version()}, redis {redis}, {command}")
    for name, row in rows.items():
        print(f"{name:48} {'  '.join(f'{key} {value}' for key, value in row.items())}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
