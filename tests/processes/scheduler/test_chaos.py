"""Kill and freeze the leaders of five scheduler processes. Each firing must be enqueued exactly once.

The tasks are taken and deleted as soon as they arrive, because an existing task would prevent a second enqueue.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from taskq_core.scheduler.ticker import tick_task_id
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[3]
SCHEDULERS = 5
PATIENCE_S = 60.0


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)
    return value


class Swarm:
    """Scheduler processes on one server."""

    def __init__(self, server: RedisServer, config: dict[str, Any]) -> None:
        self.server = server
        self.argument = json.dumps({"url": server.url, "config": config})
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.output: list[str] = []
        self._listening: dict[int, threading.Thread] = {}

    def start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("scheduler_process.py")), self.argument],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        listening = self._listening[process.pid] = threading.Thread(
            target=self.output.extend, args=(process.stderr,), daemon=True
        )
        listening.start()
        assert process.stdout.readline() == "started\n", "".join(self.output)
        self.processes[process.pid] = process

    def leader(self, *, other_than: int = 0) -> int:
        """Wait for a process that enqueues, and return it."""
        raw: Any = self.server.client

        def find() -> int:
            found = int(raw.get("test:leader") or 0)
            return found if found in self.processes and found != other_than else 0

        return int(until(find, "a scheduler enqueues"))

    def kill(self, pid: int) -> None:
        process = self.processes.pop(pid)
        process.kill()
        self._reap(process)

    def _reap(self, process: "subprocess.Popen[str]") -> int:
        status = process.wait(PATIENCE_S)
        self._listening[process.pid].join(PATIENCE_S)  # until it has read the last output of the process
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            with suppress(ValueError, OSError):
                pipe.close()
        return status

    def close(self) -> list[int]:
        """Stop all gracefully and return their exit statuses."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        return [self._reap(process) for process in self.processes.values()]


class Taker:
    """Takes tasks as soon as they arrive, and deletes them."""

    def __init__(self, server: RedisServer) -> None:
        self.raw: Any = server.client
        self.taken: list[tuple[str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            is_last = self._stop.is_set()
            task_id = self.raw.rpop("asynq:{default}:pending")
            if task_id is not None:
                seconds, micros = self.raw.time()
                self.taken.append((task_id.decode(), seconds + micros / 1e6))
                self.raw.delete(b"asynq:{default}:t:" + task_id)
            elif is_last:
                return
            else:
                time.sleep(0.002)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)


@pytest.fixture
def swarm(redis_server: RedisServer) -> Iterator[Callable[..., Swarm]]:
    swarms: list[Swarm] = []

    def start(**config: Any) -> Swarm:
        found = Swarm(redis_server, config)
        swarms.append(found)
        for _ in range(SCHEDULERS):
            found.start()
        return found

    yield start
    for found in swarms:
        for pid in list(found.processes):
            found.kill(pid)


def torment(swarm: Swarm, taker: Taker, *, lasting_s: float, frozen_s: float) -> None:
    """Kill and freeze leaders in turn for some time. A frozen leader continues when another one leads."""
    deadline = time.monotonic() + lasting_s
    for harm in itertools.cycle(("kill", "freeze", "freeze", "kill")):
        pid = swarm.leader()
        if harm == "kill":
            swarm.kill(pid)
            swarm.start()
        else:
            swarm.processes[pid].send_signal(signal.SIGSTOP)
            frozen_until = time.monotonic() + frozen_s
            swarm.leader(other_than=pid)
            time.sleep(max(0.0, frozen_until - time.monotonic()))  # real time, because the test needs this duration
            swarm.processes[pid].send_signal(signal.SIGCONT)
        count = len(taker.taken)
        until(lambda count=count: len(taker.taken) >= count + 4, "firings go on")
        if time.monotonic() >= deadline:
            return


def check(swarm: Swarm, taker: Taker) -> float:
    """Check that each firing from the first to the last came exactly once. Return the largest delay in seconds."""
    raw: Any = swarm.server.client
    marks = {key.decode().split(":")[3]: int(raw.get(key).split(b":")[0]) for key in raw.keys("taskq:{default}:tick:*")}
    seen_at = dict(taker.taken)
    counts = Counter(task_id for task_id, _ in taker.taken)
    assert [task_id for task_id, count in counts.items() if count > 1] == []
    latest = 0.0
    expected: set[str] = set()
    assert marks.keys() == {"cron", "interval"}
    for entry, last_s in marks.items():
        firing_s = last_s
        while (task_id := tick_task_id(entry, "beat", firing_s)) in seen_at:
            latest = max(latest, seen_at[task_id] - firing_s)
            expected.add(task_id)
            firing_s -= 1
    assert counts.keys() == expected, "a firing was left out"  # firings before a gap are not in `expected`
    assert raw.lrange("test:odd", 0, -1) == []
    return latest


@pytest.mark.redis
@pytest.mark.slow
def test_each_firing_comes_exactly_once(redis_server: RedisServer, swarm: Callable[..., Swarm]) -> None:
    """The lease lasts two seconds, so that many leaders change in a short time."""
    taker = Taker(redis_server)
    found = swarm(leader_lease=2)
    torment(found, taker, lasting_s=20, frozen_s=3.5)
    statuses = found.close()
    taker.stop()

    check(found, taker)
    assert statuses == [0] * SCHEDULERS


def forget_tasks(server: RedisServer, stop: threading.Event) -> None:
    """Delete tasks but keep their ids pending, so that a repeated enqueue adds the id again."""
    raw: Any = server.client
    while not stop.wait(0.05):
        with suppress(redis.RedisError):
            for task_id in raw.lrange("asynq:{default}:pending", 0, -1):
                raw.delete(b"asynq:{default}:t:" + task_id)


@pytest.mark.redis
@pytest.mark.slow
def test_a_killed_and_frozen_redis_loses_and_repeats_no_firing() -> None:
    with RedisServer(appendonly=True) as server:
        raw: Any = server.client
        stop = threading.Event()
        forgetting = threading.Thread(target=forget_tasks, args=(server, stop), daemon=True)
        swarm = Swarm(server, {"leader_lease": 2})
        try:
            for _ in range(SCHEDULERS):
                swarm.start()
            forgetting.start()
            for harm in ("kill", "freeze", "kill"):
                count = raw.llen("asynq:{default}:pending")
                until(lambda count=count: raw.llen("asynq:{default}:pending") >= count + 4, "firings go on")
                (server.kill if harm == "kill" else server.pause)()
                time.sleep(3)  # longer than the lease and than the timeout of a call
                (server.start if harm == "kill" else server.resume)()
            count = raw.llen("asynq:{default}:pending")
            until(lambda: raw.llen("asynq:{default}:pending") >= count + 4, "firings go on")
            statuses = swarm.close()
        finally:
            stop.set()
            for pid in list(swarm.processes):
                swarm.kill(pid)
        forgetting.join(PATIENCE_S)

        counts = Counter(task_id.decode() for task_id in raw.lrange("asynq:{default}:pending", 0, -1))
        assert set(counts.values()) == {1}
        expected: set[str] = set()
        for entry in ("cron", "interval"):
            (key,) = raw.keys(f"taskq:{{default}}:tick:{entry}:*")
            firing_s = int(raw.get(key).split(b":")[0])
            while (task_id := tick_task_id(entry, "beat", firing_s)) in counts:
                expected.add(task_id)
                firing_s -= 1
        assert counts.keys() == expected, "a firing was left out"
        assert statuses == [0] * SCHEDULERS


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.nightly  # over two minutes
def test_two_minutes_with_the_default_configuration(redis_server: RedisServer, swarm: Callable[..., Swarm]) -> None:
    """A leader that dies or freezes is replaced within 15 seconds."""
    taker = Taker(redis_server)
    found = swarm()
    torment(found, taker, lasting_s=120, frozen_s=12)
    statuses = found.close()
    taker.stop()

    assert check(found, taker) < 15
    assert statuses == [0] * SCHEDULERS
