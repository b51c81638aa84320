"""Sample the readiness of workers, resources, leases, slow commands, and how long Redis waited for a processor.

Threads of the conductor write the samples into separate ledgers, which are merged with the others. A worker that does
not respond is a sample as well.
"""

import contextlib
import http.client
import os
import threading
import time
from pathlib import Path
from typing import Any

import redis

from tests.soak.ledger import Ledger
from tests.soak.processes import Place
from tests.soak.program import QUEUES
from tests.soak.stage import Stage
from tests.soak.stores import raw_client

HEALTH_EVERY_S = 0.5
SAMPLE_EVERY_S = 1.0
WAIT_EVERY_S = 0.2


class Monitor:
    """Takes samples while its context is open.

    Args:
        stage: The processes and the Redis to sample.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._sample, name="monitor", daemon=True)]
        self._threads.append(threading.Thread(target=self._watch_processor, name="processor", daemon=True))
        for place in stage.workers:
            self._threads.append(
                threading.Thread(target=self._poll_readiness, args=(place,), name=place.name, daemon=True)
            )

    def __enter__(self) -> "Monitor":
        for server in self._stage.store.servers:
            raw_client(server).slowlog_reset()  # the waits of slow commands during the start are unknown
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)

    def _poll_readiness(self, place: Place) -> None:
        """Poll the readiness of a worker, also after its process was restarted."""
        ledger = Ledger(self._stage.folder / "ledger", f"health-{place.name}")
        while not self._stop.wait(HEALTH_EVERY_S):
            process, port = place.process, place.health_port
            if process is None or not port:
                continue
            asked = time.monotonic()
            ledger.write("health", place=place.name, process=process.pid, asked=asked, status=_status(port))

    def _sample(self) -> None:
        """Sample resources of processes, slow commands, and active and leased tasks."""
        ledger = Ledger(self._stage.folder / "ledger", "monitor")
        client = self._stage.store.client()
        servers = [raw_client(server) for server in self._stage.store.servers]
        queues = [self._stage.keys(name) for name in QUEUES]
        while not self._stop.wait(SAMPLE_EVERY_S):
            for place in self._stage.places:
                process = place.process
                if process is not None and place.is_ready and (found := resources(process.pid)):
                    ledger.write("resources", place=place.name, process=process.pid, **found)
            for number, server in enumerate(servers):
                with contextlib.suppress(redis.RedisError, OSError):
                    take_slow_calls(server, ledger, number)
            for queue in queues:
                with contextlib.suppress(redis.RedisError, OSError):
                    active, leased, pending = client.eval(LEASES, 3, queue.active, queue.lease, queue.pending)
                    differ = sorted(each.decode(errors="replace") for each in {*active} ^ {*leased})
                    ledger.write("leases", queue=queue.name, active=len(active), pending=pending, differ=differ)

    def _watch_processor(self) -> None:
        """Record how long Redis waited for a processor, so that this time is not counted as duration of a command.

        Redis waits in the scheduler's queue, or because the host gave the processor to another virtual machine.
        """
        ledger = Ledger(self._stage.folder / "ledger", "processor")
        known: dict[int, float] = {}
        since, stolen_s = time.time(), _stolen_s()
        while not self._stop.wait(WAIT_EVERY_S):
            ledger.write("tick")
            now, stolen_before_s, stolen_s = time.time(), stolen_s, _stolen_s()
            for number, server in enumerate(self._stage.store.servers):
                try:
                    pid = server.pid
                    waited_s = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
                except (OSError, AssertionError, AttributeError):  # Redis is being killed
                    continue
                # For a process that has just started, this is its whole waiting time so far.
                more_s = waited_s - known.get(pid, 0.0) + stolen_s - stolen_before_s
                if more_s > 0.002:
                    ledger.write("redis waited", seconds=round(more_s, 4), since=since, unix=now, server=number)
                known[pid] = waited_s
            since = now


OWN = (b"DEBUG", b"CLIENT", b"CLUSTER", b"CONFIG", b"MIGRATE", b"SCAN", b"SCRIPT", b"SLOWLOG")
"""Commands that only the soak sends."""
LEASES = """-- sample
return {
  redis.call('LRANGE', KEYS[1], 0, -1), redis.call('ZRANGE', KEYS[2], 0, -1), redis.call('LLEN', KEYS[3])
}"""


def take_slow_calls(client: Any, ledger: Ledger, number: int) -> None:
    """Move the entries of a server's slow log into the ledger, because a restart would delete them."""
    pipeline = client.pipeline(transaction=True)
    pipeline.slowlog_get(10000).slowlog_reset()
    for entry in pipeline.execute()[0]:
        words = entry["command"].split(b" ")
        if words[0].upper() not in OWN and words[1:2] not in ([b"while"], [b"--"]):  # its own scripts
            what = b" ".join(words[:4])[:120].decode(errors="replace")
            seconds = entry["duration"] / 1e6
            ledger.write("slow call", what=what, seconds=seconds, unix=entry["start_time"], server=number)


def _stolen_s() -> float:
    """Return the seconds that the host gave this machine's processors to other virtual machines (steal time)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def _status(port: int) -> int:
    """Return the HTTP status of /readyz, 0 without a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def resources(pid: int) -> dict[str, int]:
    """Return threads, file descriptors and resident memory (KiB) of a process; {} if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return {}
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "VmRSS" not in lines:
        return {}
    return {"threads": int(lines["Threads"]), "files": files, "rss_kib": int(lines["VmRSS"].split()[0])}
