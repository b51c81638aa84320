"""Doing one thing to tasks that were selected."""

from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, TaskState
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerUnavailableError, TaskStateError
from taskq_core.inspector import ALLOWED_STATES, ActionReport, Inspector, Skip, TaskAction, TaskRef
from taskq_core.inspector.selection import act_on
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis

PREFIX = "asynq:{default}:"


def refs(*handles: Any, state: TaskState | None = None) -> list[TaskRef]:
    return [TaskRef(handle.queue, handle.id, state) for handle in handles]


def state_of(redis_server: RedisServer, ref: Any) -> str | None:
    word: Any = redis_server.client.hget(f"asynq:{{{ref.queue}}}:t:{ref.id}", "state")
    return None if word is None else word.decode()


def activate(redis_server: RedisServer, handle: Any) -> None:
    redis_server.client.hset(f"{PREFIX}t:{handle.id}", "state", "active")
    redis_server.client.lrem(f"{PREFIX}pending", 0, handle.id)
    redis_server.client.lpush(f"{PREFIX}active", handle.id)


@rows(
    ("action", "options", "becomes"),
    [
        (TaskAction.RUN, {}, "pending"),
        (TaskAction.RETRY, {"after": 600}, "scheduled"),
        (TaskAction.RETRY, {"at": datetime(2099, 1, 1, tzinfo=UTC)}, "scheduled"),
        (TaskAction.ARCHIVE, {}, "archived"),
        (TaskAction.DELETE, {}, None),
    ],
)
async def test_an_action_changes_tasks_of_several_queues_and_reports_deleted_ones(
    ask: Ask,
    enqueue: Enqueue,
    redis_server: RedisServer,
    action: TaskAction,
    options: dict[str, Any],
    becomes: str | None,
) -> None:
    tasks = refs(enqueue(run_after=60), enqueue("low", run_after=60))
    gone = TaskRef("default", "gone")

    report = await ask("act_on", [*tasks, gone, tasks[0]], action, **options)

    assert sorted(report.done, key=lambda task: task.queue) == tasks
    assert report.skipped == {(Skip.GONE, ""): 1}
    assert (report.failure, report.untouched) == (None, 0)
    assert [state_of(redis_server, task) for task in tasks] == [becomes, becomes]


async def test_a_task_whose_state_changed_is_skipped(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    """An archived task was run again in between, so deleting it now would lose its work."""
    handle = enqueue()

    report = await ask("act_on", refs(handle, state=TaskState.ARCHIVED), TaskAction.DELETE)

    assert report.done == []
    assert report.skipped == {(Skip.CHANGED, "pending"): 1}
    assert state_of(redis_server, handle) == "pending"


async def test_a_task_whose_state_forbids_the_action_is_reported(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    running, pending = enqueue(), enqueue()
    activate(redis_server, running)

    deleted = await ask("act_on", refs(running, state=TaskState.ACTIVE), TaskAction.DELETE)
    run = await ask("act_on", refs(running, pending), TaskAction.RUN)
    cancelled = await ask("act_on", refs(pending), TaskAction.CANCEL)

    assert deleted.skipped == {(Skip.STATE, "active"): 1}
    assert run.skipped == {(Skip.STATE, "active"): 1, (Skip.STATE, "pending"): 1}
    assert cancelled.skipped == {(Skip.STATE, "pending"): 1}


async def test_cancel_notifies_workers_and_reports_if_there_is_none(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    handle = enqueue()
    activate(redis_server, handle)
    unheard = await ask("act_on", refs(handle), TaskAction.CANCEL)
    listener = redis_server.client.pubsub()
    listener.subscribe("asynq:cancel")
    listener.get_message(timeout=60)

    heard = await ask("act_on", refs(handle), TaskAction.CANCEL)

    assert unheard.skipped == {(Skip.UNHEARD, ""): 1}
    assert heard.done == refs(handle)
    message: Any = listener.get_message(timeout=60)
    assert message["data"] == handle.id.encode()
    listener.close()


async def test_tasks_are_moved_and_refused_ones_stay(ask: Ask, enqueue: Enqueue, redis_server: RedisServer) -> None:
    free, taken, there = enqueue(), enqueue(task_id="same"), enqueue("low", task_id="same")

    report = await ask("act_on", refs(free, taken, there), TaskAction.MOVE, to_queue="low")

    assert report.done == refs(free)
    assert report.skipped == {(Skip.ID_TAKEN, ""): 1, (Skip.SAME_QUEUE, ""): 1}
    assert state_of(redis_server, TaskRef("low", free.id)) == "pending"
    assert state_of(redis_server, taken) == "pending"


async def test_a_lock_held_in_the_target_queue_keeps_a_task_where_it_is(ask: Ask, app: TaskQ) -> None:
    here = await app.remote("t", queue="default", unique_for=60).adelay(a=1)
    there = await app.remote("t", queue="low", unique_for=60).adelay(a=1)

    report = await ask("act_on", refs(here), TaskAction.MOVE, to_queue=there.queue)

    assert report.skipped == {(Skip.LOCK_TAKEN, ""): 1}


async def test_many_tasks_are_changed_in_chunks(ask: Ask, app: TaskQ, redis_server: RedisServer) -> None:
    remote = app.remote("t")
    tasks = [TaskRef("default", each) for each in app.client.enqueue_many(remote.s(n=n) for n in range(250)).ids]

    report = await ask("act_on", tasks, TaskAction.ARCHIVE)

    assert len(report.done) == 250
    assert redis_server.client.zcard(f"{PREFIX}archived") == 250


def test_an_outage_during_an_action_returns_the_finished_tasks() -> None:
    """The steps are taken by hand here, so that the second chunk fails for sure."""
    tasks = [TaskRef("default", str(number), generation="1.2") for number in range(250)]
    steps = act_on(TaskQ(), tasks, TaskAction.DELETE)
    failure = BrokerUnavailableError("away")

    first: Operation[Any] = next(steps)
    assert not first.repeatable
    steps.send(["ok"] * 100)
    with pytest.raises(StopIteration) as end:
        steps.throw(failure)

    report: ActionReport = end.value.value
    assert len(report.done) == 100
    assert (report.failure, report.untouched) == (failure, 150)


@rows(
    ("action", "options"),
    [
        (TaskAction.MOVE, {}),
        (TaskAction.MOVE, {"to_queue": ""}),
        (TaskAction.RUN, {"to_queue": "low"}),
        (TaskAction.RUN, {"after": 1}),
        (TaskAction.RETRY, {}),
        (TaskAction.RETRY, {"after": 1, "at": datetime(2099, 1, 1, tzinfo=UTC)}),
        (TaskAction.RETRY, {"at": datetime(2099, 1, 1)}),  # noqa: DTZ001 - that it has none is the point
    ],
)
async def test_contradicting_options_are_refused(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer, action: TaskAction, options: dict[str, Any]
) -> None:
    handle = enqueue(run_after=60)

    with pytest.raises(ConfigurationError):
        await ask("act_on", refs(handle), action, **options)

    assert state_of(redis_server, handle) == "scheduled"


async def test_every_action_changes_the_states_that_it_declares(
    ask: Ask, enqueue: Enqueue, redis_server: RedisServer
) -> None:
    """`ALLOWED_STATES` is what Redis allows, so that what is selected by it is not refused."""
    for action, options in (
        (TaskAction.RUN, {}),
        (TaskAction.RETRY, {"after": 60}),
        (TaskAction.ARCHIVE, {}),
        (TaskAction.DELETE, {}),
        (TaskAction.MOVE, {"to_queue": "other"}),
    ):
        for state in TaskState:
            if state is TaskState.AGGREGATING:
                continue
            handle = enqueue(run_after=60)
            redis_server.client.hset(f"{PREFIX}t:{handle.id}", "state", state.value)
            redis_server.client.zrem(f"{PREFIX}scheduled", handle.id)
            if state in (TaskState.PENDING, TaskState.ACTIVE):
                redis_server.client.lpush(PREFIX + state, handle.id)
            else:
                redis_server.client.zadd(PREFIX + state, {handle.id: 4_000_000_000})

            report = await ask("act_on", refs(handle, state=state), action, **options)

            assert bool(report.done) is (state in ALLOWED_STATES[action]), (action, state)


async def test_a_payload_is_replaced_only_if_it_is_the_expected_one(ask: Ask, app: TaskQ) -> None:
    handle = await app.remote("t").adelay(b'{"a": 1}')
    await ask("update_payload", "default", handle.id, b'{"a": 2}', expected=b'{"a": 1}')

    with pytest.raises(TaskStateError, match="the payload has changed since it was read"):
        await ask("update_payload", "default", handle.id, b'{"a": 3}', expected=b'{"a": 1}')
    with pytest.raises(ConfigurationError, match="the argument expected must be bytes"):
        await ask("update_payload", "default", handle.id, b"{}", expected="text")

    task: Any = Inspector(app).task("default", handle.id)
    assert task.payload == b'{"a": 2}'
