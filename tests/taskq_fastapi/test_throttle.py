"""Test the limit of refused logins of one address, in the dashboard and the JSON API."""

import asyncio
import base64
from collections import Counter
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from httpx import ASGITransport, AsyncClient
from starlette.datastructures import Headers

from taskq_core import ConfigurationError, TaskQ
from taskq_fastapi import taskq_router, throttle
from taskq_fastapi.dashboard import User, basic_login, taskq_dashboard
from taskq_fastapi.throttle import LoginLimiter, TooManyError, address_of, end_attempt, let_in
from tests.rows import rows
from tests.taskq_fastapi.dashboards import dashboard_of, looking

pytestmark = pytest.mark.redis


class Clock:
    """A monotonic clock that a test sets."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def filled(taskq: TaskQ) -> TaskQ:
    taskq.remote("note").delay(word="w")
    return taskq


# --- the counts -------------------------------------------------------------------------------------------------------


class TestCounts:
    def test_a_burst_is_permitted_and_then_an_even_rate(self, clock: Clock) -> None:
        limiter = LoginLimiter("3/m", clock)
        for _ in range(3):
            assert limiter.wait_s("a") == 0
            limiter.count("a")

        assert limiter.wait_s("a") == 20
        assert limiter.wait_s("b") == 0
        clock.now_s += 20
        assert limiter.wait_s("a") == 0
        limiter.count("a")
        assert limiter.wait_s("a") == 20

    @rows(("rate", "each_s"), [("1/s", 1), ("7/m", 60 / 7), ("2/h", 1800), ("1/d", 86_400)])
    def test_all_attempts_of_a_rate_are_permitted(self, clock: Clock, rate: str, each_s: float) -> None:
        limiter = LoginLimiter(rate, clock)
        for _ in range(int(rate.partition("/")[0])):
            assert limiter.wait_s("a") == 0
            limiter.count("a")

        assert limiter.wait_s("a") == pytest.approx(each_s)

    def test_without_a_rate_attempts_are_unlimited(self, clock: Clock) -> None:
        limiter = LoginLimiter(None, clock)
        for _ in range(10_000):
            limiter.count("a")

        assert limiter.wait_s("a") == 0
        assert len(limiter._full_at) == 0

    def test_the_memory_for_addresses_is_bounded(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients beyond the limit share one count. Counted clients stay counted, and expired clients make room."""
        monkeypatch.setattr(throttle, "ADDRESSES_MAX", 100)
        limiter = LoginLimiter("2/m", clock)
        for number in range(100):
            limiter.count(f"first-{number}")
        limiter.count("first-0")
        for number in range(5000):
            limiter.count(f"flood-{number}")

        assert len(limiter._full_at) == 101
        assert limiter.wait_s("first-0") == 30
        assert limiter.wait_s("first-1") == 0
        assert limiter.wait_s("late") == 30, "for the next token, and not for all that the flood has spent"
        clock.now_s += 61
        limiter.count("late")
        assert limiter.wait_s("other") == 0
        assert len(limiter._full_at) == 1


# --- whose request it is ----------------------------------------------------------------------------------------------


def asked_by(client: str | None) -> Any:
    forwarded = Headers({"x-forwarded-for": "198.51.100.7"}).raw
    return Request({"type": "http", "client": (client, 1) if client else None, "headers": forwarded})


@rows(
    ("client", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        (None, "unknown"),
    ],
)
def test_an_attempt_counts_for_the_client_address_of_the_server(client: str | None, address: str) -> None:
    assert address_of(asked_by(client)) == address


@rows("make", [taskq_dashboard, taskq_router])
@rows(
    ("rate", "expected"),
    [
        ("ten", "failed_logins must be a number and a period such as '100/m' or '5/10s', got 'ten'"),
        (5, "failed_logins must be a number and a period"),
        ("0/m", "failed_logins must be at least 1"),
    ],
)
def test_an_invalid_rate_is_refused(taskq: TaskQ, make: Any, rate: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make(taskq, allow_anonymous=True, failed_logins=rate)

    assert expected in str(refused.value)


async def test_an_address_is_logged_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    limiter = LoginLimiter("1/h", clock)
    limiter.refuse(asked_by("a\nb"), 403)
    for _ in range(100):
        with pytest.raises(TooManyError):
            await limiter.admit(asked_by("a\nb"))
    clock.now_s += 61
    with pytest.raises(TooManyError):
        await limiter.admit(asked_by("a\nb"))

    messages = [record.getMessage() for record in caplog.records if record.name == "taskq.audit"]
    assert messages == ["requests from 'a\\nb' are answered 429: too many refused logins"] * 2


# --- requests at the same time ----------------------------------------------------------------------------------------


class TestRequestsAtTheSameTime:
    async def test_a_request_waits_while_others_have_reserved_all_attempts(self, clock: Clock) -> None:
        limiter = LoginLimiter("2/m", clock)
        first, second, third, fourth = (asked_by("a") for _ in range(4))
        await limiter.admit(first)
        await limiter.admit(second)
        waiting = [asyncio.create_task(limiter.admit(each)) for each in (third, fourth)]
        await limiter.admit(asked_by("b"))
        await asyncio.sleep(0)
        assert not waiting[0].done()

        let_in(first)
        await waiting[0]
        assert not waiting[1].done()
        for each in (second, third):
            limiter.refuse(each, 401)
            end_attempt(each)

        with pytest.raises(TooManyError):
            await waiting[1]

    async def test_a_cancelled_request_passes_its_turn_on(self, clock: Clock) -> None:
        limiter = LoginLimiter("1/m", clock)
        first = asked_by("a")
        await limiter.admit(first)
        second, third = (asyncio.create_task(limiter.admit(asked_by("a"))) for _ in range(2))
        await asyncio.sleep(0)

        end_attempt(first)
        second.cancel()

        await third
        assert second.cancelled()

    async def test_an_address_without_requests_takes_up_no_memory(self, clock: Clock) -> None:
        limiter = LoginLimiter("1/m", clock)
        request = asked_by("a")
        await limiter.admit(request)
        assert len(limiter._attempts) == 1

        let_in(request)

        assert len(limiter._attempts) == 0


# --- the dashboard ----------------------------------------------------------------------------------------------------


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


async def test_refusals_of_dependencies_count(filled: TaskQ) -> None:
    def refuse() -> None:
        raise HTTPException(401, "no")

    app = taskq_dashboard(filled, dependencies=[Depends(refuse)], failed_logins="2/h")
    async with looking(app) as web:
        statuses = [(await web.get("/")).status_code for _ in range(3)]

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


async def test_wrong_keys_that_are_sent_at_the_same_time_are_throttled(filled: TaskQ) -> None:
    asked: list[str] = []

    async def slow_key(request: Request) -> None:
        asked.append(request.headers["x-key"])
        await asyncio.sleep(0)  # the other requests arrive
        key(request)

    async with api_of(filled, dependencies=[Depends(slow_key)], failed_logins="3/h") as web:
        guesses = [web.get("/queues", headers={"x-key": f"{number}"}) for number in range(30)]
        statuses = Counter(answer.status_code for answer in await asyncio.gather(*guesses))

    assert (statuses, len(asked)) == ({401: 3, 429: 27}, 3)


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
