"""Test that pages show all data from producers and workers as text, and run no script in it.

Each test checks that the hostile text is on the page. At the end of every browser test, `Visitor.check` fails if a
script ran.
"""

import json
import re
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.workflow import chain, group
from tests.browser.dashboard.people import Site, does_actions, expect_message
from tests.browser.visiting import SCRIPT
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

pytestmark = pytest.mark.redis


def hostile(field: str) -> str:
    """Return a text that runs a script if it is not escaped in text, in an attribute or in a script."""
    call = f"{SCRIPT}('{field}')"
    return (
        f'{field}</script></pre></textarea></title><script>{call}</script><img src=x onerror="{call}">'
        f"' onfocus='{call}' autofocus=' \" onfocus=\"{call}\" autofocus=\" javascript:{call} {{{{ 7|add:7 }}}}"
    )


def visible(page: Page, field: str) -> None:
    """Check that the page shows a field's payload unchanged, or at least its beginning."""
    expect(page.locator("main")).to_contain_text(f"{field}</script>"[:11])


@pytest.fixture
def task(taskq: TaskQ) -> Any:
    """A task all of whose fields are hostile."""
    return taskq.remote(
        hostile("name"),
        queue=hostile("queue"),
        task_id=hostile("id"),
        headers={hostile("header"): hostile("value")},
    ).delay(**{hostile("key"): hostile("payload")})


@pytest.mark.nightly
@does_actions("queue-pause")
def test_hostile_text_is_escaped_on_pages_of_queues_and_in_messages(
    site: Site, page: Page, redis_server: RedisServer, task: Any
) -> None:
    redis_server.client.sadd("asynq:queues", hostile("damaged"))
    redis_server.client.set(f"asynq:{{{hostile('damaged')}}}:retry", "no sorted set")

    page.goto(site.home)
    visible(page, "queue")
    visible(page, "damaged")
    page.get_by_role("row").filter(has_text="queue</script>").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("queue</script>")
    expect(page.locator("#types")).to_contain_text("name</script>")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect_message(page, "queue</script>")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("queue</script>")
    page.goto(site.at(f"queue?{urlencode({'name': hostile('damaged')})}"))
    visible(page, "damaged")


@does_actions("tasks-act", "task-payload")
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
        for field in ("name", "error", "id"):
            visible(page, field)
    page.get_by_text("Traceback", exact=True).click()
    for field in ("header", "value", "key", "payload", "traceback"):
        visible(page, field)
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
    visible(page, "typed")
    page.get_by_role("button", name="Run now", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Run now").click()
    expect_message(page, "1 task runs now.")


@pytest.mark.nightly
@does_actions("workflow-cancel")
def test_hostile_text_is_escaped_on_pages_of_workflows_and_in_messages(
    site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer
) -> None:
    """Taskq allows only plain names of workflows and steps, but others may write to Redis as well."""
    members = group([taskq.remote("b").si() for _ in range(2)])
    workflow = chain(taskq.remote("a").s(), members).named("plain").delay()
    key = taskq.runtime.keys.queue("default").workflow(workflow.id)
    spec = msgspec.json.decode(bytes(redis_server.client.hget(key, "spec") or b""))  # type: ignore[arg-type]  # not awaited
    for node in spec["nodes"]:
        node[:3] = [hostile(f"step{node[0]}"), hostile("task"), hostile("queue")]
    redis_server.client.hset(
        key,
        mapping={
            "name": hostile("name"),
            "spec": msgspec.json.encode(spec),
            "e0": hostile("error"),
            "s0": "f",
            "r0": json.dumps(hostile("result")),
            "s1": "p",
        },
    )
    redis_server.client.hset(f"{key}:f1", "0", hostile("failure"))
    redis_server.client.hset(f"{key}:g1", "1", json.dumps(hostile("returned")))
    redis_server.client.hset(f"{key}:x1", "n1", hostile("member"))

    page.goto(site.at("workflows?queue=default"))
    visible(page, "name")
    page.get_by_role("link", name=workflow.id).click()
    for field in ("name", "task", "queue", "error"):
        visible(page, field)
    expect(page.locator("svg.flow text").first).to_contain_text("step")
    expect(page.locator("svg.flow title").first).to_contain_text("</script>")
    whole = page.url
    page.locator("#steps").get_by_role("link", name="step").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("</script>")
    for field in ("name", "task", "queue", "error", "result"):
        visible(page, field)
    page.goto(whole)
    page.locator("#steps tbody tr").last.get_by_role("link").first.click()
    expect(page.locator("#members tbody tr")).to_have_count(2)
    for field in ("failure", "returned", "member"):
        visible(page, field)
    page.goto(whole)
    page.get_by_role("button", name="Cancel the workflow").click()
    expect(page.get_by_role("dialog")).to_contain_text("name</script>")
    page.get_by_role("dialog").get_by_role("button", name="Cancel the workflow").click()
    expect_message(page, "name</script>")


@pytest.mark.nightly
def test_hostile_workflow_fields_of_a_task_are_escaped(
    site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer
) -> None:
    task = taskq.remote("note").delay()
    headers = {"taskq-workflow": hostile("workflow"), "taskq-workflow-queue": hostile("home")}
    put(redis_server, task, "pending", headers=headers)
    page.goto(site.at(f"task?queue=default&id={task.id}"))
    visible(page, "workflow")
    site.visitors[0].expect_errors("404")
    page.get_by_role("link", name=re.compile("^workflow<")).click()
    expect(page.locator("main")).to_contain_text("home</script>")


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_groups_and_unreadable_tasks(
    site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer
) -> None:
    taskq.remote("note", aggregate=hostile("group"), task_id="1").delay()
    page.goto(site.at("queue?name=default&state=aggregating"))
    visible(page, "group")
    page.get_by_role("link", name=re.compile("^group<")).click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("of the group group</script>")
    key = "asynq:{default}:t:1"
    redis_server.client.hset(key, "msg", f"\xff{hostile('message')}".encode())
    page.goto(site.at("task?queue=default&id=1"))
    expect(page.get_by_role("heading", level=1)).to_have_text("A task that cannot be read")


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
    visible(page, "queue")
    inspector.pause(hostile("queue"))
    expect(page.get_by_role("row").filter(has_text="queue</script>")).to_contain_text("paused")


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_the_name_of_the_user(site: Site, task: Any) -> None:
    page = site.operator(hostile("who").replace(":", "")).new_page()
    page.goto(site.home)
    expect(page.locator(".who")).to_contain_text("who</script>")
