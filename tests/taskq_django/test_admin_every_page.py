"""Test rules of all pages of the admin: access, missing rows, Redis outages, and the number of Redis commands."""

from html import unescape
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.test import Client

from taskq_django import taskq
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import (
    OUTBOX,
    PERIODIC,
    QUEUES,
    TASKS,
    WORKERS,
    WORKFLOWS,
    appear,
    commands_of,
    enqueue,
    html_of,
    page_of,
    sign_in,
)

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases=["default", "other"])]
LISTS = {
    "task": TASKS,
    "queue": QUEUES,
    "worker": WORKERS,
    "workflow": WORKFLOWS,
    "periodictask": PERIODIC,
    "outboxtask": OUTBOX,
}


@pytest.fixture
def root(client: Client) -> Client:
    """Return the browser of a user with all permissions."""
    client.force_login(User.objects.create_superuser("root"))
    return client


@rows(
    "address",
    [
        *(TASKS, f"{TASKS}default_2F1/change/"),
        *(QUEUES, f"{QUEUES}default/change/", f"{QUEUES}default/act/pause/"),
        *(WORKERS, f"{WORKERS}any/change/"),
        *(WORKFLOWS, f"{WORKFLOWS}default_2F1/change/", f"{WORKFLOWS}default_2F1/history/"),
    ],
)
def test_a_page_shows_a_message_while_redis_is_down(root: Client, settings: Any, address: str) -> None:
    settings.TASKQ = {"URL": "redis://:secret@127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}

    html = html_of(root, address)

    assert "The task queue cannot be read right now." in html
    assert "cannot reach redis://:***@127.0.0.1:1/0" in html
    assert "secret" not in html
    assert ">Try again</a>" in html
    assert root.get("/admin/").status_code == 200


@rows(
    ("shown_list", "path"),
    [
        *((TASKS, f"{key}/change/") for key in ("default_2Fnothing", "default/nothing", "nothing")),
        *((QUEUES, f"gone/{path}/") for path in ("change", "act/pause", "delete")),
        (WORKERS, "gone/change/"),
        *(
            (WORKFLOWS, f"{quote(key)}/change/")
            for key in ("default/gone", "nowhere/gone", "no slash", "/", "default/")
        ),
    ],
)
def test_the_page_of_a_deleted_row_redirects_to_the_list_with_a_message(
    root: Client, redis: RedisServer, shown_list: str, path: str
) -> None:
    response = root.get(shown_list + path, follow=True)

    assert response.redirect_chain[-1] == (shown_list, 302)
    assert "does not exist any more." in unescape(response.content.decode())


@pytest.mark.parametrize("model", LISTS)
def test_a_page_needs_the_permission_to_view_its_model(client: Client, redis: RedisServer, model: str) -> None:
    enqueue()
    address = LISTS[model]

    sign_in(client, *(f"view_{each}" for each in LISTS if each != model), "view_payload", "run_task", "run_workflow")
    for path in ("", "add/", "default/change/"):
        assert client.get(address + path).status_code == 403, path
    client.force_login(User.objects.create_user("bob"))
    assert client.get(address).status_code == 302


def test_the_number_of_redis_commands_does_not_grow_with_the_tasks(root: Client, redis: RedisServer) -> None:
    """The first measurement has enough tasks to fill every sample."""
    remote = taskq.remote("email:deliver")
    handles = taskq.client.enqueue_many(remote.s(number=number) for number in range(300))
    appear(redis, queues={"low": 1}, running={"t": {}})
    one_list = f"{TASKS}?queue=default&state=pending"  # others are read whole to sort them
    addresses = (QUEUES, f"{QUEUES}default/change/", one_list, f"{one_list}&p=2", page_of(handles[7]), WORKERS)

    def commands() -> list[int]:
        return [commands_of(redis, lambda: html_of(root, address)) for address in addresses]  # noqa: B023

    commands()
    few = commands()
    taskq.client.enqueue_many(remote.s(number=number) for number in range(2_000))
    appear(redis, queues={"low": 1}, running={f"t{number}": {} for number in range(50)})

    assert commands() == few
    assert min(few) > 0
