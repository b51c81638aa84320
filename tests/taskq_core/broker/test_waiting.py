"""Test the wait for Redis at the start of a process: its log lines, and how it ends."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from taskq_core.broker.waiting import RedisWait
from taskq_core.errors import BrokerAuthenticationError, BrokerError, BrokerUnavailableError
from taskq_core.service.outage import ADDRESS_HINT
from tests.clock import Clock
from tests.taskq_core.worker.conftest import until

REFUSED = BrokerUnavailableError.unchanged("cannot reach redis://h/0: connection refused")
LOADING = BrokerUnavailableError.unchanged("redis://h/0 refused for now: loading")


class FakeRunner:
    """Raises the given errors one after the other, then answers. With `is_endless`, it always raises the first one."""

    def __init__(self, *errors: BrokerError, is_endless: bool = False) -> None:
        self.errors, self.is_endless = list(errors), is_endless
        self.endpoint = self

    async def aopen(self) -> None: ...

    async def run(self, operation: Any) -> None:
        if self.errors:
            raise self.errors[0] if self.is_endless else self.errors.pop(0)


def waiting(runner: FakeRunner, stopping: asyncio.Event | None = None, *, is_enabled: bool = True) -> RedisWait:
    return RedisWait(runner, "worker", stopping or asyncio.Event(), is_enabled=is_enabled)  # type: ignore[arg-type]


def lines(records: Sequence[logging.LogRecord]) -> list[tuple[str, str]]:
    return [(each.levelname, each.getMessage()) for each in records if each.name == "taskq.worker"]


async def test_a_wait_is_logged_once_at_its_begin_and_once_at_its_end(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    caplog.set_level(logging.INFO)
    wait = waiting(FakeRunner(*[REFUSED] * 9, LOADING, LOADING))
    running = asyncio.create_task(wait.run())
    await until(lambda: wait.reason)

    assert wait.reason == f"Redis is unavailable: {REFUSED}"
    await clock.advance(60)

    assert await running
    assert wait.reason == ""
    (begin, end) = lines(caplog.records)
    assert begin == ("ERROR", f"the worker waits for Redis: {REFUSED}; {ADDRESS_HINT}")
    assert end[0] == "INFO"
    assert end[1].startswith("Redis answers after ")


async def test_a_redis_that_answers_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    assert await waiting(FakeRunner()).run()

    assert not lines(caplog.records)


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_stop_ends_the_wait_at_once(has_begun: bool) -> None:
    stopping = asyncio.Event()
    wait = waiting(FakeRunner(REFUSED, is_endless=True), stopping)
    running = asyncio.create_task(wait.run())
    await until(lambda: wait.reason or not has_begun)

    stopping.set()

    assert not await running


async def test_a_stop_ends_a_request_without_an_answer() -> None:
    class SilentRunner(FakeRunner):
        async def run(self, operation: Any) -> None:
            asked.set()
            await asyncio.Event().wait()

    stopping, asked = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(waiting(SilentRunner(), stopping).run())
    await asked.wait()

    stopping.set()

    assert not await running


async def test_an_error_that_time_does_not_resolve_ends_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    """It ends also a wait that has begun."""
    untrusted = BrokerUnavailableError.unchanged("untrusted certificate", is_permanent=True)
    for error in (untrusted, BrokerAuthenticationError("wrong password")):
        with pytest.raises(type(error)) as raised:
            await waiting(FakeRunner(REFUSED, error)).run()
        assert raised.value is error


async def test_without_waiting_the_first_error_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(BrokerUnavailableError):
        await waiting(FakeRunner(REFUSED), is_enabled=False).run()

    assert not lines(caplog.records)
