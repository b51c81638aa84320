"""A registered task is enqueued from the admin, in a real browser."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from taskq_core.inspector import Inspector
from taskq_django import taskq
from tests.browser.admin.people import TASKS, Site, expect_message
from tests.browser.visiting import NARROW, width_beyond
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register a task for the time of a test."""

    @taskq.task(name="mail:welcome", retention=60)
    def welcome(to: str, copies: int, tone: Literal["warm", "brief"], tags: list[str] = [], note: str = "hi") -> None:  # noqa: B006 - never called
        """Send a welcome mail."""

    yield
    taskq._tasks.pop("mail:welcome")


def test_a_task_is_enqueued_from_the_list(page: Page, inspector: Inspector) -> None:
    page.goto(TASKS)
    page.locator("#content .addlink").click()
    expect(page.locator("#content")).to_contain_text("Send a welcome mail.")
    page.locator("#content").get_by_role("link", name="mail:welcome").click()

    expect(page.locator("[name=arguments]")).to_have_value('{\n  "to": null,\n  "copies": null,\n  "tone": null\n}')
    arguments = '{"to": "ada@example.com", "copies": 2, "tone": "warm", "tags": ["a", "b"]}'
    page.locator("[name=arguments]").fill(arguments[:-1])
    page.locator("[name=_save]").click()
    expect(page.locator(".errorlist")).to_contain_text("JSON")
    expect(page.locator("[name=arguments]")).to_have_value(arguments[:-1])

    page.locator("[name=arguments]").fill(arguments)
    page.locator("[name=run_after]").fill("600")
    page.locator("[name=_save]").click()
    expect_message(page, "was added successfully")
    (task,) = inspector.tasks().tasks
    assert task.state == "scheduled"
    assert task.payload == b'{"to":"ada@example.com","copies":2,"tone":"warm","tags":["a","b"]}'  # type: ignore[union-attr]  # it is readable


@pytest.mark.nightly
def test_only_users_who_may_enqueue_see_the_form(site: Site, redis: RedisServer) -> None:
    visitor = site.member("view_task", "run_task", "change_task", "delete_task")
    visitor.expect_errors("403")
    page = visitor.new_page()

    page.goto(TASKS)
    expect(page.locator(".addlink")).to_have_count(0)
    response: Any = page.goto(f"{TASKS}add/?task=mail:welcome")
    assert response.status == 403


@pytest.mark.nightly
def test_the_form_fits_a_narrow_screen(site: Site, redis: RedisServer) -> None:
    page = site.operator(viewport=NARROW).new_page()

    for path in (f"{TASKS}add/", f"{TASKS}add/?task=mail:welcome"):
        page.goto(path)
        expect(page.locator("#content")).to_contain_text("mail:welcome")
        assert width_beyond(page) == 0, path
