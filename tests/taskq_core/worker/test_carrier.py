"""How often a worker looks for what workflows have to carry."""

from typing import Any

import pytest

from taskq_core.broker.operations import ToCarry
from taskq_core.wire import Keys
from taskq_core.worker import carrier
from taskq_core.worker.carrier import Carrier


class Answers:
    """Answers each look in turn."""

    def __init__(self, *answers: ToCarry) -> None:
        self.answers = list(answers)

    async def run(self, operation: Any) -> ToCarry:
        assert operation.name == "read_due"
        return self.answers.pop(0)


@pytest.mark.parametrize(("leads", "rest_s"), [(True, 0.5), (False, 2.0)])
async def test_who_does_not_lead_looks_only_for_the_lease(
    leads: bool, rest_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(carrier, "jittered", lambda seconds: rests.append(seconds) or 0.0)
    keys = Keys()
    answers: Any = Answers(ToCarry(leads))

    await Carrier(keys, [keys.queue("default")], answers, owner="w", every_s=0.5, leader_s=6.0).work()

    assert rests == [rest_s]
