"""Test that pages show all data from producers and workers as text, and run no script in it.

Each test checks that the hostile text is on the page. At the end of every browser test, `Visitor.check` fails if a
script ran.
"""

import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from tests.browser.dashboard.people import Site, expect_message
from tests.browser.visiting import expect_fields, hostile
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

pytestmark = pytest.mark.redis


@pytest.fixture
def task(taskq: TaskQ) -> Any:
    """A task all of whose fields are hostile."""
    return taskq.remote(
        hostile("name"),
        queue=hostile("queue"),
        task_id=hostile("id"),
        headers={hostile("header"): hostile("value")},
    ).delay(**{hostile("key"): hostile("payload")})


def test_hostile_text_is_escaped_on_pages_of_tasks_and_in_messages(
    site: Site, page: Page, redis_server: RedisServer, inspector: Inspector, task: Any
) -> None:
    queue, task_id = hostile("queue"), hostile("id")
    put_failed(redis_server, task, hostile("error"), hostile("traceback"))
    here = {"queue": queue, "id": task_id}

    for path, query in (
        ("queue", {"name": queue, "state": "archived"}),
        ("tasks", {}),
        ("tasks", {"error": "error<"}),
        ("failed", {}),
        ("task", here),
    ):
        page.goto(site.at(f"{path}?{urlencode(query)}"))
        expect_fields(page, "name", "error", "id")
    page.get_by_text("Traceback", exact=True).click()
    expect_fields(page, "header", "value", "key", "payload", "traceback")
    for action in ("Archive", "Move", "Retry later", "Run now", "Delete"):
        if page.get_by_role("button", name=action, exact=True).count():
            page.get_by_role("button", name=action, exact=True).click()
            expect(page.get_by_role("dialog")).to_contain_text("id</script>")
            page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
    page.get_by_role("link", name="Edit payload").click()
    expect(page.get_by_label("Payload", exact=True)).to_have_value(re.compile("payload</script>"))
    page.get_by_label("Payload", exact=True).fill(f'{{"a": "{hostile("typed").replace(chr(34), "")}"}}')
    page.get_by_role("button", name="Save").click()
    expect_message(page, "The payload was changed.")
    expect_fields(page, "typed")
    page.get_by_role("button", name="Run now", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    expect_message(page, "1 task runs now.")


def put_failed(redis: RedisServer, task: Any, error: str, traceback: str) -> None:
    """Store an archived task with a failed attempt."""
    put(redis, task, "archived", score=1_700_000_000, error_msg=error, last_failed_at=1_700_000_000)
    note = {"attempt": 1, "worker": "w", "started": 1, "ended": 2, "error": error, "traceback": traceback}
    redis.client.hset(f"asynq:{{{task.queue}}}:t:{task.id}", "taskq_attempts", json.dumps(note))


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_addresses_and_cookies(site: Site, page: Page, task: Any) -> None:
    site.visitors[0].expect_errors("40[04]")
    for query in ({"name": hostile("nowhere")}, {"name": "x", "state": hostile("state")}, {"sort": hostile("sort")}):
        page.goto(site.at(f"{'queue' if 'name' in query else ''}?{urlencode(query)}"))
        expect(page.locator("main")).to_contain_text("</script>")
    page.goto(site.at(f"{urlencode({'': hostile('path')})}"))
    expect(page.get_by_role("heading")).to_have_text("Not Found")
    page.goto(site.at(f"queue-delete?{urlencode({'queue': hostile('queue'), 'back': hostile('back')})}"))
    expect(page.get_by_role("link", name="Cancel")).to_have_attribute("href", "./")


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_live_updates(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    page.goto(site.home)
    taskq.remote(hostile("name"), queue=hostile("queue")).delay()
    expect_fields(page, "queue")
    inspector.pause(hostile("queue"))
    expect(page.get_by_role("row").filter(has_text="queue</script>")).to_contain_text("paused")


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_the_name_of_the_user(site: Site, task: Any) -> None:
    page = site.operator(hostile("who").replace(":", "")).new_page()
    page.goto(site.home)
    expect(page.locator(".who")).to_contain_text("who</script>")
