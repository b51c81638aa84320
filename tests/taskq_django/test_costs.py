"""Count the Python calls and the files of an enqueue from Django, like `tests/taskq_core/client/test_costs.py`."""

import pytest
from django.db import connections, transaction

from taskq_django import taskq
from tests.redis_server import RedisServer
from tests.taskq_core.client.test_costs import COMPREHENSIONS, ROUNDS, Calls

OF_TEST = 3
"""Calls that look for a transaction of the test case. Only tests make them."""
_TEST_MODULE = "taskq_django.test_cases"

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


@pytest.fixture(autouse=True)
def _connected(redis: RedisServer) -> None:
    """All databases were used before, so an enqueue checks each for an open transaction."""
    for each in connections.all():
        each.ensure_connection()


def test_an_enqueue_outside_of_a_transaction_makes_few_python_calls() -> None:
    task = taskq.remote("note", headers={"tenant": "acme"})
    task.delay(number=0)

    calls = Calls()
    for number in range(ROUNDS):
        with calls:
            task.delay(number=number)

    assert 0 < calls.each("ours") <= 39.5 + OF_TEST + COMPREHENSIONS


def test_an_enqueue_inside_of_a_transaction_makes_few_python_calls_in_few_files() -> None:
    """Most work is done in the call, and the commit only sends the task."""
    task = taskq.remote("note", headers={"tenant": "acme"})
    task.delay(number=0)

    calls, commit = Calls(), Calls()
    with transaction.atomic():
        for number in range(ROUNDS):
            with calls:
                task.delay(number=number)
        commit.__enter__()
    commit.__exit__()

    assert 0 < calls.each("ours") <= 20.5 + OF_TEST + COMPREHENSIONS
    assert 0 < calls.each("ours") + commit.each("ours") / ROUNDS <= 50.5 + OF_TEST + 2 * COMPREHENSIONS
    of_call, of_both = calls.files - {_TEST_MODULE}, (calls.files | commit.files) - {_TEST_MODULE}
    assert len(of_call) <= 11, sorted(of_call)
    assert len(of_both) <= 16, sorted(of_both)
