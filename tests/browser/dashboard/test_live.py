"""Test that pages update themselves, do not disturb the user, and recover when Redis comes back."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, Request, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_dashboard import site as dashboard_site
from tests.browser.conftest import OpenBrowser
from tests.browser.dashboard.people import Site, app_of, row, rows, serving
from tests.browser.scene import Scene
from tests.browser.visiting import Visitor, same_document, stop_time
from tests.redis_server import RedisServer
from tests.taskq_fastapi.pasts import Past

pytestmark = pytest.mark.redis


def mark(locator: Locator) -> None:
    """Mark an element, so that a test notices its replacement."""
    locator.evaluate("element => { element.taskqMark = true }")


def is_stream(request: Request) -> bool:
    """Return whether a request is for the event stream of a page."""
    return "event-stream" in request.headers.get("accept", "")


def is_marked(locator: Locator) -> bool:
    """Return whether this element was marked."""
    return bool(locator.evaluate("element => element.taskqMark === true"))


def test_a_page_changes_without_a_reload(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    taskq.remote("note").delay()
    page.goto(site.home)
    page.get_by_text("As a table").click()
    link = page.get_by_role("link", name="default", exact=True)
    mark(link)
    link.focus()
    with same_document(page):
        inspector.pause("default")
        taskq.remote("note").using(queue="low").delay()
        expect(row(page, "default", "#queues")).to_contain_text("paused")
        expect(row(page, "low", "#queues")).to_contain_text("no worker")
    assert is_marked(link)
    expect(link).to_be_focused()
    expect(page.locator("figure details")).to_have_attribute("open", "")


@pytest.mark.nightly
def test_an_action_works_after_a_live_update(site: Site, page: Page, taskq: TaskQ) -> None:
    page.goto(site.home)
    taskq.remote("note").delay()
    page.get_by_role("button", name="Pause default").click()
    expect(page.locator("p.notice")).to_contain_text("is paused")


def test_nothing_changes_while_the_user_interacts(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    taskq.remote("note").delay()
    page.add_init_script(
        "window.EventSource = class extends EventSource {"
        " constructor(address) { super(address); this.addEventListener('page', event => {"
        " if (event.data.includes('status-paused')) console.log('paused') }) } }"
    )
    page.goto(site.at("queue?name=default"))
    page.get_by_label("Queue").focus()
    with page.expect_event("console", lambda message: message.text == "paused"):  # the event has arrived
        inspector.pause("default")
    expect(page.locator("h1")).to_contain_text("no worker")
    page.get_by_label("Queue").blur()
    expect(page.locator("h1")).to_contain_text("paused")


@pytest.mark.nightly
def test_a_selection_stays_until_the_form_is_sent(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    """This is so even if the field loses focus, for example on the way to the button."""
    taskq.remote("note").delay()
    taskq.remote("note").using(queue="low").delay()
    page.goto(site.at("queue?name=default"))
    page.get_by_label("Queue").select_option("low")
    page.get_by_label("Queue").blur()
    inspector.pause("default")
    expect(page.locator("h1")).to_contain_text("paused")
    page.get_by_role("button", name="Go").first.click()
    expect(page.locator("h1")).to_contain_text("low")


@pytest.mark.nightly
def test_typed_text_stays_until_the_form_is_sent(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    taskq.remote("note").delay()
    page.goto(site.at("queue?name=default&state=aggregating"))
    group = page.get_by_label("Group")
    group.fill("of the day")
    group.blur()
    inspector.pause("default")
    expect(page.locator("h1")).to_contain_text("paused")
    expect(group).to_have_value("of the day")


@pytest.mark.nightly
def test_live_updates_are_paused_and_resumed(site: Site, page: Page, taskq: TaskQ) -> None:
    page.goto(site.home)
    page.get_by_role("button", name="Pause live updates").click()
    taskq.remote("note").delay()
    with page.expect_request(is_stream):
        page.get_by_role("button", name="Resume live updates").click()
    expect(row(page, "default", "#queues")).to_be_visible()


@pytest.mark.nightly
def test_a_tab_in_the_background_sends_no_requests(site: Site, page: Page, taskq: TaskQ) -> None:
    with page.expect_request(is_stream) as asked:
        page.goto(site.home)
    stream = asked.value
    with page.expect_event("requestfailed", lambda request: request == stream):
        page.evaluate(
            "() => { Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')) }"
        )
    taskq.remote("note").delay()
    with page.expect_request(is_stream):
        page.evaluate(
            "() => { Object.defineProperty(document, 'hidden', {value: false, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')) }"
        )
    expect(row(page, "default", "#queues")).to_be_visible()


@pytest.mark.nightly
def test_a_reconnected_stream_shows_no_error(
    site: Site, page: Page, taskq: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard_site, "STREAM_S", 0.0)
    stop_time(page)
    page.add_init_script(
        "window.notices = []; addEventListener('DOMContentLoaded', () => { const notice ="
        " document.getElementById('live-notice'); new MutationObserver(() => notices.push(notice.textContent))"
        ".observe(notice, {childList: true}) })"
    )
    with page.expect_event("requestfinished", is_stream):
        page.goto(site.home)
    with page.expect_event("requestfinished", is_stream):  # of the next stream
        pass
    assert page.evaluate("notices") == []

    monkeypatch.setattr(dashboard_site, "STREAM_S", 3600.0)
    for queue in ("default", "low"):  # a stream that ended at once would report at most one queue
        taskq.remote("note").using(queue=queue).delay()
        expect(row(page, queue, "#queues")).to_be_visible()
    page.clock.run_for(10_000)
    assert page.evaluate("notices") == [], "the stream reconnected in time"


@pytest.mark.nightly
def test_a_server_that_stays_unavailable_is_reported(taskq: TaskQ, open_browser: OpenBrowser) -> None:
    with serving(app_of(TaskQ(taskq.settings.url, enqueue_timeout=30))) as origin:
        visitor = Site(origin, "/", open_browser).operator()
        visitor.expect_errors("Failed to load resource")
        page = visitor.new_page()
        stop_time(page)
        page.goto("/")
    with page.expect_event("requestfailed", is_stream):  # at the next attempt
        pass
    expect(page.locator("#live-notice")).to_be_empty()
    page.clock.run_for(5_000)
    expect(page.locator("#live-notice")).to_contain_text("the server does not answer")


@pytest.mark.nightly
def test_a_list_updates_except_while_rows_are_selected(site: Site, page: Page, taskq: TaskQ) -> None:
    taskq.remote("note", task_id="first").delay()
    page.goto(site.at("queue?name=default&state=pending"))
    with same_document(page):
        taskq.remote("note", task_id="second").delay()
        expect(rows(page, "#tasks")).to_have_count(2)
        page.get_by_label("Select first").check()
        taskq.remote("note", task_id="third").delay()
        page.get_by_label("Select first").uncheck()
        expect(rows(page, "#tasks")).to_have_count(3)


@pytest.mark.nightly
def test_details_of_workers_are_expanded_and_stay_expanded(
    site: Site, page: Page, scene: Scene, redis_server: RedisServer
) -> None:
    page.goto(site.at("workers"))
    first = page.locator("#workers tr.runs").first
    first.locator("summary").click()
    expect(first.locator("details table")).to_be_visible()
    with same_document(page):
        Past(redis_server).worker("zz-9", 9, {"default": 1}, running=(("note", "id-new", "default"),))
        expect(row(page, "zz-9:9", "#workers").first).to_contain_text("1 of 10")
    expect(first.locator("details table")).to_be_visible()


class TestRedisAway:
    @pytest.fixture
    def redis(self) -> Iterator[RedisServer]:
        """A separate Redis for each test, which keeps its data over a restart."""
        with RedisServer(appendonly=True) as server:
            yield server

    @pytest.fixture
    def visitor(self, redis: RedisServer, open_browser: OpenBrowser) -> Iterator[Visitor]:
        TaskQ(redis.unix_url, enqueue_timeout=30).remote("note").delay()
        with serving(app_of(TaskQ(redis.unix_url))) as origin:
            visitor = Site(origin, "/", open_browser).operator()
            visitor.expect_errors("503")
            yield visitor
            visitor.context.close()

    def test_an_open_page_shows_the_error_and_recovers(self, visitor: Visitor, redis: RedisServer) -> None:
        page = visitor.new_page()
        page.goto("/")
        expect(row(page, "default", "#queues")).to_contain_text("no worker")
        with same_document(page):
            redis.kill()
            expect(page.locator("#live-notice")).to_contain_text("Redis does not answer")
            expect(row(page, "default", "#queues")).to_contain_text("no worker")
            redis.start()
            Inspector(TaskQ(redis.unix_url, enqueue_timeout=30)).pause("default")
            expect(row(page, "default", "#queues")).to_contain_text("paused")
            expect(page.locator("#live-notice")).to_be_empty()

    @pytest.mark.nightly
    def test_an_error_page_is_replaced_when_redis_is_back(self, visitor: Visitor, redis: RedisServer) -> None:
        redis.kill()
        page = visitor.new_page()
        page.goto("/queue?name=default")
        expect(page.get_by_role("heading")).to_have_text("Redis does not answer")
        redis.start()
        expect(page.get_by_role("heading", level=1)).to_contain_text("default")
        expect(page).to_have_title("default · taskq")
