"""Test the record of a task, which converts the message and its state in Redis to Python types."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq_core import TaskState
from taskq_core.broker.operations.views import StoredTask
from taskq_core.errors import WireFormatError
from taskq_core.handles.attempts import Attempt
from taskq_core.handles.records import task_info
from taskq_core.wire import TaskMessage
from tests.rows import rows

WHEN = 1_900_000_000
MOMENT = datetime.fromtimestamp(WHEN, tz=UTC)


def stored(state: TaskState, *, score: int | None = None, result: bytes = b"", **fields: Any) -> StoredTask:
    message = TaskMessage(**{"type": "t", "id": "id-1", "queue": "q", "payload": b"canary", **fields})
    return StoredTask("id-1", state, message.SerializeToString(), result, score)


def test_every_field_of_the_message_is_converted() -> None:
    info = task_info(
        stored(
            TaskState.COMPLETED,
            score=WHEN,
            result=b"5",
            retry=3,
            retried=2,
            error_msg="it broke",
            last_failed_at=WHEN,
            timeout=60,
            deadline=WHEN,
            retention=120,
            group_key="g",
            completed_at=WHEN,
            headers={"a": "b"},
        )
    )

    assert (info.id, info.name, info.queue, info.state) == ("id-1", "t", "q", TaskState.COMPLETED)
    assert (info.payload, info.result, info.headers) == (b"canary", b"5", {"a": "b"})
    assert (info.max_retry, info.retried, info.last_error, info.last_failed_at) == (3, 2, "it broke", MOMENT)
    assert (info.timeout, info.deadline, info.retention) == (timedelta(minutes=1), MOMENT, timedelta(minutes=2))
    assert (info.group, info.completed_at, info.expires_at) == ("g", MOMENT, MOMENT)


@pytest.mark.parametrize("state", [TaskState.COMPLETED, TaskState.ARCHIVED])
def test_a_short_run_does_not_end_before_its_start(state: TaskState) -> None:
    """Asynq stores the end in whole seconds, but the attempt in milliseconds."""
    attempt = Attempt(
        number=1, worker="w", started_at=MOMENT + timedelta(seconds=0.2), ended_at=MOMENT + timedelta(seconds=0.5)
    )
    info = replace(task_info(stored(state, score=WHEN, completed_at=WHEN)), last_attempt=attempt)
    earlier = replace(attempt, ended_at=MOMENT - timedelta(hours=1))

    assert info.ended_at == attempt.ended_at
    assert replace(info, last_attempt=earlier).ended_at == MOMENT


def test_fields_that_are_not_set_are_none() -> None:
    info = task_info(stored(TaskState.PENDING))

    assert (info.timeout, info.deadline, info.retention) == (None, None, timedelta(0))
    assert (info.last_failed_at, info.completed_at, info.group, info.last_error) == (None, None, "", "")


@rows(
    ("state", "attribute"),
    [
        (TaskState.SCHEDULED, "next_run_at"),
        (TaskState.RETRY, "next_run_at"),
        (TaskState.ACTIVE, "lease_expires_at"),
        (TaskState.ARCHIVED, "archived_at"),
        (TaskState.COMPLETED, "expires_at"),
    ],
)
def test_the_state_decides_which_time_the_score_is(state: TaskState, attribute: str) -> None:
    info = task_info(stored(state, score=WHEN))

    names = ("next_run_at", "lease_expires_at", "archived_at", "expires_at")
    assert {name: getattr(info, name) for name in names} == dict.fromkeys(names) | {attribute: MOMENT}


def test_times_outside_the_calendar_are_none() -> None:
    """Another program may have stored any number."""
    info = task_info(
        stored(TaskState.SCHEDULED, score=10**15, deadline=2**62, last_failed_at=-(2**62), timeout=2**62, retention=-5)
    )

    assert (info.next_run_at, info.deadline, info.last_failed_at) == (None, None, None)
    assert info.timeout == timedelta(seconds=86_399_999_999_999)
    assert info.retention == timedelta(0)


def test_repr_hides_payload_and_result() -> None:
    assert "canary" not in repr(task_info(stored(TaskState.COMPLETED, result=b"canary")))


def test_an_unreadable_message_is_refused() -> None:
    with pytest.raises(WireFormatError):
        task_info(StoredTask("id", TaskState.PENDING, b"\xff\xff", b"", None))
