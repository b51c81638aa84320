"""Test the limit of refused logins of one address, in the dashboard and the JSON API."""

import base64
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from httpx import ASGITransport, AsyncClient
from starlette.datastructures import Headers

from taskq_core import ConfigurationError, TaskQ
from taskq_fastapi import taskq_router, throttle
from taskq_fastapi.dashboard import User, basic_login, taskq_dashboard
from taskq_fastapi.throttle import LoginLimiter, TooManyError, address_of
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

    def test_attempts_over_the_rate_are_paid_back_and_bounded(self, clock: Clock) -> None:
        limiter = LoginLimiter("1/s", clock)
        for _ in range(1000):
            limiter.count("a")

        assert limiter.wait_s("a") == throttle.LOCK_PERIODS
        clock.now_s += throttle.LOCK_PERIODS
        assert limiter.wait_s("a") == 0

    @rows(("rate", "most_s"), [("1/m", 3600), ("2/h", 1800), ("1/d", 86_400)])
    def test_the_wait_is_at_most_an_hour_or_the_period(self, clock: Clock, rate: str, most_s: float) -> None:
        limiter = LoginLimiter(rate, clock)
        for _ in range(1000):
            limiter.count("a")

        assert limiter.wait_s("a") == most_s

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


def test_an_address_is_logged_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    limiter = LoginLimiter("1/h", clock)
    limiter.refuse(asked_by("a\nb"), 403)
    for _ in range(100):
        with pytest.raises(TooManyError):
            limiter.check(asked_by("a\nb"))
    clock.now_s += 61
    with pytest.raises(TooManyError):
        limiter.check(asked_by("a\nb"))

    messages = [record.getMessage() for record in caplog.records if record.name == "taskq.audit"]
    assert messages == ["requests from 'a\\nb' are answered 429: too many refused logins"] * 2


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
