"""Test lists in a real browser: long searches, the selection of rows, actions on all rows, and the layout."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core.inspector import Inspector
from taskq_core.views import tasks as dashboard_tasks
from taskq_django import taskq
from taskq_django.admin.task_rows import TaskRows
from taskq_django.models import PeriodicTask
from tests.browser.admin.people import PERIODIC, TASKS, Site, choose, confirm, enqueue, expect_message, row, rows
from tests.browser.visiting import DESKTOP, width_beyond
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import state_of

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


def _search_of_ten(self: Any, infos: Any, wanted: Any, *, cursor: str | None = None, limit: int, **_: Any) -> Any:
    read = partial(dashboard_tasks.search_tasks, infos=infos, wanted=wanted, cursor=cursor, scan=10, limit=limit)
    return self._inspector.run_plan(read)


def test_a_search_continues_automatically_to_its_end(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_core.views.sync.Dashboard.search_tasks", _search_of_ten)
    wanted = {enqueue(to="grace", number=number).id for number in (0, 15, 16, 25)}
    for number in range(35):
        enqueue(to="nobody", number=number)
    wanted.add(enqueue(to="grace").id)

    page.goto(f"{TASKS}?q=grace")

    expect(page.locator("#searchbar_helptext")).to_have_text("All 40 tasks were read, 5 match.")
    expect(rows(page)).to_have_count(5)
    assert {cell.get_attribute("title") for cell in page.locator(".field-short_id span").all()} == wanted

    page.goto(f"{TASKS}?q=nothing+like+it")

    expect(page.locator("#searchbar_helptext")).to_have_text("None of 40 tasks matches.")
    expect(page.locator(".paginator")).to_have_text("None of 40 tasks matches.")
    expect(rows(page)).to_have_count(0)


def test_a_search_fills_one_page_and_each_click_adds_another(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskRows, "search_max", 10)
    handles = [enqueue(to="grace", number=number) for number in range(130)]
    taskq.client.enqueue_many(taskq.remote("other").s(number=number) for number in range(20))
    ids = page.locator(".field-short_id span")

    page.goto(f"{TASKS}?q=grace")

    expect(rows(page)).to_have_count(50)
    expect(page.locator("#searchbar_helptext")).to_contain_text("Read 70 of 150 tasks, 50 matched so far.")
    page.locator(".paginator a").click()
    expect(rows(page)).to_have_count(100)
    page.locator("#action-toggle").check()
    expect(page.locator(".action-counter")).to_have_text("100 of 100 selected")
    expect(page.locator(".actions .question")).to_have_text("Select all 100+ tasks")
    page.locator("#searchbar_helptext a").click()
    expect(rows(page)).to_have_count(130)
    expect(page.locator("#searchbar_helptext")).to_have_text("All 150 tasks were read, 130 match.")
    assert [cell.get_attribute("title") for cell in ids.all()] == [each.id for each in handles[::-1]]


def test_on_a_phone_filters_are_folded_above_the_list_and_the_pages_fit(site: Site) -> None:
    taskq.client.enqueue_many(taskq.remote("note").s(number=number) for number in range(1000))
    page = site.operator(viewport={"width": 390, "height": 844}).new_page()

    page.goto(f"{TASKS}?p=10")

    assert page.evaluate("document.querySelector('#changelist-filter').getBoundingClientRect().bottom") < 400
    assert page.evaluate("document.querySelector('#result_list').getBoundingClientRect().top") < 844
    assert page.evaluate("document.querySelector('.paginator').getBoundingClientRect().right") <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#changelist-filter summary", has_text="By state").click()
    page.locator("#changelist-filter").get_by_role("link", name="pending").click()
    expect(page.locator("#changelist-filter details[open]")).to_have_count(1)


def test_three_keys_lead_to_the_first_row(page: Page) -> None:
    enqueue()
    page.goto(TASKS)

    for key in ("Tab", "Tab", "Enter"):
        page.keyboard.press(key)

    expect(rows(page).locator(".action-select")).to_be_focused()


def test_all_matching_tasks_are_deleted_also_on_other_pages(page: Page, inspector: Inspector) -> None:
    for _ in range(60):
        enqueue(queue="low")
    enqueue("kept")

    page.goto(f"{TASKS}?queue=low")
    choose(page, "Delete", everything=True)
    expect(page.locator("#content-main")).to_contain_text("Delete 60 tasks?")
    confirm(page, "Delete")

    expect_message(page, "60 tasks were deleted.")
    assert [task.name for task in inspector.tasks().tasks] == ["kept"]  # type: ignore[union-attr]  # it is readable


def test_selected_tasks_are_moved_to_another_queue(page: Page, redis: RedisServer) -> None:
    handle = enqueue()
    enqueue("image:resize", queue="low")

    page.goto(TASKS)
    choose(page, "Move", "email:deliver")
    confirm(page, "Move")
    expect(page.locator(".errorlist")).to_contain_text("This field is required.")
    page.get_by_label("To queue").select_option("low")
    confirm(page, "Move")

    expect_message(page, "1 task was moved.")
    expect(row(page, "email:deliver")).to_contain_text("low")
    assert state_of(redis, handle, queue="low") == "pending"


@pytest.mark.parametrize(("address", "last_column"), [(TASKS, "attempt_count"), (PERIODIC, "source")])
def test_all_columns_fit_into_1280_pixels(page: Page, address: str, last_column: str) -> None:
    for number in range(3):
        enqueue(number=number, text="a text that is too long for its column " * 3)
        PeriodicTask.objects.create(
            name=f"send the newsletter of customer {number} on work days",
            task="shop:greet",
            kwargs={"name": "Ada"},
            cron="30 4 * * MON-FRI",
            time_zone="America/New_York",
            total_runs=12_345,
            last_run_at=datetime.now(UTC),
        )

    page.set_viewport_size(DESKTOP)
    page.goto(address)

    expect(rows(page)).to_have_count(3)
    sizes = page.locator(".results").evaluate("each => [each.scrollWidth, each.clientWidth]")
    assert sizes[0] <= sizes[1]
    assert width_beyond(page) == 0
    expect(rows(page).first.locator(f".field-{last_column}")).to_be_in_viewport(ratio=1)
