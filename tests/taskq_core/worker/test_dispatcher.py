"""How often a worker looks for what workflows have to carry."""

import asyncio
from typing import Any

import pytest

from taskq_core.broker.operations.dispatch import DueSteps
from taskq_core.wire import Keys
from taskq_core.worker import dispatcher
from taskq_core.worker.dispatcher import Dispatcher
from tests.taskq_core.worker.conftest import until


class Answers:
    """Answers each look in turn."""

    def __init__(self, *answers: DueSteps) -> None:
        self.answers = list(answers)

    async def run(self, operation: Any) -> DueSteps:
        assert operation.name == "read_due"
        return self.answers.pop(0)


@pytest.mark.parametrize(("leads", "rest_s"), [(True, 0.5), (False, 2.0)])
async def test_who_does_not_lead_looks_only_for_the_lease(
    leads: bool, rest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(dispatcher, "jittered", lambda seconds: rests.append(seconds) or 0.0)
    keys = Keys()
    answers: Any = Answers(DueSteps(leads))

    await Dispatcher(keys, [keys.queue("default")], answers, owner="w", every_s=0.5, leader_s=6.0).work()

    assert rests == [rest_s]


class Quiet:
    """A leadership that has seen nothing to carry."""

    has_looked = True

    def has(self, topic: Any) -> bool:
        return False

    def wakes(self, event: Any) -> None:
        """Never."""


async def test_what_is_called_for_while_it_is_carried_is_looked_for_again() -> None:
    """A step that ends after the queue was read has written what was not read."""
    looks: list[bool] = []

    class Runner:
        async def run(self, operation: Any) -> DueSteps:
            if not looks:
                called.call("default")
            looks.append(called.is_busy)
            return DueSteps(True)

    runner: Any = Runner()
    leaderships: Any = {"default": Quiet()}
    keys = Keys()
    called = Dispatcher(
        keys, [keys.queue("default")], runner, owner="w", every_s=0.5, leader_s=6.0, leaderships=leaderships
    )
    called.call("default")
    working = asyncio.create_task(called.work())

    await until(lambda: len(looks) == 2, "the second look")
    await until(lambda: not called.is_busy, "all is carried")
    working.cancel()
    assert looks == [True, True]
