"""Test queues and workers in a real browser: actions on a queue, its charts, and a worker's running tasks."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core.inspector import Inspector
from taskq_django import taskq
from tests.browser.admin.people import QUEUES, TASKS, WORKERS, Site, choose, confirm, enqueue, expect_message, row, rows
from tests.browser.admin.scene import Scene, registered_tasks
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


@pytest.fixture
def scene(redis: RedisServer, settings: Any) -> Any:
    """Sample data of a web shop."""
    with registered_tasks(taskq):
        scene = Scene(redis, settings)
        scene.build()
        yield scene


def test_a_queue_is_paused_and_resumed(page: Page, inspector: Inspector) -> None:
    enqueue()
    enqueue(queue="low")

    page.goto(QUEUES)
    choose(page, "Pause", "low")
    expect(page.locator("#content-main")).to_contain_text("Pause 1 queue?")
    confirm(page, "Pause")
    expect_message(page, "1 queue was paused.")
    expect(row(page, "low")).to_contain_text("paused")
    expect(row(page, "default")).to_contain_text("no worker")
    assert {info.name: info.is_paused for info in inspector.queue_infos()} == {"default": False, "low": True}

    page.get_by_role("link", name="low", exact=True).first.click()
    page.get_by_role("button", name="Resume", exact=True).click()
    confirm(page, "Resume")
    expect_message(page, "1 queue was resumed.")
    assert not any(info.is_paused for info in inspector.queue_infos())


@pytest.mark.nightly
def test_tasks_in_selected_states_of_a_queue_are_deleted(page: Page, redis: RedisServer, inspector: Inspector) -> None:
    put(redis, enqueue(queue="low"), "archived")
    put(redis, enqueue(queue="low"), "archived")
    enqueue("kept", queue="low")

    page.goto(QUEUES)
    choose(page, "Empty", "low")
    confirm(page, "Empty")
    expect(page.locator(".errorlist")).to_contain_text("This field is required.")
    page.get_by_label("Archived").check()
    confirm(page, "Empty")

    expect_message(page, "2 tasks were deleted.")
    assert [task.name for task in inspector.tasks().tasks] == ["kept"]  # type: ignore[union-attr]  # it is readable


@pytest.mark.nightly
def test_a_queue_with_tasks_is_deleted_only_with_an_explicit_confirmation(page: Page, inspector: Inspector) -> None:
    enqueue(queue="low")
    enqueue()

    page.goto(QUEUES)
    choose(page, "Delete", "low")
    confirm(page, "Delete")
    expect_message(page, "“low” was kept: 1 task would be lost.")
    choose(page, "Delete", "low")
    page.get_by_label("Delete their tasks as well").check()
    confirm(page, "Delete")

    expect_message(page, "1 queue was deleted.")
    expect(rows(page)).to_have_count(1)
    assert [info.name for info in inspector.queue_infos()] == ["default"]


@pytest.mark.nightly
def test_a_queue_that_another_user_deleted_is_reported(site: Site, inspector: Inspector) -> None:
    enqueue(queue="low")
    enqueue()
    ada, bob = site.operator("ada").new_page(), site.operator("bob").new_page()

    for page in (ada, bob):
        page.goto(QUEUES)
        choose(page, "Delete" if page is ada else "Pause", "low")
    ada.get_by_label("Delete their tasks as well").check()
    confirm(ada, "Delete")
    expect_message(ada, "1 queue was deleted.")
    confirm(bob, "Pause")

    expect_message(bob, "1 was skipped: deleted in the meantime.")
    assert [info.name for info in inspector.queue_infos()] == ["default"]


@pytest.mark.nightly
def test_charts_show_sizes_by_state_and_runs_by_day(page: Page, scene: Scene) -> None:
    page.goto(QUEUES)
    bars = row(page, "default").locator("svg.taskq-bar")
    expect(bars).to_have_count(1)
    expect(bars.locator("[class^=taskq-fill-]")).not_to_have_count(0)
    history = page.locator("svg.taskq-history")
    expect(history.locator("g")).to_have_count(30)
    page.get_by_role("link", name="7 days").click()
    expect(history.locator("g")).to_have_count(7)

    page.get_by_role("link", name="mail", exact=True).first.click()
    expect(page.locator("svg.taskq-history g")).to_have_count(30)
    page.get_by_text("As a table").click()
    expect(page.locator("details.taskq-details tbody tr")).to_have_count(30)
    expect(page.locator("#taskq-types")).to_contain_text("mail:receipt")


@pytest.mark.nightly
def test_the_last_hour_of_a_queue_is_drawn(page: Page, scene: Scene) -> None:
    page.goto("/admin/taskq_django/queue/mail/change/")

    for key, count in (("taskq-rates", 2), ("taskq-latency", 1)):
        lines = page.locator(f"#{key} svg.taskq-history path.taskq-line")
        expect(lines).to_have_count(count)
        width: Any = lines.first.evaluate("line => line.getBBox().width")
        assert width > 800, "the line covers most of the chart"
        assert lines.first.evaluate("line => getComputedStyle(line).stroke") != "none"


@pytest.mark.nightly
def test_a_worker_shows_what_it_runs(page: Page, scene: Scene) -> None:
    page.goto(WORKERS)
    expect(rows(page)).to_have_count(3)
    media = row(page, "media-1")
    expect(media).to_contain_text("1 of 10")
    expect(media).to_contain_text("images:resize")
    media.get_by_role("link", name="media-1").click()
    expect(page.locator("#taskq-running")).to_contain_text("images:resize")
    page.locator("#taskq-running").get_by_role("link", name="images:resize").click()
    expect(page.locator("#content")).to_contain_text("active")
    page.get_by_role("button", name="Cancel", exact=True).click()
    confirm(page, "Cancel")
    expect(page.locator(".messagelist")).to_be_visible()


@pytest.mark.nightly
def test_workers_are_searched_for(page: Page, scene: Scene) -> None:
    page.goto(WORKERS)
    page.locator("#searchbar").fill("web")
    page.locator("#searchbar").press("Enter")
    expect(rows(page)).to_have_count(2)


@pytest.mark.nightly
def test_tasks_of_the_scene_are_found_by_type_and_error(page: Page, scene: Scene) -> None:
    page.goto(f"{TASKS}?state=retry")
    page.locator("#changelist-filter").get_by_role("link", name="mail:receipt").click()
    expect(rows(page)).not_to_have_count(0)
    for each in rows(page).all():
        expect(each).to_contain_text("mail:receipt")
    page.locator("#searchbar").fill("Mailbox full")
    page.locator("#searchbar").press("Enter")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("SMTPRecipientsRefused")
