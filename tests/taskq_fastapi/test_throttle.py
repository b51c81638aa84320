"""Test the limit of refused logins of one address."""

import asyncio
from typing import Any

import pytest
from fastapi import Request
from starlette.datastructures import Headers

from taskq_core import ConfigurationError, TaskQ
from taskq_fastapi import taskq_router, throttle
from taskq_fastapi.throttle import LoginLimiter, TooManyError, address_of, end_attempt, let_in
from tests.rows import rows

pytestmark = pytest.mark.redis


class Clock:
    """A monotonic clock that a test sets."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


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


@rows(
    ("rate", "expected"),
    [
        ("ten", "failed_logins must be a number and a period such as '100/m' or '5/10s', got 'ten'"),
        (5, "failed_logins must be a number and a period"),
        ("0/m", "failed_logins must be at least 1"),
    ],
)
def test_an_invalid_rate_is_refused(taskq: TaskQ, rate: Any, expected: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        taskq_router(taskq, allow_anonymous=True, failed_logins=rate)

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
