"""Test pages of tasks and actions on tasks in a real browser."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from taskq_dashboard.pages import task_actions
from tests.browser.dashboard.people import Site, confirm, expect_message, rows
from tests.browser.visiting import NARROW, stop_time

pytestmark = pytest.mark.redis


def enqueue(taskq: TaskQ, *ids: str, name: str = "note", **options: Any) -> None:
    for task_id in ids:
        taskq.remote(name, task_id=task_id, **options).delay(word="w")


def test_an_action_changes_selected_tasks(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    enqueue(taskq, "1", "2", "3")
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_label("Select all on this page").check()
    page.get_by_label("Select 2").uncheck()
    page.get_by_role("button", name="Retry later selected tasks").click()
    expect(page.get_by_role("dialog")).to_contain_text("Run 2 tasks at a later time?")
    page.get_by_role("dialog").get_by_label("Minutes from now").fill("30")
    confirm(page, "Retry later")
    expect_message(page, "2 tasks were put off.")
    expect(rows(page, "#tasks")).to_have_count(1)

    page.get_by_label("States").get_by_role("link", name=re.compile("^scheduled")).click()
    page.get_by_label("Select 1").check()
    page.wait_for_load_state()  # without its script a page uses a separate confirmation page
    page.get_by_role("button", name="Move selected tasks").click()
    page.get_by_role("dialog").get_by_label("To queue").select_option("low")
    confirm(page, "Move")
    expect_message(page, "1 task was moved.")
    assert inspector.task("low", "1").state is TaskState.SCHEDULED


def test_an_action_on_all_tasks_runs_in_parts(
    site: Site, page: Page, taskq: TaskQ, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part shows the progress and starts the next part."""
    monkeypatch.setattr(task_actions, "time_left", lambda: lambda: False)
    taskq.client.enqueue_many(taskq.remote("note").s(word="w") for _ in range(250))
    stop_time(page)  # the test determines when the next part starts
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_role("button", name="Archive all").click()
    expect(page.get_by_role("dialog")).to_contain_text("Archive all 250 pending tasks of the queue “default”?")
    confirm(page, "Archive")
    for done in (100, 200):
        expect(page.get_by_role("status").filter(has_text=f"{done} tasks were archived.")).to_be_visible()
        expect(page.get_by_role("progressbar")).to_be_visible()
        page.wait_for_load_state()  # the countdown starts then
        page.clock.run_for(300)
    expect_message(page, "250 tasks were archived.")
    assert inspector.count("default", TaskState.ARCHIVED) == 250


@pytest.mark.nightly
def test_without_javascript_the_user_starts_the_next_part(
    site: Site, taskq: TaskQ, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_actions, "time_left", lambda: lambda: False)
    taskq.client.enqueue_many(taskq.remote("note").s(word="w") for _ in range(150))
    page = site.operator(java_script_enabled=False).new_page()
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("100 tasks were deleted.")
    assert inspector.queue_info("default").size == 50
    page.get_by_role("button", name="Continue").click()
    expect_message(page, "150 tasks were deleted.")


def test_a_search_fills_one_page_and_each_click_adds_another(
    site: Site, page: Page, taskq: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_core.views.tasks.SCAN_BYTES", 1)  # each request reads 100 tasks
    enqueue(taskq, *[f"w{number}" for number in range(25)], name="shop.tasks.refund")
    taskq.client.enqueue_many(taskq.remote("note").s(word="w") for _ in range(150))

    page.goto(site.at("tasks?text=refund"))

    expect(rows(page, "#tasks")).to_have_count(20)
    expect(page.locator("#found [role=status]")).to_contain_text("Read 170 of 175 tasks, 20 matched so far.")
    page.locator("#found .search a").last.click()
    expect(rows(page, "#tasks")).to_have_count(25)
    expect(page.locator("#found [role=status]")).to_have_text("All 175 tasks were read, 25 match.")

    page.goto(site.at("tasks?text=nothing"))

    expect(page.locator("#found [role=status]")).to_have_text("None of 175 tasks matches.")


def test_on_a_phone_the_tasks_of_a_queue_come_before_its_figures(site: Site, taskq: TaskQ) -> None:
    enqueue(taskq, "1")
    page = site.operator(viewport=NARROW).new_page()

    page.goto(site.at("queue?name=default&state=pending"))

    tasks, figures = page.locator("#tasks").bounding_box(), page.locator(".facts").bounding_box()
    assert tasks is not None
    assert figures is not None
    assert tasks["y"] + tasks["height"] < figures["y"]
    expect(page.locator("#tasks .c-pending time")).to_be_visible()


@pytest.mark.nightly
def test_an_id_is_copied(site: Site, taskq: TaskQ, inspector: Inspector) -> None:
    """The check mark stays for a moment, also while rows appear and disappear."""
    enqueue(taskq, "1", "2", "3")
    visitor = site.operator()
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visitor.new_page()
    stop_time(page)  # the test determines when the check mark disappears
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_role("button", name="Copy the id 2").click()
    expect(page.locator(".copied")).to_have_accessible_name("Copy the id 2")
    assert page.evaluate("navigator.clipboard.readText()") == "2"
    enqueue(taskq, "4")
    for gone in ("1", "3"):
        inspector.delete_task("default", gone)
        expect(page.get_by_role("button", name=f"Copy the id {gone}")).to_have_count(0)
    expect(page.get_by_role("button", name="Copy the id 4")).to_be_visible()
    expect(page.locator(".copied")).to_have_accessible_name("Copy the id 2")
    page.clock.run_for(1_500)
    expect(page.locator(".copied")).to_have_count(0)
