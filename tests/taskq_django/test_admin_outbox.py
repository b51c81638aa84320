"""The page of the outbox: rows of every database that has one, how many wait and for how long."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import models, transaction
from django.test import Client
from django.test.utils import override_settings
from django.urls import path
from django.utils import timezone

from taskq_django import taskq
from taskq_django.admin import OutboxTaskAdminMixin
from taskq_django.admin.base import BaseAdmin
from taskq_django.models import OutboxTask
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import messages, user

LIST = "/admin/taskq_django/outboxtask/"
OTHER = f"{LIST}?database=other"
pytestmark = [pytest.mark.redis, pytest.mark.django_db(databases=["default", "other"])]


class ThemedAdmin(OutboxTaskAdminMixin, BaseAdmin):
    """The page over the `ModelAdmin` of a theme."""

    list_display = ("task_id", "waits")


site = admin.AdminSite("themed")
site.register(OutboxTask, ThemedAdmin)
urlpatterns = [path("admin/", admin.site.urls), path("themed/", site.urls)]


class OnlyDefault:
    """A router that names one database for every write, whatever the row is from."""

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return "default"


@pytest.fixture(autouse=True)
def _outbox(redis: RedisServer, settings: Any) -> None:
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox", "URL": "unix:///nowhere/at/all.sock"}


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def wait(task_id: str, *, using: str = "default", **ago: float) -> OutboxTask:
    """Put a row into the outbox, as long ago as is said."""
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


def test_the_list_says_how_many_wait_and_for_how_long(root: Client) -> None:
    assert note(show(root)) == "Database default: No task waits."
    wait("one", minutes=5, seconds=20)
    wait("two", seconds=30)

    html = show(root)

    assert ids(html) == ["one", "two"]
    assert re.fullmatch(
        r"Database default: 2 tasks wait, the oldest for 5\xa0min \d+\xa0s\.|"
        r"Database default: 2 tasks wait, the oldest for 5 min \d+ s\.",
        note(html),
    )
    assert re.search(r'<td class="field-waits">5.min', html)


def test_rows_of_other_databases_are_told_and_shown(root: Client) -> None:
    wait("here")
    wait("there", using="other", hours=2)

    html = show(root)
    assert ids(html) == ["here"]
    assert "Database other: 1 task waits, for 2" in note(html)

    html = show(root, OTHER)
    assert ids(html) == ["there"]
    page = re.search(r'<a href="([^"]*change/[^"]*)"', html)
    assert page is not None
    assert "there" in show(root, page[1].replace("&amp;", "&"))


def test_one_database_leaves_nothing_to_choose(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_django.admin.outbox.outbox_aliases", lambda: ["default"])
    wait("here")

    html = show(root, OTHER)

    assert ids(html) == ["here"]
    assert "By database" not in html
    assert note(html).startswith("1 task waits, for ")


@pytest.mark.parametrize("has_router", [False, True])
def test_a_row_is_deleted_in_its_own_database(root: Client, settings: Any, has_router: bool) -> None:
    wait("here")
    row = wait("there", using="other")
    OutboxTask.objects.filter(task_id="here").update(id=row.pk)  # the same key in both
    if has_router:
        settings.DATABASE_ROUTERS = [OnlyDefault()]

    address = f"{LIST}{row.pk}/delete/?_changelist_filters=database%3Dother"
    assert "there" in show(root, address)
    said = messages(root.post(address, {"post": "yes"}, follow=True).content.decode())

    assert len(said) == 1
    assert "there" in said[0]
    assert not OutboxTask.objects.using("other").exists()
    assert OutboxTask.objects.filter(task_id="here").exists()
    assert LogEntry.objects.get().object_repr == "email:deliver there"


def test_selected_rows_are_deleted_in_the_database_of_the_list(root: Client) -> None:
    wait("here")
    row = wait("there", using="other")
    OutboxTask.objects.filter(task_id="here").update(id=row.pk)

    data = {"action": "delete_selected", ACTION_CHECKBOX_NAME: [str(row.pk)], "post": "yes"}
    root.post(OTHER, data, follow=True)

    assert not OutboxTask.objects.using("other").exists()
    assert OutboxTask.objects.filter(task_id="here").exists()
    assert LogEntry.objects.get().object_repr == "email:deliver there"


def test_rows_that_nobody_sends_are_told(root: Client, settings: Any) -> None:
    wait("left")
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "on_commit"}

    assert "Rows are sent only while ENQUEUE" in note(show(root))


def test_a_claim_is_told_until_it_ends(root: Client) -> None:
    claimed, over = wait("claimed"), wait("over")
    now = timezone.now()
    OutboxTask.objects.filter(pk=claimed.pk).update(claimed_until=now + timedelta(minutes=5))
    OutboxTask.objects.filter(pk=over.pk).update(claimed_until=now - timedelta(minutes=5))

    shown = re.findall(r'<td class="field-claimed_for">([^<]*)</td>', show(root))

    assert shown[0].startswith("4")
    assert shown[1] == "-"


def test_spans_are_counted_by_the_database_in_a_project_without_time_zones(root: Client, settings: Any) -> None:
    settings.USE_TZ, settings.TIME_ZONE = False, "Asia/Tokyo"
    wait("now")

    shown = re.search(r'<td class="field-waits">([^<]*)</td>', show(root))

    assert shown is not None
    assert re.fullmatch(r"\d\.\d.s", shown[1])


@rows("query", ["database=nosuch", "database=", "database=other&database=default", "e=1"])
def test_an_odd_address_shows_the_list(root: Client, query: str) -> None:
    assert 'id="changelist"' in show(root, f"{LIST}?{query}")


def test_who_may_only_look_deletes_nothing(client: Client) -> None:
    row = wait("there", using="other")
    client.force_login(user("viewer", "view_outboxtask"))

    assert "delete_selected" not in show(client, OTHER)
    address = f"{LIST}{row.pk}/delete/?_changelist_filters=database%3Dother"
    assert client.post(address, {"post": "yes"}).status_code == 403
    client.post(OTHER, {"action": "delete_selected", ACTION_CHECKBOX_NAME: [str(row.pk)], "post": "yes"})

    assert OutboxTask.objects.using("other").exists()


@override_settings(ROOT_URLCONF=__name__)
def test_the_mixin_goes_over_another_admin(root: Client) -> None:
    wait("there", using="other")

    assert ids(show(root, "/themed/taskq_django/outboxtask/?database=other")) == []  # the id is the link there
    assert "there" in show(root, "/themed/taskq_django/outboxtask/?database=other")
