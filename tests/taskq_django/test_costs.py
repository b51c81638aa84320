"""Count the Python calls of an enqueue from Django, like `tests/taskq_core/client/test_costs.py`."""

import pytest
from django.db import connections

from taskq_django import taskq
from tests.redis_server import RedisServer
from tests.taskq_core.client.test_costs import ROUNDS, Calls


@pytest.mark.nightly  # a measurement, which a busy machine can disturb
@pytest.mark.redis
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_an_enqueue_outside_of_a_transaction_makes_few_python_calls(redis: RedisServer) -> None:
    """All databases were used before, so the enqueue checks each for an open transaction."""
    task = taskq.remote("note", headers={"tenant": "acme"})
    for each in connections.all():
        each.ensure_connection()
    task.delay(number=0)

    with Calls() as calls:
        for number in range(ROUNDS):
            task.delay(number=number)

    assert 0 < calls.each("ours") <= 74
