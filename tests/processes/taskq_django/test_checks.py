"""Test the system checks of a project on disk with its commands."""

from pathlib import Path

import pytest

from tests.processes.taskq_django.project import Project
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.mark.redis
def test_a_missing_table_does_not_prevent_migrate(tmp_path: Path, redis: RedisServer) -> None:
    settings = """
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "taskq_django", "kiosk"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
TASKQ["ENQUEUE"] = "outbox"
"""
    project = Project(tmp_path, redis, settings)
    check = ("check", "--database", "default")

    assert "taskq.E004" in project.run(*check, status=1)
    assert "taskq." not in project.run("migrate")
    assert "no issues" in project.run(*check)


@pytest.mark.redis
def test_two_tasks_with_one_name_are_reported_with_both_locations(tmp_path: Path, redis: RedisServer) -> None:
    """Every command with checks reports them. Without checks, enqueueing fails and no worker starts."""
    project = Project(tmp_path, redis, 'INSTALLED_APPS.append("stall")\n')
    stall = tmp_path / "stall"
    stall.mkdir()
    (stall / "__init__.py").touch()
    (stall / "tasks.py").write_text(
        'from taskq_django import task\n\n@task(name="kiosk:first")\ndef sell(): ...\n'
        "\n@task\ndef twice(): ...\n\n@task\ndef twice(): ...\n"
    )

    output = project.run("check", status=1)

    first = "the name 'kiosk:first' is already used by kiosk.tasks.work; stall.tasks.sell needs another name=; see "
    first += str(tmp_path)
    assert f"(taskq.E007) Two tasks have one name: {first}/kiosk/tasks.py:5 and {tmp_path}/stall/tasks.py:3." in output
    second = "the name 'stall.tasks.twice' is already used by stall.tasks.twice; stall.tasks.twice needs another"
    second += " name=; see"
    assert f"(taskq.E007) Two tasks have one name: {second} {stall}/tasks.py:6 and {stall}/tasks.py:9." in output
    assert first in project.run("runworker", "--burst", "--skip-checks", status=1)
    code = "from kiosk.tasks import work; work.delay(flag='x')"
    assert first in project.run("shell", "-c", code, status=1)
    assert redis.client.keys("*") == []
