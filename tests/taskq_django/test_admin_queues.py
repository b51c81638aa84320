"""Test the pages of queues in the admin: their content and their actions."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.utils.html import escape
from django.utils.http import urlencode

from taskq_core import TaskState
from taskq_core.inspector import Inspector
from taskq_django import taskq
from taskq_django.admin import actions
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_django.admin_pages import QUEUES, TASKS, html_of, rows_of, sign_in
from tests.taskq_fastapi.pasts import Past

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]


def enqueue(queue: str = "default", *, count: int = 1, name: str = "email:deliver", **options: Any) -> None:
    taskq.client.enqueue_many(taskq.remote(name, queue=queue, **options).s(to="a@b.c") for _ in range(count))


def page_of(queue: str) -> str:
    return f"{QUEUES}{queue}/change/"


@pytest.fixture
def viewer(client: Client) -> Client:
    """Return the browser of a user who may only view."""
    return sign_in(client, "view_queue", "view_task")


@pytest.fixture
def operator(client: Client) -> Client:
    """Return the browser of a user with all permissions on queues."""
    return sign_in(client, "view_queue", "pause_queue", "delete_queue")


def act(client: Client, action: str, *names: str, follow: bool = True, **more: Any) -> str:
    """Choose an action on the list and confirm it; return the page that follows."""
    data = {"_selected_action": list(names), "action": action, "post": "yes", "select_across": "0", **more}
    response = client.post(QUEUES, data, follow=follow)
    assert response.status_code == 200
    return unescape(response.content.decode())


def by_name(html: str) -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in rows_of(html)}


@pytest.fixture
def in_one_day(redis: RedisServer) -> None:
    """Skip the last half minute of a day, so that runs are still shown as today's."""
    now: Any = redis.client.time()
    if 86_400 - now[0] % 86_400 <= 30:
        pytest.skip("the day is about to end")


def count_on(redis: RedisServer, queue: str, *, back: int = 0, processed: int, failed: int) -> None:
    """Write the counts of runs of a day."""
    now: Any = redis.client.time()
    day = datetime.fromtimestamp(now[0], UTC).date() - timedelta(days=back)
    redis.client.set(f"asynq:{{{queue}}}:processed:{day}", processed)
    redis.client.set(f"asynq:{{{queue}}}:failed:{day}", failed)


# --- the list ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_one_day")
def test_the_list_shows_the_state_of_each_queue(viewer: Client, redis: RedisServer) -> None:
    enqueue(count=3)
    enqueue(run_after=60)
    enqueue(aggregate="digest")
    enqueue("low")
    redis.client.set("asynq:{low}:paused", 1)
    count_on(redis, "default", processed=1200, failed=30)

    rows = by_name(html_of(viewer, QUEUES))

    default, low = rows["default"], rows["low"]
    assert default["tasks"] == "5 3 pending 1 aggregating 1 scheduled"
    assert (default["status"], low["status"]) == ("no worker", "paused")
    assert (default["processed_today"], default["failed_today"], default["error_rate"]) == ("1,200", "30", "2.5 %")
    assert low["error_rate"] == "-"
    assert re.fullmatch(r"\d+\.\d s", default["latency"])
    assert re.fullmatch(r"[\d.]+\s(bytes|KB)", default["memory"])


def test_counts_link_to_tasks_for_users_who_may_view_them(client: Client, redis: RedisServer) -> None:
    enqueue(count=2)
    link = f'<a href="{TASKS}?{urlencode({"queue": "default", "state": "pending"}).replace("&", "&amp;")}">2</a>'

    assert link in html_of(sign_in(client, "view_queue", "view_task"), QUEUES)
    User.objects.all().delete()
    client.logout()
    assert TASKS not in html_of(sign_in(client, "view_queue"), QUEUES)


def test_bars_are_drawn_side_by_side_and_have_text_for_screen_readers(viewer: Client, redis: RedisServer) -> None:
    """The largest queue has the full width, each part has a title, and the bars contain no script, style or address."""
    enqueue("large", count=8)
    enqueue("small", count=2)

    html = html_of(viewer, QUEUES)

    large, small = re.findall(r'<svg class="taskq-bar".*?</svg>', html, re.DOTALL)
    assert 'role="img" aria-label="large: Pending: 8"' in large
    assert (
        '<rect class="taskq-fill-pending" x="0.0" width="1000.0" height="10"><title>Pending: 8</title></rect>' in large
    )
    assert (
        '<rect class="taskq-fill-pending" x="0.0" width="250.0" height="10"><title>Pending: 2</title></rect>' in small
    )
    assert not re.search(r"style=|http|onload|<script", large + small)


@pytest.mark.usefixtures("in_one_day")
def test_the_history_is_shown_as_a_chart_and_a_table(viewer: Client, redis: RedisServer) -> None:
    enqueue()
    enqueue("low")
    count_on(redis, "default", processed=10, failed=4)
    count_on(redis, "low", processed=5, failed=1)
    count_on(redis, "default", back=40, processed=1000, failed=0)

    html = html_of(viewer, QUEUES)
    (figure,) = re.findall(r'<figure class="taskq-chart".*?</figure>', html, re.DOTALL)

    assert "15 runs in 30 days, 5 of them failed." in figure
    assert figure.count("<g><title>") == 30
    assert 'role="img" aria-labelledby="taskq-history-title taskq-history-desc"' in figure
    assert figure.count('<tr><th scope="row">') == 30
    first = figure[figure.index("<tbody>") :].split("</tr>")[0]
    assert re.findall(r'<td class="taskq-number">([^<]*)</td>', first) == ["15", "5", "33.3 %"]
    assert not re.search(r"style=|http|onload|<script", figure)


def test_the_last_hour_is_drawn_from_samples(viewer: Client, redis: RedisServer) -> None:
    """A gap in the samples breaks the lines, and a text describes the chart."""
    enqueue()
    Past(redis).samples("default", per_s=5, gap=(100, 200))

    html = html_of(viewer, page_of("default"))
    rates, latency = re.findall(
        r'<figure class="taskq-chart" id="taskq-(?:rates|latency)".*?</figure>', html, re.DOTALL
    )

    processed, failed = re.findall(r'<path class="taskq-line taskq-line-\w+" d="(M[^"]*L[^"]*)"', rates)
    assert (processed.count("M"), failed.count("M")) == (2, 2)
    assert "processed: 5.00 per second now, maximum 5.00 per second; failed: 0.10 per second now" in rates
    assert len(re.findall(r'<path class="taskq-line taskq-line-pending" d="M[^"]*L', latency)) == 1
    assert 'role="img" aria-labelledby="taskq-rates-title taskq-rates-desc"' in rates
    assert not re.search(r"style=|http|onload|<script", rates + latency)


def test_without_samples_the_page_explains_what_records_them(viewer: Client, redis: RedisServer) -> None:
    enqueue()

    assert "There are no samples of the last hour" in html_of(viewer, page_of("default"))


def test_the_time_range_of_the_chart_can_be_chosen(viewer: Client, redis: RedisServer) -> None:
    enqueue()

    for asked, days in (("7", 7), ("30", 30), ("90", 90), ("8", 30), ("x", 30), ("-1", 30)):
        for address in (QUEUES, page_of("default")):
            html = html_of(viewer, address, days=asked)

            assert html.count("<g><title>") == days, (asked, address)
            assert re.search(rf'<a href="\?days={days}" aria-current="true">{days} days</a>', html), (asked, address)


def test_the_list_can_be_searched_and_sorted(viewer: Client, redis: RedisServer) -> None:
    enqueue("alpha", count=1)
    enqueue("beta", count=3)
    enqueue("alphabet", count=2)
    redis.client.set("asynq:{beta}:paused", 1)

    assert list(by_name(html_of(viewer, QUEUES, q="ALPHA"))) == ["alpha", "alphabet"]
    assert list(by_name(html_of(viewer, QUEUES, o="-2"))) == ["beta", "alphabet", "alpha"]
    assert list(by_name(html_of(viewer, QUEUES, o="2"))) == ["alpha", "alphabet", "beta"]
    assert next(iter(by_name(html_of(viewer, QUEUES, o="-1")))) == "beta", "no worker comes before paused"
    assert "0 queues" in html_of(viewer, QUEUES, q="nothing")


@pytest.mark.usefixtures("in_one_day")
def test_the_page_of_a_queue_shows_all_figures(viewer: Client, redis: RedisServer) -> None:
    enqueue(count=3)
    enqueue(name="report:build", run_after=60)
    enqueue(name="report:build", aggregate="digest")
    count_on(redis, "default", processed=4, failed=1)

    html = unescape(re.sub(r"\s+", " ", html_of(viewer, page_of("default"))))

    assert "4 processed, 1 failed (25.0 %)" in html
    assert '<tr><th scope="row">email:deliver</th><td class="taskq-number">3</td>' in html
    assert '<tr><th scope="row">report:build</th><td class="taskq-number">1</td>' in html
    assert f'{TASKS}?queue=default&state=scheduled">1</a>' in html
    assert "Of the first" not in html
    assert "/act/" not in html


def test_the_page_of_a_large_queue_says_how_many_tasks_were_counted(viewer: Client, redis: RedisServer) -> None:
    enqueue(count=230)

    assert "Only 200 tasks were counted" in html_of(viewer, page_of("default"))


def test_all_values_from_redis_are_escaped(viewer: Client, redis: RedisServer) -> None:
    enqueue(HOSTILE, name=HOSTILE)
    redis.client.sadd("asynq:queues", "odd" + HOSTILE)
    redis.client.set(f"asynq:{{odd{HOSTILE}}}:retry", "x")

    listed = html_of(viewer, QUEUES)
    pages = [html_of(viewer, unescape(url)) for url in re.findall(r'<th class="field-name"><a href="([^"]*)"', listed)]

    assert len(pages) == 2
    for html in (listed, *pages):
        assert_escaped(html)


@rows("name", ["a/b", "_2F", "50% & more?#x", "ключ", "..", "x/change/", "a b"])
def test_a_queue_with_an_odd_name_has_a_page(viewer: Client, redis: RedisServer, name: str) -> None:
    enqueue(name)

    (url,) = re.findall(r'<th class="field-name"><a href="([^"]*)"', html_of(viewer, QUEUES))

    assert f'<div class="readonly">{escape(name)}</div>' in html_of(viewer, unescape(url))


# --- what can be done -------------------------------------------------------------------------------------------------


def test_a_queue_is_paused_and_resumed(operator: Client, redis: RedisServer, inspector: Inspector) -> None:
    enqueue()
    enqueue("low")

    said = act(operator, "pause", "default", "low")
    assert "2 queues were paused." in said
    assert [info.is_paused for info in inspector.queue_infos()] == [True, True]
    said = act(operator, "resume", "low")
    assert "1 queue was resumed." in said
    assert [info.is_paused for info in inspector.queue_infos()] == [True, False]

    logged = LogEntry.objects.order_by("pk").values_list("object_id", "action_flag", "change_message", "user__username")
    assert list(logged) == [
        ("default", CHANGE, "Paused.", "ada"),
        ("low", CHANGE, "Paused.", "ada"),
        ("low", CHANGE, "Resumed.", "ada"),
    ]


def test_an_action_changes_nothing_before_its_confirmation(
    operator: Client, redis: RedisServer, inspector: Inspector
) -> None:
    enqueue()

    for action, question in (
        ("pause", "Pause 1 queue?"),
        ("empty", "Delete all tasks of 1 queue"),
        ("delete_selected", "Delete 1 queue with its counters"),
    ):
        response = operator.post(QUEUES, {"_selected_action": ["default"], "action": action, "index": "0"})
        asked = response.content.decode()
        assert question in asked
        assert asked.count('<input type="checkbox" name="states"') == (6 if action == "empty" else 0)
        assert asked.count('<input type="checkbox" name="force"') == (1 if action == "delete_selected" else 0)

    assert (inspector.queue_info("default").is_paused, inspector.queue_info("default").size) == (False, 1)
    assert not LogEntry.objects.exists()


def test_the_confirmation_of_emptying_shows_the_number_of_tasks(operator: Client, redis: RedisServer) -> None:
    """The test covers selected queues in the list, all matching queues, and the page of one queue."""
    enqueue("a", count=3)
    enqueue("b", count=4)
    enqueue("c", count=5)

    for data, count in (
        ({"_selected_action": ["a", "b"]}, 7),
        ({"_selected_action": ["a"], "select_across": "1"}, 12),
    ):
        asked = operator.post(QUEUES, {"action": "empty", "index": "0", **data}).content.decode()
        assert f"Pending ({count})" in asked
    assert "Pending (5)" in html_of(operator, f"{QUEUES}c/act/empty/")


def test_concurrent_actions_of_two_operators_are_reported(
    operator: Client, redis: RedisServer, inspector: Inspector
) -> None:
    """An action that another user has already done on one row does not block the other rows."""
    enqueue()
    enqueue("low")
    inspector.pause("low")

    said = act(operator, "pause", "low", "default", "gone")

    assert "1 was skipped: queue 'low' is already paused." in said
    assert "1 was skipped: deleted in the meantime." in said
    assert "1 queue was paused." in said
    assert list(LogEntry.objects.values_list("object_id", flat=True)) == ["default"]
    assert "queue 'default' is not paused" in act(operator, "resume", "default", "default") + act(
        operator, "resume", "default"
    )


def test_all_tasks_of_the_chosen_states_are_deleted(operator: Client, redis: RedisServer, inspector: Inspector) -> None:
    enqueue(count=5)
    enqueue(count=2, run_after=60)
    enqueue(count=3, aggregate="digest")
    enqueue("low", count=4)

    said = act(operator, "empty", "default", states=["pending", "aggregating"])

    assert "8 tasks were deleted." in said
    sizes = {state: size for state, size in inspector.queue_info("default").sizes.items() if size}
    assert sizes == {TaskState.SCHEDULED: 2}
    assert inspector.queue_info("low").size == 4
    (entry,) = LogEntry.objects.all()
    assert (entry.object_id, entry.change_message) == ("default", "Deleted 8 tasks: pending, aggregating.")


def test_an_invalid_choice_of_states_shows_the_form_again(
    operator: Client, redis: RedisServer, inspector: Inspector
) -> None:
    enqueue()

    for states in ([], ["active"], ["pending", "no such state"], [HOSTILE]):
        response = operator.post(
            QUEUES, {"_selected_action": ["default"], "action": "empty", "post": "yes", "states": states}
        )

        assert response.status_code == 200
        assert "errorlist" in response.content.decode(), states
        assert "<script>alert" not in response.content.decode(), states
        assert inspector.queue_info("default").size == 1, states


def test_a_deletion_that_exceeds_one_request_continues_in_the_next(
    operator: Client, redis: RedisServer, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(count=250)
    enqueue("low")
    monkeypatch.setattr(actions, "LONGEST_S", 0.0)

    said = act(operator, "empty", "default", "low", states=["pending"])
    left = inspector.queue_info("default").size
    monkeypatch.undo()
    act(operator, "empty", "default", states=["pending"])

    assert "Repeat the action to continue." in said
    assert inspector.queue_info("low").size == 1
    assert left == 150
    assert inspector.queue_info("default").size == 0
    assert LogEntry.objects.count() == 2


def test_a_queue_with_tasks_is_deleted_only_with_an_explicit_confirmation(
    operator: Client, redis: RedisServer, inspector: Inspector
) -> None:
    enqueue(count=2)
    enqueue("low", count=3)
    inspector.delete_all("low", TaskState.PENDING)

    said = act(operator, "delete_selected", "default", "low")
    assert "queue 'default' is not empty: its removal would delete 2 tasks" in said
    assert "1 queue was deleted." in said
    assert inspector.queues() == ["default"]
    assert "1 queue was deleted." in act(operator, "delete_selected", "default", force="on")
    assert inspector.queues() == []

    logged = list(LogEntry.objects.order_by("pk").values_list("object_id", "action_flag", "change_message"))
    assert logged == [("low", DELETION, "Deleted with 0 tasks."), ("default", DELETION, "Deleted with 2 tasks.")]


def test_actions_can_be_started_from_the_page_of_a_queue(
    operator: Client, redis: RedisServer, inspector: Inspector
) -> None:
    enqueue()
    html = html_of(operator, page_of("default"))
    assert re.findall(r'taskq-action" href="([^"]*)">(\w+)</a>', html) == [
        (f"{QUEUES}default/act/pause/", "Pause"),
        (f"{QUEUES}default/act/empty/", "Empty"),
    ]

    response = operator.post(f"{QUEUES}default/act/pause/", {"post": "yes", "action": "pause"})
    assert response.headers["Location"] == page_of("default")
    assert inspector.queue_info("default").is_paused
    assert f'href="{QUEUES}default/act/resume/">Resume</a>' in html_of(operator, page_of("default"))
    response = operator.post(f"{QUEUES}default/act/delete_selected/", {"post": "yes", "force": "on"})
    assert response.headers["Location"] == QUEUES
    assert inspector.queues() == []


def test_other_queues_are_emptied_when_one_is_damaged(
    operator: Client, redis: RedisServer, inspector: Inspector
) -> None:
    enqueue("low")
    redis.client.sadd("asynq:queues", "broken")
    redis.client.set("asynq:{broken}:pending", "x")

    said = act(operator, "empty", "broken", "low", states=["pending"])

    assert "broken: " in said
    assert "WRONGTYPE" in said
    assert inspector.queue_info("low").size == 0


# --- who may ----------------------------------------------------------------------------------------------------------


def test_a_user_with_view_permission_only_sees_no_action_and_a_forged_post_is_refused(
    viewer: Client, redis: RedisServer, inspector: Inspector
) -> None:
    enqueue()
    html = html_of(viewer, QUEUES) + html_of(viewer, page_of("default"))
    assert 'name="action"' not in html
    assert "action-select" not in html
    assert "/act/" not in html
    assert "deletelink" not in html

    for action in ("pause", "resume", "empty", "delete_selected"):
        data = {"_selected_action": ["default"], "action": action, "post": "yes", "force": "on", "states": ["pending"]}
        viewer.post(QUEUES, data)
        assert viewer.post(f"{QUEUES}default/act/{action}/", data).status_code == 403
    for page in ("default/delete/", "add/"):
        assert viewer.post(f"{QUEUES}{page}", {"post": "yes"}).status_code == 403

    assert (inspector.queue_info("default").is_paused, inspector.queue_info("default").size) == (False, 1)
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("codename", "offered"), [("pause_queue", {"pause", "resume"}), ("delete_queue", {"empty", "delete_selected"})]
)
def test_each_permission_offers_its_own_actions(
    client: Client, redis: RedisServer, codename: str, offered: set[str]
) -> None:
    enqueue()
    browser = sign_in(client, "view_queue", codename)

    html = html_of(browser, QUEUES)

    assert set(re.findall(r'<option value="(\w+)">', html)) == offered
    for action in {"pause", "resume", "empty", "delete_selected"} - offered:
        assert browser.post(f"{QUEUES}default/act/{action}/", {"post": "yes"}).status_code == 403
