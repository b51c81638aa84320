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
from tests.browser.dashboard.people import Site, confirm, expect_message
from tests.browser.visiting import expect_fields, hostile
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put
from tests.taskq_fastapi.pasts import Past

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


@pytest.mark.nightly
def test_hostile_text_is_escaped_on_pages_of_queues_and_in_messages(
    site: Site, page: Page, redis_server: RedisServer, task: Any
) -> None:
    redis_server.client.sadd("asynq:queues", hostile("damaged"))
    redis_server.client.set(f"asynq:{{{hostile('damaged')}}}:retry", "no sorted set")

    page.goto(site.home)
    expect_fields(page, "queue")
    expect_fields(page, "damaged")
    page.get_by_role("row").filter(has_text="queue</script>").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("queue</script>")
    expect(page.locator("#types")).to_contain_text("name</script>")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect_message(page, "queue</script>")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("queue</script>")
    page.goto(site.at(f"queue?{urlencode({'name': hostile('damaged')})}"))
    expect_fields(page, "damaged")


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


@pytest.mark.nightly
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
    expect_fields(page, "name")
    page.get_by_role("link", name=workflow.id).click()
    expect_fields(page, "name", "task", "queue", "error")
    expect(page.locator("svg.flow text").first).to_contain_text("step")
    expect(page.locator("svg.flow title").first).to_contain_text("</script>")
    whole = page.url
    page.locator("#steps").get_by_role("link", name="step").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("</script>")
    expect_fields(page, "name", "task", "queue", "error", "result")
    page.goto(whole)
    page.locator("#steps tbody tr").last.get_by_role("link").first.click()
    expect(page.locator("#members tbody tr")).to_have_count(2)
    expect_fields(page, "failure", "returned", "member")
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
    expect_fields(page, "workflow")
    site.visitors[0].expect_errors("404")
    page.get_by_role("link", name=re.compile("^workflow<")).click()
    expect(page.locator("main")).to_contain_text("home</script>")


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_groups_and_unreadable_tasks(
    site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer
) -> None:
    taskq.remote("note", aggregate=hostile("group"), task_id="1").delay()
    page.goto(site.at("queue?name=default&state=aggregating"))
    expect_fields(page, "group")
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
    expect_fields(page, "queue")
    inspector.pause(hostile("queue"))
    expect(page.get_by_role("row").filter(has_text="queue</script>")).to_contain_text("paused")


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_the_name_of_the_user(site: Site, task: Any) -> None:
    page = site.operator(hostile("who").replace(":", "")).new_page()
    page.goto(site.home)
    expect(page.locator(".who")).to_contain_text("who</script>")


@pytest.mark.nightly
def test_hostile_text_from_workers_and_schedulers_is_escaped(
    site: Site, page: Page, taskq: TaskQ, redis_server: RedisServer
) -> None:
    """Each field is on a page. `Visitor.check` fails at the end if a script ran."""
    past = Past(redis_server)
    queue = hostile("queue")
    past.worker(
        hostile("host"), 7, {queue: 1}, running=((hostile("type"), hostile("id"), queue),), status=hostile("status")
    )
    past.schedule(
        past.entry(
            hostile("entry"),
            spec=hostile("spec"),
            task_type=hostile("type"),
            task_payload=hostile("payload").encode(),
            enqueue_options=(f"MaxRetry({hostile('option')})",),
        )
    )
    past.fired(hostile("entry"), hostile("fired"))
    past.samples(queue)
    past.runs(queue, hostile("type"), 5)
    taskq.remote(hostile("held"), queue=queue).delay()

    def read(address: str, *fields: str, **query: str) -> None:
        page.goto(site.at(f"{address}?{urlencode(query)}"))
        expect_fields(page, *fields)

    read("workers", "host", "status", "queue", "id", "type")
    page.locator("#workers summary").click()
    read("metrics", "queue")
    read("metrics", "queue", queue=queue)
    page.get_by_text("As a table").first.click()
    read("types", "type", "queue")
    read("queue", "held", name=queue)
    read("schedule", "entry", "spec", "type", "payload", "option", "fired", id=hostile("entry"))
    read("schedules", "entry", "spec", "type", "payload", "option")
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("dialog")).to_contain_text("type</script>")
    confirm(page, "Run now")
    expect_message(page, "was enqueued")
    site.visitors[0].expect_errors("40[04]")
    for path in ("schedule", "schedule-run"):
        page.goto(site.at(f"{path}?{urlencode({'id': hostile('none')})}"))
        expect_fields(page, "none")
    page.goto(site.at(f"metrics?{urlencode({'queue': hostile('none')})}"))
    page.goto(site.at(f"metrics?{urlencode({'duration': hostile('long')})}"))
    page.goto(site.at(f"metrics?{urlencode({'end': hostile('end')})}"))
