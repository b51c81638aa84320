"""Replace workers one at a time with the commands of the page, while producers enqueue."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from tests.processes.operations.shell import commands, shell
from tests.redis_server import RedisServer, free_port
from tests.taskq_core.worker.conftest import until_blocking

pytestmark = [pytest.mark.redis, pytest.mark.slow]

QUEUE = """
import os, time
from taskq_core import TaskQ

taskq = TaskQ.from_env()

@taskq.task(name="work")
def work(number: int) -> None:
    time.sleep(0.02)
    with open(os.environ["RAN"], "a") as file:
        file.write(f"{number}\\n")
"""
WORKERS = 2


class Fleet:
    """Workers with health ports, which are started and stopped with the commands of the page."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.start, self.wait, self.stop = commands("deploy", heading="Deploy your code")
        self.folder = folder
        self.variables = {"TASKQ_URL": redis.unix_url, "RAN": str(folder / "ran"), "PYTHONPATH": str(folder)}
        self.running: list[subprocess.Popen[bytes]] = []
        self.statuses: list[int] = []

    def launch(self) -> str:
        """Start a worker, and return its health port."""
        port = str(free_port())
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        command = f"exec {self.start.removesuffix('&')}".replace("8091", port)
        with (self.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                ("sh", "-c", command),
                cwd=self.folder,
                env={**os.environ, **self.variables, "PATH": path},
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        threading.Thread(target=lambda: self.statuses.append(process.wait())).start()
        return port

    def add(self, port: str | None = None) -> None:
        """Start a worker, if it is not started yet, and wait until it is ready."""
        shell(self.wait.replace("8091", port or self.launch()), self.folder, self.variables)

    def remove(self) -> None:
        """Stop the oldest worker and wait until it has ended."""
        shell(self.stop, self.folder, {**self.variables, "OLD": str(self.running.pop(0).pid)})

    def close(self) -> None:
        for process in self.running:
            process.terminate()


def test_workers_are_replaced_one_by_one_without_a_lost_or_repeated_task(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "queue.py").write_text(QUEUE)
    fleet = Fleet(tmp_path, redis_server)
    stopping = threading.Event()
    enqueued: list[int] = []

    def produce() -> None:
        with closing(TaskQ(redis_server.unix_url, enqueue_timeout=30)) as taskq:
            work = taskq.remote("work")
            while not stopping.is_set():
                work.delay(number=len(enqueued))
                enqueued.append(len(enqueued))
                time.sleep(0.005)  # a steady rate

    producer = threading.Thread(target=produce)
    with closing(TaskQ(redis_server.unix_url, enqueue_timeout=30)) as taskq:
        inspector = Inspector(taskq)
        try:
            for port in [fleet.launch() for _ in range(WORKERS)]:
                fleet.add(port)
            producer.start()
            until_blocking(lambda: inspector.queue_info("default").processed > 20 if enqueued else False, "it flows")
            for _ in range(WORKERS):
                fleet.add()
                fleet.remove()
            stopping.set()
            producer.join()
            until_blocking(lambda: not inspector.queue_info("default").size, "all is done")
        finally:
            stopping.set()
            fleet.close()

    ran = Counter(map(int, (tmp_path / "ran").read_text().split()))
    until_blocking(lambda: len(fleet.statuses) == 2 * WORKERS, "their statuses are known")
    assert ran.keys() == set(enqueued)
    assert set(ran.values()) == {1}
    assert set(fleet.statuses) == {0}
