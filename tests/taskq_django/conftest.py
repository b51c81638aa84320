"""A Django project whose tasks go to the tests' own redis-server."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

from taskq_core.inspector import Inspector
from taskq_django import taskq
from tests.redis_server import RedisServer


@pytest.fixture(scope="session", autouse=True)
def json_support(django_db_setup: None, django_db_blocker: Any) -> None:
    """Query JSON support of the databases once, because the check of a JSONField needs it in every test."""
    with django_db_blocker.unblock():
        for each in connections.all():
            assert each.features.supports_json_field


@pytest.fixture(autouse=True)
def no_queues_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the queues of the test project's tasks from system checks: tests replace `TASKQ`, and with it `QUEUES`."""
    monkeypatch.setattr(taskq, "task_queues", dict)


@pytest.fixture
def redis(redis_server: RedisServer, settings: Any) -> Iterator[RedisServer]:
    """Return an empty Redis that `TASKQ` points to. The timeout is long, because a busy machine may be slow."""
    settings.TASKQ = {"URL": redis_server.unix_url, "QUEUES": {"default": 3, "low": 1}, "ENQUEUE_TIMEOUT": 30}
    yield redis_server
    taskq.close()


@pytest.fixture
def inspector(redis: RedisServer) -> Inspector:
    """Return an inspector to read enqueued tasks."""
    return Inspector(taskq)


@pytest.fixture
def at_once(redis: RedisServer, settings: Any) -> None:
    """Send tasks at once, because each test is a transaction that never commits."""
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "immediate"}
