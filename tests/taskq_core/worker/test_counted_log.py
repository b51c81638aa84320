"""A flood of events is one line a minute for each queue, and no event is left out of the numbers."""

import asyncio
import logging

import pytest

from taskq_core.worker import counted_log
from taskq_core.worker.counted_log import CountedLog

logger = logging.getLogger("taskq.test")


async def test_events_after_the_first_line_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counted_log, "EVERY_S", 0)  # the minute ends with the next turn of the loop
    log = CountedLog(logger, logging.ERROR, "%d in %s")

    log.add(3, "q")
    log.add(4, "q")
    log.add(5, "q")
    log.add(1, "r")
    assert caplog.messages == ["3 in q", "1 in r"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert caplog.messages == ["3 in q", "1 in r", "9 in q"]

    log.add(6, "q")
    assert caplog.messages[3:] == ["6 in q"]


async def test_flush_logs_the_remaining_count(caplog: pytest.LogCaptureFixture) -> None:
    log = CountedLog(logger, logging.ERROR, "%d in %s")
    log.add(3, "q")
    log.add(4, "q")

    log.flush()
    log.flush()

    assert caplog.messages == ["3 in q", "4 in q"]
