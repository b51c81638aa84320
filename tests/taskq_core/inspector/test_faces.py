"""The two inspectors are one, and follow their application."""

import inspect
from collections.abc import Generator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import PeriodicTask, TaskQ, TaskState
from taskq_core.broker.steps import ask
from taskq_core.inspector import AsyncInspector, Inspector, TaskAction, WorkerAction, aio, sync
from taskq_core.inspector.seen import Seen
from tests.redis_server import RedisServer

METHODS = [name for name, _ in inspect.getmembers(Inspector, inspect.isfunction) if not name.startswith("_")]
GIVEN: dict[str, Any] = {
    "action": TaskAction.DELETE,
    "after": 9,
    "at": datetime(2033, 1, 1, tzinfo=UTC),
    "concurrency": 3,
    "cursor": "cursor",
    "days": 3,
    "entry": PeriodicTask("@daily", TaskQ().remote("task")),
    "entry_id": "entry",
    "error": "error",
    "expected": b"old",
    "force": True,
    "group": "g",
    "has_time": lambda: True,
    "infos": [],
    "keep": False,
    "limit": 7,
    "matching": object(),
    "name": "name",
    "newer_than": 5.0,
    "older_than": 6.0,
    "page": 2,
    "page_size": 5,
    "payload": b"new",
    "progress": lambda done, total: None,
    "queue": "default",
    "rate": "5/m",
    "read": lambda keys: ask(keys),
    "repair": True,
    "replace": True,
    "retry": True,
    "scan": 50,
    "state": TaskState.RETRY,
    "task_id": "id",
    "tasks": [],
    "to_queue": "low",
    "workers": ["worker"],
}
"""A value for each parameter by its name; none is the default."""


def test_both_have_the_same_methods() -> None:
    others = [name for name, _ in inspect.getmembers(AsyncInspector, inspect.isfunction) if not name.startswith("_")]

    assert others == METHODS
    for name in METHODS:
        blocking, coroutine = getattr(Inspector, name), getattr(AsyncInspector, name)
        assert inspect.signature(blocking) == inspect.signature(coroutine), name
        assert inspect.iscoroutinefunction(coroutine), name
        assert not inspect.iscoroutinefunction(blocking), name


def described(value: Any) -> Any:
    """What can be compared: the function and the arguments of steps that have not begun, the fields of an object."""
    if inspect.isgenerator(value):
        return value.gi_code, {name: described(each) for name, each in value.gi_frame.f_locals.items()}
    if isinstance(value, Seen):
        return Seen  # each draws a salt of its own
    if is_dataclass(value):
        return type(value), {each.name: described(getattr(value, each.name)) for each in fields(value)}
    if type(value).__module__.startswith("taskq_core.") and hasattr(value, "__dict__"):
        return type(value), {name: described(each) for name, each in vars(value).items()}
    if inspect.isfunction(value):
        return value.__code__
    return value


async def test_both_take_the_same_steps_with_the_same_arguments_and_return_the_answer(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30, archive={"MAX_TASKS": 5})
    taken: list[Any] = []
    answer = object()

    def take(steps: Generator[Any, Any, Any], *_: Any) -> Any:
        taken.append(described(steps))
        return answer

    async def atake(steps: Generator[Any, Any, Any], *_: Any) -> Any:
        return take(steps)

    monkeypatch.setattr(Inspector, "_follow", lambda self, steps: take(steps))
    monkeypatch.setattr(AsyncInspector, "_follow", lambda self, steps: atake(steps))
    monkeypatch.setattr(sync, "run", take)
    monkeypatch.setattr(aio, "arun", atake)

    for name in METHODS:
        parameters = list(inspect.signature(getattr(Inspector, name)).parameters.values())[1:]
        given = {each.name: GIVEN[each.name] for each in parameters}
        if name == "control_workers":
            given["action"] = WorkerAction.SCALE
        assert all(given[each.name] != each.default for each in parameters), name

        taken.clear()
        blocking = getattr(Inspector(app), name)(**given)
        by_blocking = taken.copy()
        taken.clear()
        coroutine = await getattr(AsyncInspector(app), name)(**given)

        assert taken == by_blocking, name
        assert coroutine == blocking, name
        if name != "key_slot":
            assert taken, name
            returns = inspect.signature(getattr(Inspector, name)).return_annotation is not None
            assert blocking is (answer if returns else None), name
    await app.aclose()


@pytest.mark.redis
@pytest.mark.parametrize("kind", [Inspector, AsyncInspector])
async def test_an_inspector_follows_its_application(kind: Any, redis_server: RedisServer) -> None:
    """It may be made first of all: before the settings are known, and used after its application was closed."""
    app = TaskQ("redis://127.0.0.1:1/0")
    inspector = kind(app)
    redis_server.client.sadd("asynq:queues", "here")
    redis_server.client.sadd("shop:queues", "there")

    async def queues() -> list[str]:
        answer = inspector.queues()
        found: list[str] = await answer if inspect.isawaitable(answer) else answer
        return found

    app.configure(replace(app.settings, url=redis_server.unix_url))
    assert await queues() == ["here"]
    await app.aclose()
    assert await queues() == ["here"]
    await app.aclose()
    app.configure(replace(app.settings, prefix="shop"))
    assert await queues() == ["there"]
    await app.aclose()
