"""Test requests to an inspector for objects that do not exist or have another type."""

from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskState
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector.known import hint
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis

BY_STATE: dict[str, tuple[Any, ...]] = {
    "tasks": (),
    "count": (),
    "find_tasks": (),
    "run_all": (),
    "archive_all": (),
    "delete_all": (),
    "move_all": ("low",),
}


@rows("method", BY_STATE)
@rows(
    ("state", "told"),
    [
        ("pendign", "no state 'pendign'; did you mean 'pending'?"),
        ("xyz", "no state 'xyz'; there are 'active', 'pending', 'scheduled', 'retry', 'archived', 'completed', "),
    ],
)
async def test_an_unknown_state_is_reported_with_the_nearest_name(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, method: str, state: Any, told: str
) -> None:
    enqueue()
    before = redis_server.contents()

    with pytest.raises(ConfigurationError) as caught:
        await ask(method, "default", state, *BY_STATE[method])

    assert str(caught.value).startswith(told)
    assert redis_server.contents() == before


@rows("method", BY_STATE)
async def test_a_state_can_be_given_as_text(ask: Ask, enqueue: Enqueue, redis_server: RedisServer, method: str) -> None:
    enqueue(run_after=60)
    enqueue()

    answer = await ask(method, "default", "scheduled", *BY_STATE[method])

    found = answer if isinstance(answer, int) else [task.state for task in answer.tasks]
    assert found in (1, [TaskState.SCHEDULED])


async def test_an_unknown_queue_is_reported_with_the_nearest_name_or_all_names(ask: Ask, enqueue: Enqueue) -> None:
    for name in ("critical", "low"):
        enqueue(queue=name)

    with pytest.raises(QueueNotFoundError, match=r"^no queue 'critcal'; did you mean 'critical'\?$"):
        await ask("pause", "critcal")
    with pytest.raises(QueueNotFoundError, match=r"^no queue 'other'; there are 'critical', 'low'$"):
        await ask("task", "other", "id")


def test_only_a_few_of_many_names_are_listed() -> None:
    assert hint("x", [f"queue-{number}" for number in range(9)]) == (
        "there are 'queue-0', 'queue-1', 'queue-2', 'queue-3', 'queue-4' and 4 more"
    )


@rows(
    ("method", "arguments", "named"),
    [
        ("queue_info", (None,), "queue"),
        ("pause", (5,), "queue"),
        ("task", (None, "id"), "queue"),
        ("task", ("default", None), "task_id"),
        ("run_task", ("default", 7), "task_id"),
        ("archive_task", ("default", None), "task_id"),
        ("delete_task", ("default", b"id"), "task_id"),
        ("update_payload", ("default", None, b""), "task_id"),
        ("move_task", ("default", None, "low"), "task_id"),
        ("move_task", ("default", "id", None), "queue name"),
        ("cancel_task", (None,), "task_id"),
        ("scheduler_events", (3,), "entry_id"),
        ("key_slot", (None,), "queue name"),
    ],
)
async def test_a_name_that_is_not_text_is_refused_before_a_request(
    ask: Ask, redis_server: RedisServer, method: str, arguments: tuple[Any, ...], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{named} must be a string, got \w+$"):
        await ask(method, *arguments)

    assert redis_server.client.keys("*") == []


async def test_the_slot_of_a_blank_queue_name_is_refused(ask: Ask) -> None:
    with pytest.raises(ConfigurationError, match="queue name must not be blank"):
        await ask("key_slot", " ")


@rows(
    ("arguments", "told"),
    [
        ({"name": 5}, "name must be a string, got int"),
        ({"error": b"x"}, "error must be a string, got bytes"),
        ({"payload": 5}, "payload must be bytes or a string, got int"),
        ({"cursor": 5}, "cursor must be a string, got int"),
        ({"older_than": "1h"}, "older_than must be a timedelta or a number of seconds"),
        ({"newer_than": datetime(2033, 1, 1, tzinfo=UTC), "limit": "9"}, "limit must be a whole number"),
    ],
)
async def test_a_search_for_a_value_of_a_wrong_type_is_refused(ask: Ask, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        await ask("find_tasks", "default", TaskState.PENDING, **arguments)
