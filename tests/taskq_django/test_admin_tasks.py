"""Test tasks in the admin: filters, search, columns, and actions on selected tasks and on all matching tasks."""

import os
import re
import threading
from collections.abc import Callable
from functools import partial
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.test import Client

from taskq_core import TaskContext
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerUnavailableError
from taskq_core.inspector import Inspector
from taskq_core.views import Dashboard
from taskq_core.views import tasks as dashboard_tasks
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_django import taskq
from taskq_django.admin import actions as admin_actions
from taskq_django.admin.task_rows import TaskRows
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.worker.conftest import until_blocking
from tests.taskq_django.admin_pages import (
    TASKS,
    choose,
    columns,
    confirm,
    enqueue,
    fields,
    key,
    messages,
    offered,
    page_of,
    put,
    rows_of,
    shown_ids,
    state_of,
    user,
)

pytestmark = [pytest.mark.redis, pytest.mark.django_db, pytest.mark.usefixtures("at_once")]
ALL_ACTIONS = [
    "approve",
    "reject",
    "send_signal",
    "run_now",
    "retry_later",
    "archive_tasks",
    "cancel_tasks",
    "move_tasks",
    "delete_selected",
]


@pytest.fixture
def operator(client: Client, redis: RedisServer) -> Client:
    """Return the browser of a user with all permissions on tasks."""
    client.force_login(user("ada", "view_task", "view_payload", "change_task", "delete_task", "run_task"))
    return client


@pytest.fixture
def pages(operator: Client) -> Callable[..., str]:
    """Return the text of a page."""

    def page(path: str, **query: object) -> str:
        response = operator.get(path, {name: str(value) for name, value in query.items()})
        assert response.status_code == 200
        return response.content.decode()

    return page


def read_ten_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a search of the admin read only ten tasks in each request."""

    def search_ten(self: Any, infos: Any, wanted: Any, *, cursor: str | None = None, limit: int, **_: Any) -> Any:
        read = partial(dashboard_tasks.search_tasks, infos=infos, wanted=wanted, cursor=cursor, scan=10, limit=limit)
        return self._inspector.run_plan(read)

    monkeypatch.setattr(Dashboard, "search_tasks", search_ten)


def logged() -> list[tuple[str, str, int, str]]:
    """Return user, action and task of each entry of the admin log, oldest first."""
    return [
        (entry.user.get_username(), entry.object_id or "", entry.action_flag, entry.change_message)
        for entry in LogEntry.objects.order_by("pk")
    ]


# --- finding tasks ----------------------------------------------------------------------------------------------------


def test_tasks_are_filtered_by_type_and_age(pages: Callable[..., str], redis: RedisServer) -> None:
    now: Any = redis.client.time()
    old, new, other = enqueue(), enqueue(), enqueue("email:digest")
    put(redis, old, "archived", score=now[0] - 7200)
    put(redis, new, "archived", score=now[0] - 60)
    put(redis, other, "archived", score=now[0] - 9 * 86_400)

    assert shown_ids(pages(TASKS, type="email:digest")) == [other.id]
    assert shown_ids(pages(TASKS, age="1h")) == [new.id]
    assert shown_ids(pages(TASKS, age="1d")) == [new.id, old.id]
    assert shown_ids(pages(TASKS, age="over-1h", type="email:deliver")) == [old.id]
    assert shown_ids(pages(TASKS, age="over-7d")) == [other.id]
    assert len(shown_ids(pages(TASKS, age="no such age", type=""))) == 3


def test_the_type_filter_offers_the_registered_types(pages: Callable[..., str]) -> None:
    html = pages(TASKS)

    assert 'href="?type=shop%3Agreet"' in html
    assert "email:digest" not in html
    assert ">email:digest<" in pages(TASKS, type="email:digest")


def test_tasks_are_searched_by_id_name_queue_payload_and_error(pages: Callable[..., str], redis: RedisServer) -> None:
    by_payload, by_error = enqueue(to="grace@example.com"), enqueue(queue="low")
    by_id = taskq.remote("email:deliver", task_id="order-grace-7").delay()
    by_name, by_queue = enqueue("shop.tasks.grace"), enqueue("x", queue="grace")
    put(redis, by_error, "archived", error_msg="no route to grace")
    enqueue(to="nobody")

    html = pages(TASKS, q="grace")

    assert sorted(shown_ids(html)) == sorted(each.id for each in (by_payload, by_error, by_id, by_name, by_queue))
    assert shown_ids(pages(TASKS, q="grace", queue="low")) == [by_error.id]
    assert set(shown_ids(pages(TASKS, q="grace", state="pending", type="email:deliver"))) == {by_id.id, by_payload.id}
    assert "grace@example.com" in html


def test_a_search_reports_its_progress_and_can_be_continued(
    pages: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = [enqueue(number=number) for number in range(30)]
    read_ten_at_once(monkeypatch)

    first = pages(TASKS, q="number", state="pending")
    (address,) = {*re.findall(r'<a href="([^"]*)">Continue</a>', first)}
    second = pages(TASKS + unescape(address))

    assert len(shown_ids(first)) == len(shown_ids(second)) == 10
    assert '<progress value="10" max="30"></progress> Read 10 of 30 tasks, 10 matched so far.' in first
    assert "Read 20 of 30 tasks, 20 matched so far." in second
    assert {*shown_ids(first), *shown_ids(second)} <= {handle.id for handle in handles}
    assert not {*shown_ids(first)} & {*shown_ids(second)}
    # another filter, and another search, begin at the start
    assert not [link for link in re.findall(r'href="(\?[^"]*queue=[^"]*)"', second) if "after=" in link]
    assert 'name="after"' not in second


def test_a_search_shows_a_page_at_once_and_offers_no_sorting_that_needs_all_tasks(
    pages: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = [enqueue("a" if number % 2 else "b", number=number) for number in range(120)]
    monkeypatch.setattr(TaskRows, "search_max", 10)

    html = pages(TASKS, q="number", o="2")
    rest = pages(TASKS + unescape(re.findall(r'<a href="([^"]*)">Continue</a>', html)[0]))

    assert shown_ids(html) + shown_ids(rest) == [each.id for each in handles[:19:-1]]
    assert 'class="sortable' not in html
    assert "Select all 50+ tasks" in html


@pytest.mark.parametrize("after", ["x", "archived/zz/1", "%00"])
def test_a_search_with_an_invalid_cursor_begins_at_the_start(pages: Callable[..., str], after: str) -> None:
    handle = enqueue(to="grace")

    assert shown_ids(pages(TASKS, q="grace", after=after)) == [handle.id]


def test_sorting_reads_a_bounded_number_of_bytes(pages: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks with large arguments do not fill the memory. The page sorts what it has read, or keeps Redis's order."""
    handles = [enqueue(text="x" * 1000) for _ in range(205)]
    enqueue(queue="low")
    monkeypatch.setattr("taskq_django.admin.task_rows.SORTED_BYTES", 100_000)

    listed, ordered = pages(TASKS), pages(TASKS, o="-1")

    for html in (listed, ordered):
        assert "206 tasks are too many to sort: they are listed by state and queue." in html
        assert shown_ids(html)[0] == handles[-1].id
        assert 'class="sortable' not in html


def test_many_tasks_of_one_queue_and_state_are_sorted_by_the_time_of_their_state(
    pages: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = [enqueue() for _ in range(60)]
    monkeypatch.setattr("taskq_django.admin.task_rows.SORTED_MAX", 50)

    newest = pages(TASKS, state="pending")
    number = columns(newest).index("pending") + 1
    oldest = pages(TASKS, state="pending", o=str(number))

    assert shown_ids(newest) == shown_ids(pages(TASKS, state="pending", o=f"-{number}"))
    assert shown_ids(newest) == [each.id for each in handles[:9:-1]]
    assert shown_ids(oldest) == [each.id for each in handles[:50]]
    assert re.findall(r'class="sortable column-(\w+)', newest) == ["pending"]
    assert "60 tasks are too many to sort by a column other than “pending since”." in newest


_FIRST, _RUN = ("short_id", "name", "call"), ("started", "duration", "run_by", "attempt_count")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("", [*_FIRST, "queue", "state", "enqueued", *_RUN]),
        ("active", [*_FIRST, "queue", "progress_bar", "enqueued", *_RUN]),
        ("pending", [*_FIRST, "queue", "pending", "enqueued", "attempt_count"]),
        ("scheduled", [*_FIRST, "queue", "enqueued", "starts", "attempt_count"]),
        ("retry", [*_FIRST, "queue", "enqueued", "failed", "next_attempt", *_RUN[1:]]),
        ("archived", [*_FIRST, "queue", "archived", "enqueued", *_RUN]),
        ("completed", [*_FIRST, "queue", "completed", "deleted", "enqueued", *_RUN]),
    ],
)
def test_the_columns_depend_on_the_state(
    pages: Callable[..., str], redis: RedisServer, state: str, expected: list[str]
) -> None:
    handle = enqueue()
    put(
        redis, handle, state or "pending", score=4_000_000_000, completed_at=1_700_000_000, last_failed_at=1_700_000_000
    )

    html = pages(TASKS, state=state) if state else pages(TASKS)

    assert columns(html) == expected
    assert shown_ids(html) == [handle.id]


def test_the_columns_show_the_fields_of_a_run(pages: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A running task shows progress, worker and attempt. An ended task also shows its duration."""
    monkeypatch.setattr(taskq, "_tasks", {})
    go_on = threading.Event()

    @taskq.task(name="oven:bake", max_retry=4, retention=600)
    def bake(context: TaskContext, loaves: int) -> None:
        context.progress(3, 10)
        go_on.wait(60)

    bake.delay(7)
    worker = BackgroundWorker(lambda: Worker(taskq, WorkerConfig(queues={"default": 1})))
    worker.start()
    try:
        until_blocking(lambda: "<progress" in pages(TASKS, state="active"), "the progress is stored")
        (running,) = rows_of(pages(TASKS, state="active"))
    finally:
        go_on.set()
        assert worker.stop(60)
    (ended,) = rows_of(pages(TASKS, state="completed"))

    for row in (running, ended):
        assert (row["name"], row["call"], row["attempt_count"]) == ("oven:bake", '{"loaves":7}', "1/5")
        assert row["enqueued"].endswith(" ago")
        assert row["started"].endswith(" ago")
        assert row["duration"].endswith(" s")
    assert running["progress_bar"] == "30.0 %"
    assert running["run_by"].endswith(f":{os.getpid()}")
    assert ended["completed"].endswith(" ago")


def test_the_newest_tasks_come_first(pages: Callable[..., str], redis: RedisServer) -> None:
    """The test covers the list of all states and queues, and the list of one state."""
    handles = [enqueue(queue=queue) for queue in ("default", "low", "default")]
    for number, handle in enumerate(handles):  # two of them may have been enqueued in the same millisecond
        put(redis, handle, "pending", headers={"taskq-enqueued": str(1_700_000_000_000 + number)})

    assert shown_ids(pages(TASKS)) == shown_ids(pages(TASKS, state="pending")) == [each.id for each in handles[::-1]]


def test_a_click_on_a_column_sorts_by_it(pages: Callable[..., str]) -> None:
    handles = {name: enqueue(name) for name in ("b", "c", "a")}
    number = columns(pages(TASKS)).index("name") + 1

    up, down = pages(TASKS, o=str(number)), pages(TASKS, o=f"-{number}")

    assert shown_ids(up) == [handles[name].id for name in "abc"]
    assert shown_ids(down) == [handles[name].id for name in "cba"]


def test_an_unreadable_task_is_listed_in_every_state(pages: Callable[..., str], redis: RedisServer) -> None:
    for state in ("active", "pending", "scheduled", "retry", "archived", "completed"):
        handle = enqueue()
        put(redis, handle, state)
        redis.client.hset(f"asynq:{{default}}:t:{handle.id}", "msg", b"\xff\xff garbage")

        assert shown_ids(pages(TASKS, state=state)) == [handle.id]


def test_an_empty_list_of_completed_tasks_names_the_setting_that_keeps_them(
    pages: Callable[..., str], settings: Any
) -> None:
    enqueue()

    assert 'TASKQ["DEFAULTS"] = {"retention": timedelta(hours=24)}' in unescape(pages(TASKS, state="completed"))

    settings.TASKQ = {**settings.TASKQ, "DEFAULTS": {"retention": 7200}}
    html = pages(TASKS, state="completed")
    assert "Tasks are deleted 2:00:00 after they have succeeded." in html
    assert "DEFAULTS" not in html
    assert "retention" not in pages(TASKS, state="archived")


# --- acting on tasks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "more", "becomes", "shown", "flag", "message"),
    [
        ("run_now", {}, "pending", "2 tasks run now.", CHANGE, "Run now."),
        ("retry_later", {"after": "10"}, "retry", "2 tasks were put off.", CHANGE, "Postponed until 20"),
        ("archive_tasks", {}, "archived", "2 tasks were archived.", CHANGE, "Archived."),
        ("delete_selected", {}, None, "2 tasks were deleted.", DELETION, "Deleted."),
    ],
)
def test_an_action_changes_the_selected_tasks_and_logs_user_action_and_tasks(
    operator: Client,
    redis: RedisServer,
    action: str,
    more: dict[str, str],
    becomes: str | None,
    shown: str,
    flag: int,
    message: str,
) -> None:
    chosen, other = [enqueue(), enqueue(queue="low")], enqueue()
    for handle in (*chosen, other):
        put(redis, handle, "retry", score=4_000_000_000)

    asked = choose(operator, action, *map(key, chosen))
    assert "2 tasks" in asked
    assert [state_of(redis, handle) for handle in chosen] == ["retry", "retry"]

    assert confirm(operator, asked, **more) == [shown]
    assert [state_of(redis, handle) for handle in chosen] == [becomes, becomes]
    assert state_of(redis, other) == "retry"
    entries = logged()
    assert sorted(entry[1] for entry in entries) == sorted(map(key, chosen))
    for who, _key, how, what in entries:
        assert (who, how) == ("ada", flag)
        assert what.startswith(message)


def test_tasks_are_moved_to_another_queue(operator: Client, redis: RedisServer) -> None:
    handle, taken = enqueue(), taskq.remote("email:deliver", task_id="same").delay()
    taskq.remote("email:deliver", queue="low", task_id="same").delay()

    asked = choose(operator, "move_tasks", key(handle), key(taken))

    assert confirm(operator, asked, to_queue="low") == [
        "1 task was moved.",
        "Skipped: the id of 1 is taken in the other queue.",
    ]
    assert state_of(redis, handle, "low") == "pending"
    assert logged() == [("ada", key(handle), CHANGE, "Moved to queue low.")]


@rows(
    ("action", "more", "problem"),
    [
        ("move_tasks", {}, "This field is required."),
        ("move_tasks", {"to_queue": "no such queue"}, "is not one of the available choices"),
        ("retry_later", {}, "Enter either the minutes or a time."),
        ("retry_later", {"after": "10", "at_0": "2099-01-01", "at_1": "10:00"}, "Enter either the minutes or a time."),
        ("retry_later", {"after": "-1"}, "greater than or equal to 0"),
        ("retry_later", {"after": "1e99"}, "Enter a whole number."),
        ("retry_later", {"after": "9" * 30}, "less than or equal to 5256000."),
        ("retry_later", {"after": "9223372036854775807"}, "less than or equal to 5256000."),
        ("retry_later", {"at_0": "yesterday", "at_1": "noon"}, "Enter a valid date."),
    ],
)
def test_an_invalid_form_is_shown_again_and_changes_nothing(
    operator: Client, redis: RedisServer, action: str, more: dict[str, str], problem: str
) -> None:
    handle = enqueue()
    asked = choose(operator, action, key(handle))

    html = operator.post(TASKS, {**fields(asked, '<form method="post"'), **more}).content.decode()

    assert html.count(problem) == 1
    assert state_of(redis, handle) == "pending"
    remembered = fields(html, '<form method="post"')
    assert remembered["marks"] == fields(asked, '<form method="post"')["marks"]


def test_a_task_is_postponed_to_a_time(operator: Client, redis: RedisServer, settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    handle = enqueue()

    asked = choose(operator, "retry_later", key(handle))
    confirm(operator, asked, at_0="2099-01-01", at_1="09:00:00")

    assert redis.client.zscore("asynq:{default}:scheduled", handle.id) == 4_070_908_800  # 2099-01-01 00:00 UTC


def test_an_action_on_all_matching_tasks_reports_those_whose_state_forbids_it(
    operator: Client, redis: RedisServer
) -> None:
    pending = taskq.client.enqueue_many(taskq.remote("email:deliver").s(n=n) for n in range(120))
    running, other = enqueue(), enqueue(queue="low")
    put(redis, running, "active")
    address = f"{TASKS}?queue=default"

    asked = choose(operator, "archive_tasks", key(pending[0]), address=address, across=True)
    messages = confirm(operator, asked, address)

    assert "Archive 121 tasks?" in asked
    assert "and 101 more" in asked
    assert messages == ["120 tasks were archived.", "Skipped: 1 is active, which does not allow it."]
    assert redis.client.zcard("asynq:{default}:archived") == 120
    assert state_of(redis, other) == "pending"
    assert len(logged()) == 120


def test_an_action_changes_all_tasks_that_a_search_found(operator: Client, redis: RedisServer) -> None:
    wanted, other = [enqueue(to="grace") for _ in range(3)], enqueue(to="nobody")
    address = f"{TASKS}?q=grace"

    asked = choose(operator, "delete_selected", key(wanted[0]), address=address, across=True)

    assert confirm(operator, asked, address) == ["3 tasks were deleted."]
    assert [state_of(redis, handle) for handle in (*wanted, other)] == [None, None, None, "pending"]


def test_a_request_searches_only_once(operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Django asks for the rows several times, and each search may read ten thousand tasks."""
    handles, searches, search = [enqueue(to="grace") for _ in range(60)], [0], dashboard_tasks.scan_state

    def counted(*args: Any, **options: Any) -> Any:
        searches[0] += 1
        return search(*args, **options)

    monkeypatch.setattr(dashboard_tasks, "scan_state", counted)
    address = f"{TASKS}?q=grace"
    operator.get(address)
    assert searches == [1]
    asked = choose(operator, "archive_tasks", key(handles[0]), address=address, across=True)
    assert searches == [2]
    operator.post(address, fields(asked, '<form method="post" novalidate>'))
    assert searches == [3]
    assert redis.client.zcard("asynq:{default}:archived") == 60


def test_an_action_on_more_tasks_than_one_request_allows_is_reported(
    operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard_tasks, "SELECTED_MAX", 100)
    taskq.client.enqueue_many(taskq.remote("email:deliver").s(n=n) for n in range(150))

    asked = choose(operator, "delete_selected", "x", across=True)
    first, second = confirm(operator, asked), confirm(operator, asked)

    assert first[0] == "100 tasks were deleted."
    assert "Repeat the action to continue." in first[1]
    assert second == ["50 tasks were deleted."]


def test_an_action_that_has_no_time_to_read_all_tasks_says_so(
    operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = enqueue("shop:refund")
    taskq.client.enqueue_many(taskq.remote("other").s(n=n) for n in range(150))
    address = f"{TASKS}?type=shop:refund"
    asked = choose(operator, "delete_selected", key(wanted), address=address, across=True)
    monkeypatch.setattr(dashboard_tasks, "SCAN_BYTES", 1)
    monkeypatch.setattr(admin_actions, "LONGEST_S", -1.0)

    assert confirm(operator, asked, address) == [
        "Nothing was done: one request cannot read all tasks. Select the tasks with further filters."
    ]
    assert state_of(redis, wanted) == "pending"


def test_tasks_that_another_operator_changed_are_skipped_and_reported(operator: Client, redis: RedisServer) -> None:
    """A user deletes archived tasks while another runs one of them again and one is gone. The running task survives."""
    rescued, gone, rest = enqueue(), enqueue(), enqueue()
    for handle in (rescued, gone, rest):
        put(redis, handle, "archived")
    asked = choose(operator, "delete_selected", *map(key, (rescued, gone, rest)))
    Inspector(taskq).run_task("default", rescued.id)
    Inspector(taskq).delete_task("default", gone.id)

    assert confirm(operator, asked) == [
        "1 task was deleted.",
        "Skipped: 1 is now pending; 1 no longer exists.",
    ]
    assert state_of(redis, rescued) == "pending"
    assert [entry[1] for entry in logged()] == [key(rest)]


def test_a_running_task_is_cancelled(operator: Client, redis: RedisServer) -> None:
    handle, pending = enqueue(), enqueue()
    put(redis, handle, "active")
    listener = redis.client.pubsub()
    listener.subscribe("asynq:cancel")
    listener.get_message(timeout=60)

    messages = confirm(operator, choose(operator, "cancel_tasks", key(handle), key(pending)))

    message: Any = listener.get_message(timeout=60)
    listener.close()
    assert message["data"] == handle.id.encode()
    assert messages == [
        "The worker of 1 task was asked to cancel it.",
        "Skipped: 1 is pending, which does not allow it.",
    ]


def test_a_redis_error_during_an_action_is_reported_with_the_finished_tasks(
    operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taskq.client.enqueue_many(taskq.remote("email:deliver").s(n=n) for n in range(250))
    asked = choose(operator, "archive_tasks", "x", across=True)
    run, calls = taskq.runtime.runner.run, [0]

    def failing(operation: Operation[Any], **options: Any) -> Any:
        if operation.name == "archive_tasks":
            calls[0] += 1
            if calls[0] == 2:
                raise BrokerUnavailableError("Redis is away")
        return run(operation, **options)

    monkeypatch.setattr(taskq.runtime.runner, "run", failing)

    assert confirm(operator, asked) == [
        "100 tasks were archived.",
        "Redis failed, and 150 tasks were not handled: Redis is away",
    ]
    assert len(logged()) == 100


def test_a_redis_error_after_an_action_loses_no_log_entry_and_no_task_name(
    operator: Client, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = enqueue()
    asked = choose(operator, "delete_selected", key(handle))
    act_on = Inspector.act_on

    def away(*_: Any) -> Any:
        raise BrokerUnavailableError("Redis is away")

    def act_and_fail(self: Inspector, *args: Any, **options: Any) -> Any:
        report = act_on(self, *args, **options)
        monkeypatch.setattr(Inspector, "task", away)
        return report

    monkeypatch.setattr(Inspector, "act_on", act_and_fail)

    assert confirm(operator, asked) == ["1 task was deleted."]
    assert [entry.object_repr for entry in LogEntry.objects.all()] == [f"email:deliver {handle.id}"]


@pytest.mark.parametrize(
    ("codenames", "actions"),
    [
        ((), []),
        (("run_task",), ["run_now", "cancel_tasks"]),
        (("change_task",), ["retry_later", "archive_tasks", "move_tasks"]),
        (("delete_task",), ["delete_selected"]),
        (("signal_task",), ["approve", "reject", "send_signal"]),
        (("run_task", "signal_task", "change_task", "delete_task"), ALL_ACTIONS),
    ],
)
def test_each_permission_offers_only_its_actions_and_forged_ones_are_refused(
    client: Client, redis: RedisServer, codenames: tuple[str, ...], actions: list[str]
) -> None:
    handle = enqueue()
    put(redis, handle, "archived")
    client.force_login(user("eve", "view_task", *codenames))

    assert offered(client.get(TASKS).content.decode()) == actions
    page = client.get(page_of(handle)).content.decode()
    for action in ALL_ACTIONS:
        forged = {"_selected_action": key(handle), "action": action, "post": "yes", "to_queue": "low", "after": "1"}
        if action in actions:
            continue
        assert f"/act/{action}/" not in page
        client.post(TASKS, forged)
        assert client.post(page_of(handle, "act", action), forged).status_code == 403
    assert state_of(redis, handle) == "archived"
    assert logged() == []
    if "delete_task" not in codenames:
        assert client.post(page_of(handle, "delete")).status_code == 403


def test_the_page_of_a_task_offers_the_actions_that_its_state_allows(
    pages: Callable[..., str], redis: RedisServer
) -> None:
    handle = enqueue()

    def links() -> list[str]:
        return re.findall(r'/act/(\w+)/"', pages(page_of(handle)))

    assert links() == ["retry_later", "archive_tasks", "move_tasks", "delete_selected"]
    put(redis, handle, "active")
    assert links() == ["cancel_tasks"]


def test_a_run_from_the_page_of_a_task_appears_in_its_history(operator: Client, redis: RedisServer) -> None:
    handle = enqueue()
    put(redis, handle, "archived")

    asked = operator.get(page_of(handle, "act", "run_now")).content.decode()
    messages = confirm(operator, asked, page_of(handle, "act", "run_now"))

    assert messages == ["1 task runs now."]
    assert state_of(redis, handle) == "pending"
    assert "Run now." in operator.get(page_of(handle, "history")).content.decode()


def test_a_task_is_deleted_from_its_own_page(operator: Client, redis: RedisServer) -> None:
    handle = enqueue()
    html = operator.get(page_of(handle, "delete"), follow=True).content.decode()

    response = operator.post(
        page_of(handle, "act", "delete_selected"), fields(html, '<form method="post"'), follow=True
    )

    assert response.redirect_chain == [(TASKS, 302)]
    assert messages(response.content.decode()) == ["1 task was deleted."]
    assert state_of(redis, handle) is None


def test_selected_tasks_are_escaped_in_the_confirmation_and_the_message(operator: Client, redis: RedisServer) -> None:
    handle = taskq.remote(HOSTILE, queue="low", task_id=HOSTILE).delay(text=HOSTILE)

    asked = choose(operator, "move_tasks", key(handle))
    response = operator.post(TASKS, {**fields(asked, '<form method="post"'), "to_queue": "default"}, follow=True)
    history = operator.get("/admin/").content.decode()

    for html in (asked, response.content.decode(), history):
        assert_escaped(html)
    assert logged()[0][1] == key(handle)


@rows(
    "data",
    [
        {},
        {"index": "x", "action": "run_now"},
        {"index": "99", "action": "run_now", "_selected_action": "default/1"},
        {"action": "run_now", "select_across": "maybe", "_selected_action": ["", "/", "a/b/c", "none", "_", "_ZZ/1"]},
        {"action": "run_now", "post": "yes", "_selected_action": ["", "/", "a/b/c", "none", "_ZZ/1", "a\0/b", "}{/x"]},
        {"action": "delete_selected", "post": "yes", "_selected_action": ["x" * 5000, "x" * 5000 + "/1"]},
        {"action": "cancel_tasks", "post": "yes", "_selected_action": ["default/\0", "/", "}/}"]},
        {"action": "move_tasks", "post": "yes", "to_queue": "low", "_selected_action": ["default/no", "/", "low/no"]},
        {"action": "retry_later", "post": "yes", "after": "1", "_selected_action": ["", "}/x"], "select_across": "0"},
        {"_save": "Save", "form-TOTAL_FORMS": "x"},
    ],
)
@rows("query", ["", "?q=%00&p=-1&state[]=x&after=%ff", "?q=x&type=%ff&age=&_popup=1&_to_field=id"])
def test_a_malformed_form_is_answered_with_a_page_and_does_nothing(
    operator: Client, redis: RedisServer, data: dict[str, Any], query: str
) -> None:
    handle = enqueue()

    response = operator.post(TASKS + query, data, follow=True)

    assert response.status_code in (200, 403)
    assert state_of(redis, handle) == "pending"
    assert logged() == []


def test_a_post_from_another_site_is_refused(redis: RedisServer) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user("ada", "view_task", "view_payload", "change_task", "run_task", "add_task"))

    for path in ("", "default_2F1/change/", "default_2F1/act/run_now/", "add/?task=shop:greet"):
        assert browser.post(TASKS + path, {"action": "run_now", "post": "yes"}).status_code == 403, path
