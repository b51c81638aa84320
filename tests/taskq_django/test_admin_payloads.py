"""Test that the admin shows arguments, results and what may contain them only to users with `view_payload`."""

import json
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from taskq_django import schedule, taskq
from taskq_django.models import PeriodicTask
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import OUTBOX, PERIODIC, TASKS, enqueue, page_of, put, user
from tests.taskq_django.shop.tasks import greet

pytestmark = [pytest.mark.redis, pytest.mark.django_db, pytest.mark.usefixtures("at_once")]
SECRET = "card-4242"
NOTE = "Hidden: you need the permission “Can view arguments and results of tasks”."
VIEW = ("view_task", "view_periodictask", "view_outboxtask")
CHANGE = ("change_task", "change_periodictask", "add_periodictask")


@pytest.fixture
def of_code() -> Iterator[None]:
    schedule("@hourly", greet.s(SECRET), id="nightly")
    yield
    taskq.unschedule("nightly")


def browser_of(*codenames: str) -> Callable[..., str]:
    """Return a function that shows a page to a new user with these permissions."""
    client = Client()
    client.force_login(user(f"user {User.objects.count()}", *codenames))

    def page(address: str, **query: str) -> str:
        response = client.get(address, query)
        assert response.status_code == 200
        return unescape(response.content.decode())

    return page


@pytest.fixture
def task(redis: RedisServer) -> Any:
    """Return a task that has the secret in everything that may contain arguments."""
    handle = enqueue(card=SECRET)
    put(redis, handle, "archived", error_msg="ValueError: declined", headers={"taskq-limit": SECRET, "tenant": "t-1"})
    progress = {"done": 3, "total": 10, "at": 1_700_000_000_000, "message": SECRET}
    attempt = {"attempt": 1, "worker": "w", "ended": 1, "error": "ValueError", "traceback": SECRET}
    stored: Any = {
        "taskq_progress": json.dumps(progress),
        "taskq_attempts": json.dumps(attempt),
        "result": f'"{SECRET}"',
    }
    redis.client.hset(f"asynq:{{default}}:t:{handle.id}", mapping=stored)
    redis.client.hset(f"asynq:{{default}}:t:{handle.id}:steps", mapping={"pay": f'"{SECRET}"'})
    return handle


@rows("more", [(), CHANGE])
def test_a_task_is_shown_without_what_may_contain_arguments(more: tuple[str, ...], task: Any) -> None:
    page, full = browser_of(*VIEW, *more), browser_of(*VIEW, *more, "view_payload")

    hidden, shown = page(page_of(task)), full(page_of(task))

    assert SECRET in shown
    assert NOTE not in shown
    assert SECRET not in hidden
    assert NOTE in hidden
    assert "<textarea" not in hidden
    for still in ("ValueError: declined", "3 of 10", "t-1"):
        assert still in hidden


@pytest.mark.parametrize("state", ["", "active", "archived", "completed"])
def test_the_list_has_no_arguments(state: str, redis: RedisServer) -> None:
    handle = enqueue(card=SECRET)
    if state:
        put(redis, handle, state)
    page, full = browser_of("view_task", "run_task"), browser_of("view_task", "view_payload")

    assert SECRET in full(TASKS, state=state)
    assert SECRET not in page(TASKS, state=state)
    assert handle.id in page(TASKS, state=state)


def test_a_search_does_not_find_hidden_arguments(task: Any) -> None:
    page, full = browser_of(*VIEW), browser_of(*VIEW, "view_payload")

    assert task.id in full(TASKS, q="4242")
    assert task.id not in page(TASKS, q="4242")
    assert task.id in page(TASKS, q="declined")
    assert "its arguments" not in page(TASKS)


@rows("action", ["archive_tasks", "delete_selected"])
def test_a_confirmation_shows_the_arguments_of_the_task(action: str, redis: RedisServer) -> None:
    handle, more = enqueue(card=SECRET), ("view_task", "change_task", "delete_task")
    page, full = browser_of(*more), browser_of(*more, "view_payload")

    assert SECRET in full(page_of(handle, "act", action))
    assert NOTE in page(page_of(handle, "act", action))
    assert SECRET not in page(page_of(handle, "act", action))


def test_periodic_tasks_are_shown_without_arguments(of_code: None) -> None:
    row = PeriodicTask.objects.create(name="hello", task="shop:greet", kwargs={"name": SECRET}, cron="@hourly")
    full = browser_of(*VIEW, "view_payload")

    for more in ((), CHANGE):
        page = browser_of(*VIEW, *more)
        for key in (row.pk, "code_3Anightly"):
            assert SECRET in full(f"{PERIODIC}{key}/change/")
            assert SECRET not in page(f"{PERIODIC}{key}/change/")
            assert NOTE in page(f"{PERIODIC}{key}/change/")
        assert "Save as new" not in page(f"{PERIODIC}{row.pk}/change/")


def test_a_periodic_task_is_changed_without_its_hidden_arguments(client: Client) -> None:
    client.force_login(user("eve", "view_periodictask", "change_periodictask"))
    row = PeriodicTask.objects.create(name="hello", task="shop:greet", kwargs={"name": SECRET}, cron="@hourly")
    form = {"name": "hello", "task": "shop:greet", "cron": "@daily", "options": "{}", "enabled": "on"}
    form |= {"catch_up": "one", "catch_up_window": "01:00:00", "_save": "Save"}
    address = f"{PERIODIC}{row.pk}/change/"

    changed = client.post(address, {**form, "kwargs": '{"name": "Eve"}'})
    refused = client.post(address, {**form, "task": "shop:restock"}).content.decode()

    row.refresh_from_db()
    assert changed.status_code == 302
    assert (row.cron, row.task, row.kwargs) == ("@daily", "shop:greet", {"name": SECRET})
    assert "errornote" in refused
    assert SECRET not in refused


@rows(
    ("address", "lookup"),
    [(PERIODIC, "kwargs__name"), (PERIODIC, "kwargs__contains"), (OUTBOX, "message"), (OUTBOX, "unique_rule__gt")],
)
def test_no_filter_in_an_address_reveals_arguments(client: Client, address: str, lookup: str) -> None:
    client.force_login(user(lookup, *VIEW))

    assert client.get(address, {lookup: SECRET}).status_code == 400
