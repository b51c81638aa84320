"""Test the options of enqueues that replicas or the append-only file must confirm. See also `tests/topologies`."""

import pickle
from typing import Any

import pytest

from taskq_core import ConfigurationError, NotReplicatedError, TaskIdConflictError, TaskQ
from taskq_core.errors import BrokerReplicationError
from taskq_core.testing import capture
from tests.rows import rows


def test_a_captured_task_needs_no_replicas() -> None:
    """An application's tests need no replicas, and a used id is refused as usual."""
    taskq = TaskQ()
    task = taskq.remote("t", replicated=True, fsynced=True, task_id="a")
    with capture(taskq) as captured:
        task.delay()
        with pytest.raises(TaskIdConflictError):
            task.delay()

    assert [each.id for each in captured.enqueued] == ["a"]


@rows(
    ("options", "message"),
    [
        ({"replicated": "yes"}, "replicated must be True, False or a number of replicas, got 'yes'"),
        ({"replicated": -1}, "replicated must be between 0 and 100, got -1"),
        ({"replicated": 101}, "replicated must be between 0 and 100, got 101"),
        ({"fsynced": 1}, "fsynced must be True or False, got 1"),
    ],
)
def test_invalid_replication_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TaskQ().remote("t", **options)

    assert str(refused.value) == f"task 't': {message}"


def test_replication_errors_survive_pickling() -> None:
    for error in (NotReplicatedError("t", "q", "a", "why", 2, 1), BrokerReplicationError("why", 2, 1)):
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.wanted, again.confirmed) == (str(error), 2, 1)
