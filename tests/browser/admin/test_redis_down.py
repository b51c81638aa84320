"""Test the admin while Redis is unavailable, and after it is back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import expect

from taskq_django import taskq
from tests.browser.admin.people import (
    QUEUES,
    TASKS,
    WORKFLOWS,
    Site,
    choose,
    confirm,
    enqueue,
    expect_message,
    page_of,
    row,
    rows,
    workflow_page,
)
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__"), pytest.mark.nightly]
SAID = "The task queue cannot be read right now."


@pytest.fixture
def redis(settings: Any) -> Iterator[RedisServer]:
    """A separate Redis for each test, which keeps its data over a restart."""
    with RedisServer(appendonly=True) as server:
        settings.TASKQ = {"URL": server.unix_url, "ENQUEUE_TIMEOUT": 30}
        yield server
        taskq.close()


@contextmanager
def away(redis: RedisServer, settings: Any) -> Iterator[None]:
    """Stop Redis for the time of a block, with short timeouts of the clients."""
    there = settings.TASKQ
    settings.TASKQ = {**there, "ENQUEUE_TIMEOUT": 0.5}
    redis.kill()
    try:
        yield
    finally:
        redis.start()
        settings.TASKQ = there


def test_pages_show_the_error_and_recover(site: Site, redis: RedisServer, settings: Any) -> None:
    handle = enqueue()
    workflow = taskq.workflow("none")
    page = site.operator().new_page()
    page.goto(TASKS)
    expect(rows(page)).to_have_count(1)

    with away(redis, settings):
        for path in (TASKS, QUEUES, WORKFLOWS, workflow_page(workflow), page_of(handle)):
            page.goto(path)
            expect(page.locator("#content")).to_contain_text(SAID)
        page.get_by_role("link", name="Home").first.click()
        page.get_by_role("link", name="Users").first.click()
        expect(rows(page)).to_contain_text(["ada"])

        page.goto(TASKS)
        expect(page.locator("#content")).to_contain_text(SAID)

    page.get_by_role("link", name="Try again").click()
    expect(rows(page)).to_have_count(1)


def test_a_failed_action_is_reported_and_can_be_repeated(site: Site, redis: RedisServer, settings: Any) -> None:
    enqueue()
    page = site.operator().new_page()
    page.goto(TASKS)
    choose(page, "Archive", "email:deliver")

    with away(redis, settings):
        confirm(page, "Archive")
        expect(page.locator("#content")).to_contain_text(SAID)

    page.goto(TASKS)
    expect(row(page, "email:deliver")).to_contain_text("pending")
    choose(page, "Archive", "email:deliver")
    confirm(page, "Archive")
    expect_message(page, "1 task was archived.")


def test_a_form_that_cannot_be_saved_keeps_the_input(site: Site, redis: RedisServer, settings: Any) -> None:
    handle = enqueue(to="user@example.com")
    page = site.operator().new_page()
    page.goto(page_of(handle))
    page.get_by_label("Arguments").fill('{"to": "other@example.com"}')

    with away(redis, settings):
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator("#content")).to_contain_text(SAID)

    page.go_back()
    expect(page.get_by_label("Arguments")).to_have_value('{"to": "other@example.com"}')
    page.get_by_role("button", name="Save", exact=True).click()
    expect_message(page, "was changed successfully")
