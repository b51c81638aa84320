"""Damage each key of a full queue in each way, one at a time. Two passes must repair it and change nothing else."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from taskq_core.broker.connection import Endpoint
from taskq_core.broker.operations import aggregation, repair
from taskq_core.broker.operations.runs import Outcome
from taskq_core.broker.sync import SyncRunner
from taskq_core.errors import TaskQError
from tests.model.base_machine import STATES
from tests.model.damage import FIELDS, HOW
from tests.model.queue_machine import QueueMachine
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def machine_type(redis_server: RedisServer) -> Iterator[type[QueueMachine]]:
    runner = SyncRunner(Endpoint(redis_server.unix_url, embedded_folder=Path("unused")), timeout_s=30)
    yield QueueMachine.on(runner, redis_server.client)
    runner.close()


def fill(machine: QueueMachine) -> None:
    """Fill the queue, so that it has all keys that a queue can have, except the keys of a removal."""
    keys, queue = machine.keys_and_queue("default")
    machine.enqueue("default", [("retry", "", "", ""), ("old", "", "", "x"), ("kept", "", "", ""), ("run", "", "", "")])
    machine.dequeue("default", 0, 4, was_woken=False)
    ends = [(0, Outcome.RETRY, 10_000), (1, Outcome.ARCHIVE, 1), (2, Outcome.COMPLETE, 9_999)]
    machine.settle("default", 0, ends)
    machine.enqueue(
        "default", [("p", "", "", ""), ("q", "", "", "y"), ("due", "later", "", ""), ("dg", "later", "g", "")]
    )
    machine.enqueue("default", [("g1", "", "g", ""), ("g2", "", "g", ""), ("h1", "", "h", ""), ("h2", "", "h", "")])
    checks = [aggregation.GroupCheck("h", "set", 30, 0)]
    assert machine.send(aggregation.collect_groups(keys, checks, limit=1)) == machine.model.collect_groups(
        queue, checks, 1
    )
    machine.enqueue("default", [("h3", "", "h", ""), ("m1", "", "", ""), ("m2", "", "", "")])
    machine.enqueue("other", [("n", "", "", "")])
    machine.copy_out("default", [machine.pick("default", each) for each in ("m1", "m2")])
    machine.deliver_copies(0, ("other", [machine.pick("other", "n")]))
    machine.forward("default", 0, 100, 0)
    machine.reclaim("default", 0, 0)
    machine.adopt("default", ["e1", "e2"])
    machine.pause_or_resume("default", resumes=False)
    machine.the_store_equals_the_model()


SHORT = ("delete", "retype", "add", "twice")
"""Kinds of damage whose tests take seconds. The tests of the others try every state and field."""


@pytest.mark.parametrize(
    "how", [each if each in SHORT else pytest.param(each, marks=pytest.mark.nightly) for each in HOW]
)
def test_one_damaged_key_is_repaired(machine_type: type[QueueMachine], how: str) -> None:
    machine = machine_type()
    fill(machine)
    keys = machine.keys_of_queues()
    queue = machine.keys.queue("default")
    assert repair.structures(queue).keys() - {*keys} == {queue.combined, queue.quarantine}, "the queue is not full"

    failures = {}
    for key in keys:
        is_task = ":t:" in key
        states = (*STATES, "odd", "") if how == "change" and is_task else ("",)
        fields = range(len(FIELDS)) if how == "drop" and is_task else (0,)
        others = ("p", "g1", "h1", "h3") if how == "change" and not is_task else ("",)
        for state, field, other in product(states, fields, others):
            machine = machine_type()
            fill(machine)
            try:
                machine.damage_key(key, how, other, state, field)
            except (AssertionError, TaskQError) as error:
                failures[key, state, FIELDS[field], other] = repr(error)
    assert not failures, "\n".join(f"{name}: {error}" for name, error in failures.items())
