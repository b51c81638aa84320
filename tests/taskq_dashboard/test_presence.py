"""Test the dashboard's pages of workers, schedules, task types and Redis."""

import asyncio
import json
import logging
import re
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from tests.hostile import HOSTILE, assert_escaped
from tests.redis_server import RedisServer, start_cluster
from tests.rows import rows
from tests.taskq_dashboard.dashboards import Fields, act, dashboard_of, looking, message_of
from tests.taskq_fastapi.pasts import Past

pytestmark = pytest.mark.redis


@pytest.fixture
def past(server: RedisServer) -> Past:
    return Past(server)


def table_rows(html: str, table: str) -> list[str]:
    """Return the rows of a table as text, including tables inside a row."""
    body = html.split(f'<table id="{table}">')[1].split("</thead>", 1)[1].split("</div>")[0]
    return [
        re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)).strip()
        for row in re.findall(r"^<tr>$.*?^</tr>$|^  ?<tr>.*?</tr>$|^<tr><t.*?</tr>$", body, re.DOTALL | re.MULTILINE)
    ]


# --- workers ----------------------------------------------------------------------------------------------------------


async def test_the_page_of_workers_shows_their_queues_and_tasks(taskq: TaskQ, past: Past) -> None:
    past.worker("web-1", 7, {"default": 3, "low": 1}, running=(("email", "id-a", "default"), ("email", "id-b", "low")))
    past.worker("web-2", 8, {"low": 5}, strict_priority=True, status="stopped", start_time_ns=None)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/workers")

    found = table_rows(page.text, "workers")
    first, second = [row for row in found if row.startswith("web-")]
    (running,) = re.findall(r'<tr class="runs">.*?</details>', page.text, re.DOTALL)
    running = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", running)).strip()
    assert first.startswith("web-1:7 id-7")
    assert "1 h 0 min" in first
    assert "active default weight 3, 75.0 % low weight 1, 25.0 %" in first
    assert "2 of 10 20.0 %" in first
    assert running.startswith("Runs 2 tasks on web-1:7 Task Type Queue Started Running for id-")
    assert page.text.count("overdue") == 1
    assert "stopped low weight 5 strict priority 0 of 10 0.0 %" in second
    assert "<dt>Slots taken</dt><dd>10.0 %</dd>" in page.text


@rows(
    ("sort", "first"),
    [("worker", "a"), ("-worker", "b"), ("-active", "b"), ("utilisation", "a"), ("started", "b"), ("-status", "a")],
)
async def test_workers_can_be_sorted(taskq: TaskQ, past: Past, sort: str, first: str) -> None:
    past.worker("a", 1, {"default": 1}, status="stopped")
    past.worker("b", 2, {"default": 1}, running=(("email", "id-a", "default"),), start_time_ns=5)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/workers", params={"sort": sort})

    assert re.findall(r'<th scope="row"><bdi>(\w):', page.text)[0] == first


async def test_without_workers_the_page_shows_how_to_start_one(taskq: TaskQ) -> None:
    async with looking(dashboard_of(taskq)) as web:
        assert "No worker is running" in (await web.get("/workers")).text


# --- schedules --------------------------------------------------------------------------------------------------------


async def test_the_page_of_schedules_shows_their_times_and_tasks(taskq: TaskQ, past: Past) -> None:
    past.schedule(past.entry(), past.entry("hourly", spec="@every 1h", task_type="sync", next_enqueue_time_ns=None))

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/schedules")
        viewer = await web.get("/schedules", headers={"x-user": "vera:viewer"})

    hourly, nightly = table_rows(page.text, "schedules")
    assert hourly.startswith("hourly @every 1h sync")
    assert nightly.startswith(
        "nightly 0 3 * * * (UTC) report:build {&#34;day&#34;: 1} Queue(&#34;low&#34;) MaxRetry(3) "
    )
    assert nightly.endswith("Run now nightly Pause nightly")
    assert "day" not in viewer.text
    assert '<small class="quiet">hidden</small>' in viewer.text
    assert "Run now" not in viewer.text


@rows(("sort", "first"), [("id", "a"), ("-id", "b"), ("next", "b"), ("-previous", "b"), ("type", "b"), ("spec", "b")])
async def test_schedules_can_be_sorted(taskq: TaskQ, past: Past, sort: str, first: str) -> None:
    past.schedule(
        past.entry("a", next_enqueue_time_ns=None, prev_enqueue_time_ns=None, task_type="z", spec="@every 1h"),
        past.entry("b", task_type="y"),
    )

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/schedules", params={"sort": sort})

    assert re.findall(r"schedule\?id=(\w)\"", page.text)[0] == first


async def test_the_page_of_a_schedule_lists_its_enqueued_tasks(taskq: TaskQ, past: Past) -> None:
    past.schedule(past.entry(), fired=25)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/schedule?id=nightly&rows=20")
        second = await web.get("/schedule?id=nightly&rows=20&page=2")
        none = await web.get("/schedule?id=nightle")

    assert "fired-0 " in table_rows(page.text, "events")[0]
    assert len(table_rows(page.text, "events")) == 20
    assert "page=2" in page.text
    assert [row.split()[0] for row in table_rows(second.text, "events")] == [
        f"fired-{number}" for number in range(20, 25)
    ]
    assert (none.status_code, "nightle" in none.text) == (404, True)


async def test_the_page_of_a_deleted_schedule_lists_its_enqueued_tasks(taskq: TaskQ, past: Past) -> None:
    past.schedule(past.entry(), fired=2)
    past.raw.delete(past.keys.scheduler("box", 7, "s1"))

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/schedule?id=nightly")

    assert "No running scheduler has this schedule" in page.text
    assert len(table_rows(page.text, "events")) == 2
    assert "Run now" not in page.text


async def test_a_schedule_is_run_now(taskq: TaskQ, past: Past, caplog: pytest.LogCaptureFixture) -> None:
    """The task gets the published options. The next due time does not change, and the user is in the audit log."""
    past.schedule(past.entry())
    caplog.set_level(logging.INFO, "taskq.audit")

    async with looking(dashboard_of(taskq)) as web:
        question = await web.get("/schedule-run?id=nightly&back=schedules")
        answer = await act(web, "/schedule-run", id="nightly", back="schedules")
        page = await web.get("/schedules")

    assert "Enqueue “report:build” now" in question.text
    assert (answer.status_code, answer.headers["location"]) == (303, "./schedules")
    (task,) = Inspector(taskq).tasks("low", TaskState.PENDING).tasks
    assert message_of(page) == f"Task {task.id} was enqueued to “low”."
    assert (task.name, task.payload, task.max_retry) == ("report:build", b'{"day":1}', 3)  # type: ignore[union-attr]  # readable
    (audited,) = [each for each in caplog.records if each.name == "taskq.audit"]
    logged = audited.getMessage() + str(audited.__dict__)
    assert "nightly" in logged
    assert task.id in logged
    assert "olga" in logged
    assert "day" not in logged.replace("today", "")


async def test_a_schedule_is_paused_resumed_added_and_removed(taskq: TaskQ, past: Past) -> None:
    past.schedule(past.entry())
    new = {"id": "sales", "task": "report", "spec": "@daily", "kwargs": '{"a": 1}', "queue": "low", "tz": ""}

    async with looking(dashboard_of(taskq)) as web:
        await act(web, "/schedule-pause", id="nightly", back="schedules")
        paused = await web.get("/schedules")
        await act(web, "/schedule-resume", id="nightly", back="schedules")
        resumed = await web.get("/schedules")
        form = await web.get("/schedule-add")
        await act(web, "/schedule-add", **new, back="schedules")
        added = await web.get("/schedules")
        await act(web, "/schedule-add", **{**new, "kwargs": "{"}, back="schedules")
        wrong = message_of(await web.get("/schedules"))
        await act(web, "/schedule-remove", id="sales", back="schedules")
        removed = await web.get("/schedules")

    assert message_of(paused) == "Schedule “nightly” is paused."
    (row,) = table_rows(paused.text, "schedules")
    assert "paused" in row
    assert "schedule-resume" in paused.text
    assert "paused" not in table_rows(resumed.text, "schedules")[0]
    assert "When, such as" in form.text
    assert [row.split()[0] for row in table_rows(added.text, "schedules")] == ["nightly", "sales"]
    assert wrong.startswith("The arguments are not JSON")
    assert len(table_rows(removed.text, "schedules")) == 1


async def test_requests_to_quiet_scale_and_stop_are_sent_to_a_worker(taskq: TaskQ, past: Past) -> None:
    past.worker("web-1", 7, {"default": 1})
    subscription = past.raw.pubsub()
    subscription.subscribe("taskq:control")
    subscription.get_message(timeout=30)

    async with looking(dashboard_of(taskq)) as web:
        question = await web.get("/worker-scale?worker=id-7")
        for path, fields in (("quiet", {}), ("scale", {"concurrency": "3"}), ("resume", {}), ("stop", {})):
            await act(web, f"/worker-{path}", worker="id-7", **fields, back="workers")
        message = message_of(await web.get("/workers"))
        await act(web, "/worker-quiet", worker="none", back="workers")
        unknown = message_of(await web.get("/workers"))
    sent = [json.loads((await asyncio.to_thread(subscription.get_message, timeout=30))["data"]) for _ in range(4)]
    subscription.close()

    assert "Tasks at a time" in question.text
    assert [each["action"] for each in sent] == ["quiet", "scale", "resume", "stop"]
    assert sent[1]["concurrency"] == 3
    assert message == "The worker received the request. The list shows the change within five seconds."
    assert "no worker" in unknown


# --- task types -------------------------------------------------------------------------------------------------------


async def test_the_page_of_task_types_shows_the_outcomes_of_their_runs(taskq: TaskQ, past: Past) -> None:
    past.runs("default", "email", 40, failed=10, at_s=0.02)
    past.runs("low", "report", 1000, at_s=20)

    async with looking(dashboard_of(taskq)) as web:
        every = await web.get("/types")
        default = await web.get("/types?queue=default&hours=1")
        by_errors = await web.get("/types?sort=-errors")

    report, email = table_rows(every.text, "runs")
    assert report.startswith("report 1,000 0 0.0 % 0 5 h 33 min 20 s ")
    assert email.startswith("email 40 10 25.0 % 10 0.8 s 20 ms ")
    assert [row.split()[0] for row in table_rows(default.text, "runs")] == ["email"]
    assert [row.split()[0] for row in table_rows(by_errors.text, "runs")] == ["email", "report"]


# --- the store --------------------------------------------------------------------------------------------------------


async def test_the_page_about_redis_shows_its_figures(taskq: TaskQ, server: RedisServer) -> None:
    info: Any = server.client.info("server")

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/redis")

    assert f"<dt>Version</dt><dd>{info['redis_version']}</dd>" in page.text
    assert "<dt>User</dt><dd><bdi>default</bdi></dd>" in page.text
    for label in ("Uptime", "Memory used", "Memory peak", "Fragmentation", "Clients", "Replicas", "Last save (UTC)"):
        assert re.search(rf"<dt>{re.escape(label)}</dt><dd>\s*(?:<time|\d)", page.text), label
    assert "tcp_port:" in page.text
    assert "The cluster" not in page.text


async def test_only_operators_see_all_values_of_the_server(taskq: TaskQ) -> None:
    """The values contain files, addresses and hosts."""
    async with looking(dashboard_of(taskq)) as web:
        whole = await web.get("/redis")
        part = await web.get("/redis", headers={"x-user": "vera:viewer"})

    for private in ("executable:", "config_file:", "tcp_port:", "run_id:"):
        assert private in whole.text
        assert private not in part.text
    assert "<dt>Version</dt>" in part.text
    assert part.status_code == 200


async def test_problems_of_the_server_are_shown(taskq: TaskQ, server: RedisServer) -> None:
    """The page writes nothing to Redis."""
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    server.client.config_set("maxmemory", "500mb")
    try:
        async with looking(dashboard_of(taskq)) as web:
            page = await web.get("/redis")
    finally:
        server.client.config_set("maxmemory-policy", "noeviction")
        server.client.config_set("maxmemory", "0")

    findings = page.text.split('<ul class="findings">')[1].split("</ul>")[0]
    assert "<b>eviction</b>" in findings
    assert "allkeys-lru" in findings
    assert server.client.keys("*") == []


async def test_a_redis_user_without_permission_causes_a_message(server: RedisServer) -> None:
    with RedisServer(tcp=True) as own:
        own.command("ACL", "SETUSER", "ada", "on", ">pw", "allkeys", "allchannels", "+@all", "-info")
        taskq = TaskQ(f"redis://ada:pw@127.0.0.1:{own.port}/0", enqueue_timeout=30)

        async with looking(dashboard_of(taskq)) as web:
            page = await web.get("/redis")
        await taskq.aclose()

    assert page.status_code == 200
    assert "may not ask the server about itself" in page.text
    assert "<bdi>ada</bdi>" in page.text


async def test_the_page_of_a_cluster_shows_the_node_of_each_queue() -> None:
    with start_cluster() as nodes:
        taskq = TaskQ("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes), enqueue_timeout=30)
        await taskq.remote("email").adelay()

        async with looking(dashboard_of(taskq)) as web:
            page = await web.get("/redis")
        await taskq.aclose()

    (place,) = table_rows(page.text, "places")
    assert place.startswith("default ")
    assert any(f":{node.port}" in place for node in nodes)
    assert "cluster_state:ok" in page.text


# --- what peers control -----------------------------------------------------------------------------------------------


async def test_all_values_written_by_workers_and_schedulers_are_escaped(taskq: TaskQ, past: Past) -> None:
    past.worker(HOSTILE, 7, {HOSTILE: 1}, running=((HOSTILE, HOSTILE, HOSTILE),), status=HOSTILE)
    past.schedule(
        past.entry(
            HOSTILE,
            spec=HOSTILE,
            task_type=HOSTILE,
            task_payload=HOSTILE.encode(),
            enqueue_options=(f"Queue({HOSTILE})",),
        ),
        fired=1,
    )
    past.runs(HOSTILE, HOSTILE, 5)
    await taskq.remote(HOSTILE).using(queue=HOSTILE).adelay()
    await taskq.remote("note", aggregate=HOSTILE).adelay()

    async with looking(dashboard_of(taskq)) as web:
        for path, query in (
            ("/workers", {}),
            ("/schedules", {}),
            ("/schedule", {"id": HOSTILE}),
            ("/schedule-run", {"id": HOSTILE}),
            ("/types", {"queue": HOSTILE}),
            ("/", {}),
            ("/queue", {"name": HOSTILE}),
            ("/queue-delete", {"queue": HOSTILE}),
            ("/tasks", {}),
            ("/queue", {"name": "default", "state": "aggregating"}),
            ("/queue", {"name": "default", "state": "aggregating", "group": HOSTILE}),
        ):
            page = await web.get(path, params=query)
            assert page.status_code == 200
            assert_escaped(page.text)
            assert not [each for tag, each in Fields(page.text).tags if tag == "script" and not each.get("src")]
            assert "style=" not in page.text


async def test_damaged_records_do_not_break_a_page(taskq: TaskQ, past: Past) -> None:
    past.raw.set(past.keys.server("h", 1, "x"), b"\xff\xff")
    past.raw.zadd(past.keys.servers, {past.keys.server("h", 1, "x"): past.now_s + 60})
    past.raw.rpush(past.keys.scheduler("h", 1, "x"), b"\xff\xff")
    past.raw.zadd(past.keys.schedulers, {past.keys.scheduler("h", 1, "x"): past.now_s + 60})
    past.raw.sadd(past.keys.queues, "default")
    past.raw.set(past.keys.queue("default").tally(past.now_s // 3600), "x")
    past.raw.set(past.keys.queue("default").samples(10), "x")

    async with looking(dashboard_of(taskq)) as web:
        pages = [await web.get(path) for path in ("/workers", "/schedules", "/types", "/metrics", "/redis")]

    assert [page.status_code for page in pages] == [200] * 5
