"""Test that lists refresh while a user views them, without flicker and without disturbing the user.

The browser has a fake clock, which tests advance, so that they need not wait for the next refresh.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from taskq_core import TaskState
from taskq_core.inspector import Inspector
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_django import taskq
from tests.browser.admin.people import QUEUES, TASKS, Site, choose, confirm, enqueue, row, rows
from tests.browser.visiting import Visitor, same_document, stop_time
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]
EVERY_MS = 5_000


@pytest.fixture
def page(operator: Visitor) -> Page:
    """Return a tab whose clock advances only on request."""
    page = operator.new_page()
    stop_time(page)
    return page


@pytest.fixture
def requests(page: Page) -> list[str]:
    """Return the addresses that the page requests by itself."""
    addresses: list[str] = []

    def record(request: Request) -> None:
        if request.resource_type == "fetch":
            addresses.append(request.url)

    page.on("request", record)
    return addresses


def refresh(page: Page, after_ms: int = EVERY_MS) -> None:
    """Advance the clock to the next refresh, and wait for the response."""
    with page.expect_response(lambda response: response.request.resource_type == "fetch") as answer:
        page.clock.run_for(after_ms)
    answer.value.finished()


def mark(locator: Locator) -> None:
    """Mark an element without changing its text and attributes, so that a test notices its replacement."""
    locator.evaluate("element => { element.taskqMark = true }")


def is_marked(locator: Locator) -> bool:
    """Return whether this element was marked."""
    return bool(locator.evaluate("element => element.taskqMark === true"))


@pytest.fixture
def oven(redis: RedisServer) -> Iterator["Oven"]:
    """A worker in this process with one task."""
    with Oven() as oven:
        yield oven


class Oven:
    """A worker in this process, and a task that it runs until the test ends it."""

    def __init__(self) -> None:
        self.started, self.go_on = Event(), Event()
        self._worker = BackgroundWorker(lambda: Worker(taskq, WorkerConfig(queues={"default": 1}, heartbeat=2)))

    def __enter__(self) -> "Oven":
        @taskq.task(name="oven:bake", retention=600)
        def bake() -> str:
            self.started.set()
            self.go_on.wait(60)
            return "done"

        self.handle = bake.delay()
        self._worker.start()
        assert self.started.wait(60)
        return self

    def __exit__(self, *error: object) -> None:
        self.go_on.set()
        assert self._worker.stop(60)
        taskq._tasks.pop("oven:bake")


def test_a_task_ends_and_its_row_changes_without_flicker(page: Page, oven: Oven) -> None:
    enqueue("email:deliver", queue="low")
    page.goto(TASKS)
    baking = row(page, "oven:bake")
    expect(baking).to_contain_text("active")
    mark(row(page, "email:deliver"))
    mark(row(page, "email:deliver").locator("td.field-name"))
    mark(baking)
    mark(page.locator("#result_list"))

    with same_document(page):
        oven.go_on.set()
        oven.handle.result(timeout=60)
        refresh(page)
        expect(baking).to_contain_text("completed")

    for kept in (
        row(page, "email:deliver"),
        row(page, "email:deliver").locator("td.field-name"),
        baking,
        page.locator("#result_list"),
    ):
        assert is_marked(kept)


@pytest.mark.nightly
def test_rows_appear_and_disappear(page: Page, inspector: Inspector) -> None:
    gone = enqueue("first")
    enqueue("task:second")
    page.goto(TASKS)
    expect(rows(page)).to_have_count(2)

    with same_document(page):
        inspector.delete_task(gone.queue, gone.id)
        enqueue("third")
        refresh(page)
        expect(rows(page)).to_contain_text(["third", "task:second"])
    expect(page.locator(".paginator")).to_contain_text("2 tasks")
    row(page, "third").locator(".action-select").check()
    expect(page.locator(".action-counter")).to_contain_text("1 of 2 selected")


SELECT_TEXT = "document.getSelection().selectAllChildren(document.querySelector('#result_list'))"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("interact", "stop"),
    [
        (
            lambda page: row(page, "first").locator(".action-select").check(),
            lambda page: row(page, "first").locator(".action-select").uncheck(),
        ),
        (lambda page: page.evaluate(SELECT_TEXT), lambda page: page.evaluate("getSelection().removeAllRanges()")),
        (lambda page: page.locator("#searchbar").fill("some"), lambda page: page.locator("#searchbar").clear()),
    ],
    ids=["a row is selected", "text is selected", "the user types"],
)
def test_nothing_changes_while_the_user_interacts(
    page: Page, requests: list[str], interact: Callable[[Page], None], stop: Callable[[Page], None]
) -> None:
    enqueue("first")
    page.goto(TASKS)
    interact(page)
    enqueue("task:second")
    page.clock.run_for(10 * EVERY_MS)
    assert requests == []
    expect(rows(page)).to_have_count(1)

    stop(page)
    page.locator("h1").first.click()  # the field has lost the focus
    refresh(page)
    expect(rows(page)).to_have_count(2)


def test_a_row_that_is_selected_during_a_refresh_stays(page: Page, redis: RedisServer) -> None:
    enqueue("first")
    page.goto(TASKS)
    enqueue("task:second")
    page.route("**/task/", lambda route: route.fulfill(body="no list"))
    refresh(page)
    expect(page.get_by_role("status")).to_contain_text("Not up to date")
    page.unroute("**/task/")
    page.route("**/task/", lambda route: (row(page, "first").locator(".action-select").check(), route.continue_()))

    refresh(page, 2 * EVERY_MS)
    expect(page.get_by_role("status")).to_be_empty()  # so the page has processed the response

    expect(rows(page)).to_have_count(1)
    expect(row(page, "first").locator(".action-select")).to_be_checked()


@pytest.mark.nightly
def test_a_hidden_tab_sends_no_requests_and_refreshes_when_it_becomes_visible(page: Page, requests: list[str]) -> None:
    enqueue("first")
    page.goto(TASKS)
    hide = "is => { Object.defineProperty(document, 'hidden', {configurable: true, get: () => is}); " + (
        "document.dispatchEvent(new Event('visibilitychange')) }"
    )
    page.evaluate(hide, True)
    enqueue("task:second")
    page.clock.run_for(10 * EVERY_MS)
    assert requests == []

    page.evaluate(hide, False)
    expect(rows(page)).to_have_count(2)
    assert len(requests) == 1, requests


@pytest.mark.nightly
def test_refreshing_is_paused_and_resumed_and_the_choice_is_remembered(page: Page, requests: list[str]) -> None:
    enqueue("first")
    page.goto(TASKS)
    page.get_by_role("button", name="Pause live updates").click()
    enqueue("task:second")
    page.clock.run_for(10 * EVERY_MS)
    page.reload()
    page.clock.run_for(10 * EVERY_MS)
    assert requests == []

    enqueue("third")
    page.get_by_role("button", name="Resume live updates").click()
    expect(rows(page)).to_have_count(3)


@pytest.mark.nightly
def test_while_redis_is_unavailable_the_rows_stay_and_a_message_is_shown(page: Page, settings: Any) -> None:
    enqueue("first")
    page.goto(TASKS)
    there = settings.TASKQ

    settings.TASKQ = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.2}
    refresh(page)
    expect(page.get_by_role("status")).to_contain_text("Not up to date")
    expect(rows(page)).to_have_count(1)

    settings.TASKQ = there
    enqueue("task:second")
    refresh(page, 2 * EVERY_MS)  # after a failure the interval is longer
    expect(rows(page)).to_have_count(2)
    expect(page.get_by_role("status")).to_have_text("")


@pytest.mark.nightly
def test_a_user_who_was_signed_out_sees_a_message(page: Page, requests: list[str]) -> None:
    enqueue("first")
    page.goto(TASKS)
    page.context.clear_cookies()

    page.clock.run_for(EVERY_MS)
    expect(page.get_by_role("status")).to_contain_text("No longer updated")
    page.clock.run_for(20 * EVERY_MS)
    assert requests.count(page.url) == 1, requests  # the other request is the redirect to the login


@pytest.mark.nightly
def test_an_empty_list_gets_its_first_row(page: Page, redis: RedisServer) -> None:
    page.goto(TASKS)
    expect(page.locator("#content")).to_contain_text("0 tasks")

    enqueue("first")
    page.clock.run_for(EVERY_MS)

    expect(rows(page)).to_have_count(1)


@pytest.mark.nightly
def test_a_refresh_in_another_tab_does_not_consume_a_message(site: Site, page: Page, redis: RedisServer) -> None:
    """The message of an action appears in its tab, although another tab refreshes in between."""
    put(redis, enqueue("first"), "archived")
    page.goto(TASKS)
    other = page.context.new_page()
    other.goto(TASKS)
    other.locator(".action-select").check()
    other.locator("select[name=action]").select_option("run_now")
    other.locator(".actions button[name=index]").click()
    other.route(
        f"**{TASKS}",
        lambda route: (refresh(page), route.continue_()) if route.request.method == "GET" else route.continue_(),
    )
    other.get_by_role("button", name="Run now").click()

    expect(other.locator(".messagelist")).to_contain_text("1 task runs now.")


@pytest.mark.nightly
def test_new_rows_are_selected_with_the_others(page: Page, inspector: Inspector) -> None:
    """Django's script selects them, although it was initialized with the rows of the loaded page."""
    enqueue("first")
    page.goto(TASKS)
    enqueue("task:second")
    refresh(page)
    expect(rows(page)).to_have_count(2)

    page.locator("#action-toggle").check()
    expect(page.locator(".action-counter")).to_have_text("2 of 2 selected")
    page.locator("#action-toggle").uncheck()
    choose(page, "Archive", "task:second")
    confirm(page, "Archive")

    expect(row(page, "task:second")).to_contain_text("archived")
    assert inspector.queue_info("default").sizes[TaskState.PENDING] == 1


@pytest.mark.nightly
def test_failed_refreshes_are_repeated_less_often(
    operator: Visitor, page: Page, requests: list[str], inspector: Inspector
) -> None:
    """The page repeats a failed refresh after 5, 10, 20 and 40 s. After a success the interval is normal again."""
    operator.expect_errors("Failed to load resource")
    enqueue("first")
    page.goto(QUEUES)
    page.route("**/*", lambda route: route.abort() if route.request.resource_type == "fetch" else route.continue_())
    for number, early_ms in enumerate((0, 5_000, 15_000)):
        page.clock.run_for(early_ms)
        assert len(requests) == number
        page.get_by_role("status").evaluate(
            "notice => { notice.textContent = '' }"
        )  # the script sets it again after each failure
        with page.expect_event("requestfailed"):
            page.clock.run_for(EVERY_MS)
        assert len(requests) == number + 1
        expect(page.get_by_role("status")).to_contain_text("Not up to date")  # so it waits for the next refresh

    page.unroute("**/*")
    inspector.pause("default")
    refresh(page, 40_000)
    expect(row(page, "default")).to_contain_text("paused")
    expect(page.get_by_role("status")).to_be_empty()


@pytest.mark.nightly
def test_the_chart_of_queues_stays_unfolded_and_keeps_the_focus(page: Page, redis: RedisServer) -> None:
    enqueue("first")
    page.goto(QUEUES)
    page.get_by_text("As a table").click()
    now: Any = redis.client.time()
    redis.client.set(f"asynq:{{default}}:processed:{datetime.fromtimestamp(now[0], UTC).date()}", 42)

    refresh(page)

    expect(page.locator("figure")).to_contain_text("42 runs in 30 days")
    expect(page.locator("figure table")).to_be_visible()
    expect(page.locator("figure summary")).to_be_focused()


@pytest.mark.nightly
def test_without_javascript_the_pages_work_without_refreshes(site: Site, inspector: Inspector) -> None:
    enqueue("first")
    page = site.operator("bob", java_script_enabled=False).new_page()

    page.goto(QUEUES)
    choose(page, "Pause", "default")
    confirm(page, "Pause")

    expect(row(page, "default")).to_contain_text("paused")
    expect(page.get_by_role("button", name="Pause live updates")).to_have_count(0)


@pytest.mark.nightly
def test_a_theme_with_a_separate_tbody_for_each_row_is_refreshed(page: Page, inspector: Inspector) -> None:
    def part(route: Route) -> None:
        answer = route.fetch()
        head, body, rest = re.split("<tbody>|</tbody>", answer.text(), maxsplit=2)
        rows = body.replace("<tr>", "<tbody><tr>").replace("</tr>", "</tr></tbody>")
        route.fulfill(response=answer, body=head + rows + rest)

    enqueue("first")
    enqueue("task:second", queue="low")
    page.route(f"**{QUEUES}", part)
    page.goto(QUEUES)
    expect(page.locator("#result_list > tbody")).to_have_count(2)
    mark(row(page, "low"))

    with same_document(page):
        inspector.pause("low")
        inspector.remove_queue("default", force=True)
        enqueue("third", queue="other")
        refresh(page)
        expect(rows(page)).to_contain_text(["low", "other"])
        expect(row(page, "low")).to_contain_text("paused")
    assert is_marked(row(page, "low"))
    expect(page.locator("#result_list > tbody")).to_have_count(2)
