"""Requests to one task change no later task with the same id, however late they arrive."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from taskq_core import TaskHandle, TaskNotFoundError, TaskQ
from taskq_core.broker.operations import runs, views
from taskq_core.broker.operations.steps import read_steps
from taskq_core.errors import BrokerUnavailableError
from taskq_core.inspector import AsyncInspector, Inspector, Skip, TaskAction, TaskRef
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.rows import rows

pytestmark = pytest.mark.redis

ID, QUEUE = "order-1", "default"
SIGNAL, CANCEL, RESCHEDULE, MOVE = "signal", "cancel", "reschedule", "move"
ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    SIGNAL: (("approve", True), {}),
    CANCEL: ((), {}),
    RESCHEDULE: ((), {"after": 60}),
    MOVE: (("other",), {}),
}
"""Arguments of the methods of a handle."""
SCRIPTS = {SIGNAL: "signal", CANCEL: "revoke", RESCHEDULE: "change_task", MOVE: "copy_out"}
CHANGES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "run_task": ((), {}),
    "archive_task": ((), {}),
    "delete_task": ((), {}),
    "retry_task": ((), {"after": 60}),
    "update_payload": ((b"{}",), {}),
    "reschedule_task": ((), {"after": 60}),
    "move_task": (("other",), {}),
    "signal_task": (("approve", True), {}),
    "forget_step": (("approve#1",), {}),
}
"""Arguments of the methods of an inspector, after the queue and the id."""


@pytest.fixture
def near(redis_server: RedisServer) -> Iterator[TaskQ]:
    """An application whose requests arrive at once."""
    taskq = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield taskq
    taskq.close()


@pytest.fixture
def relay(redis_server: RedisServer) -> Iterator[Relay]:
    with Relay(redis_server.socket_path) as relay:
        yield relay


@pytest.fixture
async def far(relay: Relay) -> AsyncIterator[TaskQ]:
    """An application whose requests may be held."""
    taskq = TaskQ(relay.url, enqueue_timeout=30)
    yield taskq
    await taskq.aclose()
    taskq.close()


def enqueue(taskq: TaskQ) -> TaskHandle[Any]:
    return taskq.remote("order").using(task_id=ID, run_after=3600).delay()


def enqueue_by_go(taskq: TaskQ, server: RedisServer) -> None:
    """Store a task without a generation."""
    enqueue(taskq)
    server.client.hdel(taskq.runtime.keys.queue(QUEUE).task(ID), "taskq_generation")


def replace(near: TaskQ, server: RedisServer, *, by_go: bool = False) -> Any:
    """End the task, enqueue another one with its id, and return what Redis has of the new task."""
    with contextlib.suppress(TaskNotFoundError):
        Inspector(near).delete_task(QUEUE, ID)
    if by_go:
        enqueue_by_go(near, server)
    else:
        enqueue(near)
    return stored(near)


def stored(taskq: TaskQ) -> Any:
    """Return what Redis has of the task: state, start, message and received signals."""
    queue, run = taskq.runtime.keys.queue(QUEUE), taskq.runtime.runner.run
    task = run(views.read_task(queue, ID), patience_s=30)
    record = run(read_steps(queue, ID), patience_s=30)
    return None if task is None else (task.state, task.score, task.message, record)


async def send(handle: TaskHandle[Any], method: str, *, is_async: bool) -> Any:
    args, options = ARGUMENTS[method]
    if is_async:
        return await getattr(handle, f"a{method}")(*args, **options)
    return await asyncio.to_thread(getattr(handle, method), *args, **options)


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("method", ARGUMENTS)
async def test_a_late_request_of_a_handle_does_not_reach_the_next_task(
    near: TaskQ, far: TaskQ, relay: Relay, redis_server: RedisServer, method: str, is_async: bool
) -> None:
    """The client repeats the held request, which changes the first task. The held request arrives last."""
    handle = enqueue(far)
    held = relay.hold_request(redis_server.load(SCRIPTS[method]), hang_up=True)
    await send(handle, method, is_async=is_async)
    assert held.arrived.is_set()
    before = replace(near, redis_server)

    await asyncio.to_thread(held.deliver)

    assert stored(near) == before


@rows(("change", "by_go"), [(change, by_go) for change in CHANGES for by_go in (False, True)])
def test_a_late_request_of_an_inspector_does_not_reach_the_next_task(
    redis_server: RedisServer, change: str, by_go: bool
) -> None:
    args, options = CHANGES[change]
    script = {"update_payload": "change_task", "reschedule_task": "change_task", "move_task": "copy_out"}.get(change)
    script = script or {"signal_task": "signal", "forget_step": "forget_step"}.get(change, "act")
    with Relay(redis_server.socket_path) as relay:
        near, far = TaskQ(redis_server.unix_url, enqueue_timeout=30), TaskQ(relay.url, enqueue_timeout=30)
        enqueue_by_go(near, redis_server)
        held = relay.hold_request(redis_server.load(script), hang_up=True)
        with contextlib.suppress(BrokerUnavailableError):  # some requests are not repeated
            getattr(Inspector(far), change)(QUEUE, ID, *args, **options)
        assert held.arrived.is_set()
        before = replace(near, redis_server, by_go=by_go)

        held.deliver()

        assert stored(near) == before
        far.close()
        near.close()


SEEN: dict[str, Callable[[TaskQ], TaskHandle[Any]]] = {
    "from the enqueue": enqueue,
    "found by its id": lambda taskq: enqueue(taskq) and taskq.get(ID),
}


@rows(("seen", "by_go"), [(seen, by_go) for seen in SEEN for by_go in (False, True)])
@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])
async def test_a_handle_of_an_ended_task_does_not_reach_the_next_task(
    redis_server: RedisServer, seen: str, by_go: bool, is_async: bool
) -> None:
    near = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    handle = SEEN[seen](near)
    before = replace(near, redis_server, by_go=by_go)

    assert await send(handle, CANCEL, is_async=is_async) is False
    for method in (SIGNAL, RESCHEDULE, MOVE):
        with pytest.raises(TaskNotFoundError):
            await send(handle, method, is_async=is_async)

    assert stored(near) == before
    await near.aclose()
    near.close()


async def test_an_inspector_changes_only_the_task_with_the_given_generation(
    near: TaskQ, redis_server: RedisServer
) -> None:
    enqueue_by_go(near, redis_server)
    inspector = AsyncInspector(near)
    shown = await inspector.task(QUEUE, ID)
    before = replace(near, redis_server, by_go=True)

    for change, (args, options) in CHANGES.items():
        with pytest.raises(TaskNotFoundError):
            await getattr(inspector, change)(QUEUE, ID, *args, **options, generation=shown.generation)
    for action, options in ((TaskAction.DELETE, {}), (TaskAction.MOVE, {"to_queue": "other"})):
        report = await inspector.act_on([TaskRef.of(shown)], action, **options)
        assert dict(report.skipped) == {(Skip.GONE, ""): 1}

    assert stored(near) == before
    await near.aclose()


def test_a_cancellation_does_not_reach_the_next_run_with_the_same_id(near: TaskQ, redis_server: RedisServer) -> None:
    """Nothing is published either, because workers compare only the id."""
    queue, run = near.runtime.keys.queue(QUEUE), near.runtime.runner.run
    near.remote("order").using(task_id=ID).delay()
    shown = Inspector(near).task(QUEUE, ID)
    Inspector(near).delete_task(QUEUE, ID)
    handle = near.remote("order").using(task_id=ID).delay()
    run(runs.dequeue(queue, owner="w", call=1, limit=1, lease_s=30), patience_s=30)
    listening: Any = redis_server.client.pubsub(ignore_subscribe_messages=True)
    listening.subscribe(near.runtime.keys.cancel)
    listening.get_message(timeout=30)

    with pytest.raises(TaskNotFoundError):
        Inspector(near).cancel_task(ID, generation=shown.generation)
    report = Inspector(near).act_on([TaskRef(QUEUE, ID, shown.state, shown.generation)], TaskAction.CANCEL)

    assert dict(report.skipped) == {(Skip.GONE, ""): 1}
    assert handle.cancel() is True
    assert [listening.get_message(timeout=30)["data"], listening.get_message(timeout=0)] == [ID.encode(), None]
    listening.close()


def test_a_handle_with_a_random_id_needs_no_generation(near: TaskQ, redis_server: RedisServer) -> None:
    handle = near.remote("order").using(run_after=3600).delay()

    handle.reschedule(after=60)

    fields: Any = redis_server.client.hgetall(near.runtime.keys.queue(QUEUE).task(handle.id))
    assert set(fields) == {b"msg", b"state"}


def test_a_moved_task_keeps_its_generation(near: TaskQ) -> None:
    handle = enqueue(near)

    handle.move("other")
    handle.signal("approve", True)

    assert handle.refresh().generation == handle.generation
