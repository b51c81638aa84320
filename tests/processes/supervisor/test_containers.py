"""Test supervisors in containers that share a network namespace, as in a pod. Their PIDs are equal."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, marks, state_of, until_blocking

pytestmark = [pytest.mark.slow, pytest.mark.redis]

ROOT = Path(__file__).parents[3]
CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


def can_isolate() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*CONTAINER, "true"], check=False).returncode == 0


def start_container(server: RedisServer) -> "subprocess.Popen[str]":
    """Start a supervisor with one process as PID 1 of a namespace."""
    settings = {"supervisor": {}, "worker": {"concurrency": 1, "heartbeat": 0.5}}
    return subprocess.Popen(
        [*CONTAINER, sys.executable, "-m", "tests.processes.supervisor.program", json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TASKQ_URL": server.url, "NOTES_URL": server.url},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_container_recovers_the_tasks_of_a_killed_container(redis_server: RedisServer) -> None:
    """The supervisors of both containers have the same PID."""
    if not can_isolate():
        pytest.skip("needs user namespaces")
    app = TaskQ(redis_server.url, defaults={"retention": 600})
    queue = app.runtime.keys.queue("default")
    containers = [start_container(redis_server) for _ in range(2)]
    try:
        for container in containers:
            assert container.stdout is not None
            assert container.stdout.readline() == "ready\n"
        handles = [app.remote("wait").delay(name="waits", until="go") for _ in containers]
        until_blocking(lambda: len(marks(redis_server, "waits")) == 2, "each container runs a task")
        containers[1].send_signal(signal.SIGKILL)

        until_blocking(
            lambda: [state_of(redis_server, queue, each.id) for each in handles].count("active") == 1,
            "the task of the killed container waits for the other one",
            within=PATIENCE_S / 2,
        )
        redis_server.client.set("go", 1)
        for handle in handles:
            handle.result(PATIENCE_S)
    finally:
        for container in containers:
            container.kill()
            container.wait()
            assert container.stdout is not None
            container.stdout.close()
        app.close()
