"""Looking at queues and tasks."""

import inspect
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import (
    BrokerUnavailableError,
    ConfigurationError,
    TaskHandle,
    TaskInfo,
    TaskNotFoundError,
    TaskQ,
    TaskState,
)
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import AsyncInspector, Inspector, QueueInfo, TaskPage, UnreadableTask
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis
Ask = Callable[..., Any]


@pytest.fixture
async def app(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(redis_server.unix_url)
    yield app
    await app.aclose()


@pytest.fixture(params=[Inspector, AsyncInspector])
def ask(request: pytest.FixtureRequest, app: TaskQ) -> Ask:
    """Ask either inspector by the name of a method; both have to answer alike."""
    inspector = request.param(app)

    async def ask(method: str, *args: Any, **kwargs: Any) -> Any:
        answer = getattr(inspector, method)(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    return ask


def enqueue(app: TaskQ, queue: str = "default", **options: Any) -> TaskHandle[Any]:
    return app.client.enqueue(app.remote("email:deliver", queue=queue, **options).s(to="a@b.c"))


def ids(page: TaskPage) -> list[str]:
    return [task.id for task in page.tasks]


async def test_queues_are_those_ever_enqueued_to(app: TaskQ, ask: Ask) -> None:
    assert await ask("queues") == []
    for name in ("low", "critical"):
        enqueue(app, name)

    assert await ask("queues") == ["critical", "low"]


async def test_a_queue_says_how_it_stands(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    enqueue(app)
    enqueue(app, run_after=60)
    enqueue(app, "low")
    redis_server.client.set("asynq:{default}:paused", 1)
    redis_server.client.set("asynq:{default}:processed", 12)

    info: QueueInfo = await ask("queue_info", "default")

    assert info.name == "default"
    assert {state: size for state, size in info.sizes.items() if size} == {TaskState.PENDING: 1, TaskState.SCHEDULED: 1}
    assert info.size == 2
    assert info.is_paused
    assert info.processed == 12
    assert info.latency is not None
    assert timedelta(0) <= info.latency < timedelta(minutes=1)
    assert [each.name for each in await ask("queue_infos")] == ["default", "low"]


async def test_an_unknown_queue_is_told(app: TaskQ, ask: Ask) -> None:
    with pytest.raises(QueueNotFoundError, match="no queue 'nowhere'"):
        await ask("queue_info", "nowhere")
    with pytest.raises(QueueNotFoundError):
        await ask("tasks", "nowhere", TaskState.PENDING)


async def test_tasks_come_in_pages_the_next_to_run_first(app: TaskQ, ask: Ask) -> None:
    handles = [enqueue(app) for _ in range(7)]

    first = await ask("tasks", "default", TaskState.PENDING, page_size=3)
    last = await ask("tasks", "default", TaskState.PENDING, page=3, page_size=3)
    beyond = await ask("tasks", "default", TaskState.PENDING, page=4, page_size=3)

    assert (ids(first), first.total, first.pages) == ([handle.id for handle in handles[:3]], 7, 3)
    assert ids(last) == [handles[6].id]
    assert ids(beyond) == []
    assert isinstance(first.tasks[0], TaskInfo)
    assert first.tasks[0].payload == b'{"to":"a@b.c"}'


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
async def test_a_page_may_stretch_over_queues_and_states(app: TaskQ, ask: Ask, page_size: int) -> None:
    """State by state, and queue by queue within one; no task is missed or shown twice."""
    later = [enqueue(app, "a", run_after=60), enqueue(app, "b", run_after=60)]
    now = [enqueue(app, "a"), enqueue(app, "a"), enqueue(app, "b")]
    seen: list[str] = []
    for number in range(1, 6):
        page = await ask("tasks", page=number, page_size=page_size)
        seen += ids(page)

    assert page.total == 5
    assert seen == [handle.id for handle in now + later]
    assert ids(await ask("tasks", "b")) == [now[2].id, later[1].id]
    assert ids(await ask("tasks", None, TaskState.SCHEDULED)) == [handle.id for handle in later]


async def test_tasks_in_groups_are_not_listed(app: TaskQ, ask: Ask) -> None:
    enqueue(app)

    for queue in (None, "default"):
        page = await ask("tasks", queue, TaskState.AGGREGATING)
        assert (ids(page), page.total) == ([], 0)


@pytest.mark.parametrize("bounds", [{"page": 0}, {"page_size": 0}, {"page_size": 1001}, {"page": True}])
async def test_bounds_of_pages_are_checked(app: TaskQ, ask: Ask, bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="page"):
        await ask("tasks", **bounds)


async def test_one_task_is_found_by_queue_and_id(app: TaskQ, ask: Ask) -> None:
    handle = enqueue(app, "low", task_id="welcome-7")

    task = await ask("task", "low", "welcome-7")

    assert (task.id, task.name, task.state) == (handle.id, "email:deliver", TaskState.PENDING)
    with pytest.raises(TaskNotFoundError, match="welcome-7"):
        await ask("task", "default", "welcome-7")


async def test_what_cannot_be_decoded_is_shown_as_such(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """Its neighbours are listed all the same."""
    broken, gone, good = enqueue(app), enqueue(app), enqueue(app)
    redis_server.client.hset(f"asynq:{{default}}:t:{broken.id}", "msg", b"\xff\xff")
    redis_server.client.delete(f"asynq:{{default}}:t:{gone.id}")

    page = await ask("tasks", "default", TaskState.PENDING)
    task = await ask("task", "default", broken.id)

    assert [type(each) for each in page.tasks] == [UnreadableTask, UnreadableTask, TaskInfo]
    assert ids(page) == [broken.id, gone.id, good.id]
    assert page.tasks[1].problem == "it is listed, but its data is gone"
    assert (task.id, task.queue, task.message) == (broken.id, "default", b"\xff\xff")


async def test_an_unreachable_store_is_told() -> None:
    app = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.1)

    with pytest.raises(BrokerUnavailableError, match="cannot reach"):
        Inspector(app).queues()
    with pytest.raises(BrokerUnavailableError, match="cannot reach"):
        await AsyncInspector(app).queues()
