"""Kill and freeze scheduler processes that read periodic tasks from a database.

Each firing must be enqueued once and counted once. Tasks are deleted when they arrive, but their ids stay pending, so
that a repeated enqueue adds the id again.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from taskq_core.scheduler.ticker import tick_task_id
from taskq_django.models import PeriodicTask
from tests.postgres_server import PostgresServer
from tests.processes.taskq_django.periodic_program import POINTS
from tests.processes.taskq_django.test_periodic_tasks import default_database
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[3]
LEASE_S = 1
PATIENCE_S = 40.0
SCHEDULERS = 3

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)
    return value


class Swarm:
    """Scheduler processes on one Redis and one database."""

    def __init__(self, server: RedisServer, database: dict[str, Any]) -> None:
        self.raw: Any = server.client
        self.plan = {"redis": server.unix_url, "database": database, "lease_s": LEASE_S}
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.output: list[str] = []
        self._stop = threading.Event()
        self._forgetting = threading.Thread(target=self._forget_tasks, daemon=True)
        self._forgetting.start()

    def start(self, **plan: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.taskq_django.periodic_program", json.dumps({**self.plan, **plan})],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        threading.Thread(target=self.output.extend, args=(process.stderr,), daemon=True).start()
        assert process.stdout.readline() == "started\n", "".join(self.output)
        self.processes[process.pid] = process
        return process

    def leader(self, *, other_than: int = 0) -> int:
        """Wait for a process that enqueues, and return it."""

        def find() -> int:
            found = int(self.raw.get("test:leader") or 0)
            return found if found in self.processes and found != other_than else 0

        return int(until(find, "a scheduler enqueues"))

    def reap(self, pid: int) -> int:
        process = self.processes.pop(pid)
        status = process.wait(PATIENCE_S)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            with suppress(ValueError, OSError):
                pipe.close()
        return status

    def enqueued(self) -> list[str]:
        """Return the ids of all tasks that were enqueued since the start."""
        return [each.decode() for each in self.raw.lrange("asynq:{default}:pending", 0, -1)]

    def go_on(self) -> None:
        """Wait for a few more firings."""
        count = len(self.enqueued())
        until(lambda: len(self.enqueued()) >= count + 4, "firings go on")

    def _forget_tasks(self) -> None:
        while not self._stop.wait(0.05):
            for task_id in self.enqueued():
                self.raw.delete(f"asynq:{{default}}:t:{task_id}")

    def end(self) -> list[int]:
        """Stop all gracefully and return their exit statuses."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        return [self.reap(pid) for pid in list(self.processes)]

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for pid in list(self.processes):
            self.reap(pid)
        self._stop.set()
        self._forgetting.join(PATIENCE_S)


@pytest.fixture(params=["sqlite", "postgresql"])
def swarm(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[Swarm]:
    """A swarm without processes, for each kind of database, which is also the default database of this process."""
    if request.param == "sqlite":
        own = connection.settings_dict
        swarm = Swarm(redis, {"ENGINE": own["ENGINE"], "NAME": str(own["NAME"]), "OPTIONS": {"timeout": 20}})
        yield swarm
        swarm.close()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"swarm_{time.monotonic_ns()}"
    with default_database(server.create(name)):
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        swarm = Swarm(redis, server.database(name))
        yield swarm
        swarm.close()


def make(name: str, **given: Any) -> PeriodicTask:
    return PeriodicTask.objects.create(name=name, task="beat", kwargs={"row": name}, **given)


def check(swarm: Swarm, *rows: PeriodicTask) -> None:
    """Check that each firing of each row, from the first to the last, came once and is counted once."""
    ids = swarm.enqueued()
    assert len(ids) == len(set(ids)), "a firing came twice"
    left = set(ids)
    for row in rows:
        row.refresh_from_db()
        assert row.last_run_at is not None
        count, moment = 0, row.last_run_at
        while (task_id := tick_task_id(f"{row.name}#{row.pk}", "beat", int(moment.timestamp()))) in left:
            left.discard(task_id)
            count += 1
            moment -= timedelta(seconds=1)
        assert row.total_runs == count, f"{row.name}: counted {row.total_runs}, enqueued {count} in a row"
    assert not left, "a firing was left out, or the last one was not counted" + "".join(swarm.output)


def test_each_firing_is_enqueued_once_and_counted_once(swarm: Swarm) -> None:
    """Leaders are killed, and frozen until another has led for a while."""
    rows = [make("cron", cron="* * * * * *"), make("interval", interval=timedelta(seconds=1))]
    off = make("off", cron="* * * * * *", enabled=False)
    for _ in range(SCHEDULERS):
        swarm.start()
    for harm in ("kill", "freeze"):
        pid = swarm.leader()
        if harm == "kill":
            swarm.processes[pid].kill()
            assert swarm.reap(pid) == -signal.SIGKILL
            swarm.start()
        else:
            os.kill(pid, signal.SIGSTOP)
            swarm.leader(other_than=pid)
            swarm.go_on()
            os.kill(pid, signal.SIGCONT)
        swarm.go_on()
    PeriodicTask.objects.filter(pk=rows[1].pk).update(enabled=False)  # all schedulers must read the change

    def other_goes_on() -> bool:
        for row in rows:
            row.refresh_from_db()
        cron, interval = (row.last_run_at for row in rows)
        return bool(cron and interval and cron - interval >= timedelta(seconds=2))

    until(other_goes_on, "the other goes on")

    assert swarm.end() == [0] * SCHEDULERS

    check(swarm, *rows)
    off.refresh_from_db()
    assert (off.total_runs, off.last_run_at) == (0, None)
    assert rows[1].last_run_at < rows[0].last_run_at  # type: ignore[operator]  # both ran


@pytest.mark.parametrize("point", POINTS)
def test_a_leader_that_dies_between_enqueueing_and_counting(swarm: Swarm, point: str) -> None:
    """The next leader counts its enqueued firings, and does not count firings again that it had counted."""
    row = make("cron", cron="* * * * * *")
    first = swarm.start(point=point)
    until(lambda: first.poll() is not None, "it comes to the point")
    assert swarm.reap(first.pid) == -signal.SIGKILL
    before = PeriodicTask.objects.get().total_runs
    assert (before > 0) == (point == POINTS[1])

    swarm.start()
    swarm.go_on()
    assert swarm.end() == [0]

    check(swarm, row)


def test_a_single_firing_of_a_dead_leader_is_counted_by_the_next_leader(swarm: Swarm) -> None:
    """The leader that enqueued the only firing died. The next leader has nothing to enqueue, but counts the firing."""
    now = datetime.now(UTC)
    row = make("once", cron="* * * * * *", expire_at=now + timedelta(seconds=PATIENCE_S))
    first = swarm.start(point=POINTS[0])
    until(lambda: first.poll() is not None, "it comes to the point")
    assert swarm.reap(first.pid) == -signal.SIGKILL
    PeriodicTask.objects.update(expire_at=datetime.now(UTC))

    swarm.start()
    until(lambda: PeriodicTask.objects.get().total_runs, "it is counted")
    assert swarm.end() == [0]

    check(swarm, row)
    assert PeriodicTask.objects.get().next_run_at is None
