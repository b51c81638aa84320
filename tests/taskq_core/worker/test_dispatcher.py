"""Test how often a worker checks for messages between workflow queues."""

import asyncio
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations.dispatch import DueSteps
from taskq_core.worker import dispatcher
from taskq_core.worker.dispatcher import Dispatcher
from tests.taskq_core.worker.conftest import context_of, until


class Answers:
    """Returns the prepared replies in turn."""

    def __init__(self, *answers: DueSteps) -> None:
        self.answers = list(answers)

    async def run(self, operation: Any) -> DueSteps:
        assert operation.name == "read_due"
        return self.answers.pop(0)


class Quiet:
    """A leadership that has seen nothing to carry."""

    has_checked = True

    def has(self, topic: Any) -> bool:
        return False

    def signal(self, signal: Any) -> None:
        """Never."""


@pytest.mark.parametrize(("leads", "rest_s"), [(True, 0.5), (False, 2.0)])
async def test_a_dispatcher_that_does_not_lead_only_checks_the_lease(
    app: TaskQ, leads: bool, rest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(dispatcher, "jittered", lambda seconds: rests.append(seconds) or 0.0)
    leadership: Any = Quiet()
    leadership.has_checked = False

    await Dispatcher(context_of(app, Answers(DueSteps(leads)), leader_lease=6), {"default": leadership}).work()

    assert rests == [rest_s]


async def test_a_dispatcher_reads_the_queue_again_after_a_concurrent_notification(app: TaskQ) -> None:
    """A step that ends after the queue was read has written what was not read."""
    looks: list[bool] = []

    class Runner:
        async def run(self, operation: Any) -> DueSteps:
            if not looks:
                called.call("default")
            looks.append(not called.is_idle)
            return DueSteps(True)

    leaderships: Any = {"default": Quiet()}
    called = Dispatcher(context_of(app, Runner(), leader_lease=6), leaderships)
    called.call("default")
    working = asyncio.create_task(called.work())

    await until(lambda: len(looks) == 2, "the second look")
    await until(lambda: called.is_idle, "all is carried")
    working.cancel()
    assert looks == [True, True]
