"""Test the page of the outbox: rows of every database with an outbox, their number and their age."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.utils import timezone

from taskq_django import taskq
from taskq_django.models import OutboxTask
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import user

LIST = "/admin/taskq_django/outboxtask/"

pytestmark = [pytest.mark.redis, pytest.mark.django_db(databases=["default", "other"])]


@pytest.fixture(autouse=True)
def _outbox(redis: RedisServer, settings: Any) -> None:
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox", "URL": "unix:///nowhere/at/all.sock"}


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def wait(task_id: str, *, using: str = "default", **ago: float) -> OutboxTask:
    """Write an outbox row with this age."""
    with transaction.atomic(using=using):
        taskq.remote("email:deliver", queue="default", task_id=task_id).delay(to="ana@example.com")
    row = OutboxTask.objects.using(using).get(task_id=task_id)
    if ago:
        OutboxTask.objects.using(using).filter(pk=row.pk).update(created_at=timezone.now() - timedelta(**ago))
    return row


def ids(html: str) -> list[str]:
    return re.findall(r'<td class="field-task_id">([^<]*)</td>', html)


def note(html: str) -> str:
    found = re.search(r'id="searchbar_helptext">(.*?)</div>', html, re.DOTALL)
    assert found is not None
    return found[1].strip()


def show(client: Client, address: str = LIST) -> str:
    response = client.get(address)
    assert response.status_code == 200, response
    return response.content.decode()


def test_the_list_shows_the_number_and_the_age_of_waiting_rows(root: Client) -> None:
    assert note(show(root)) == "No tasks are waiting."
    wait("one", minutes=5, seconds=20)
    wait("two", seconds=30)

    html = show(root)

    assert ids(html) == ["one", "two"]
    assert re.fullmatch(
        r"2 tasks are waiting, the oldest for 5\xa0min \d+\xa0s\.|"
        r"2 tasks are waiting, the oldest for 5 min \d+ s\.",
        note(html),
    )
    assert re.search(r'<td class="field-waits">5.min', html)


def test_rows_are_searched_by_id_name_and_queue(root: Client) -> None:
    wait("one")

    for text in ("one", "deliver", "defau"):
        assert ids(show(root, f"{LIST}?q={text}")) == ["one"]
    assert ids(show(root, f"{LIST}?q=ana")) == []


def test_all_values_of_a_row_are_escaped(root: Client) -> None:
    with transaction.atomic():
        taskq.remote(HOSTILE, queue=HOSTILE, task_id=HOSTILE).delay(text=HOSTILE)

    assert_escaped(show(root))
    assert_escaped(show(root, f"{LIST}{OutboxTask.objects.get().pk}/change/"))


def test_rows_of_other_databases_are_counted(root: Client) -> None:
    wait("here")
    wait("there", using="other", hours=2)

    html = show(root)
    assert ids(html) == ["here"]
    assert "Database other: 1 task has been waiting for 2" in note(html)


def test_rows_without_a_relay_cause_a_warning(root: Client, settings: Any) -> None:
    wait("left")
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "on_commit"}

    assert "Rows are not sent, because ENQUEUE" in note(show(root))


def test_a_claim_is_shown_until_it_expires(root: Client) -> None:
    claimed, over = wait("claimed"), wait("over")
    now = timezone.now()
    OutboxTask.objects.filter(pk=claimed.pk).update(claimed_until=now + timedelta(minutes=5))
    OutboxTask.objects.filter(pk=over.pk).update(claimed_until=now - timedelta(minutes=5))

    shown = re.findall(r'<td class="field-claimed_for">([^<]*)</td>', show(root))

    assert shown[0].startswith("4")
    assert shown[1] == "-"


def test_ages_are_correct_in_a_project_without_time_zones(root: Client, settings: Any) -> None:
    settings.USE_TZ, settings.TIME_ZONE = False, "Asia/Tokyo"
    wait("now")

    shown = re.search(r'<td class="field-waits">([^<]*)</td>', show(root))

    assert shown is not None
    assert re.fullmatch(r"\d\.\d.s", shown[1])


def test_a_user_with_view_permission_only_cannot_delete(client: Client) -> None:
    row = wait("there")
    client.force_login(user("viewer", "view_outboxtask"))

    assert "delete_selected" not in show(client)
    assert client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", ACTION_CHECKBOX_NAME: [str(row.pk)], "post": "yes"})

    assert OutboxTask.objects.exists()


def test_selected_rows_are_deleted(root: Client) -> None:
    wait("one")
    row = wait("two")

    root.post(LIST, {"action": "delete_selected", ACTION_CHECKBOX_NAME: [str(row.pk)], "post": "yes"})

    assert list(OutboxTask.objects.values_list("task_id", flat=True)) == ["one"]
