"""Test that pages show all data from producers and workers as text, and run no script in it.

Each test checks that the hostile text is on the page. At the end of every browser test, `Visitor.check` fails if a
script ran.
"""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import transaction
from playwright.sync_api import Page, expect

from taskq_core.wire import ServerInfo, WorkerInfo
from taskq_core.workflow import chain, group
from taskq_django import taskq
from taskq_django.models import PeriodicTask
from tests.browser.admin.people import (
    OUTBOX,
    PERIODIC,
    QUEUES,
    TASKS,
    WORKERS,
    WORKFLOWS,
    choose,
    confirm,
    expect_message,
    page_of,
    row,
    rows,
)
from tests.browser.visiting import expect_fields, hostile
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import put

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases=["default", "other"])]
LATER_S = 4_000_000_000


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


@pytest.mark.nightly
def test_hostile_text_is_escaped_on_confirmation_pages_and_in_messages(
    page: Page, redis: RedisServer, task: Any
) -> None:
    page.goto(TASKS)
    row(page, "name</script>").locator(".action-select").check()
    page.locator("select[name=action]").select_option("move_tasks")
    page.locator(".actions button[name=index]").click()
    expect_fields(page, "name")
    page.get_by_label("To queue").select_option(hostile("queue"))
    page.locator("#content-main").get_by_role("button", name="Move", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("is in that queue already")

    page.goto(f"{TASKS}{'x' + hostile('address').replace('/', '_2F')}/change/")
    expect(page.locator(".messagelist")).to_contain_text("does not exist any more")
    page.goto("/admin/")
    expect(page.locator("#recent-actions-module")).to_be_visible()


@pytest.mark.nightly
def test_hostile_text_is_escaped_on_pages_of_queues_and_in_messages(page: Page, redis: RedisServer, task: Any) -> None:
    redis.client.sadd("asynq:queues", hostile("damaged"))
    redis.client.set(f"asynq:{{{hostile('damaged')}}}:retry", "no sorted set")

    page.goto(QUEUES)
    expect_fields(page, "queue")
    expect_fields(page, "damaged")
    row(page, "queue</script>").get_by_role("link").first.click()
    expect(page.locator("#taskq-types")).to_contain_text("name</script>")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect_fields(page, "queue")
    confirm(page, "Pause")
    expect_message(page, "1 queue was paused.")
    page.goto(QUEUES)
    choose(page, "Pause", everything=True)
    confirm(page, "Pause")
    expect_message(page, "queue</script>")


@pytest.mark.nightly
def test_hostile_text_is_escaped_on_pages_of_workers(page: Page, redis: RedisServer, task: Any) -> None:
    """A worker in any language may report itself and its running tasks."""
    who: Any = {"host": hostile("host"), "pid": 7, "server_id": hostile("server")}
    name = f"{{{who['host']}:7:{who['server_id']}}}"
    info = ServerInfo(**who, concurrency=10, queues={hostile("served"): 1}, status=hostile("status"))
    runs: Any = {"task_id": hostile("running-id"), "task_type": hostile("running"), "queue": hostile("busy")}
    running = WorkerInfo(**who, **runs, start_time_ns=1)
    redis.client.set(f"asynq:servers:{name}", info.encode())
    redis.client.zadd("asynq:servers", {f"asynq:servers:{name}": LATER_S})
    redis.client.zadd("asynq:workers", {f"asynq:workers:{name}": LATER_S})
    redis.client.hset(f"asynq:workers:{name}", runs["task_id"], running.encode())

    page.goto(WORKERS)
    expect_fields(page, "host", "served", "running", "status")
    rows(page).first.get_by_role("link").first.click()
    expect_fields(page, "host", "served", "running-id", "busy", "server")


@pytest.mark.nightly
def test_hostile_text_is_escaped_on_pages_of_workflows_and_in_messages(page: Page, redis: RedisServer) -> None:
    """Taskq allows only plain names of workflows and steps, but others may write to Redis as well."""
    members = group([taskq.remote("b").si() for _ in range(2)])
    workflow = chain(taskq.remote("a").s(), members).named("plain").delay()
    key = taskq.runtime.keys.queue("default").workflow(workflow.id)
    spec: Any = redis.client.hget(key, "spec")
    found = json.loads(spec)
    for node in found["nodes"]:
        node[:3] = [hostile(f"step{node[0]}"), hostile("task"), hostile("queue")]
    fields = {"name": hostile("name"), "spec": json.dumps(found), "e0": hostile("error"), "s0": "f", "s1": "p"}
    redis.client.hset(key, mapping={**fields, "r0": json.dumps(hostile("result"))})
    redis.client.hset(f"{key}:f1", "0", hostile("failure"))
    redis.client.hset(f"{key}:g1", "1", json.dumps(hostile("returned")))
    redis.client.hset(f"{key}:x1", "n1", hostile("member"))

    page.goto(WORKFLOWS)
    expect_fields(page, "name")
    row(page, "name</script>").get_by_role("link").first.click()
    expect_fields(page, "name", "task", "queue", "error")
    expect(page.locator("svg.taskq-flow text").first).to_contain_text("step")
    expect(page.locator("svg.taskq-flow title").first).to_contain_text("</script>")
    steps = page.get_by_role("region", name="Steps", exact=True).locator("tbody tr")
    steps.first.get_by_role("link").first.click()
    expect_fields(page, "name", "task", "queue", "error", "result")
    steps.last.get_by_role("link").first.click()
    expect(page.get_by_role("region", name="Members").locator("tbody tr")).to_have_count(2)
    expect_fields(page, "failure", "returned", "member")
    page.get_by_role("button", name="Cancel the workflow").click()
    expect_fields(page, "name")
    confirm(page, "Cancel the workflow")
    expect_message(page, "1 workflow was cancelled.")
    page.get_by_role("link", name="History").click()
    expect_fields(page, "name")


@pytest.mark.nightly
def test_hostile_workflow_fields_of_a_task_are_escaped(page: Page, redis: RedisServer) -> None:
    task = taskq.remote("note").delay()
    headers = {"taskq-workflow": hostile("workflow"), "taskq-workflow-queue": hostile("home")}
    put(redis, task, "pending", headers=headers)

    page.goto(page_of(task))
    expect_fields(page, "workflow")
    page.locator(".field-workflow a").click()
    expect_message(page, "does not exist any more")


@pytest.mark.nightly
def test_hostile_text_is_escaped_in_the_outbox(page: Page, settings: Any) -> None:
    away = {"URL": "unix:///nowhere/at/all.sock", "ENQUEUE_TIMEOUT": 0.2}
    settings.TASKQ = {**settings.TASKQ, "ENQUEUE": "outbox", **away}
    with transaction.atomic():
        taskq.remote(hostile("name"), queue=hostile("queue"), task_id=hostile("id")).delay(text=hostile("payload"))

    page.goto(OUTBOX)
    expect_fields(page, "name", "queue", "id")
    rows(page).first.get_by_role("link").first.click()
    expect_fields(page, "name")


@pytest.mark.nightly
def test_hostile_text_is_escaped_on_pages_of_periodic_tasks(page: Page, redis: RedisServer) -> None:
    """The rows are written with SQL, because the form would refuse them."""

    def make(name: str, **given: Any) -> None:
        standard = {"task": "shop:greet", "kwargs": {"name": "Ada"}, "cron": "0 3 * * *"}
        PeriodicTask.objects.create(name=name, **{**standard, **given})

    texts = {name: hostile(name)[:200] for name in ("name", "description")}
    make(**texts, kwargs={hostile("key"): hostile("value")}, options={hostile("option"): hostile("set")})
    make("second", task=hostile("task"), cron=hostile("cron")[:256], queue=hostile("queue")[:256])
    make("third", cron="", interval=timedelta(seconds=90), time_zone=hostile("zone")[:64])

    page.goto(PERIODIC)
    expect(rows(page)).to_have_count(3)
    expect(row(page, "name</scrip")).to_have_count(1)
    for obj in PeriodicTask.objects.all():
        page.goto(f"{PERIODIC}{obj.pk}/change/")
        expect(page.locator("[name=kwargs]")).to_be_visible()
        page.locator("[name=_continue]").click()
        expect(page.locator(".errornote, .messagelist").first).to_be_visible()
    page.goto(PERIODIC)
    choose(page, "now", everything=True)
    confirm(page, "Run now")
    expect(page.locator(".messagelist")).to_be_visible()
