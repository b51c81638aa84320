"""Test how long a call waits for room in a full queue. test_back_pressure.py tests the wait itself."""

from types import SimpleNamespace

import pytest

from taskq_core import TaskQ
from taskq_core.client import sender
from taskq_core.client.circuit import Circuit
from taskq_core.client.sender import FIRST_PAUSE_S, LAST_PAUSE_S, Sender, Wait
from taskq_core.settings import CircuitSettings, QueueLimit, WhenFull


class Time:
    """Monotonic time that advances only during a pause."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        patch.setattr(sender, "time", SimpleNamespace(monotonic=lambda: self.now))

    def pauses(self, wait: Wait) -> list[float]:
        """Make all pauses of a wait and return them."""
        made = []
        while (pause_s := wait.pause_s()) is not None:
            made.append(pause_s)
            self.now += pause_s
        return made


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def waiting(longest_s: float, *, jitter: float = 1.0) -> Wait:
    return Wait(longest_s, jitter=lambda: jitter)


def sender_with(limits: dict[str, QueueLimit]) -> Sender:
    preparer = TaskQ().runtime.preparer
    return Sender(preparer, Circuit(CircuitSettings(), address="redis"), limits, timeout_s=2.0)


def test_pauses_double_up_to_a_maximum_and_sum_up_to_the_timeout(time: Time) -> None:
    pauses = time.pauses(waiting(3.0))

    assert pauses[:6] == [FIRST_PAUSE_S * 2**n for n in range(5)] + [LAST_PAUSE_S]
    assert sum(pauses) == pytest.approx(3.0)


def test_pauses_are_random(time: Time) -> None:
    """Waiting callers do not all retry at the same time. The randomness only shortens a pause."""
    half = time.pauses(waiting(0.03, jitter=0.5))

    assert half[0] == FIRST_PAUSE_S / 2
    assert {Wait(1.0).pause_s() for _ in range(20)} != {FIRST_PAUSE_S}
    assert all(FIRST_PAUSE_S / 2 <= (Wait(1.0).pause_s() or 0) <= FIRST_PAUSE_S for _ in range(100))


def test_the_timeout_starts_with_the_first_refusal(time: Time) -> None:
    wait = waiting(1.0)
    time.now += 50

    assert wait.pause_s() is not None


def test_each_batch_gets_a_full_timeout_until_one_batch_times_out(time: Time) -> None:
    wait = waiting(1.0)
    wait.pause_s()
    time.now += 0.9

    wait.renew()
    assert len(time.pauses(wait)) > 1

    assert wait.is_over
    wait.renew()
    assert wait.pause_s() is None


def test_an_enqueue_does_not_wait_without_a_limit_or_with_reject() -> None:
    admission = sender_with({"rejects": QueueLimit(max_pending=5)})

    assert (admission.max_pending("rejects"), admission.max_pending("other")) == (5, None)
    assert admission.wait("rejects").pause_s() is None
    assert admission.wait("other").pause_s() is None


def test_block_timeout_defaults_to_the_enqueue_timeout() -> None:
    limits = {
        "own": QueueLimit(max_pending=5, when_full=WhenFull.BLOCK, block_timeout=9),
        "usual": QueueLimit(max_pending=5, when_full=WhenFull.BLOCK),
    }
    admission = sender_with(limits)

    assert admission.wait("own")._longest_s == 9.0
    assert admission.wait("usual")._longest_s == 2.0
    assert admission.wait("own", most_s=2.0)._longest_s == 2.0
    assert admission.wait("own", most_s=0.0).pause_s() is None
