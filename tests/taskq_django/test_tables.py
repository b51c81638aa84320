"""Test what happens while `manage.py migrate` has not run, or the database user may not use a table."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from taskq_core import ConfigurationError
from taskq_django import taskq
from taskq_django.models import OutboxTask, PeriodicTask
from taskq_django.schedule_table import DatabaseSchedule
from tests.redis_server import RedisServer
from tests.rows import rows

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]
MISSING = (
    "database 'default' has no table 'taskq_django_{}', or an outdated one ({}); run manage.py migrate taskq_django"
)


@contextmanager
def without_table(model: Any) -> Iterator[None]:
    with connection.schema_editor() as editor:
        editor.delete_model(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(model)


@contextmanager
def without_column(model: Any, name: str) -> Iterator[None]:
    field = model._meta.get_field(name)
    with connection.schema_editor() as editor:
        editor.remove_field(model, field)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.add_field(model, field)


@pytest.fixture
def outbox(redis: RedisServer, settings: Any) -> None:
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox"}


def test_an_enqueue_without_the_table_of_the_outbox_names_migrate(outbox: None) -> None:
    task = taskq.remote("email:deliver")

    with without_table(OutboxTask), pytest.raises(ConfigurationError) as raised:
        task.delay()
    with without_column(OutboxTask, "is_workflow"), pytest.raises(ConfigurationError) as outdated:
        task.delay()
    with without_table(OutboxTask), pytest.raises(ConfigurationError):
        taskq.get("unknown")

    assert str(raised.value) == MISSING.format("outboxtask", "no such table: taskq_django_outboxtask")
    assert "is_workflow); run manage.py migrate taskq_django" in str(outdated.value)


async def test_an_asynchronous_enqueue_without_the_table_of_the_outbox_names_migrate(
    outbox: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OutboxTask._meta, "db_table", "taskq_django_absent")

    with pytest.raises(ConfigurationError) as raised:
        await taskq.remote("email:deliver").adelay()

    assert str(raised.value) == MISSING.format("absent", "no such table: taskq_django_absent")


def test_a_scheduler_warns_of_a_missing_table(caplog: pytest.LogCaptureFixture) -> None:
    with without_table(PeriodicTask):
        schedule = DatabaseSchedule()
        with caplog.at_level(logging.WARNING, "taskq.scheduler"):
            schedule.read(None)
            schedule.read(0)
    with without_column(PeriodicTask, "catch_up"), pytest.raises(ConfigurationError) as outdated:
        DatabaseSchedule().read(None)

    (line,) = caplog.messages
    assert line == (
        "database 'default' has no table of periodic tasks, so the scheduler reads none from there; run manage.py "
        "migrate taskq_django"
    )
    assert str(outdated.value) == MISSING.format("periodictask", "no such column: taskq_django_periodictask.catch_up")


@rows("is_atomic", [False, True])
@rows("model", [OutboxTask, PeriodicTask])
def test_the_admin_shows_that_a_table_is_missing(
    client: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, model: Any, is_atomic: bool
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", is_atomic)
    client.force_login(User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)[0])
    address = f"/admin/taskq_django/{model._meta.model_name}/"

    with without_table(model):
        pages = [client.get(f"{address}{path}") for path in ("", "1/change/")]

    for page in pages:
        assert page.status_code == 200
        assert "; run manage.py migrate taskq_django" in page.content.decode()
