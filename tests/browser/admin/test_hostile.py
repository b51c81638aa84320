"""Test that pages show all data from producers and workers as text, and run no script in it.

Each test checks that the hostile text is on the page. At the end of every browser test, `Visitor.check` fails if a
script ran.
"""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from taskq_django import taskq
from tests.browser.admin.people import (
    TASKS,
    page_of,
    row,
    rows,
)
from tests.browser.visiting import expect_fields, hostile
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases=["default", "other"])]


@pytest.fixture
def task(redis: RedisServer) -> Any:
    """A task all of whose fields are hostile."""
    taskq.remote("plain").delay()
    return taskq.remote(
        hostile("name"),
        queue=hostile("queue"),
        task_id=hostile("id"),
        headers={hostile("header"): hostile("value")},
    ).delay(**{hostile("key"): hostile("payload")})


def test_hostile_text_is_escaped_in_lists_and_on_pages_of_tasks(page: Page, redis: RedisServer, task: Any) -> None:
    put(redis, task, "archived", error_msg=hostile("error"), headers={"traceparent": hostile("trace")})
    redis.client.hset(
        f"asynq:{{{task.queue}}}:t:{task.id}",
        mapping={
            "result": hostile("result"),
            "taskq_attempts": json.dumps(
                {"attempt": 1, "ended": 1_700_000_000_000}
                | {name: hostile(name) for name in ("worker", "error", "traceback")}
            ),
        },
    )

    page.goto(TASKS)
    expect_fields(page, "name", "queue", "error")
    page.goto(f"{TASKS}?{urlencode({'type': hostile('type'), 'queue': hostile('queue')})}")
    expect(page.locator("#changelist-filter")).to_contain_text("type</script>")
    page.goto(f"{TASKS}?state=archived")
    page.locator("#searchbar").fill(task.id)
    page.locator("#searchbar").press("Enter")
    expect(rows(page)).to_have_count(1)
    row(page, "name").get_by_role("link").first.click()
    page.wait_for_url(f"**{page_of(task)}**")
    expect_fields(page, "name", "queue", "id", "error", "result", "header", "value", "worker", "traceback")
    expect(page.get_by_label("Arguments")).to_have_value(json.dumps({hostile("key"): hostile("payload")}, indent=2))
    page.get_by_role("link", name="History").click()
    expect_fields(page, "name")
