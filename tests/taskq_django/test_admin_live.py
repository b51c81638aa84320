"""Test the data that a page provides for its live update script."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.test import Client
from django.test.utils import override_script_prefix

from taskq_django import taskq
from taskq_django.admin.live import LIVE_HEADER
from taskq_django.admin.queues import QueueAdminMixin
from taskq_django.models import Queue
from tests.redis_server import RedisServer
from tests.rows import rows

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases=["default", "other"])]
QUEUES = "/admin/taskq_django/queue/"
LISTS = [f"/admin/taskq_django/{name}/" for name in ("queue", "task", "worker", "periodictask", "outboxtask")]


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


@rows("address", LISTS)
def test_every_list_page_includes_the_refresh_script_and_its_texts(
    root: Client, redis: RedisServer, address: str
) -> None:
    html = root.get(address).content.decode()

    (attributes,) = re.findall(r'<script src="/static/taskq_django/live\.js"([^>]*)>', html)
    assert re.search(r"\bdefer\b", attributes)
    assert 'data-seconds="5"' in attributes
    assert 'data-pause="Pause live updates"' in attributes


def test_the_script_is_served_and_contains_no_foreign_address_and_no_markup() -> None:
    path = finders.find("taskq_django/live.js")
    assert path is not None
    script = Path(path).read_text()

    assert "http" not in script
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", script)


@rows("address", LISTS)
def test_pages_work_under_a_script_name(root: Client, redis: RedisServer, address: str) -> None:
    """All links start with the script name, and the script requests the address of its own page."""
    taskq.remote("email:deliver").delay()

    with override_script_prefix("/site/"):
        html = root.get(address, SCRIPT_NAME="/site").content.decode()

    addresses = re.findall(r'(?:href|action|src)="(/[^"]*)"', html)
    assert addresses
    assert [each for each in addresses if not each.startswith(("/site", "/static/"))] == []


def test_a_refresh_does_not_consume_messages_for_the_user(root: Client, redis: RedisServer) -> None:
    taskq.remote("email:deliver").delay()
    data = {"_selected_action": ["default"], "action": "pause", "post": "yes"}
    assert root.post(QUEUES, data).status_code == 302

    root.get(QUEUES, headers={LIVE_HEADER: "1"})
    root.get(f"{QUEUES}default/change/", headers={LIVE_HEADER: "1"})

    assert "1 queue was paused." in root.get(QUEUES).content.decode()
    assert "1 queue was paused." not in root.get(QUEUES).content.decode()


def test_a_refresh_does_not_consume_messages_while_redis_is_down(
    root: Client, redis: RedisServer, settings: Any
) -> None:
    taskq.remote("email:deliver").delay()
    there = settings.TASKQ
    root.post(QUEUES, {"_selected_action": ["default"], "action": "pause", "post": "yes"})

    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}
    root.get(QUEUES, headers={LIVE_HEADER: "1"})
    settings.TASKQ = there

    assert "1 queue was paused." in root.get(QUEUES).content.decode()


def test_the_refresh_interval_is_an_attribute_and_0_omits_the_script() -> None:
    class Slow(QueueAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own class takes no parameter
        live_seconds = 60

    class Still(QueueAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]  # Django's own class takes no parameter
        live_seconds = 0

    assert 'data-seconds="60"' in str(Slow(Queue, admin.site).media)
    assert "live.js" not in str(Still(Queue, admin.site).media)
    assert "charts.css" in str(Still(Queue, admin.site).media)
