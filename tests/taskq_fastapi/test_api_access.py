"""Test access to the JSON API: who can use it, what they can change, and what they see."""

import logging
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from httpx import ASGITransport, AsyncClient
from starlette.middleware.trustedhost import TrustedHostMiddleware

from taskq_core import Concurrency, ConfigurationError, TaskQ
from taskq_fastapi import task_router, taskq_router
from taskq_fastapi.api import models
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_fastapi.api import CHANGES, LOOKS, api_app, populate, requests, send

pytestmark = pytest.mark.redis
SECRET = "s3cret-of-a-producer"


@pytest.fixture
def tasks(taskq: TaskQ, server: RedisServer) -> TaskQ:
    populate(taskq, server, SECRET)
    return taskq


async def test_without_dependencies_every_route_answers_403_and_the_log_explains_the_fix(
    tasks: TaskQ, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    before = server.contents()

    async with requests(api_app(tasks)) as web:
        answers = [await web.get(path) for path in LOOKS]
        answers += [await send(web, *change) for change in CHANGES]
        answers += [await web.post("/tasks/actions", content=b"{", headers={"content-type": "text/plain"})]

    assert {answer.status_code for answer in answers} == {403}
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert server.contents() == before
    assert "taskq_router answer 403" in caplog.text
    assert "dependencies=[Depends(...)]" in caplog.text
    assert "allow_anonymous=True" in caplog.text


async def test_dependencies_control_access_and_their_errors_become_problems(tasks: TaskQ) -> None:
    def logged_in(authorization: Annotated[str | None, Header()] = None) -> None:
        if authorization != "Bearer x":
            raise HTTPException(401, "who are you?", headers={"WWW-Authenticate": "Bearer"})

    async with requests(api_app(tasks, dependencies=[Depends(logged_in)])) as web:
        refused = [await web.get(path) for path in LOOKS]
        refused += [await send(web, *change) for change in CHANGES]
        json = {"content-type": "application/json"}
        malformed = await web.post("/tasks/actions", content=b"{", headers={**json, "Authorization": "Bearer x"})
        let_in = await web.get("/queues", headers={"Authorization": "Bearer x"})

    assert {answer.status_code for answer in refused} == {401}
    assert refused[0].headers["www-authenticate"] == "Bearer"
    assert refused[0].json()["detail"] == "who are you?"
    assert let_in.status_code == 200
    assert (malformed.status_code, malformed.json()["detail"]) == (400, "the body is not JSON")


@pytest.mark.parametrize("read_only", [True, lambda: True])
async def test_a_read_only_router_refuses_changes(
    tasks: TaskQ, server: RedisServer, read_only: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = server.contents()

    app = api_app(tasks, allow_anonymous=True, show_payloads=True, read_only=read_only, who=lambda: "ann")
    async with requests(app) as web:
        answers = [await send(web, *change) for change in CHANGES]
        looked = await web.get("/tasks/default/1")

    assert [answer.json()["detail"] for answer in answers] == ["this API is read-only"] * len(CHANGES)
    assert {answer.status_code for answer in answers} == {403}
    assert server.contents() == before
    assert looked.status_code == 200
    assert caplog.text.count("by 'ann': refused") == len(CHANGES)


async def test_reading_routes_write_nothing_to_redis(tasks: TaskQ, server: RedisServer) -> None:
    before = server.contents()

    async with requests(api_app(tasks, allow_anonymous=True)) as web:
        answers = {path: (await web.get(path)).status_code for path in LOOKS}

    assert {path for path, status in answers.items() if status != 200} == {"/queues/none"}
    assert server.contents() == before


async def test_payloads_are_hidden_by_default(tasks: TaskQ) -> None:
    async with requests(api_app(tasks, allow_anonymous=True)) as web:
        answers = [await web.get(path) for path in LOOKS]
        guess = await web.get("/tasks/search", params={"text": SECRET[:6]})
        asked = await web.get("/tasks/search?queue=default&state=pending&payload=s3")
        bulk = await send(
            web, "POST", "/tasks/actions", {"action": "delete", "filter": {"state": "pending", "payload": "s3"}}
        )
        edit = await send(web, "PATCH", "/tasks/default/1", {"payload": {"value": 1}})
    async with requests(api_app(tasks, allow_anonymous=True, show_payloads=True)) as web:
        shown = await web.get("/tasks/default/1")
        found = await web.get("/tasks/search", params={"text": SECRET[:6]})

    assert not any(SECRET in answer.text for answer in answers)
    assert guess.json()["tasks"] == []
    assert (asked.status_code, bulk.status_code, edit.status_code) == (403, 403, 403)
    assert shown.json()["payload"]["value"] == {"word": SECRET}
    assert {task["id"] for task in found.json()["tasks"]} == {"1", models.ID, f"{models.ID}.note"}


@pytest.mark.parametrize("redact", [None, lambda name, what, value: value])
async def test_limits_with_keys_from_payloads_are_hidden_like_payloads(taskq: TaskQ, redact: Any) -> None:
    options: Any = {"concurrency": Concurrency(1, key="word"), "headers": {"tenant": "acme"}}
    await taskq.remote("note", **options).using(task_id="1").adelay(word=SECRET)

    async with requests(api_app(taskq, allow_anonymous=True, show_payloads=redact is not None, redact=redact)) as web:
        hidden = [await web.get(path) for path in ("/tasks/default/1", "/tasks", "/tasks/search?name=note")]
    async with requests(api_app(taskq, allow_anonymous=True, show_payloads=True)) as web:
        shown = (await web.get("/tasks/default/1")).json()

    assert hidden[0].json()["headers"] == {"tenant": "acme"}
    assert not any("taskq-limit" in answer.text for answer in hidden)
    assert SECRET in shown["headers"]["taskq-limit"]


async def test_files_and_addresses_of_the_server_are_shown_only_to_operators(
    tasks: TaskQ,
) -> None:
    def may_only_look(role: Annotated[str, Header()] = "viewer") -> bool:
        return role != "operator"

    async with requests(api_app(tasks, allow_anonymous=True, read_only=may_only_look)) as web:
        figures = (await web.get("/redis")).json()
        whole = (await web.get("/redis", headers={"role": "operator"})).json()

    assert figures["version"] == whole["version"]
    assert figures["info"] == {}
    assert "config_file" in whole["info"]


async def test_a_dependency_can_control_who_sees_payloads(tasks: TaskQ) -> None:
    def sees(role: Annotated[str, Header()] = "viewer") -> bool:
        return role == "operator"

    async with requests(api_app(tasks, allow_anonymous=True, show_payloads=sees)) as web:
        viewer = await web.get("/tasks/default/1")
        operator = await web.get("/tasks/default/1", headers={"role": "operator"})

    assert viewer.json()["payload"]["omitted"] == "hidden"
    assert operator.json()["payload"]["value"] == {"word": SECRET}


@rows("fails", [None, RuntimeError("no"), object()])
async def test_a_redaction_replaces_shown_values_and_hides_them_if_it_fails(tasks: TaskQ, fails: object) -> None:
    def redact(name: str, what: str, value: Any) -> Any:
        if isinstance(fails, Exception):
            raise fails
        if fails is not None:
            return fails  # which is not valid JSON
        return {"word": "***"} if (name, what) == ("note", "payload") else value

    async with requests(api_app(tasks, allow_anonymous=True, show_payloads=True, redact=redact)) as web:
        answers = [await web.get(path) for path in LOOKS]
        shown = await web.get("/tasks/default/1")
        guess = await web.get("/tasks/search", params={"text": SECRET[:6]})
        edit = await send(web, "PATCH", "/tasks/default/1", {"payload": {"value": 1}})

    assert not any(SECRET in answer.text for answer in answers)
    assert shown.json()["payload"]["value"] == ("[not shown: the redaction failed]" if fails else {"word": "***"})
    assert guess.json()["tasks"] == []
    assert edit.status_code == 403


@rows(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://test"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "https://ops.example"}, 200),
    ],
)
async def test_changes_from_pages_of_another_site_are_refused(
    tasks: TaskQ, headers: dict[str, str], status: int
) -> None:
    app = api_app(tasks, allow_anonymous=True, trusted_origins=["https://ops.example"])
    queue = (await tasks.remote("note", queue=uuid4().hex).adelay()).queue
    async with requests(app) as web:
        changed = await web.patch(f"/queues/{queue}", json={"paused": True}, headers=headers)
        removed = await web.delete(f"/queues/{queue}?force=true", headers=headers)
        looked = await web.get("/queues", headers=headers)

    assert (changed.status_code, removed.status_code) == (status, status)
    assert looked.status_code == 200
    assert "access-control-allow-origin" not in looked.headers


@rows("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
async def test_a_change_requires_the_content_type_json(tasks: TaskQ, kind: str | None) -> None:
    async with requests(api_app(tasks, allow_anonymous=True)) as web:
        answer = await web.patch(
            "/queues/default", content=b'{"paused": true}', headers={"content-type": kind} if kind else {}
        )
        info = (await web.get("/queues/default")).json()["queue"]

    assert answer.status_code == 415
    assert info["is_paused"] is False


@rows(
    ("headers", "body", "is_refused"),
    [
        ({}, b"", False),
        ({"content-length": "0"}, b"", False),
        ({"content-type": "text/plain"}, b"", False),
        ({}, b"{}", True),
        ({"content-type": "text/plain"}, b"{}", True),
        ({"content-type": "application/json"}, b"{}", False),
    ],
)
async def test_only_a_deletion_with_a_body_requires_the_content_type_json(
    tasks: TaskQ, headers: dict[str, str], body: bytes, is_refused: bool
) -> None:
    handle = await tasks.remote("note", queue=uuid4().hex).adelay()

    async with requests(api_app(tasks, allow_anonymous=True)) as web:
        answer = await web.request("DELETE", f"/queues/{handle.queue}?force=true", headers=headers, content=body)
        left = await web.get(f"/queues/{handle.queue}")

    assert (answer.status_code == 415) is is_refused
    assert left.status_code == (200 if is_refused else 404)


@rows("host", ["rebound.evil.example", "10.0.0.7", "ops.example.evil.example"])
async def test_with_trusted_hosts_anonymous_routes_refuse_other_hosts(tasks: TaskQ, host: str) -> None:
    """A page of another site can point its host name to this address, and then has the same origin as the app."""
    app = FastAPI()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["ops.example"])
    app.include_router(taskq_router(tasks, allow_anonymous=True), prefix="/taskq")
    app.include_router(task_router(allow_anonymous=True), prefix="/tasks")
    same = {"origin": f"http://{host}", "sec-fetch-site": "same-origin"}

    async with AsyncClient(transport=ASGITransport(app), base_url=f"http://{host}", headers=same) as web:
        looks = [await web.get(path) for path in ("/taskq/queues", "/tasks/status/default/x")]
        change = await web.patch("/taskq/queues/default", json={"paused": True})
    async with AsyncClient(transport=ASGITransport(app), base_url="http://ops.example") as web:
        queue = (await web.get("/taskq/queues/default")).json()["queue"]

    assert {each.status_code for each in (*looks, change)} == {400}
    assert not queue["is_paused"]


async def test_a_request_body_that_is_too_large_is_not_read(tasks: TaskQ) -> None:
    large = b'{"paused": true, "x": "' + b"x" * 2**20 + b'"}'

    async def pieces() -> Any:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    headers = {"content-type": "application/json"}
    async with requests(api_app(tasks, allow_anonymous=True)) as web:
        known = await web.patch("/queues/default", content=large, headers=headers)
        unknown = await web.patch("/queues/default", content=pieces(), headers=headers)

    assert (known.status_code, unknown.status_code) == (413, 413)


async def test_the_audit_log_has_each_change_with_its_user_and_without_payloads(
    tasks: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskq.audit")

    def who(user: Annotated[str, Header()]) -> str:
        return user

    async with requests(api_app(tasks, allow_anonymous=True, show_payloads=True, who=who)) as web:
        for change in CHANGES:
            answer = await send(web, *change, user="ann\nforged")
            assert answer.status_code == 200, answer.text
        failed = await send(web, "POST", "/tasks/default/none", {"action": "run"}, user="bob")

    notes = [record for record in caplog.records if record.name == "taskq.audit"]
    entries: list[Any] = [record.audit for record in notes]  # type: ignore[attr-defined]
    assert [each["action"] for each in entries[:-1]] == [
        *("pause", "retry", "signal", "answer", "forget_step", "update_payload", "retry_workflow", "run_all"),
        *(
            "set_limit",
            "clear_limit",
            "add_schedule",
            "pause_schedule",
            "remove_schedule",
            "quiet_workers",
            "remove_queue",
        ),
    ]
    assert {each["who"] for each in entries[:-1]} == {"ann\nforged"}
    assert (entries[-1]["who"], entries[-1]["outcome"], failed.status_code) == ("bob", "QueueNotFoundError", 404)
    assert not any("\n" in record.getMessage() for record in notes)
    assert SECRET not in caplog.text
    assert "number" not in caplog.text


async def test_the_audit_log_of_a_bulk_action_omits_the_searched_text(
    tasks: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskq.audit")
    wanted = {"state": "archived", "text": SECRET, "payload": SECRET}

    async with requests(api_app(tasks, allow_anonymous=True, show_payloads=True)) as web:
        answer = await send(web, "POST", "/tasks/actions", {"action": "run", "filter": wanted})

    assert answer.status_code == 200
    assert "payload='given' text='given'" in caplog.text
    assert SECRET not in caplog.text


@rows(
    ("options", "expected"),
    [
        ({"allow_anonymous": True, "dependencies": [Depends(lambda: None)]}, "got both"),
        ({"read_only": "yes"}, "read_only must be True, False or a dependency"),
        ({"trusted_origins": ["a.example"]}, "must hold origins such as"),
        ({"trusted_origins": "https://a.example"}, "must be a list of origins"),
        ({"redact": "x"}, "redact must be a function"),
    ],
)
def test_invalid_options_are_refused_when_the_router_is_created(taskq: TaskQ, options: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        taskq_router(taskq, **options)


@pytest.mark.parametrize("redacts", [False, True])
async def test_progress_is_shown_and_its_message_is_redacted(tasks: TaskQ, server: RedisServer, redacts: bool) -> None:
    progress = b'{"done":3,"total":10,"at":1700000000000,"message":"page <3>"}'
    server.client.hset("asynq:{default}:t:1", "taskq_progress", progress)

    def redact(name: str, what: str, value: Any) -> Any:
        return "***" if (name, what) == ("note", "progress") else value

    async with requests(api_app(tasks, allow_anonymous=True, redact=redact if redacts else None)) as web:
        one = (await web.get("/tasks/default/1")).json()

    assert one["progress"] == {
        "done": 3,
        "total": 10,
        "message": "***" if redacts else "page <3>",
        "at": "2023-11-14T22:13:20Z",
    }
