"""Test the limit of refused logins of one address, in the dashboard."""

import asyncio
import base64
from collections import Counter
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from httpx import ASGITransport, AsyncClient

from taskq_core import TaskQ
from taskq_dashboard import User, basic_login, taskq_dashboard
from taskq_fastapi import taskq_router
from tests.rows import rows
from tests.taskq_dashboard.dashboards import dashboard_of, looking

pytestmark = pytest.mark.redis


@pytest.fixture
def filled(taskq: TaskQ) -> TaskQ:
    taskq.remote("note").delay(word="w")
    return taskq


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def test_wrong_passwords_are_throttled(filled: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    """After several wrong passwords, passwords are no longer checked, not even the correct one."""
    asked: list[str] = []

    def check(name: str, password: str) -> User | None:
        asked.append(password)
        return User(name) if password == "secret" else None

    app = taskq_dashboard(filled, login=basic_login(check), failed_logins="3/m")
    async with looking(app, user="") as web:
        for number in range(3):
            answer = await web.get("/", headers={"authorization": basic("olga", f"guess{number}")})
            assert answer.status_code == 401
        for password in ("guess3", "secret"):
            answer = await web.get("/", headers={"authorization": basic("olga", password)})
            assert answer.status_code == 429

    assert asked == ["guess0", "guess1", "guess2"]
    assert 1 <= int(answer.headers["retry-after"]) <= 20
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["content-type"].startswith("text/plain")
    assert "requests from '127.0.0.1' are answered 429: too many refused logins" in caplog.text
    assert "guess" not in caplog.text


async def test_passwords_that_are_sent_at_the_same_time_are_throttled(filled: TaskQ) -> None:
    asked: list[str] = []

    async def check(name: str, password: str) -> User | None:
        asked.append(password)
        await asyncio.sleep(0)  # the other requests arrive
        return None

    app = taskq_dashboard(filled, login=basic_login(check), failed_logins="3/h")
    async with looking(app, user="") as web:
        guesses = [web.get("/", headers={"authorization": basic("olga", f"{number}")}) for number in range(30)]
        statuses = Counter(answer.status_code for answer in await asyncio.gather(*guesses))

    assert (statuses, len(asked)) == ({401: 3, 429: 27}, 3)


async def test_valid_logins_that_are_sent_at_the_same_time_are_all_let_in(filled: TaskQ) -> None:
    """A browser loads the files of a page at the same time."""

    async def check(name: str, password: str) -> User | None:
        await asyncio.sleep(0)  # the other requests arrive
        return User(name)

    app = taskq_dashboard(filled, login=basic_login(check), failed_logins="1/h")
    async with looking(app, user="") as web:
        requests = [web.get("/", headers={"authorization": basic("olga", "secret")}) for _ in range(10)]
        answers = await asyncio.gather(*requests)

    assert {answer.status_code for answer in answers} == {200}


async def test_logins_and_requests_without_credentials_are_not_throttled(filled: TaskQ) -> None:
    """A request without a password and a refusal for lack of permission are not failed logins."""
    login = basic_login(lambda name, password: User(name) if password == "secret" else None)
    app = taskq_dashboard(filled, login=login, failed_logins="1/h")
    async with looking(app, user="") as web:
        for _ in range(5):
            assert (await web.get("/")).status_code == 401
        right = {"authorization": basic("vera", "secret")}
        for _ in range(5):
            assert (await web.get("/", headers=right)).status_code == 200
            assert (await web.get("/enqueue", headers=right)).status_code == 403
            assert (
                await web.post("/queue-pause", headers={**right, "origin": "https://evil.example"})
            ).status_code == 403


async def test_a_login_that_returns_none_counts_as_an_attempt(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled, failed_logins="2/h"), user="") as web:
        statuses = [(await web.get("/")).status_code for _ in range(4)]

    assert statuses == [403, 403, 429, 429]


async def test_a_wrong_key_counts_with_every_authentication_scheme(filled: TaskQ) -> None:
    """A 401 with a scheme that browsers do not prompt for counts as a wrong guess."""

    def refuse() -> None:
        raise HTTPException(401, "no", headers={"WWW-Authenticate": "ApiKey"})

    app = taskq_dashboard(filled, dependencies=[Depends(refuse)], failed_logins="2/h")
    async with looking(app) as web:
        statuses = [(await web.get("/", headers={"X-API-Key": f"guess-{number}"})).status_code for number in range(3)]

    assert statuses == [401, 401, 429]


# --- the JSON API -----------------------------------------------------------------------------------------------------


def key(request: Request) -> None:
    """A dependency of tests: a header holds a key."""
    if request.headers.get("x-key") != "right":
        raise HTTPException(int(request.headers.get("x-status", "401")), "no")


def api_of(taskq: TaskQ, **options: Any) -> AsyncClient:
    app = FastAPI()
    app.include_router(taskq_router(taskq, **{"dependencies": [Depends(key)], **options}))
    return AsyncClient(transport=ASGITransport(app), base_url="http://test", headers={"x-key": "right"})


@rows("status", ["401", "403"])
async def test_wrong_keys_are_throttled(filled: TaskQ, status: str) -> None:
    async with api_of(filled, failed_logins="2/h") as web:
        responses = [await web.get("/queues", headers={"x-key": f"{n}", "x-status": status}) for n in range(3)]
        right = await web.get("/queues")

    assert [each.status_code for each in responses] == [int(status), int(status), 429]
    assert right.status_code == 429
    assert right.headers["content-type"] == "application/problem+json"
    assert right.headers["retry-after"].isdigit()
    assert right.json()["type"] == "urn:taskq:problem:too-many-requests"


async def test_a_custom_error_of_the_app_counts(filled: TaskQ) -> None:
    class UnknownError(Exception):
        pass

    def refuse() -> None:
        raise UnknownError

    async def answer_error(request: Request, error: Exception) -> Any:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("who?", 401)

    app = FastAPI()
    app.add_exception_handler(UnknownError, answer_error)
    app.include_router(taskq_router(filled, dependencies=[Depends(refuse)], failed_logins="1/h"))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as web:
        statuses = [(await web.get("/queues")).status_code for _ in range(2)]

    assert statuses == [401, 429]


async def test_refusals_for_lack_of_permission_are_not_throttled(filled: TaskQ) -> None:
    async with api_of(filled, read_only=True, failed_logins="1/h") as web:
        for _ in range(3):
            assert (await web.patch("/queues/default", json={"paused": True})).status_code == 403
            assert (await web.get("/tasks/search?queue=default&state=pending&payload=x")).status_code == 403
            evil = {"origin": "https://evil.example", "x-key": "wrong"}
            assert (await web.patch("/queues/default", json={"paused": True}, headers=evil)).status_code == 403
        assert (await web.get("/queues")).status_code == 200


async def test_without_a_limit_requests_are_not_throttled(filled: TaskQ) -> None:
    async with api_of(filled, failed_logins=None) as web:
        assert {(await web.get("/queues", headers={"x-key": "w"})).status_code for _ in range(15)} == {401}
