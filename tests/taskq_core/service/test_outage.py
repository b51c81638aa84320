"""Test that an outage of Redis is logged once, and its end."""

import logging

import pytest

from taskq_core.errors import BrokerReplyError, BrokerUnavailableError
from taskq_core.service.outage import Outage

LOST = BrokerUnavailableError("no answer from redis://h/0: timeout")


class Hand:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    monotonic = time

    def wait(self, event: object, timeout_s: float) -> bool:
        raise NotImplementedError


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def outage(clock: Hand, caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage(clock)


def test_an_outage_has_one_line_for_all_parts_and_one_when_it_ends(
    outage: Outage, clock: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("leadership", "waker", "sampler"):
        outage.report(part, LOST)
    clock.now += 9
    outage.report("leadership", LOST, 5)
    clock.now += 2
    outage.answered()
    outage.answered()

    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("ERROR", "Redis is unavailable: no answer from redis://h/0: timeout; trying again"),
        ("INFO", "Redis answers again, after an outage of 11.0 s"),
    ]


def test_a_long_outage_is_logged_once_a_minute(outage: Outage, clock: Hand, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(150):
        outage.report("leadership", LOST)
        clock.now += 1

    assert len(caplog.records) == 3


def test_a_part_that_keeps_failing_while_others_get_answers_is_one_outage(
    outage: Outage, clock: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        outage.report("leadership", LOST)
        clock.now += 0.5
        outage.answered()
    assert len(caplog.records) == 1

    clock.now += 1
    outage.answered()

    assert caplog.messages[1:] == ["Redis answers again, after an outage of 15.0 s"]


def test_an_answer_without_an_outage_is_not_logged(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.answered()

    assert not caplog.records


def test_other_errors_are_logged_for_each_part(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    outage.report("leadership", LOST)
    for failures in range(1, 12):
        outage.report("sampler", BrokerReplyError("WRONGTYPE"), failures)

    assert caplog.messages[1:] == ["sampler: WRONGTYPE; trying again"] * 2
