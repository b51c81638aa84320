"""Test pages of queues and actions on queues in a real browser."""

import re

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from tests.browser.dashboard.people import Site, confirm, does_actions, expect_message, row, rows
from tests.browser.scene import Scene

pytestmark = [pytest.mark.redis, pytest.mark.nightly]


def test_queues_are_listed_and_sorted(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.home)
    expect(rows(page, "#queues").locator("th")).to_have_text(["default", "images", "mail", "reports"])
    expect(row(page, "reports", "#queues")).to_contain_text("paused")

    page.get_by_role("columnheader", name="Size").get_by_role("link").click()
    expect(rows(page, "#queues").locator("th")).to_have_text(["default", "mail", "images", "reports"])
    expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("columnheader", name="Size").get_by_role("link").click()
    expect(rows(page, "#queues").locator("th")).to_have_text(["reports", "images", "mail", "default"])


def test_a_segment_of_a_bar_links_to_its_tasks(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.home)
    page.locator("#queues .bar a[href='queue?name=mail&state=retry'] .fill-retry").first.click()
    page.wait_for_url("**/queue?name=mail&state=retry")
    expect(page.locator(".chips a[aria-current]")).to_contain_text("retry")


def test_the_history_is_shown_for_several_periods(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.home)
    chart = page.locator("figure.chart")
    expect(chart.locator("g")).to_have_count(7)
    chart.get_by_role("link", name="90 days").click()
    expect(chart.locator("g")).to_have_count(90)
    chart.get_by_text("As a table").click()
    expect(chart.locator("tbody tr")).to_have_count(90)


@does_actions("queue-pause", "queue-resume")
def test_a_queue_is_paused_and_resumed(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    taskq.remote("note").delay()
    page.goto(site.home)
    page.get_by_role("button", name="Pause default").click()
    expect_message(page, "Queue “default” is paused")
    assert inspector.queue_info("default").is_paused

    page.get_by_role("link", name="default", exact=True).click()
    page.get_by_role("button", name="Resume").click()
    expect_message(page, "Queue “default” is resumed")
    page.wait_for_url("**/queue?name=default")
    assert not inspector.queue_info("default").is_paused


@does_actions("queue-delete")
def test_a_queue_is_deleted_if_it_is_empty(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    taskq.remote("note").delay()
    page.goto(site.home)
    page.get_by_role("button", name="Delete default").click()
    expect(page.get_by_role("dialog")).to_contain_text(
        "It has tasks (1), and is deleted only if all of them have succeeded."
    )
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()

    page.get_by_role("button", name="Delete default").click()
    confirm(page, "Delete")
    expect_message(page, "default")
    assert inspector.queues() == ["default"]

    inspector.delete_all("default", TaskState.PENDING)
    page.goto(site.at("queue?name=default"))
    page.get_by_role("button", name="Delete").click()
    confirm(page, "Delete")
    expect_message(page, "“default” was deleted")
    expect(page.locator("main")).to_contain_text("There are no queues yet")


@does_actions("queue-delete")
def test_actions_work_without_javascript(site: Site, taskq: TaskQ, inspector: Inspector) -> None:
    inspector.pause(taskq.remote("note").delay().queue)
    inspector.delete_all("default", TaskState.PENDING)
    page = site.operator(java_script_enabled=False).new_page()
    page.goto(site.home)
    page.get_by_role("button", name="Delete default").click()
    expect(page.get_by_role("heading")).to_have_text("Delete?")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect_message(page, "was deleted")


def test_another_queue_is_chosen(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("queue?name=mail"))
    page.get_by_label("Queue").select_option("reports")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("reports"))
    page.get_by_label("Breadcrumb").get_by_role("link", name="Queues").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Queues")


def test_viewers_see_no_actions(site: Site, scene: Scene) -> None:
    visitor = site.viewer()
    page = visitor.new_page()
    for address in ("./", "queue?name=mail"):
        page.goto(site.at(address))
        expect(page.locator("main form[method=post]")).to_have_count(0)
    visitor.expect_errors("403")
    page.goto(site.at("queue-delete?queue=mail"))
    expect(page.locator("main")).to_contain_text("only operators may do this")


@does_actions("settings-save")
def test_settings_of_a_user_are_kept(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("settings"))
    page.get_by_label("Colours").select_option("dark")
    page.get_by_label("Update pages").select_option("0")
    page.get_by_label("Rows on a page").select_option("100")
    page.get_by_role("button", name="Save").click()
    expect_message(page, "Saved in this browser.")
    page.goto(site.home)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name="Pause live updates")).to_be_hidden()
    page.goto(site.at("settings"))
    expect(page.get_by_label("Rows on a page")).to_have_value("100")
