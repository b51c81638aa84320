"""Measure how fast the tasks of a killed worker run again, and what a pause of a worker costs.

Run `python -m benchmarks.recovery`. It starts a private Redis and real worker processes. For each setting it prints:

- killed: a worker is killed (SIGKILL) while it runs some of 200 tasks of 0.1 to 0.4 s, and another worker is started at
  once. The figures are the seconds from the kill until the new worker runs its first task, until the interrupted tasks
  are back in the queue (behind the waiting tasks), and until all tasks are done; then the number of interrupted tasks,
  and of tasks that started twice.
- paused: one of two workers is stopped (SIGSTOP) for some seconds while it runs ten long tasks. The figure is the
  number of tasks that started twice.
"""

import argparse
import asyncio
import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from taskq_core import TaskQ, current_task
from taskq_core.wire import Keys
from taskq_core.worker import Worker, WorkerConfig, takeover
from tests.redis_server import RedisServer

CONCURRENCY = 10
TASKS = 200
KILL_AFTER = 60
"""Number of tasks that must have started before the kill."""
PAUSES_S = (10.0, 40.0)
STARTS = "bench:starts"
ENDS = "bench:ends"


@dataclass(frozen=True, slots=True)
class Setting:
    """Configuration of workers: times in seconds, and whether a worker may prove that another worker has ended."""

    lease: int
    lease_grace: int
    recover_every: int
    proves: bool

    @property
    def config(self) -> dict[str, Any]:
        """Fields of `WorkerConfig`."""
        return {
            "lease": self.lease,
            "lease_grace": self.lease_grace,
            "recover_every": self.recover_every,
            "heartbeat": min(5, self.lease / 3),
            "concurrency": CONCURRENCY,
        }


SETTINGS = (
    Setting(30, 30, 15, proves=True),
    Setting(30, 30, 15, proves=False),
    Setting(15, 10, 5, proves=False),
    Setting(6, 3, 2, proves=False),
)

app = TaskQ("redis://localhost:1", defaults={"retention": 3600})
notes: redis.Redis


@app.task(name="nap")
async def nap(seconds: float) -> None:
    """Sleep for some seconds. This is the task of the measurement."""
    notes.rpush(STARTS, current_task().id)
    await asyncio.sleep(seconds)
    notes.rpush(ENDS, current_task().id)


def main() -> int:
    """Measure, or run as one of the workers."""
    if sys.argv[1:2] == ["worker"]:
        return _work(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--no-pauses", action="store_true", help="measure kills only")
    options = parser.parse_args()
    pauses = () if options.no_pauses else PAUSES_S
    print(f"{'lease grace look':18}{'killed: started, taken back, done':34}{'ran, twice':12}", end="")
    print(*(f"{f'{pause:g} s pause, twice':20}" for pause in pauses), sep="")
    for setting in SETTINGS:
        name = f"{setting.lease:>3} {setting.lease_grace:>3} {setting.recover_every:>3}{' proved' * setting.proves}"
        with RedisServer() as server:
            times, running, twice = _kill(server, setting)
        seconds = ", ".join(f"{each:.1f} s" for each in times)
        print(f"{name:18}{seconds:34}{f'{running}, {twice}':12}", end="", flush=True)
        for pause in pauses:
            with RedisServer() as server:
                print(f"{_pause(server, setting, pause):<20}", end="", flush=True)
        print()
    return 0


def _kill(server: RedisServer, setting: Setting) -> tuple[list[float], int, int]:
    """Kill a worker. Return the seconds until its tasks run again, and the numbers of running and repeated tasks."""
    chance = random.Random(22)
    _enqueue(server, [chance.uniform(0.1, 0.4) for _ in range(TASKS)])
    with _worker(server, setting) as worker:
        _wait(lambda: server.client.llen(STARTS) >= KILL_AFTER)
        worker.kill()
        killed_at = time.monotonic()
        worker.wait()
        started = _ids(server, STARTS)
        running = started.keys() - _ids(server, ENDS).keys()
        times = []
        with _worker(server, setting):
            for condition in (
                lambda: server.client.llen(STARTS) > started.total(),
                lambda: not any(_is_active(server, each) and _ids(server, STARTS)[each] == 1 for each in running),
                lambda: len(_ids(server, ENDS)) == TASKS,
            ):
                _wait(condition)
                times.append(time.monotonic() - killed_at)
    return times, len(running), _twice(server)


def _pause(server: RedisServer, setting: Setting, pause_s: float) -> int:
    """Stop a worker for some seconds. Return how many of the tasks that it ran have started twice."""
    with _worker(server, setting) as paused:
        _enqueue(server, [pause_s + 5] * CONCURRENCY)
        _wait(lambda: server.client.llen(STARTS) == CONCURRENCY)
        with _worker(server, setting):
            time.sleep(1)
            paused.send_signal(signal.SIGSTOP)
            time.sleep(pause_s)
            paused.send_signal(signal.SIGCONT)
            _wait(lambda: len(_ids(server, ENDS)) == CONCURRENCY)
    return _twice(server)


def _enqueue(server: RedisServer, durations: Sequence[float]) -> None:
    client = TaskQ(server.url, defaults={"retention": 3600})
    for seconds in durations:
        client.remote("nap").delay(seconds=seconds)
    client.close()


def _ids(server: RedisServer, key: str) -> Counter[bytes]:
    found: Any = server.client.lrange(key, 0, -1)
    return Counter(found)


def _is_active(server: RedisServer, task_id: bytes) -> bool:
    return server.client.hget(Keys().queue("default").task(task_id.decode()), "state") == b"active"


def _twice(server: RedisServer) -> int:
    return sum(count - 1 for count in _ids(server, STARTS).values())


def _wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 300
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the tasks did not end within 300 s")
        time.sleep(0.02)


@contextmanager
def _worker(server: RedisServer, setting: Setting) -> Iterator[subprocess.Popen[bytes]]:
    given = {"url": server.url, "proves": setting.proves, "config": setting.config}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.recovery", "worker", json.dumps(given)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _work(given: dict[str, Any]) -> int:
    global notes
    logging.basicConfig(level=logging.CRITICAL)  # a worker that continues after a pause logs that Redis did not answer
    notes = redis.from_url(given["url"])
    if not given["proves"]:
        takeover.place = lambda: ""  # type: ignore[attr-defined]  # as on another host
    app.configure(type(app.settings).from_mapping({"URL": given["url"], "DEFAULTS": dict(app.settings.defaults)}))
    return Worker(app, WorkerConfig(**given["config"])).run()


if __name__ == "__main__":
    sys.exit(main())
