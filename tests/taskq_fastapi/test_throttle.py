"""How often one address may ask: of the dashboard and of the JSON API."""

import base64
import logging
from contextlib import suppress
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from httpx import ASGITransport, AsyncClient
from starlette.datastructures import Headers

from taskq_core import ConfigurationError, TaskQ
from taskq_fastapi import RateLimits, taskq_router, throttle
from taskq_fastapi.dashboard import User, basic_login, taskq_dashboard
from taskq_fastapi.dashboard.registry import ACTIONS, PAGES
from taskq_fastapi.throttle import Buckets, Throttle, TooManyError
from tests.rows import rows
from tests.taskq_fastapi.dashboards import act, dashboard_of, looking

pytestmark = pytest.mark.redis


class Clock:
    """Monotonic seconds that a test says."""

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


class TestBuckets:
    def test_so_many_at_once_and_then_evenly(self, clock: Clock) -> None:
        buckets = Buckets("3/m", clock)
        for _ in range(3):
            assert buckets.wait_s("a") == 0
            buckets.spend("a")

        assert buckets.wait_s("a") == 20
        assert buckets.wait_s("b") == 0
        clock.now_s += 20
        assert buckets.wait_s("a") == 0
        buckets.spend("a")
        assert buckets.wait_s("a") == 20

    def test_what_is_spent_beyond_is_worked_off_and_has_a_bound(self, clock: Clock) -> None:
        buckets = Buckets("1/s", clock)
        for _ in range(1000):
            buckets.spend("a")

        assert buckets.wait_s("a") == throttle.DEBT_PERIODS
        clock.now_s += throttle.DEBT_PERIODS
        assert buckets.wait_s("a") == 0

    @rows(("rate", "most_s"), [("1/m", 3600), ("2/h", 1800), ("1/d", 86_400)])
    def test_nobody_waits_for_longer_than_an_hour_or_the_period(self, clock: Clock, rate: str, most_s: float) -> None:
        buckets = Buckets(rate, clock)
        for _ in range(1000):
            buckets.spend("a")

        assert buckets.wait_s("a") == most_s

    def test_without_a_rate_there_is_no_end(self, clock: Clock) -> None:
        buckets = Buckets(None, clock)
        for _ in range(10_000):
            buckets.spend("a")

        assert buckets.wait_s("a") == 0
        assert len(buckets) == 0

    def test_any_number_of_addresses_takes_bounded_memory(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients beyond the limit share one count. Counted clients stay counted, and expired clients make room."""
        monkeypatch.setattr(throttle, "ADDRESSES_MAX", 100)
        buckets = Buckets("2/m", clock)
        for number in range(100):
            buckets.spend(f"first-{number}")
        buckets.spend("first-0")
        for number in range(5000):
            buckets.spend(f"flood-{number}")

        assert len(buckets) == 101
        assert buckets.wait_s("first-0") == 30
        assert buckets.wait_s("first-1") == 0
        assert buckets.wait_s("late") == 30, "for the next token, and not for all that the flood has spent"
        clock.now_s += 61
        buckets.spend("late")
        assert buckets.wait_s("other") == 0
        assert len(buckets) == 1


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
def test_a_request_counts_for_the_address_that_the_server_names(client: str | None, address: str) -> None:
    assert Throttle(RateLimits()).enter(asked_by(client)).address == address


@rows(
    ("options", "said"),
    [
        ({"refused": "ten"}, "rate_limits: refused must be a number and a period as '100/m' or '5/10s', got 'ten'"),
        ({"costly": 5}, "rate_limits: costly must be a number and a period"),
        ({"requests": "0/m"}, "rate_limits: requests must be at least 1"),
    ],
)
def test_what_is_not_usable_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RateLimits(**options)

    assert said in str(refused.value)


@rows("make", [taskq_dashboard, taskq_router])
def test_something_else_is_refused(taskq: TaskQ, make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"rate_limits must be RateLimits\(\.\.\.\) or None, got str"):
        make(taskq, allow_anonymous=True, rate_limits="10/m")


def test_the_log_tells_of_an_address_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    counted = Throttle(RateLimits(requests="1/h"), clock)
    counted.enter(asked_by("192.0.2.1"))
    for _ in range(100):
        with pytest.raises(TooManyError):
            counted.enter(asked_by("192.0.2.1"))
    clock.now_s += 61
    with pytest.raises(TooManyError):
        counted.enter(asked_by("192.0.2.1"))

    said = [record.getMessage() for record in caplog.records if record.name == "taskq.audit"]
    assert said == ["requests from '192.0.2.1' are answered 429: too many requests"] * 2


# --- the dashboard ----------------------------------------------------------------------------------------------------


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def test_guesses_of_a_password_are_slowed_down(filled: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    """After several wrong passwords, passwords are no longer checked, not even the correct one."""
    asked: list[str] = []

    def check(name: str, password: str) -> User | None:
        asked.append(password)
        return User(name) if password == "secret" else None

    app = taskq_dashboard(filled, login=basic_login(check), rate_limits=RateLimits(refused="3/m"))
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


async def test_who_is_let_in_and_who_is_only_asked_is_not_slowed_down(filled: TaskQ) -> None:
    """A browser that comes without a password is asked for one, and people are refused what they may not do."""
    login = basic_login(lambda name, password: User(name) if password == "secret" else None)
    app = taskq_dashboard(filled, login=login, rate_limits=RateLimits(refused="1/h"))
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


async def test_a_login_that_returns_nobody_counts(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled, rate_limits=RateLimits(refused="2/h")), user="") as web:
        said = [(await web.get("/")).status_code for _ in range(4)]

    assert said == [403, 403, 429, 429]


async def test_a_wrong_key_counts_whatever_the_answer_asks_for(filled: TaskQ) -> None:
    """A 401 with a scheme that browsers do not prompt for counts as a wrong guess."""

    def refuse() -> None:
        raise HTTPException(401, "no", headers={"WWW-Authenticate": "ApiKey"})

    app = taskq_dashboard(filled, dependencies=[Depends(refuse)], rate_limits=RateLimits(refused="2/h"))
    async with looking(app) as web:
        said = [(await web.get("/", headers={"X-API-Key": f"guess-{number}"})).status_code for number in range(3)]

    assert said == [401, 401, 429]


async def test_dependencies_that_refuse_count(filled: TaskQ) -> None:
    def refuse() -> None:
        raise HTTPException(401, "no")

    app = taskq_dashboard(filled, dependencies=[Depends(refuse)], rate_limits=RateLimits(refused="2/h"))
    async with looking(app) as web:
        said = [(await web.get("/")).status_code for _ in range(3)]

    assert said == [401, 401, 429]


COSTLY_PAGES = [page for page in PAGES.values() if page.is_costly]
COSTLY_ACTIONS = [action for action in ACTIONS.values() if action.is_costly]


def test_what_is_costly() -> None:
    assert [page.path for page in COSTLY_PAGES] == ["tasks", "failed", "metrics"]
    assert [action.path for action in COSTLY_ACTIONS] == ["queue-delete", "tasks-act-all"]


@rows("page", COSTLY_PAGES, ids=lambda page: page.path)
async def test_a_costly_page_is_shown_so_often(filled: TaskQ, page: Any) -> None:
    async with looking(dashboard_of(filled, rate_limits=RateLimits(costly="2/h"))) as web:
        said = [(await web.get(f"/{page.path}")) for _ in range(3)]
        assert [each.status_code for each in said] == [200, 200, 429]
        assert (await web.get("/")).status_code == 200

    assert said[-1].headers["retry-after"].isdigit()
    assert said[-1].headers["content-type"].startswith("text/html")
    assert "too many costly requests: try again in" in said[-1].text


@rows("action", COSTLY_ACTIONS, ids=lambda action: action.path)
async def test_a_costly_action_is_taken_so_often(filled: TaskQ, action: Any) -> None:
    async with looking(dashboard_of(filled, rate_limits=RateLimits(costly="1/h"))) as web:
        first = await act(web, f"/{action.path}", queue="none", do="run")
        second = await act(web, f"/{action.path}", queue="none", do="run")

    assert first.status_code != 429
    assert second.status_code == 429


async def test_all_requests_of_an_address_count_together(filled: TaskQ) -> None:
    async with looking(dashboard_of(filled, rate_limits=RateLimits(requests="3/h"))) as web:
        said = [(await web.get(path)).status_code for path in ("/", "/nowhere", "/static/none", "/settings")]

    assert said == [200, 404, 404, 429]


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
async def test_keys_that_are_wrong_are_slowed_down(filled: TaskQ, status: str) -> None:
    async with api_of(filled, rate_limits=RateLimits(refused="2/h")) as web:
        said = [await web.get("/queues", headers={"x-key": f"{n}", "x-status": status}) for n in range(3)]
        right = await web.get("/queues")

    assert [each.status_code for each in said] == [int(status), int(status), 429]
    assert right.status_code == 429
    assert right.headers["content-type"] == "application/problem+json"
    assert right.headers["retry-after"].isdigit()
    assert right.json()["type"] == "urn:taskq:problem:too-many-requests"


async def test_an_error_of_the_apps_own_counts_too(filled: TaskQ) -> None:
    class UnknownError(Exception):
        pass

    def refuse() -> None:
        raise UnknownError

    async def said(request: Request, error: Exception) -> Any:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("who?", 401)

    app = FastAPI()
    app.add_exception_handler(UnknownError, said)
    app.include_router(taskq_router(filled, dependencies=[Depends(refuse)], rate_limits=RateLimits(refused="1/h")))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as web:
        statuses = [(await web.get("/queues")).status_code for _ in range(2)]

    assert statuses == [401, 429]


async def test_who_is_let_in_is_not_slowed_down_by_what_they_may_not_do(filled: TaskQ) -> None:
    async with api_of(filled, read_only=True, rate_limits=RateLimits(refused="1/h")) as web:
        for _ in range(3):
            assert (await web.patch("/queues/default", json={"paused": True})).status_code == 403
            assert (await web.get("/tasks/find?queue=default&state=pending&payload=x")).status_code == 403
            evil = {"origin": "https://evil.example", "x-key": "wrong"}
            assert (await web.patch("/queues/default", json={"paused": True}, headers=evil)).status_code == 403
        assert (await web.get("/queues")).status_code == 200


async def test_costly_routes_and_all_requests_are_counted(filled: TaskQ) -> None:
    async with api_of(filled, rate_limits=RateLimits(costly="1/h", requests="4/h")) as web:
        said = [
            (await web.get(path)).status_code
            for path in (
                "/tasks/search?text=x",
                "/tasks/find?queue=default&state=pending",
                "/queues",
                "/queues",
                "/queues",
            )
        ]

    assert said == [200, 429, 200, 200, 429]


async def test_what_costs_much_is_not_spent_by_those_who_are_not_let_in(filled: TaskQ) -> None:
    async with api_of(filled, rate_limits=RateLimits(costly="1/h")) as web:
        assert (await web.get("/tasks/search?text=x", headers={"x-key": "wrong"})).status_code == 401
        assert (await web.get("/tasks/search?text=x")).status_code == 200


async def test_without_limits_anybody_asks_as_often_as_they_like(filled: TaskQ) -> None:
    async with api_of(filled, rate_limits=None) as web:
        assert {(await web.get("/queues", headers={"x-key": "w"})).status_code for _ in range(15)} == {401}


def test_the_log_holds_addresses_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counted = Throttle(RateLimits(requests="1/h"))
    for _ in range(2):
        with suppress(TooManyError):
            counted.enter(asked_by("a\nb"))

    assert "requests from 'a\\nb' are answered" in caplog.text
