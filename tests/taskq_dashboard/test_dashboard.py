"""Test the dashboard as a whole: pages, links, unknown names, and mount paths."""

import re
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.routing import Mount

from taskq_core import ConfigurationError, TaskQ
from taskq_core.errors import QueuePausedError
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from taskq_dashboard import taskq_dashboard
from taskq_dashboard.pages import queues
from taskq_dashboard.registry import PAGES
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_dashboard.dashboards import TOKEN, Fields, act, dashboard_of, looking, message_of

pytestmark = pytest.mark.redis


@pytest.fixture
def filled(taskq: TaskQ) -> TaskQ:
    taskq.remote("note").delay(word="w")
    taskq.remote("note").using(queue="low", run_after=60).delay(word="w")
    return taskq


async def test_the_home_page_lists_every_queue(filled: TaskQ) -> None:
    Inspector(filled).pause("low")

    async with looking(dashboard_of(filled)) as web:
        page = await web.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    rows = [re.sub(r"<[^>]*>|\s", "", row) for row in re.findall(r"<tr>.*?</tr>", page.text, re.DOTALL)]
    assert [row[:14] for row in rows if row.startswith(("default", "low"))] == ["defaultnoworke", "lowpaused11sch"]
    assert re.search(r'<a href="queue\?name=low&amp;state=scheduled"[^>]*>\s*<rect[^>]*fill-scheduled', page.text)


async def test_without_queues_the_home_page_shows_a_hint(taskq: TaskQ) -> None:
    async with looking(dashboard_of(taskq)) as web:
        assert "There are no queues yet" in (await web.get("/")).text


@rows(
    ("sort", "first"),
    [
        ("queue", "default"),
        ("-queue", "low"),
        ("size", "low"),
        ("-size", "default"),
        ("state", "default"),
        ("-state", "low"),
    ],
)
async def test_queues_are_sorted_by_a_column(filled: TaskQ, sort: str, first: str) -> None:
    await filled.remote("note").adelay(word="another")
    with suppress(QueuePausedError):  # of the row before
        Inspector(filled).pause("low")

    async with looking(dashboard_of(filled)) as web:
        page = await web.get("/", params={"sort": sort})

    assert re.findall(r"<th scope=\"row\"><a [^>]*><bdi>(\w+)", page.text)[0] == first
    assert page.text.count("aria-sort=") == 1


async def test_the_page_of_a_queue_shows_all_figures(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled)) as web:
        page = await web.get("/queue", params={"name": "low", "days": 30})

    assert page.status_code == 200
    assert "<title>low · taskq</title>" in page.text
    assert 'aria-label="Breadcrumb"' in page.text
    assert re.search(r"scheduled <b>1</b>", page.text)
    assert "<bdi>note</bdi>" in page.text
    assert page.text.count("<g>") == 30, "the history has a bar for each day"


@rows(
    ("path", "status", "expected"),
    [
        ("/queue?name=none", 404, "no queue"),
        ("/queue", 400, "name is missing"),
        ("/queue?name=default&state=gone", 400, "state must be one of"),
        ("/queue?name=default&days=0", 400, "days must be a whole number from 1 to 90"),
        ("/queue?name=default&days=99999999999999999999999999", 400, "days must be a whole number"),
        ("/queue?name=default&days=٣", 400, "days must be a whole number"),
        ("/?sort=nothing", 400, "sort must be one of"),
        ("/?days=%ff", 400, "the address cannot be read"),
        ("/nowhere", 404, "there is no such page"),
        ("/static/dashboard.css", 404, "there is no such page"),
        ("/static/../../taskq_fastapi/closed.py", 404, "there is no such page"),
        ("/static/%2e%2e/site.py", 404, "there is no such page"),
        ("/queue-pause", 405, "send this as a form"),
        ("/queue-delete?queue=none", 404, "no queue"),
        ("/queue-delete", 400, "queue is missing"),
        ("/tasks?text=w&cursor=pending/zz/1", 400, "cursor must come from the previous call"),
        ("/queue?name=default&state=aggregating&groups=next", 400, "cursor must come from the previous call"),
        ("/tasks?state=none", 400, ""),
        ("/tasks?state=aggregating", 400, ""),
        ("/tasks?queue=none", 400, ""),
        ("/tasks?older=x", 400, ""),
        ("/tasks?type=x&cursor=x", 400, ""),
        ("/failed?state=pending", 400, ""),
        ("/task?queue=default", 400, ""),
        ("/task?queue=default&id=none", 404, ""),
        ("/task?queue=none&id=1", 404, ""),
        ("/task-edit?queue=default&id=none", 404, ""),
        ("/enqueue?task=none", 404, ""),
        ("/tasks-act", 400, ""),
        ("/tasks-act?do=burn&task=pending/default/1", 400, ""),
        ("/tasks-act?do=delete", 400, ""),
        ("/tasks-act?do=delete&task=x", 400, ""),
        ("/tasks-act-all?do=delete", 400, ""),
        ("/tasks-act-all?do=run&state=pending", 400, ""),
        ("/tasks-act-all?do=delete&state=pending&queue=none", 404, ""),
        ("/queue?name=default&state=aggregating&groups=x", 400, ""),
        ("/types?queue=none", 404, "no queue"),
        ("/types?hours=25", 400, "hours must be a whole number from 0 to 24"),
        ("/types?sort=x", 400, "sort must be one of"),
        ("/workers?sort=x", 400, "sort must be one of"),
        ("/workers?page=0", 400, "page must be a whole number"),
        ("/schedules?sort=x", 400, "sort must be one of"),
        ("/schedule", 400, "id is missing"),
        ("/schedule-run", 400, "id is missing"),
        ("/schedule-run?id=none", 404, "none"),
        ("/workflows", 400, "queue is missing"),
        ("/workflows?queue=none", 404, "no queue"),
        ("/workflow?queue=default", 400, "id is missing"),
        ("/workflow?queue=default&id=none", 404, "no such workflow"),
        ("/workflow-step?queue=default&id=x", 400, "step is missing"),
        ("/workflow-step?queue=default&id=none&step=a", 404, "no such workflow"),
        ("/workflow-cancel?queue=default&id=none", 404, "no such workflow"),
        ("/workflow-retry?queue=none&id=x", 404, "no queue"),
    ],
)
async def test_unknown_names_and_invalid_values_show_an_error(
    filled: TaskQ, path: str, status: int, expected: str
) -> None:
    async with looking(dashboard_of(filled)) as web:
        page = await web.get(path)

    assert (page.status_code, expected in page.text) == (status, True)


@rows("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_http_methods_are_refused(filled: TaskQ, method: str) -> None:
    async with looking(dashboard_of(filled)) as web:
        answer = await web.request(method, "/queue-pause?queue=default")

    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


# --- actions ----------------------------------------------------------------------------------------------------------


async def test_a_queue_is_paused_and_resumed(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled)) as web:
        answer = await act(web, "/queue-pause", queue="low", back="queue?name=low")
        assert (answer.status_code, answer.headers["location"]) == (303, "./queue?name=low")
        page = await web.get("/queue?name=low")
        assert message_of(page) == "Queue “low” is paused: workers take no tasks from it."
        assert message_of(await web.get("/queue?name=low")) == ""
        assert Inspector(filled).queue_info("low").is_paused

        await act(web, "/queue-pause", queue="low")
        assert "already" in message_of(await web.get("/"))
        await act(web, "/queue-resume", queue="low")
        assert not Inspector(filled).queue_info("low").is_paused


async def test_a_queue_is_deleted_once_it_is_empty(filled: TaskQ) -> None:
    inspector = Inspector(filled)

    async with looking(dashboard_of(filled)) as web:
        question = await web.get("/queue-delete?queue=low&back=queue%3Fname%3Dlow")
        assert "It has tasks (1), and is deleted only if all of them have succeeded." in question.text
        assert Fields(question.text).hidden["queue"] == "low"
        assert inspector.queues() == ["default", "low"]

        kept = await act(web, "/queue-delete", queue="low", back="queue?name=low")
        assert kept.headers["location"] == "./queue?name=low"
        assert "low" in message_of(await web.get("/"))
        assert inspector.queues() == ["default", "low"]

        inspector.delete_all("low", TaskState.SCHEDULED)
        gone = await act(web, "/queue-delete", queue="low", back="queue?name=low")
        assert gone.headers["location"] == "./"
        assert inspector.queues() == ["default"]


async def test_several_requests_delete_a_large_queue(filled: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a request does not depend on the size of the queue."""
    monkeypatch.setattr(queues, "time_left", lambda: lambda: False)
    inspector = Inspector(filled)
    inspector.delete_all("low", TaskState.SCHEDULED)

    async with looking(dashboard_of(filled)) as web:
        part = await act(web, "/queue-delete", queue="low", back="queue?name=low")
        assert part.status_code == 200
        assert "data-go-on" in part.text
        assert "queue-delete" in " ".join(Fields(part.text).forms)
        seen = 1
        while part.status_code == 200:
            again = {name: value for name, value in Fields(part.text).hidden.items() if name != TOKEN}
            assert again["back"] == "./queue?name=low"
            part = await act(web, "/queue-delete", **again)
            seen += 1
            assert seen < 50
        assert (part.status_code, part.headers["location"]) == (303, "./")
        assert "“low” was deleted" in message_of(await web.get("/"))
        foreign = await act(web, "/queue-delete", queue="default", cursor="nowhere/9")
        assert foreign.status_code == 303
        assert "cursor must come from the previous call" in message_of(await web.get("/"))

    assert inspector.queues() == ["default"]


async def test_values_too_long_for_a_url_are_sent_by_a_form(filled: TaskQ) -> None:
    marks = [f"pending/default/{'x' * 200}-{number}" for number in range(200)]
    async with looking(dashboard_of(filled)) as web:
        question = await act(web, "/tasks-act", do="delete", task=marks, ask="1", back="tasks?queue=default")
        assert question.status_code == 200
        assert "200 tasks" in question.text
        tags = Fields(question.text).tags
        assert sum(found.get("name") == "task" for _, found in tags) == 200
        assert not any(found.get("name") == "ask" for _, found in tags)
        assert "./tasks?queue=default" in Fields(question.text).links
        for odd in ({"do": "x", "task": marks[0]}, {"do": "delete"}):
            assert (await act(web, "/tasks-act", ask="1", **odd)).status_code == 400

    assert Inspector(filled).queue_info("default").size == 1


async def test_settings_of_a_user_are_kept(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled), user="vera:viewer") as web:
        assert 'data-theme="system"' in (await web.get("/")).text
        await act(web, "/settings-save", theme="dark", interval="0", rows="60")
        page = await web.get("/")
        assert 'data-theme="dark"' in page.text
        assert "data-live" not in page.text

        answer = await act(web, "/settings-save", theme="<script>", interval="5", rows="20")
        assert answer.status_code == 303
        assert "theme must be one of" in message_of(await web.get("/settings"))
    async with looking(dashboard_of(filled), cookie="taskq_settings=theme=x&rows=-1") as web:
        assert 'data-theme="system"' in (await web.get("/")).text


# --- mounting ---------------------------------------------------------------------------------------------------------


def mounted(dashboard: Any, how: str) -> tuple[Any, str]:
    """Return an app, and the address of the dashboard in it."""
    if how == "alone":
        return dashboard, "/"
    if how == "fastapi":
        app = FastAPI()
        app.mount("/ops/taskq", dashboard)
        return app, "/ops/taskq/"
    return Starlette(routes=[Mount("/a", routes=[Mount("/b", dashboard)])]), "/a/b/"


def kind_of(path: str) -> tuple[str, ...]:
    """Return path and query names of an address. One address of each such kind is tested."""
    parts = urlsplit(path)
    return (parts.path, *sorted({name for name, _ in parse_qsl(parts.query)}))


@rows("how", ["alone", "fastapi", "starlette"])
async def test_all_links_work_at_every_mount_path(filled: TaskQ, how: str) -> None:
    app, home = mounted(dashboard_of(filled), how)
    paths = {home}
    seen: set[tuple[str, ...]] = set()

    async with looking(app, host="evil.example") as web:
        while left := {each for each in paths if kind_of(each) not in seen}:
            path = min(left)
            seen.add(kind_of(path))
            page = await web.get(path)
            assert page.status_code == 200, path
            if not page.headers["content-type"].startswith("text/html"):
                continue
            found = Fields(page.text)
            assert "evil.example" not in page.text
            assert all(not re.match(r"[a-z]+:|/", each) for each in found.links + found.forms), path
            paths |= {urljoin(path, each).partition("#")[0] for each in found.links}
    assert {urljoin(home, page.path) for page in PAGES.values() if page.label is not None} <= paths
    assert all(each.startswith(home) for each in paths)


@rows("host", ["[", "", "a b", "evil.example:99999999", "ü"])
async def test_the_dashboard_works_with_any_host_header(filled: TaskQ, host: str) -> None:
    async with looking(dashboard_of(filled)) as web:
        answer = await web.get("/", headers=[(b"host", host.encode())])

    assert answer.status_code == 200


@rows("is_told", ["by the app", "by the server"])
async def test_the_dashboard_works_behind_a_proxy_with_a_root_path(filled: TaskQ, is_told: str) -> None:
    app = Starlette(routes=[Mount("/ops/queues", dashboard_of(filled))])

    async def app_with_root_path(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/proxy"}, receive, send)

    prefix = "" if is_told == "by the app" else "/proxy"
    async with looking(app_with_root_path) as web:
        home = await web.get(f"{prefix}/ops/queues/")
        queue = await web.get(f"{prefix}/ops/queues/queue?name=low")
        nothing = await web.get(f"{prefix}/ops/queues/ops/queues/")

    assert (home.status_code, queue.status_code, nothing.status_code) == (200, 200, 404)


async def test_the_dashboard_works_behind_a_proxy_that_strips_a_prefix(filled: TaskQ) -> None:
    """It needs no configuration: links and cookies use the path that the browser sees."""
    async with looking(dashboard_of(filled)) as web:
        page = await web.get("/")
        assert "path=" not in page.headers["set-cookie"].lower()
        assert all(not each.startswith(("/", "http")) for each in Fields(page.text).links)


async def test_an_unknown_page_has_the_layout_of_the_dashboard(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled)) as web:
        page = await web.get("/a/b/c")
        assert page.status_code == 404
        style = next(each for each in Fields(page.text).links if each.endswith(".css"))
        assert (await web.get(urljoin("/a/b/c", style))).status_code == 200


async def test_browsers_cache_static_files_permanently(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled)) as web:
        style = next(each for each in Fields((await web.get("/")).text).links if each.endswith(".css"))
        file = await web.get(f"/{style}", headers={"accept-encoding": "gzip"})
        plain = await web.get(f"/{style}", headers={"accept-encoding": "identity"})

    assert "immutable" in file.headers["cache-control"]
    assert file.headers["content-encoding"] == "gzip"
    assert file.text == plain.text


async def test_the_home_page_is_small(taskq: TaskQ) -> None:
    """The page of 20 queues and all its resources are small without compression."""
    for number in range(20):
        await taskq.remote("note").using(queue=f"queue-{number}").adelay(word="w")
    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/")
        files = [await web.get(f"/{each}") for each in Fields(page.text).links if each.startswith("static/")]

    assert len(files) == 4
    assert len(page.content) + sum(len(each.content) for each in files) < 150_000


async def test_dependencies_control_access(filled: TaskQ) -> None:
    def guard(secret: str = "") -> None:
        if secret != "open":
            raise HTTPException(401, "who are you?")

    app = taskq_dashboard(filled, dependencies=[Depends(guard)])

    async with looking(app, user="") as web:
        assert (await web.get("/")).status_code == 401
        assert (await web.get("/nowhere")).status_code == 401
        assert (await web.post("/queue-pause")).status_code == 401
        assert (await web.get("/?secret=open")).status_code == 200


@rows(
    "options",
    [
        {"login": "me"},
        {"redact": 1, "allow_anonymous": True},
        {"trusted_origins": "https://a.example", "allow_anonymous": True},
        {"trusted_origins": ["a.example"], "allow_anonymous": True},
        {"login": lambda request: None, "allow_anonymous": True},
        {"dependencies": [Depends(lambda: None)], "allow_anonymous": True},
    ],
)
def test_invalid_options_are_refused(taskq: TaskQ, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        taskq_dashboard(taskq, **options)


async def test_the_page_reports_a_redis_outage_and_reloads(server: RedisServer) -> None:
    taskq = TaskQ("unix:///nowhere/at/all.sock", enqueue_timeout=0.001)

    async with looking(dashboard_of(taskq)) as web:
        page = await web.get("/queue?name=default")
        assert page.status_code == 503
        assert "Redis does not answer" in page.text
        assert "nowhere" not in page.text.replace("/nowhere", "")
        assert "data-recover" in page.text
        answer = await act(web, "/queue-pause", queue="default")
        assert answer.status_code == 503
        assert "This was not done" in answer.text
        assert (await web.get("/settings")).status_code == 200
