"""Test what staff users see of queues and tasks in the admin."""

import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client

from taskq_django import taskq
from taskq_django.admin.formats import SHOWN_BYTES, blob
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import QUEUES, TASKS, enqueue, page_of, put, shown_ids

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def staff(client: Client) -> Client:
    """Return the browser of a user who may only view tasks and queues."""
    user = User.objects.create_user("ada", password="ada", is_staff=True)
    views = Permission.objects.filter(content_type__app_label="taskq_django", codename__startswith="view_")
    user.user_permissions.set(views)
    client.force_login(user)
    return client


@pytest.fixture
def pages(staff: Client, redis: RedisServer) -> Callable[..., str]:
    """Return the text of a page."""

    def page(path: str, **query: object) -> str:
        response = staff.get(path, {name: str(value) for name, value in query.items()})
        assert response.status_code == 200
        return response.content.decode()

    return page


def broken() -> None:
    raise OSError("no such host")


def test_tasks_are_filtered_by_queue_and_state(pages: Callable[..., str], redis: RedisServer) -> None:
    low, archived, pending = enqueue(queue="low"), enqueue(), enqueue()
    put(redis, archived, "archived", error_msg="ValueError: no")

    assert shown_ids(pages(TASKS)) == [pending.id, low.id, archived.id]
    assert shown_ids(pages(TASKS, queue="low")) == [low.id]
    assert shown_ids(pages(TASKS, state="archived")) == [archived.id]
    assert shown_ids(pages(TASKS, queue="default", state="pending")) == [pending.id]
    assert shown_ids(pages(TASKS, queue="no such queue", state="no such state", p="x")) == [
        pending.id,
        low.id,
        archived.id,
    ]


def test_filters_show_the_number_of_tasks(pages: Callable[..., str], redis: RedisServer) -> None:
    put(redis, enqueue(), "archived", error_msg="ValueError: no")
    enqueue(queue="low")

    html = pages(TASKS, state="archived")

    assert "default (1)" in html
    assert "low (0)" in html
    assert "archived (1)" in html
    assert "pending (1)" in html


def test_a_long_list_has_pages_that_keep_the_filters(pages: Callable[..., str]) -> None:
    handles = [enqueue(queue="low", number=number) for number in range(120)]

    first, last = pages(TASKS, queue="low"), pages(TASKS, queue="low", p=3)

    newest_first = [handle.id for handle in reversed(handles)]
    assert shown_ids(first) == newest_first[:50]
    assert shown_ids(last) == newest_first[100:]
    assert 'href="?p=2&amp;queue=low"' in first
    assert "120 tasks" in first
    assert shown_ids(pages(TASKS, queue="low", p=999)) == shown_ids(last)


def test_arguments_are_on_the_tasks_own_page_and_their_beginning_in_lists(pages: Callable[..., str]) -> None:
    handle = enqueue(to="user@example.com", count=3, text="x" * 100)

    html = pages(page_of(handle))

    for listed in (pages(TASKS), pages(TASKS, q=handle.id)):
        assert "{&quot;to&quot;:&quot;user@example.com&quot;,&quot;count&quot;:3," in listed
        assert "x" * 60 not in listed
    assert "{\n  &quot;to&quot;: &quot;user@example.com&quot;,\n  &quot;count&quot;: 3,\n" in html


def test_the_page_of_a_task_shows_all_its_fields(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = taskq.remote("email:deliver", headers={"tenant": "acme"}, max_retry=4, retention=60).delay()
    put(redis, handle, "archived", error_msg="ValueError: no such address\nmore")

    html = pages(page_of(handle))

    for text in (
        "email:deliver",
        handle.id,
        "archived",
        "0 of 4",
        "no such address\nmore",
        "tenant",
        "acme",
        "0:01:00",
    ):
        assert text in html
    assert "Nov. 14, 2023" in html


def test_a_task_that_failed_at_its_only_attempt_was_never_retried(
    pages: Callable[..., str], redis: RedisServer
) -> None:
    """Redis keeps no count of its failed attempts, so the list and the page show none."""
    task = taskq.task(name="email:broken", max_retry=0)(broken)
    handle = task.delay()
    call_command("runworker", "--burst", verbosity=0)

    listed, page = pages(TASKS), pages(page_of(handle))

    assert '<td class="field-state">archived</td>' in listed
    assert '<td class="field-attempt_count"><span class="nowrap">1/1</span></td>' in listed
    assert re.search(r"Retries:</label>.*?0 of 0", page, re.DOTALL)


@pytest.mark.parametrize("uses_time_zones", [True, False])
def test_times_are_shown_in_the_time_zone_of_the_project(
    pages: Callable[..., str], settings: Any, uses_time_zones: bool
) -> None:
    settings.USE_TZ, settings.TIME_ZONE = uses_time_zones, "Asia/Tokyo"
    start = datetime(2099, 1, 1, tzinfo=UTC)
    handle = taskq.remote("email:deliver", run_after=start).delay()

    listed, page = pages(TASKS), pages(page_of(handle))

    assert 'title="Jan. 1, 2099, 09:00:00 JST">in ' in listed
    assert "Jan. 1, 2099, 09:00:00 JST" in page


@pytest.mark.parametrize(
    ("zone", "start", "expected"),
    [
        ("Asia/Tokyo", datetime(9999, 12, 31, 23, 59, 58, tzinfo=UTC), "Dec. 31, 9999, 23:59:58 UTC"),
        ("America/New_York", datetime(1, 1, 1, tzinfo=UTC), "Jan. 1, 0001, 00:00:00 UTC"),
    ],
)
def test_a_time_that_does_not_fit_the_time_zone_is_shown_in_utc(
    pages: Callable[..., str], redis: RedisServer, settings: Any, zone: str, start: datetime, expected: str
) -> None:
    settings.TIME_ZONE = zone
    handle = taskq.remote("email:deliver").delay()
    seconds = int((start - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    put(redis, handle, "scheduled", score=seconds)

    assert f'title="{expected}"' in pages(TASKS, state="scheduled")
    assert expected in pages(page_of(handle))


def test_all_values_of_a_task_are_escaped(pages: Callable[..., str], redis: RedisServer) -> None:
    handle = taskq.remote(HOSTILE, queue=HOSTILE, headers={HOSTILE: HOSTILE}, task_id=HOSTILE).delay(text=HOSTILE)
    put(redis, handle, "archived", error_msg=HOSTILE)

    for html in (pages(TASKS), pages(TASKS, q=HOSTILE, queue=HOSTILE), pages(page_of(handle)), pages(QUEUES)):
        assert_escaped(html)


@rows("task_id", ["a/b", "_2F", "50% & more?#x", "ключ", "..", "x/change/"])
def test_a_task_with_an_odd_id_in_an_odd_queue_has_a_page(
    pages: Callable[..., str], task_id: str, staff: Client
) -> None:
    handle = taskq.remote("email:deliver", queue=f"q:{task_id}", task_id=task_id).delay()

    (url,) = re.findall(r'<th class="field-short_id"><a href="([^"]*)"', pages(TASKS, queue=handle.queue))

    assert "email:deliver" in pages(unescape(url))


def test_a_task_that_cannot_be_decoded_is_shown_as_unreadable(pages: Callable[..., str], redis: RedisServer) -> None:
    broken, gone = enqueue(), enqueue()
    redis.client.hset(f"asynq:{{default}}:t:{broken.id}", "msg", b"\xff\xff garbage")
    redis.client.delete(f"asynq:{{default}}:t:{gone.id}")

    listed, page = pages(TASKS), pages(page_of(broken))

    assert sorted(shown_ids(listed)) == sorted([broken.id, gone.id])
    assert "its data is missing" in listed
    assert "unreadable" in listed
    assert "Problem" in page
    assert "ffff 2067" in page


def test_a_damaged_queue_is_reported_and_the_others_are_listed(pages: Callable[..., str], redis: RedisServer) -> None:
    enqueue(queue="low")
    redis.client.sadd("asynq:queues", "odd")
    redis.client.set("asynq:{odd}:retry", "x")

    html = pages(QUEUES)

    assert f'<a href="{TASKS}?queue=low&amp;state=pending">1</a>' in html
    assert "WRONGTYPE" in html
    assert "odd" in pages(TASKS)


def test_an_empty_list_shows_a_message(pages: Callable[..., str]) -> None:
    assert "No tasks here." in pages(TASKS)
    assert "0 queues" in pages(QUEUES)


def test_the_index_offers_only_links_to_view(pages: Callable[..., str]) -> None:
    html = pages("/admin/")

    assert f'href="{TASKS}"' in html
    assert f'href="{QUEUES}"' in html
    assert "/add/" not in html


def test_migrate_creates_permissions_and_the_outbox() -> None:
    from django.db import connection

    codenames = Permission.objects.filter(content_type__app_label="taskq_django").values_list("codename", flat=True)

    assert {codename for codename in codenames if not codename.endswith("periodictask")} == {
        *("add_task", "change_task", "delete_outboxtask", "delete_queue", "delete_task", "pause_queue", "run_task"),
        "signal_task",
        *(
            "view_outboxtask",
            "view_payload",
            "view_question",
            "view_queue",
            "view_task",
            "view_worker",
            "view_workflow",
            "run_workflow",
            "control_worker",
        ),
    }
    tables = [name for name in connection.introspection.table_names() if name.startswith("taskq")]
    assert set(tables) == {"taskq_django_outboxtask", "taskq_django_periodictask"}


@pytest.mark.parametrize("options", [{}, {"use_base_manager": True}], ids=["default", "all"])
def test_dumpdata_skips_models_without_a_table(options: dict[str, bool]) -> None:
    """Dumpdata works although Django asks every model for its rows."""
    User.objects.create_user("ada")
    stdout = io.StringIO()

    call_command("dumpdata", stdout=stdout, **options)

    dumped = {each["model"] for each in json.loads(stdout.getvalue())}
    assert "auth.user" in dumped
    assert not {each for each in dumped if each.startswith("taskq_django.")}


def test_the_migration_is_current() -> None:
    call_command("makemigrations", "taskq_django", "--check", "--dry-run", verbosity=0)


@rows(
    ("data", "shown", "note"),
    [
        (b"", "", ""),
        (b'{"a":1e400,"b":12345678901234567890123}', '{\n  "a": 1e400,\n  "b": 12345678901234567890123\n}', ""),
        (b"plain text", "plain text", ""),
        (b"\xffplain", "\\xffplain", "Not text"),
        ("é".encode() * SHOWN_BYTES, "é" * (SHOWN_BYTES // 2), "The first 65536 of 131072 bytes."),
        (b"[" * 10_000, "[" * 10_000, ""),
    ],
)
def test_a_payload_of_bytes_is_shown_as_bytes(data: bytes, shown: str, note: str) -> None:
    """Numbers are not rounded, text that is not JSON is shown unchanged, and long values are cut."""
    text, remark = blob(data)

    assert text == shown
    assert remark.startswith(note)
    assert bool(remark) is bool(note)
