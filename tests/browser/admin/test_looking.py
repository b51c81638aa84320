"""Test lists and pages of the admin in a real browser."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from playwright.sync_api import Page, expect

from taskq_django import taskq
from taskq_django.models import OutboxTask
from tests.browser.admin.people import (
    OUTBOX,
    QUEUES,
    TASKS,
    Site,
    choose,
    enqueue,
    expect_message,
    page_of,
    row,
    rows,
)
from tests.browser.visiting import NARROW, width_beyond

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


@pytest.mark.nightly
def test_the_front_page_links_to_the_queues(site: Site) -> None:
    enqueue(queue="low")
    site.create_operator("ada", password="a secret")
    page = site.stranger().new_page()

    page.goto(QUEUES)
    page.get_by_label("Username").fill("ada")
    page.get_by_label("Password").fill("a secret")
    page.get_by_role("button", name="Log in").click()
    expect(rows(page)).to_contain_text(["low"])

    page.get_by_role("link", name="Home").first.click()
    page.locator("#content").get_by_role("link", name="Tasks", exact=True).click()
    expect(rows(page)).to_contain_text(["email:deliver"])


@pytest.mark.nightly
def test_tasks_are_narrowed_by_queue_and_state(page: Page) -> None:
    enqueue("email:deliver")
    enqueue("image:resize", queue="low")
    taskq.remote("report:build", run_after=timedelta(hours=1)).delay()

    page.goto(TASKS)
    expect(rows(page)).to_have_count(3)
    filters = page.locator("#changelist-filter")
    filters.get_by_role("link", name="low").click()
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("image:resize")

    filters.get_by_role("link", name="All").first.click()
    filters.get_by_role("link", name="scheduled").click()
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("report:build")


@pytest.mark.nightly
def test_a_long_list_has_several_pages(page: Page) -> None:
    for number in range(60):
        enqueue(f"email:{number:02}")

    page.goto(TASKS)
    expect(rows(page)).to_have_count(50)
    expect(rows(page).first).to_contain_text("email:59")
    page.locator(".paginator a", has_text="2").click()
    expect(rows(page)).to_have_count(10)
    expect(rows(page).first).to_contain_text("email:09")


@pytest.mark.nightly
def test_a_task_is_found_by_a_search_and_its_page_shows_the_arguments(page: Page) -> None:
    handle = enqueue(to="user@example.com", copies=3)
    enqueue("image:resize")

    page.goto(TASKS)
    page.locator("#searchbar").fill(handle.id)
    page.locator("#searchbar").press("Enter")
    expect(rows(page)).to_have_count(1)
    rows(page).get_by_role("link").first.click()

    page.wait_for_url(f"**{page_of(handle)}**")
    expect(page.get_by_label("Arguments")).to_have_value('{\n  "to": "user@example.com",\n  "copies": 3\n}')
    page.get_by_role("link", name="Tasks").first.click()
    expect(rows(page)).not_to_have_count(0)


@pytest.mark.nightly
def test_a_queue_leads_to_its_tasks(page: Page) -> None:
    enqueue("image:resize", queue="low")
    enqueue("email:deliver")

    page.goto(QUEUES)
    rows(page).filter(has_text="low").get_by_role("link", name="1", exact=True).click()

    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("image:resize")


@pytest.mark.nightly
def test_pages_fit_a_narrow_screen(site: Site) -> None:
    handle = enqueue("a-name-without-a-place-to-break-" * 4, text="word" * 200)
    page = site.operator(viewport=NARROW).new_page()

    for path in (TASKS, QUEUES, page_of(handle)):
        page.goto(path)
        assert width_beyond(page) == 0, path


@pytest.mark.nightly
def test_the_empty_list_of_completed_tasks_names_the_setting_that_keeps_them(page: Page) -> None:
    enqueue()

    page.goto(TASKS)
    page.locator("#changelist-filter").get_by_role("link", name="completed").click()

    expect(rows(page)).to_have_count(0)
    expect(page.locator("#content")).to_contain_text("retention")


def test_tasks_in_the_outbox_are_found_shown_and_deleted(page: Page, settings: Any) -> None:
    away = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.2}
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox", **away}
    with transaction.atomic():
        enqueue("email:deliver")
        enqueue("image:resize", queue="low")

    page.goto(OUTBOX)
    expect(rows(page)).to_have_count(2)
    page.locator("#changelist-filter").get_by_role("link", name="low").click()
    expect(rows(page)).to_have_count(1)
    row(page, "image:resize").get_by_role("link").first.click()
    expect(page.locator("#content")).to_contain_text("image:resize")
    page.goto(OUTBOX)
    choose(page, "Delete", "image:resize")
    page.locator("#content input[type=submit]").click()

    expect_message(page, "Successfully deleted 1")
    expect(rows(page)).to_have_count(1)
    assert list(OutboxTask.objects.values_list("name", flat=True)) == ["email:deliver"]
