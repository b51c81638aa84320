"""Test the JSON API: reads, actions on single and many tasks, and errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Annotated, Any
from unittest.mock import ANY
from urllib.parse import quote

import pytest
from fastapi import Depends, FastAPI, Request, Response
from httpx import AsyncClient as HttpClient

from taskq_core import Answer, TaskContext, TaskQ, chain
from taskq_core.inspector import AsyncInspector
from taskq_core.testing import adrain
from taskq_core.workflow import group, step
from taskq_fastapi import InspectorDep, inspector_dep, taskq_lifespan
from taskq_fastapi.api import bulk_routes, parts, queue_routes
from tests.publishing import publish_task
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_fastapi.api import CHANGES, LOOKS, api_app, populate, requests, send

pytestmark = pytest.mark.redis


@pytest.fixture
async def web(taskq: TaskQ) -> AsyncIterator[HttpClient]:
    async with requests(api_app(taskq, allow_anonymous=True, show_payloads=True)) as web:
        yield web


async def enqueue(taskq: TaskQ, *ids: str, name: str = "note", **options: Any) -> None:
    for task_id in ids:
        await taskq.remote(name, task_id=task_id, **options).adelay(number=1)


@pytest.fixture
async def one_task(taskq: TaskQ) -> None:
    """Create a task in the queue `default` with the id 1."""
    await enqueue(taskq, "1")


async def states(web: HttpClient, *ids: str, queue: str = "default") -> list[str]:
    return [(await web.get(f"/tasks/{queue}/{task_id}")).json().get("state", "gone") for task_id in ids]


# --- reads ------------------------------------------------------------------------------------------------------------


async def test_queues_are_listed_with_their_totals(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1", "2")
    await enqueue(taskq, "3", queue="low", run_after=60)

    body = (await web.get("/queues")).json()

    assert [(row["name"], row["size"], row["status"]) for row in body["queues"]] == [
        ("default", 2, "no worker"),
        ("low", 1, "no worker"),
    ]
    assert (body["size"], body["sizes"]["scheduled"]) == (3, 1)


async def test_a_task_is_returned_with_its_attempts(taskq: TaskQ, web: HttpClient) -> None:
    @taskq.task(name="fail", max_retry=0)
    def fail(number: int) -> None:
        raise ValueError("broken")

    await fail.using(task_id="a/b ü").adelay(number=7)
    await adrain(taskq, raises=False)

    body = (await web.get("/tasks/default/a%2Fb%20%C3%BC")).json()

    assert (body["id"], body["state"], body["last_error"]) == ("a/b ü", "archived", "ValueError: broken")
    assert body["payload"] == {"size": 12, "format": "json", "value": {"number": 7}, "omitted": None}
    assert [(each["number"], each["error"]) for each in body["attempts"]] == [(1, "builtins.ValueError")]
    assert "broken" in body["attempts"][0]["traceback"]


@rows("task_id", ["x/events", "ü ?#%2F&", "<script>"])
async def test_tasks_with_unusual_ids_are_found_and_changed(taskq: TaskQ, web: HttpClient, task_id: str) -> None:
    await enqueue(taskq, task_id)
    path = f"/tasks/default/{quote(task_id, safe='')}"

    found = await web.get(path)
    deleted = await send(web, "POST", path, {"action": "delete"})

    assert found.json()["id"] == task_id
    assert deleted.status_code == 200
    assert (await web.get(path)).status_code == 404


@rows(
    ("stored", "kind", "value"),
    [
        (b'{"a": 1}', "json", {"a": 1}),
        (b"plain", "text", "plain"),
        (b"\xff\xfe", "base64", "//4="),
        (b"NaN", "text", "NaN"),
        (b'"\\ud800"', "text", '"\\ud800"'),
        (b"[" * 50_000, "text", "[" * 50_000),
        (b'{"a":' * 64 + b"1" + b"}" * 64, "text", '{"a":' * 64 + "1" + "}" * 64),
        (b"[" * 64 + b"]" * 64, "json", json.loads("[" * 64 + "]" * 64)),
        (b"1e999", "text", "1e999"),
    ],
)
async def test_a_payload_is_returned_as_json_text_or_base64(
    taskq: TaskQ, web: HttpClient, stored: bytes, kind: str, value: Any
) -> None:
    handle = await taskq.remote("note").adelay(stored)

    payload = (await web.get(f"/tasks/default/{handle.id}")).json()["payload"]

    assert (await web.get("/tasks")).status_code == 200
    assert (payload["format"], payload["value"], payload["size"]) == (kind, value, len(stored))


async def test_a_list_leaves_out_large_payloads(taskq: TaskQ, web: HttpClient) -> None:
    await taskq.remote("note", task_id="1").adelay(b"x" * 20_000)

    listed = (await web.get("/tasks")).json()["tasks"][0]["payload"]
    alone = (await web.get("/tasks/default/1")).json()["payload"]

    assert (listed["omitted"], listed["size"]) == ("large", 20_000)
    assert alone["value"] == "x" * 20_000


async def test_an_undecodable_task_is_returned_with_a_problem(
    taskq: TaskQ, web: HttpClient, server: RedisServer
) -> None:
    await enqueue(taskq, "1")
    server.command("HSET", "asynq:{default}:t:1", "msg", b"\xff\xff")

    listed = (await web.get("/tasks?queue=default")).json()["tasks"]
    alone = (await web.get("/tasks/default/1")).json()

    assert [task["id"] for task in listed] == ["1"]
    assert alone["problem"]
    assert alone["message"] == {"size": 2, "format": "base64", "value": "//8=", "omitted": None}


async def test_lists_have_pages_and_filters(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1", "2", "3")
    await enqueue(taskq, "4", name="mail", queue="low")

    second = (await web.get("/tasks", params={"page": 2, "page_size": 2, "queue": "default"})).json()
    mails = (await web.get("/tasks/search", params={"name": "mail"})).json()
    by_id = (await web.get("/tasks/search", params={"text": "2"})).json()
    first = (await web.get("/tasks/search", params={"queue": "default", "state": "pending", "limit": 2})).json()
    rest = (
        await web.get(
            "/tasks/search", params={"queue": "default", "state": "pending", "limit": 2, "cursor": first["next"]}
        )
    ).json()

    assert (len(second["tasks"]), second["total"], second["pages"]) == (1, 3, 2)
    assert [task["id"] for task in mails["tasks"]] == ["4"]
    assert [task["id"] for task in by_id["tasks"]] == ["2"]
    assert sorted(task["id"] for task in first["tasks"] + rest["tasks"]) == ["1", "2", "3"]
    assert rest["next"] is None


async def test_the_inspector_is_a_dependency_of_routes(taskq: TaskQ, server: RedisServer) -> None:
    mail = TaskQ(server.url, prefix="mail", enqueue_timeout=30)
    app = FastAPI(lifespan=taskq_lifespan({"default": taskq, "mail": mail}))
    await enqueue(taskq, "1")

    @app.get("/taskq/names")
    async def names(inspector: InspectorDep) -> list[str]:
        return await inspector.queues()

    @app.get("/taskq/names/mail")
    async def names_of_mail(inspector: Annotated[AsyncInspector, Depends(inspector_dep("mail"))]) -> list[str]:
        return await inspector.queues()

    async with requests(app) as web:
        assert (await web.get("/names")).json() == ["default"]
        assert (await web.get("/names/mail")).json() == []


# --- actions on one task ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "state", "queue"),
    [
        ({"action": "run"}, "pending", "default"),
        ({"action": "retry", "after": 600}, "scheduled", "default"),
        ({"action": "retry", "at": "2100-01-01T00:00:00Z"}, "scheduled", "default"),
        ({"action": "archive"}, "archived", "default"),
        ({"action": "delete"}, "gone", "default"),
        ({"action": "move", "to_queue": "low"}, "scheduled", "low"),
    ],
)
async def test_a_task_is_changed(taskq: TaskQ, web: HttpClient, change: dict[str, Any], state: str, queue: str) -> None:
    await enqueue(taskq, "1", run_after=60)

    answer = await send(web, "POST", "/tasks/default/1", change)

    assert answer.status_code == 200, answer.text
    assert await states(web, "1", queue=queue) == [state]


async def test_a_running_task_is_cancelled_only_if_it_is_named(taskq: TaskQ, web: HttpClient) -> None:
    answers: list[Any] = []

    @taskq.task(name="ask", max_retry=0)
    async def ask(context: TaskContext) -> None:
        await enqueue(taskq, "other", queue="low")
        answers.append(await send(web, "POST", "/tasks/low/1", {"action": "cancel"}))
        answers.append(await send(web, "POST", "/tasks/default/1", {"action": "delete"}))
        cancelling.append(asyncio.ensure_future(send(web, "POST", "/tasks/default/1", {"action": "cancel"})))
        await asyncio.Event().wait()

    cancelling: list[asyncio.Future[Any]] = []  # a separate asyncio task, because cancelling ends the caller
    await ask.using(task_id="1").adelay()
    await adrain(taskq, raises=False, queues=["default"])
    answers += await asyncio.gather(*cancelling)

    assert [answer.status_code for answer in answers] == [404, 409, 200]
    assert answers[1].json()["type"] == "urn:taskq:problem:task-active"
    assert answers[2].json()["action"] == "cancel"


async def test_a_payload_is_changed_only_if_it_matches_the_version_read(taskq: TaskQ, web: HttpClient) -> None:
    await taskq.remote("note", task_id="1").adelay(b'{ "number" : 1 }')

    def change(number: int, expected: int) -> dict[str, Any]:
        return {"payload": {"value": {"number": number}}, "expected": {"value": {"number": expected}}}

    stale = await send(web, "PATCH", "/tasks/default/1", change(3, expected=2))
    done = await send(web, "PATCH", "/tasks/default/1", change(3, expected=1))
    not_json = await web.patch(
        "/tasks/default/1", content=b'{"payload": {"value": NaN}}', headers={"content-type": "application/json"}
    )

    assert (stale.status_code, done.status_code, not_json.status_code) == (409, 200, 422)
    assert done.json()["payload"]["value"] == {"number": 3}


async def test_a_change_of_the_payload_can_also_postpone_the_task(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1")

    done = await send(web, "PATCH", "/tasks/default/1", {"payload": {"value": {"number": 2}}, "after": 600})
    both = {"payload": {"value": 1}, "expected": {"value": 1}, "at": "2100-01-01T00:00:00Z"}
    refused = await send(web, "PATCH", "/tasks/default/1", both)

    assert (done.json()["state"], done.json()["payload"]["value"]) == ("scheduled", {"number": 2})
    assert refused.status_code == 422


async def test_a_schedule_is_added_paused_resumed_and_removed(taskq: TaskQ, web: HttpClient) -> None:
    new = {
        "id": "sales",
        "spec": "@daily",
        "task": "report",
        "remote": True,
        "kwargs": {"a": 1},
        "options": {"queue": "q"},
    }

    added = (await send(web, "POST", "/schedules", new)).json()
    again = await send(web, "POST", "/schedules", new)
    wrong = await send(web, "POST", "/schedules", {**new, "spec": "never", "replace": True})
    paused = (await send(web, "POST", "/schedules/actions", {"action": "pause", "id": "sales"})).json()
    listed = (await web.get("/schedules")).json()["schedules"]
    resumed = (await send(web, "POST", "/schedules/actions", {"action": "resume", "id": "sales"})).json()
    removed = await web.delete("/schedules?id=sales")
    gone = await web.delete("/schedules?id=sales")

    assert (added["spec"], added["name"], added["payload"]["value"], added["options"]) == (
        "@daily",
        "report",
        {"a": 1},
        ['Queue("q")'],
    )
    assert (again.status_code, wrong.status_code) == (422, 422)
    assert [each["is_paused"] for each in (added, paused, *listed, resumed)] == [False, True, True, False]
    assert (removed.json(), gone.status_code) == ({"id": "sales"}, 404)


async def test_requests_are_sent_to_workers_by_id(taskq: TaskQ, web: HttpClient, server: RedisServer) -> None:
    await asyncio.to_thread(populate, taskq, server)
    listener = server.client.pubsub()
    listener.subscribe("taskq:control")
    listener.get_message(timeout=30)

    requests = [{"action": "scale", "concurrency": 3}, *({"action": each} for each in ("quiet", "resume", "stop"))]
    asked = [await send(web, "POST", "/workers/actions", {**each, "workers": ["h:1"]}) for each in requests]
    unknown = await send(web, "POST", "/workers/actions", {"action": "stop", "workers": ["x"]})
    wrong = await send(web, "POST", "/workers/actions", {"action": "scale"})
    sent = [await asyncio.to_thread(listener.get_message, timeout=30) for _ in requests]
    listener.close()

    assert [each.json() for each in asked] == [{"workers": ["s"]}] * 4
    assert [json.loads(each["data"]) for each in sent if each] == [
        {"workers": ["s"], "concurrency": None, **each} for each in requests
    ]
    assert (unknown.status_code, unknown.json()["type"].rsplit(":", 1)[-1]) == (404, "worker-not-found")
    assert wrong.status_code == 422


async def test_a_limit_is_set_listed_and_cleared(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1")

    response = await send(web, "POST", "/limits", {"queue": "default", "name": "note", "rate": "100/m"})
    refused = await send(web, "POST", "/limits", {"queue": "default", "name": "note"})
    malformed = await send(web, "POST", "/limits", {"queue": "default", "name": "note", "rate": "often"})
    cleared = [(await web.delete("/limits?queue=default&name=note")).json()["was_set"] for _ in range(2)]

    assert [(each["kind"], each["name"]) for each in response.json()["limits"]] == [("rate", "note")]
    assert response.json()["limits"][0]["changed"]
    assert (refused.status_code, malformed.status_code) == (422, 422)
    assert cleared == [True, False]


async def test_samples_and_task_types_are_returned(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1", "2")
    await enqueue(taskq, "3", name="mail")

    samples = (await web.get("/samples?span=60")).json()
    types = (await web.get("/types")).json()
    store = (await web.get("/redis")).json()

    assert [(series["name"], series["samples"]) for series in samples["queues"]] == [("default", [])]
    assert types["types"] == []
    assert store["version"]
    assert (await web.get("/samples?span=59")).status_code == 422


async def test_a_queue_is_paused_resumed_and_removed(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1", queue="a/b")

    paused = [await send(web, "PATCH", "/queues/a/b", {"paused": True}) for _ in range(2)]
    resumed = await send(web, "PATCH", "/queues/a/b", {"paused": False})
    refused = await web.delete("/queues/a/b")
    removed = await web.delete("/queues/a/b?force=true")
    gone = await web.get("/queues/a/b")

    assert [answer.json()["status"] for answer in paused] == ["paused", "paused"]
    assert resumed.json()["status"] == "no worker"
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:taskq:problem:queue-not-empty")
    assert removed.json() == {"deleted": 1, "next": None}
    assert gone.status_code == 404


# --- actions on many tasks --------------------------------------------------------------------------------------------


async def act(web: HttpClient, **body: Any) -> list[dict[str, Any]]:
    """Send the action and repeat it until no task is left. Return all parts."""
    parts: list[dict[str, Any]] = []
    while not parts or parts[-1]["next"] is not None:
        cursor = {"cursor": parts[-1]["next"]} if parts else {}
        answer = await send(web, "POST", "/tasks/actions", {**body, **cursor})
        assert answer.status_code == 200, answer.text
        parts.append(answer.json())
        assert len(parts) < 50
    return parts


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time limit of a request to zero."""
    for module in (bulk_routes, queue_routes):
        monkeypatch.setattr(module, "time_left", lambda: lambda: False)


async def test_an_action_on_named_tasks_reports_those_it_skipped(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1", "2", run_after=60)
    await enqueue(taskq, "3")
    tasks = [{"queue": "default", "id": each} for each in ("1", "2", "3", "none")]

    (part,) = await act(web, action="run", tasks=tasks)

    assert part["done"] == 2
    assert [each["id"] for each in part["done_tasks"]] == ["1", "2"]
    assert part["skipped"] == [
        {"reason": "gone", "state": "", "count": 1},
        {"reason": "state", "state": "pending", "count": 1},
    ]


async def test_a_stale_task_is_skipped(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1")

    (part,) = await act(web, action="delete", tasks=[{"queue": "default", "id": "1", "state": "archived"}])

    assert part["skipped"] == [{"reason": "changed", "state": "pending", "count": 1}]
    assert await states(web, "1") == ["pending"]


@pytest.mark.usefixtures("no_time")
async def test_an_action_that_runs_out_of_time_is_continued_and_changes_each_task_once(
    taskq: TaskQ, web: HttpClient
) -> None:
    ids = [str(number) for number in range(250)]
    await taskq.async_client.enqueue_many(taskq.remote("note", task_id=each).s(number=1) for each in ids)

    parts = await act(web, action="archive", filter={"state": "pending"})

    assert [part["done"] for part in parts] == [100, 100, 50]
    assert (await web.get("/count?queue=default&state=archived")).json() == {"count": 250}


async def test_an_action_filters_by_content_and_moves_tasks_to_another_queue(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1", "2", name="mail:send")
    await enqueue(taskq, "3", name="note")
    await enqueue(taskq, "4", name="mail:send", queue="low")

    (part,) = await act(web, action="move", to_queue="low", filter={"state": "pending", "name_part": "mail"})

    assert (part["done"], part["skipped"]) == (2, [])
    assert (await web.get("/count?queue=low&state=pending")).json() == {"count": 3}
    assert await states(web, "3") == ["pending"]


async def test_a_field_of_a_filter_may_be_null(taskq: TaskQ, web: HttpClient) -> None:
    await enqueue(taskq, "1")
    nothing = dict.fromkeys(("queue", "name", "name_part", "error", "payload", "text", "older_than"))

    (part,) = await act(web, action="archive", filter={"state": "pending", **nothing})

    assert part["done"] == 1


@rows("field", ["queue", "name", "name_part", "error", "payload", "text"])
async def test_text_that_is_not_valid_utf_8_is_refused(web: HttpClient, field: str) -> None:
    body = json.dumps({"action": "delete", "filter": {"state": "pending", field: "\ud800"}})

    answer = await web.post("/tasks/actions", content=body, headers={"content-type": "application/json"})

    assert (answer.status_code, "a lone surrogate" in answer.json()["detail"]) == (422, True)


def test_one_request_of_an_action_ends_after_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(parts, "time", SimpleNamespace(monotonic=lambda: now))
    is_left = parts.time_left()

    assert is_left()
    now = 100.9
    assert is_left()
    now = 101.1
    assert not is_left()


@pytest.mark.usefixtures("no_time")
async def test_several_requests_remove_a_large_queue(taskq: TaskQ, web: HttpClient) -> None:
    calls = (taskq.remote("note").s(number=1) for _ in range(1_500))
    await taskq.async_client.enqueue_many(calls)

    answers = [(await web.delete("/queues/default?force=true")).json()]
    while answers[-1]["next"] is not None:
        more = {"force": "true", "cursor": answers[-1]["next"]}
        answers.append((await web.delete("/queues/default", params=more)).json())
        assert len(answers) < 50

    assert len(answers) > 1
    assert sum(answer["deleted"] for answer in answers) == 1_500
    assert (await web.get("/queues")).json()["queues"] == []


# --- errors -----------------------------------------------------------------------------------------------------------


@rows(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/queues/defualt", None, 404, "queue-not-found"),
        ("GET", "/tasks/default/none", None, 404, "task-not-found"),
        ("GET", "/tasks/none/1", None, 404, "queue-not-found"),
        ("GET", "/tasks/default/line%0Abreak%0A", None, 404, "task-not-found"),
        ("GET", "/schedules/none/events", None, 404, "schedule-not-found"),
        ("GET", "/tasks?page=0", None, 422, "invalid-request"),
        ("GET", "/tasks?page=1000000001", None, 422, "invalid-request"),
        ("GET", f"/tasks?page={'9' * 400}", None, 422, "invalid-request"),
        ("GET", "/tasks?page_size=100000", None, 422, "invalid-request"),
        ("GET", "/tasks?state=sleeping", None, 422, "invalid-request"),
        ("GET", "/tasks?state=aggregating", None, 422, "invalid-request"),
        ("GET", "/tasks/search?cursor=x", None, 422, "invalid-request"),
        ("GET", "/tasks/search?state=aggregating", None, 422, "invalid-request"),
        ("GET", "/history?days=91", None, 422, "invalid-request"),
        ("POST", "/tasks/default/1", {"action": "archive", "after": 1}, 422, "invalid-request"),
        ("POST", "/tasks/default/1", {"action": "retry"}, 422, "invalid-request"),
        ("POST", "/tasks/default/1", {"action": "move"}, 422, "invalid-request"),
        ("POST", "/tasks/default/1", {"action": "run"}, 409, "task-state"),
        ("POST", "/tasks/default/1", {"action": "run", "more": 1}, 422, "invalid-request"),
        ("POST", "/tasks/actions", {"action": "run"}, 422, "invalid-request"),
        ("POST", "/tasks/actions", {"action": "run", "filter": {"state": "pending"}}, 422, "invalid-request"),
        ("POST", "/tasks/actions", {"action": "run", "tasks": [], "cursor": "x"}, 422, "invalid-request"),
        (
            *("POST", "/tasks/actions", {"action": "run", "filter": {"state": "retry"}, "cursor": "1/x/zz/"}),
            *(422, "invalid-request"),
        ),
    ],
)
async def test_invalid_requests_are_answered_with_a_problem(
    one_task: None, web: HttpClient, method: str, path: str, body: Any, status: int, kind: str
) -> None:
    answer = await send(web, method, path, body)

    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), answer.text
    assert problem["type"] == f"urn:taskq:problem:{kind}"
    assert problem["detail"]
    kinds = {each["type"]: each for each in (await web.get("/problems")).json()}
    assert (kinds[problem["type"]]["title"], kinds[problem["type"]]["status"]) == (problem["title"], status)


async def test_errors_do_not_repeat_the_sent_values(web: HttpClient) -> None:
    answer = await send(web, "PATCH", "/tasks/default/1", {"payload": {"value": 1, "format": "my-password"}})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"][0] == "body"
    assert "my-password" not in answer.text


async def test_every_route_reports_a_redis_outage_without_the_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RedisServer() as server:
        patient, taskq = TaskQ(server.url, enqueue_timeout=30), TaskQ(server.url, enqueue_timeout=0.001)
        await enqueue(patient, "1")
        await patient.aclose()
        async with requests(api_app(taskq, allow_anonymous=True, show_payloads=True)) as web:
            server.stop()
            looked = {
                ("GET", path): await web.get(path) for path in LOOKS if path != "/problems"
            }  # this route sends no command to Redis
            changed = {(method, path): await send(web, method, path, body) for method, path, body in CHANGES}
            tasks = [{"queue": "default", "id": "1"}]
            bulk = await send(web, "POST", "/tasks/actions", {"action": "delete", "tasks": tasks})

    answers = {**looked, **changed}
    assert {key: answer.status_code for key, answer in answers.items()} == dict.fromkeys(answers, 503)
    assert {answer.json()["type"] for answer in answers.values()} == {"urn:taskq:problem:redis-unavailable"}
    assert {answer.headers["retry-after"] for answer in answers.values()} == {"1"}
    assert all(isinstance(answer.json()["may_have_happened"], bool) for answer in changed.values())
    assert (bulk.status_code, bulk.json()["done"], bulk.json()["next"]) == (200, 0, None)
    assert bulk.json()["failure"]
    texts = "".join(answer.text for answer in (*answers.values(), bulk))
    assert "127.0.0.1" not in texts
    assert "localhost" not in texts
    assert "a request to the JSON API failed" in caplog.text


class NotHereError(Exception):
    """Raised by an app without a logged-in user, with a custom response."""


async def test_the_app_handles_an_error_of_a_dependency(taskq: TaskQ) -> None:
    def guard() -> None:
        raise NotHereError

    app = api_app(taskq, dependencies=[Depends(guard)])

    @app.exception_handler(NotHereError)
    async def to_login(_request: Request, _error: NotHereError) -> Response:
        return Response("log in", 418)

    async with requests(app) as web:
        answer = await web.get("/queues")

    assert (answer.status_code, answer.text) == (418, "log in")


async def test_workflows_are_listed_read_cancelled_and_retried(taskq: TaskQ, web: HttpClient) -> None:
    handle = (
        await chain(taskq.remote("fetch").s(number=1), step(taskq.remote("store").s(), into="page"))
        .named("onboarding")
        .adelay()
    )
    path = f"/workflows/default/{handle.id}"

    listed, beyond, workflow = [
        (await web.get(each)).json() for each in ("/workflows?queue=default", "/workflows?queue=default&page=9", path)
    ]
    again = await send(web, "POST", path, {"action": "retry"})
    cancelled = await send(web, "POST", path, {"action": "cancel"})
    ended = (await web.get(path)).json()
    unknown = await send(web, "POST", "/workflows/default/none", {"action": "cancel"})

    assert [(row["id"], row["name"], row["state"]) for row in listed["rows"]] == [(handle.id, "onboarding", "running")]
    assert (listed["running"], listed["ended"], listed["total"], beyond["rows"]) == (1, 0, 1, [])
    first, second = workflow["steps"]
    assert (workflow["info"]["total"], first["task"], first["state"], second["task"]) == (
        2,
        "fetch",
        "started",
        "store",
    )
    assert second["after"] == {first["name"]: "success"}
    assert again.json() == {"action": "retry", "done": 0}
    assert cancelled.json() == {"action": "cancel", "done": 1}
    assert ended["info"]["state"] == "cancelled"
    assert (unknown.status_code, unknown.json()["title"]) == (
        404,
        "There is no such workflow, or it is no longer stored",
    )


async def test_steps_and_members_are_listed_in_pages(taskq: TaskQ, web: HttpClient, server: RedisServer) -> None:
    handle = await group([taskq.remote("note").si(number=each) for each in range(5)], name="notes").adelay()
    key = taskq.runtime.keys.queue("default").workflow(handle.id)
    server.client.hset(f"{key}:g0", mapping={"3": "7", "4": f'"{"x" * 5_000}"'})
    path = f"/workflow-steps/default/{handle.id}"

    found = (await web.get(path, params={"step": "notes", "page": 2, "page_size": 3})).json()
    missing = await web.get(path, params={"step": "nothing"})
    searched = (await web.get("/workflows/search", params={"state": "running", "text": handle.id})).json()
    nowhere = (await web.get("/workflows/search", params={"queue": "none", "text": "x"})).json()
    foreign = await web.get("/workflows/search", params={"cursor": "x"})

    server.client.hset(f"{key}:f0", "1", "no ink")
    failed = (await web.get(path, params={"step": "notes", "failed": "true"})).json()
    assert [(each["number"], each["error"]) for each in failed["members"]] == [(1, "no ink")]
    assert [each["task_id"] for each in found["members"]] == [f"{handle.id}.notes.{number}" for number in (3, 4)]
    assert [each["state"] for each in found["members"]] == ["started", "started"]
    short, long = (each["result"] for each in found["members"])
    assert (short["value"], short["size"], long["omitted"], long["size"]) == (7, 1, "large", 5_002)
    assert (found["step"]["members"], found["workflow_state"], found["step"]["name"]) == (5, "running", "notes")
    assert (missing.status_code, foreign.status_code) == (404, 422)
    assert [(row["id"], row["queue"], row["steps"]) for row in searched["rows"]] == [(handle.id, "default", 5)]
    assert (searched["scanned"], searched["total"], searched["next"], nowhere["rows"]) == (1, 1, None, [])


async def test_a_damaged_workflow_is_reported(taskq: TaskQ, web: HttpClient, server: RedisServer) -> None:
    handle = await taskq.aenqueue_workflow(step(taskq.remote("note").si(), name="one"))
    server.client.hdel(taskq.runtime.keys.queue("default").workflow(handle.id), "created")

    listed, read = [(await web.get(each)) for each in ("/workflows?queue=default", f"/workflows/default/{handle.id}")]

    (row,) = listed.json()["rows"]
    assert (row["state"], row["created_at"]) == ("damaged", None)
    assert (read.status_code, read.json()["title"]) == (409, "The workflow cannot be read")
    assert "'created' must be a time" in read.json()["detail"]


# --- steps ------------------------------------------------------------------------------------------------------------


async def test_a_waiting_task_is_read_signaled_once_and_one_step_is_deleted(
    taskq: TaskQ, web: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = (await publish_task(taskq).adelay(photo_id=7)).id
    await adrain(taskq)
    url = f"/tasks/default/{task_id}"

    task = (await web.get(url)).json()
    [listed] = (await web.get("/tasks?queue=default&state=scheduled")).json()["tasks"]

    assert (task["wait"]["kind"], task["wait"]["name"], task["wait"]["number"]) == ("signal", "review", 1)
    assert (listed["wait"], listed["timeline"]) == (task["wait"], None)
    step, children, review = task["timeline"]
    assert (step["name"], step["result"]["value"], step["duration"]) == ("moderate", {"photo": 7}, ANY)
    assert (children["kind"], children["result"]["value"]) == ("sub-tasks", [320])
    assert (await web.get(f"/workflows/default/{children['workflow_id']}")).status_code == 200
    assert (review["kind"], review["ended_at"], review["result"]["value"]) == ("signal", None, "")

    assert (await web.delete(f"{url}/steps/moderate")).json() == {"was_stored": True}
    assert (await web.delete(f"{url}/steps/moderate")).json() == {"was_stored": False}
    with caplog.at_level("INFO", "taskq.audit"):
        answers = [
            await web.post(f"{url}/signals/{name}", json=body)
            for name, body in (
                ("review", {"value": {"approved": True}, "number": 1}),
                ("review", {"value": {"approved": False}, "number": 1}),
                ("a:b", {}),
                ("review", {"approved": True}),
                ("review", {"value": {"approved": False}}),
            )
        ]
    assert [each.status_code for each in answers] == [200, 409, 422, 422, 200]
    assert f"signal by '127.0.0.1': done queue='default' task_id='{task_id}' name='review'" in caplog.text
    await adrain(taskq)
    assert (await web.get(url)).json()["result"]["value"] == [True, False]
    late = await web.post(f"{url}/signals/review", json={"value": {"approved": True}})
    assert (late.status_code, late.json()["state"]) == (409, "completed")
    assert (await web.post("/tasks/default/x/signals/review", json={})).status_code == 404


async def test_questions_are_listed_and_answered_once(
    taskq: TaskQ, web: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    @taskq.task(retention=60)
    async def pay(context: TaskContext) -> list[object]:
        answer = await context.areceive("pay", Answer[bool], ask={"amount": "9.99"})
        return [answer.value, answer.by]

    task_id = (await pay.adelay()).id
    await adrain(taskq)

    [question] = (await web.get("/questions")).json()["questions"]
    assert (question["name"], question["number"], question["task_id"]) == ("pay", 1, task_id)
    assert (question["asked"]["value"], question["answer_schema"]) == ({"amount": "9.99"}, {"type": "boolean"})
    assert (await web.get("/questions?queue=nowhere")).status_code == 404
    async with requests(api_app(taskq, allow_anonymous=True)) as hidden:
        [shown] = (await hidden.get("/questions")).json()["questions"]
        [entry] = (await hidden.get(f"/tasks/default/{task_id}")).json()["timeline"]
    assert (shown["asked"]["omitted"], entry["asked"]["omitted"]) == ("hidden", "hidden")

    url = f"/tasks/default/{task_id}/questions"
    bodies = [(1, {"value": 7}), (2, {"value": True}), (1, {"value": True, "generation": "1"}), (1, {"value": True})]
    with caplog.at_level("INFO", "taskq.audit"):
        answers = [await web.post(f"{url}/{number}/answer", json=body) for number, body in (*bodies, bodies[-1])]
    assert [each.status_code for each in answers] == [422, 409, 404, 200, 409]
    assert f"answer by '127.0.0.1': done queue='default' task_id='{task_id}' question=1" in caplog.text
    await adrain(taskq)
    task = (await web.get(f"/tasks/default/{task_id}")).json()
    assert task["result"]["value"] == [True, "127.0.0.1"]
    [entry] = task["timeline"]
    assert (entry["kind"], entry["by"], entry["asked"]["value"]) == ("question", "127.0.0.1", {"amount": "9.99"})


async def test_results_of_steps_are_hidden_when_payloads_are_hidden(taskq: TaskQ) -> None:
    task_id = (await publish_task(taskq).adelay(photo_id=7)).id
    await adrain(taskq)

    async with requests(api_app(taskq, allow_anonymous=True)) as hidden:
        task = (await hidden.get(f"/tasks/default/{task_id}")).json()
    options = {"allow_anonymous": True, "show_payloads": True, "redact": lambda name, what, value: what}
    async with requests(api_app(taskq, **options)) as redacted:
        redacted_task = (await redacted.get(f"/tasks/default/{task_id}")).json()

    assert task["timeline"][0]["result"] == {"size": 11, "format": None, "value": None, "omitted": "hidden"}
    assert redacted_task["timeline"][0]["result"]["value"] == "result"
