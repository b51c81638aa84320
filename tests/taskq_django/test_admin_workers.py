"""Test the pages of workers in the admin."""

import json
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import User
from django.test import Client

from taskq_django.admin.formats import key_of
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import QUEUES, TASKS, WORKERS, appear, html_of, rows_of, sign_in

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]

S = 10**9


@pytest.fixture
def viewer(client: Client) -> Client:
    """Return the browser of a user who may view everything."""
    return sign_in(client, "view_worker", "view_task", "view_queue")


def test_the_list_shows_the_state_of_each_worker(viewer: Client, redis: RedisServer) -> None:
    now = int(redis.client.time()[0]) * S
    running = {
        "t1": {"start_time_ns": now - 90 * S, "deadline_ns": now - 5 * S},
        "t2": {"start_time_ns": now - 30 * S},
    }
    counts = {"processed": 1200, "failed": 7}
    appear(redis, queues={"low": 1, "critical": 3}, start_time_ns=now - 3 * 3600 * S, running=running, **counts)

    (row,) = rows_of(html_of(viewer, WORKERS))

    assert (row["processed"], row["failed"]) == ("1,200", "7")
    assert (row["host"], row["pid"], row["status"], row["busy"]) == ("box", "7", "active", "2 of 10")
    assert re.fullmatch(r"3 h \d+ min", row["uptime"])
    assert row["queues"] == "critical (3) , low (1)"
    assert re.fullmatch(r"ship:t1 for 1 min 3\d s \(overdue\) ship:t2 for 3\d s", row["running"])


def test_running_tasks_and_queues_are_links_for_users_who_may_view_them(client: Client, redis: RedisServer) -> None:
    worker = appear(redis, queues={"low": 1}, running={"t/1": {}})
    task = f'<a href="{TASKS}{quote(key_of("low", "t/1"))}/change/">ship:t/1</a>'
    queue = f'<a href="{QUEUES}low/change/">low</a>'

    browser = sign_in(client, "view_worker", "view_task", "view_queue")
    for html in (html_of(browser, WORKERS), html_of(browser, f"{WORKERS}{quote(worker)}/change/")):
        assert task in html
        assert queue in html
    User.objects.all().delete()
    client.logout()
    browser = sign_in(client, "view_worker")
    for html in (html_of(browser, WORKERS), html_of(browser, f"{WORKERS}{quote(worker)}/change/")):
        assert "ship:t/1" in html
        assert TASKS not in html
        assert QUEUES not in html


def test_a_worker_with_few_fields_is_listed(viewer: Client, redis: RedisServer) -> None:
    """A Go worker reports only this about a task, and a worker that has just started reports less."""
    appear(redis, "go", pid=1, start_time_ns=None, running={"t1": {}})
    appear(redis, "", pid=2, status="unheard of", strict_priority=True, queues={"low": 2, "high": 5})

    nameless, go = rows_of(html_of(viewer, WORKERS))

    assert (go["host"], go["uptime"], go["queues"], go["running"]) == ("go", "-", "-", "ship:t1")
    assert (nameless["host"], nameless["status"]) == ("-", "unheard of")
    assert nameless["queues"] == "high (5) , low (2) (strict priority)"


def test_the_list_names_some_running_tasks_and_the_page_names_all(viewer: Client, redis: RedisServer) -> None:
    worker = appear(redis, running={f"t{number:02}": {} for number in range(12)})

    (row,) = rows_of(html_of(viewer, WORKERS))
    page = html_of(viewer, f"{WORKERS}{quote(worker)}/change/")

    assert row["running"].endswith("ship:t04 and 7 more")
    assert re.findall(r">(ship:t\d\d)</a>", page) == [f"ship:t{number:02}" for number in range(12)]


def test_the_page_of_a_worker_shows_how_often_it_polls_each_queue(viewer: Client, redis: RedisServer) -> None:
    worker = appear(redis, queues={"low": 1, "critical": 2})

    html = html_of(viewer, f"{WORKERS}{quote(worker)}/change/")

    cells = re.findall(r'<td class="taskq-number">([^<]*)</td>', html)
    assert cells == ["2", "66.7 %", "1", "33.3 %"]


def test_workers_can_be_searched_sorted_and_filtered(viewer: Client, redis: RedisServer) -> None:
    now = int(redis.client.time()[0]) * S
    for number in range(11):
        appear(
            redis,
            f"web-{number:02}",
            pid=number,
            queues={"low": 1} if number else {"high": 1},
            start_time_ns=now - number * S,
        )
    appear(redis, "go", pid=4242, status="stopped")

    def hosts(**query: str) -> list[str]:
        return [row["host"] for row in rows_of(html_of(viewer, WORKERS, **query))]

    assert hosts(q="GO") == hosts(q="4242") == hosts(q="stopped") == ["go"]
    assert hosts(q="high") == ["web-00"]
    assert hosts(o="-0")[0] == "web-10"
    assert hosts(o="3")[0] == "go", "whose uptime is not known"
    assert hosts(o="-3")[0] == "web-10"


def test_all_values_of_a_worker_are_escaped(viewer: Client, redis: RedisServer) -> None:
    worker = appear(redis, HOSTILE, queues={HOSTILE: 1}, status=HOSTILE, running={HOSTILE: {}})

    for html in (html_of(viewer, WORKERS), html_of(viewer, f"{WORKERS}{quote(worker)}/change/")):
        assert_escaped(html)


def test_nobody_can_add_change_or_delete_a_worker(client: Client, redis: RedisServer) -> None:
    worker = appear(redis)
    client.force_login(User.objects.create_superuser("root"))

    for path in ("add/", f"{quote(worker)}/delete/", f"{quote(worker)}/change/"):
        assert client.post(f"{WORKERS}{path}", {"action": "delete_selected", "post": "yes"}).status_code == 403


def test_a_user_with_the_permission_can_send_requests_to_workers(client: Client, redis: RedisServer) -> None:
    """The list and the admin log show it. Other users do not see the action."""
    worker = appear(redis)
    subscription = redis.client.pubsub()
    subscription.subscribe("taskq:control")
    subscription.get_message(timeout=30)
    operator = sign_in(client, "view_worker", "control_worker")
    chosen = {"action": "scale", "_selected_action": [worker], "select_across": "0", "index": "0"}

    question = operator.post(WORKERS, chosen).content.decode()
    wrong = operator.post(WORKERS, {**chosen, "post": "yes", "concurrency": "0"}).content.decode()
    done = operator.post(WORKERS, {**chosen, "post": "yes", "concurrency": "3"}, follow=True).content.decode()
    for action in ("quiet", "resume", "stop"):
        operator.post(WORKERS, {**chosen, "action": action, "post": "yes"})
    sent = [json.loads(subscription.get_message(timeout=30)["data"]) for _ in range(4)]
    subscription.close()
    unheard = operator.post(WORKERS, {**chosen, "action": "stop", "post": "yes"}, follow=True).content.decode()

    assert "Change how many tasks 1 worker runs at a time" in question
    assert "greater than or equal to 1" in wrong
    assert "The request was sent to 1 worker." in done
    assert [(each["action"], each["workers"], each["concurrency"]) for each in sent] == [
        ("scale", [worker], 3),
        ("quiet", [worker], None),
        ("resume", [worker], None),
        ("stop", [worker], None),
    ]
    assert "No worker received the request." in unheard
    assert LogEntry.objects.filter(object_id=worker).count() == 4


def test_a_user_with_view_permission_only_cannot_send_requests_to_workers(viewer: Client, redis: RedisServer) -> None:
    worker = appear(redis)

    assert 'name="action"' not in html_of(viewer, WORKERS)
    assert viewer.post(f"{WORKERS}{quote(worker)}/act/stop/", {"post": "yes"}).status_code == 403
