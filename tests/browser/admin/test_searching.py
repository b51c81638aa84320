"""Test that a search of more tasks than one request can read continues automatically."""

from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core.views import tasks as dashboard_tasks
from tests.browser.admin.people import TASKS, enqueue, rows


def _search_of_ten(self: Any, infos: Any, wanted: Any, *, cursor: str | None = None, **_: Any) -> Any:
    read = partial(dashboard_tasks.search_tasks, infos=infos, wanted=wanted, cursor=cursor, scan=10, limit=1000)
    return self._inspector.run_plan(read)


@pytest.mark.django_db(transaction=True)
def test_a_search_continues_automatically_to_its_end(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq_core.views.sync.Dashboard.search_tasks", _search_of_ten)
    wanted = {enqueue(to="grace", number=number).id for number in (0, 15, 16, 25)}
    for number in range(35):
        enqueue(to="nobody", number=number)
    wanted.add(enqueue(to="grace").id)

    page.goto(f"{TASKS}?q=grace")

    expect(page.locator("#searchbar_helptext")).to_have_text("All 40 tasks were searched.")
    expect(rows(page)).to_have_count(5)
    assert {cell.get_attribute("title") for cell in page.locator(".field-short_id span").all()} == wanted

    page.goto(f"{TASKS}?q=nothing+like+it")

    expect(page.locator("#searchbar_helptext")).to_have_text("All 40 tasks were searched.")
    expect(rows(page)).to_have_count(0)
    expect(page.locator("#changelist-search .quiet")).to_contain_text("0 results")


@pytest.mark.django_db(transaction=True)
def test_all_columns_fit_into_1280_pixels(page: Page) -> None:
    for number in range(3):
        enqueue(number=number, text="a text that is too long for its column " * 3)

    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(TASKS)

    sizes = page.locator(".results").evaluate("each => [each.scrollWidth, each.clientWidth]")
    assert sizes[0] <= sizes[1]
