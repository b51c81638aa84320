"""Test the admin's page of the outbox on PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import connections
from django.test import Client
from django.utils import timezone

from taskq_django.models import OutboxTask
from tests.postgres_server import PostgresServer
from tests.taskq_django.test_admin_outbox import LIST, _outbox, ids, note, root, show, wait

__all__ = ["_outbox", "root"]

pytestmark = pytest.mark.redis


@pytest.fixture(scope="class")
def postgres(django_db_setup: None, django_db_blocker: Any, postgres_server: PostgresServer) -> Iterator[None]:
    """A PostgreSQL database with an outbox. It is created before the test databases, which must include it."""
    with django_db_blocker.unblock():
        configured = connections.configure_settings({"default": {}, "postgres": postgres_server.create("outbox")})
        connections.settings["postgres"] = configured["postgres"]
        try:
            with connections["postgres"].schema_editor() as editor:
                editor.create_model(OutboxTask)
            yield
        finally:
            connections["postgres"].close()
            del connections["postgres"]
            del connections.settings["postgres"]


@pytest.mark.usefixtures("postgres")
class TestOnPostgres:
    """Test the page with rows in PostgreSQL."""

    @pytest.mark.django_db(databases=["default", "other", "postgres"])
    def test_rows_are_listed_sorted_and_deleted(self, root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        chosen = SimpleNamespace(db_for_write=lambda _model: "postgres")
        monkeypatch.setattr("taskq_django.admin.outbox.router", chosen)
        rows = [wait(name, using="postgres", minutes=minutes) for name, minutes in (("new", 2), ("old", 7))]
        left = timezone.now() + timedelta(minutes=3)
        OutboxTask.objects.using("postgres").filter(pk=rows[0].pk).update(claimed_until=left)

        for column in range(1, 7):
            html = show(root, f"{LIST}?o={column}")
            assert sorted(ids(html)) == ["new", "old"]
            assert "2 tasks are waiting, the oldest for 7" in note(html)
        assert ids(show(root, f"{LIST}?o=4")) == ["new", "old"]  # sorted by waiting time, the shortest first
        assert ids(show(root, f"{LIST}?queue=default&name=email:deliver&q=old")) == ["old"]

        data = {"action": "delete_selected", ACTION_CHECKBOX_NAME: [str(rows[1].pk)], "post": "yes"}
        root.post(LIST, data, follow=True)

        assert [row.task_id for row in OutboxTask.objects.using("postgres")] == ["new"]
