"""Test the pages about workers, schedules, charts, task types and Redis in a real browser."""

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from tests.browser.dashboard.people import Site, confirm, does_actions, expect_message, row, rows
from tests.browser.dashboard.test_hostile import hostile, visible
from tests.browser.scene import Scene
from tests.browser.visiting import same_document
from tests.redis_server import RedisServer
from tests.taskq_fastapi.pasts import Past

pytestmark = pytest.mark.redis


# --- charts -----------------------------------------------------------------------------------------------------------


def lines(page: Page, key: str) -> Any:
    """Return the lines of a chart."""
    return page.locator(f"#chart-{key} path.line")


@pytest.mark.nightly
def test_charts_are_drawn_in_the_page(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("metrics"))

    expect(page.locator("figure.chart")).to_have_count(10)
    for key in ("processed", "failed", "errors", "size", "latency", "memory", "pending", "retry", "archived"):
        expect(lines(page, key)).to_have_count(4)
        box: Any = page.locator(f"#chart-{key} svg").bounding_box()
        drawn: Any = lines(page, key).first.evaluate("line => line.getBBox().width")
        colour = lines(page, key).first.evaluate("line => getComputedStyle(line).stroke")
        assert box["width"] > 200
        assert drawn > 800, "the line covers most of the chart"
        assert colour != "none"
    different = {line.evaluate("line => getComputedStyle(line).stroke") for line in lines(page, "size").all()}
    assert len(different) == 4


@pytest.mark.nightly
def test_time_and_queues_are_selected_and_kept_in_the_address(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("metrics"))
    page.get_by_role("link", name="6h", exact=True).click()
    expect(page).to_have_url(re.compile(r"duration=6h"))
    page.get_by_text("Queues, duration and end").click()
    page.locator("#queues").select_option(["mail", "reports"])
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile(r"queue=mail&queue=reports&duration=6h"))
    expect(lines(page, "size")).to_have_count(2)
    page.get_by_role("link", name="Freeze").click()
    expect(page.get_by_role("link", name="Up to now")).to_be_visible()
    page.get_by_role("link", name="Earlier").click()
    expect(page).to_have_url(re.compile(r"end=20\d\d"))
    expect(lines(page, "size")).to_have_count(2)
    page.get_by_role("link", name="Later").click()
    page.get_by_label("End (UTC)").fill("2020-01-31T12:00:00")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("No data for this period.")).to_have_count(10)
    page.get_by_role("link", name="Up to now").click()
    expect(page).not_to_have_url(re.compile("end="))
    expect(lines(page, "size")).to_have_count(2)


@pytest.mark.nightly
def test_charts_have_descriptions_and_tables(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("metrics?queue=mail"))

    expect(page.get_by_role("img", name=re.compile(r"^Queue size: highest \d"))).to_be_visible()
    figure = page.locator("#chart-size")
    figure.get_by_text("As a table").click()
    expect(row(page, "mail", "#chart-size table")).to_contain_text(re.compile(r"\d"))


@pytest.mark.nightly
def test_charts_update_automatically(site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer) -> None:
    past = Past(redis_server)
    taskq.remote("note").delay()
    page.goto(site.at("metrics"))
    expect(page.get_by_text("No data for this period.")).to_have_count(10)
    with same_document(page):
        past.samples("default")
        expect(lines(page, "size")).to_have_count(1)


# --- workers ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.nightly
def test_workers_are_sorted_by_a_click(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("workers"))
    page.get_by_role("link", name="Slots taken").click()
    expect(page.get_by_role("columnheader", name="Slots taken")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="Slots taken").click()
    expect(page.get_by_role("columnheader", name="Slots taken")).to_have_attribute("aria-sort", "ascending")


# --- schedules --------------------------------------------------------------------------------------------------------


@does_actions("schedule-run")
def test_a_schedule_is_run_now(site: Site, page: Page, scene: Scene, inspector: Inspector) -> None:
    before = inspector.count("reports", TaskState.PENDING)
    page.goto(site.at("schedules"))
    page.get_by_role("button", name="Run now nightly").click()
    expect(page.get_by_role("dialog")).to_contain_text("Enqueue “reports:sales” now")
    confirm(page, "Run now")
    expect_message(page, "was enqueued to “reports”")
    assert inspector.count("reports", TaskState.PENDING) == before + 1


@does_actions("schedule-pause", "schedule-resume", "schedule-add", "schedule-remove")
def test_a_schedule_is_paused_resumed_added_and_removed(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("schedules"))
    page.get_by_role("button", name="Pause nightly").click()
    expect_message(page, "Schedule “nightly” is paused.")
    page.get_by_role("button", name="Resume nightly").click()
    expect_message(page, "Schedule “nightly” is resumed.")
    page.get_by_role("button", name="Add schedule").click()
    dialog = page.get_by_role("dialog")
    given = {"Id of": "sales", "Task": "reports:sales", "When": "@daily", "Arguments": '{"day": "today"}'}
    for label, value in given.items():
        dialog.get_by_label(label).fill(value)
    confirm(page, "Add schedule")
    expect_message(page, "Schedule “sales” was added.")
    page.get_by_role("link", name="sales", exact=True).click()
    page.get_by_role("button", name="Remove sales").click()
    confirm(page, "Remove")
    expect_message(page, "Schedule “sales” was removed.")


@does_actions("worker-quiet", "worker-resume", "worker-scale", "worker-stop")
def test_workers_receive_control_requests(site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer) -> None:
    past = Past(redis_server)
    past.worker("box", 7, {"default": 1})
    past.worker("box", 8, {"default": 1}, status="stopped")
    subscription = taskq.runtime.runner.subscribe("taskq:control")
    page.goto(site.at("workers"))
    page.get_by_role("button", name=re.compile("^Quiet")).first.click()
    expect_message(page, "The worker received the request.")
    page.get_by_role("button", name=re.compile("^Scale")).first.click()
    page.get_by_role("dialog").get_by_label("Tasks at a time").fill("3")
    confirm(page, "Scale")
    expect_message(page, "The worker received the request.")
    page.get_by_role("button", name=re.compile("^Stop")).first.click()
    confirm(page, "Stop")
    expect_message(page, "The worker received the request.")
    page.get_by_role("button", name=re.compile("^Resume")).first.click()
    expect_message(page, "The worker received the request.")
    subscription.close()


@pytest.mark.nightly
def test_a_schedule_lists_the_tasks_that_it_enqueued(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("schedules"))
    page.get_by_role("link", name="nightly", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("nightly")
    expect(rows(page, "#events")).to_have_count(8)
    expect(page.locator("main")).to_contain_text('"day": "yesterday"')


@pytest.mark.nightly
def test_viewers_run_no_schedule_and_see_no_payload(site: Site, scene: Scene) -> None:
    page = site.viewer().new_page()
    page.goto(site.at("schedules"))
    expect(page.locator("#schedules")).to_contain_text("hidden")
    expect(page.locator("main")).not_to_contain_text("yesterday")
    expect(page.get_by_role("button", name=re.compile("Run now"))).to_have_count(0)


# --- types and the store ----------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_task_types_show_their_runs(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("types"))
    expect(rows(page, "#runs").first).to_contain_text("mail:receipt")
    page.get_by_role("link", name="95 %").click()
    expect(rows(page, "#runs").first).to_contain_text("reports:sales")
    page.get_by_label("Queue").select_option("mail")
    page.get_by_role("button", name="Go").click()
    expect(rows(page, "#runs")).to_have_count(1)


@pytest.mark.nightly
def test_the_page_about_redis_shows_its_figures(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("redis"))
    expect(page.locator("dl.facts")).to_contain_text("Memory used")
    page.get_by_text("INFO", exact=True).click()
    expect(page.locator("#info pre")).to_contain_text("redis_version:")


# --- hostile text -----------------------------------------------------------------------------------------------------


@pytest.mark.nightly
@does_actions("schedule-run")
def test_data_from_workers_and_schedulers_is_shown_as_text(
    site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer
) -> None:
    """Each field is on a page. `Visitor.check` fails at the end if a script ran."""
    past = Past(redis_server)
    queue = hostile("queue")
    past.worker(
        hostile("host"), 7, {queue: 1}, running=((hostile("type"), hostile("id"), queue),), status=hostile("status")
    )
    past.schedule(
        past.entry(
            hostile("entry"),
            spec=hostile("spec"),
            task_type=hostile("type"),
            task_payload=hostile("payload").encode(),
            enqueue_options=(f"MaxRetry({hostile('option')})",),
        )
    )
    past.fired(hostile("entry"), hostile("fired"))
    past.samples(queue)
    past.runs(queue, hostile("type"), 5)
    taskq.remote(hostile("held"), queue=queue).delay()

    def read(address: str, *fields: str, **query: str) -> None:
        page.goto(site.at(f"{address}?{urlencode(query)}"))
        for field in fields:
            visible(page, field)

    read("workers", "host", "status", "queue", "id", "type")
    page.locator("#workers summary").click()
    read("metrics", "queue")
    read("metrics", "queue", queue=queue)
    page.get_by_text("As a table").first.click()
    read("types", "type", "queue")
    read("queue", "held", name=queue)
    read("schedule", "entry", "spec", "type", "payload", "option", "fired", id=hostile("entry"))
    read("schedules", "entry", "spec", "type", "payload", "option")
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("dialog")).to_contain_text("type</script>")
    confirm(page, "Run now")
    expect_message(page, "was enqueued")
    site.visitors[0].expect_errors("40[04]")
    for path in ("schedule", "schedule-run"):
        page.goto(site.at(f"{path}?{urlencode({'id': hostile('none')})}"))
        visible(page, "none")
    page.goto(site.at(f"metrics?{urlencode({'queue': hostile('none')})}"))
    page.goto(site.at(f"metrics?{urlencode({'duration': hostile('long')})}"))
    page.goto(site.at(f"metrics?{urlencode({'end': hostile('end')})}"))
