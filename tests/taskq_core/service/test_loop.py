"""A service goes on, whatever one pass of it meets."""

import asyncio
import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core.errors import BrokerUnavailableError, ConfigurationError
from taskq_core.service import loop as service
from taskq_core.service.loop import serve
from taskq_core.service.outage import Outage
from tests.clock import Clock
from tests.logged import logged_here


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LONGEST_PAUSE_S", 0.0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("broken"), "watcher failed; trying again"),
        (BrokerUnavailableError("no answer"), "Redis is unavailable: no answer; trying again"),
        (asyncio.CancelledError(), "watcher failed; trying again"),  # of something it waited for
    ],
)
async def test_the_loop_continues_after_an_exception(
    error: BaseException, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    passes = 0
    went_on = asyncio.Event()

    async def work() -> float:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise error
        went_on.set()
        return 0.0

    running = asyncio.create_task(serve("watcher", work, outage=Outage()))
    await asyncio.wait((running, asyncio.create_task(went_on.wait())), return_when=asyncio.FIRST_COMPLETED, timeout=60)

    assert went_on.is_set()
    assert told in caplog.text
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_fault_that_a_person_must_correct_is_logged_in_one_line_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    passes = 0
    over = asyncio.Event()
    clock: Any = SimpleNamespace(monotonic=lambda: passes * 7.0)

    async def work() -> float:
        nonlocal passes
        passes += 1
        if passes > 20:
            over.set()
            return 60.0
        raise ConfigurationError("the table is missing; run migrate")

    running = asyncio.create_task(serve("relay", work, outage=Outage(clock)))
    await asyncio.wait_for(over.wait(), 60)
    running.cancel()

    assert caplog.messages == ["relay does not work: the table is missing; run migrate"] * 3
    assert not any(each.exc_info for each in caplog.records)


async def test_the_loop_ends_when_it_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    began = asyncio.Event()

    async def work() -> float:
        began.set()
        await asyncio.Event().wait()
        return 0.0

    running = asyncio.create_task(serve("watcher", work, outage=Outage()))
    await began.wait()
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert logged_here(caplog) == []


async def test_the_loop_ends_on_request_even_if_the_cancellation_was_swallowed() -> None:
    waiting = asyncio.Event()

    async def work() -> float:
        waiting.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 0.0

    running = asyncio.create_task(serve("watcher", work, outage=Outage()))
    await waiting.wait()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)


async def test_the_loop_continues_if_a_failure_cannot_be_logged_for_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    went_on = asyncio.Event()
    passes = 0

    def no_memory(*words: object) -> None:
        raise MemoryError

    async def work() -> float:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise ValueError
        went_on.set()
        return 3600.0

    monkeypatch.setattr(service.logger, "exception", no_memory)
    running = asyncio.create_task(serve("watcher", work, outage=Outage()))

    await clock.advance(2)

    assert went_on.is_set()
    running.cancel()
