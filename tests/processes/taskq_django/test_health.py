"""Test `manage.py taskq health` as the probe of a container."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes.taskq_django.project import Project, read_until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


def probe(project: Project, *words: str) -> tuple[int, Any]:
    """Run a probe, and return its exit status and its JSON document."""
    done = subprocess.run(
        [sys.executable, str(project.manage), "taskq", "health", "--json", *words],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def test_a_worker_is_ready_until_it_stops(tmp_path: Path, redis: RedisServer) -> None:
    project = Project(tmp_path, redis)
    patient = ("--timeout", "60")  # a busy machine may need longer than the default
    assert probe(project, *patient) == (0, {"status": "ready", "queues": {"default": {"ok": True, "pending": 0}}})

    with project.worker() as process:
        read_until(process, "ready")
        while (found := probe(project, "--worker", *patient))[0]:
            assert process.poll() is None  # the first heartbeat may be missing
        assert found[1]["workers"] == 1
        process.terminate()
        process.wait(60)

    status, document = probe(project, "--worker", *patient)
    assert (status, document["status"], document["workers"]) == (1, "unready", 0)


def test_the_probe_without_redis(tmp_path: Path, redis: RedisServer) -> None:
    project = Project(tmp_path, redis, 'TASKQ["URL"] = "redis://:secret@127.0.0.1:1/0"\n')

    status, document = probe(project, "--worker")

    assert (status, document["status"]) == (1, "unready")
    assert document["reason"].startswith("cannot reach redis://:***@127.0.0.1:1/0")


def test_wrong_arguments_and_wrong_settings_have_different_statuses(tmp_path: Path, redis: RedisServer) -> None:
    project = Project(tmp_path, redis)

    assert "--host needs --port" in project.run("taskq", "health", "--host", "h", status=2)
    (tmp_path / "other").mkdir()
    project = Project(tmp_path / "other", redis, 'TASKQ["URLL"] = "x"\n')
    assert "did you mean 'URL'?" in project.run("taskq", "health", status=1)
