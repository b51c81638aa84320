"""Looking at queues and tasks."""

from datetime import UTC, datetime, timedelta
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
from taskq_core.errors import BrokerReplyError, QueueNotFoundError, TaskStateError
from taskq_core.inspector import AsyncInspector, Inspector, QueueInfo, TaskPage, UnreadableTask
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask

pytestmark = pytest.mark.redis


def enqueue(app: TaskQ, queue: str = "default", **options: Any) -> TaskHandle[Any]:
    return app.client.enqueue(app.remote("email:deliver", queue=queue, **options).s(to="a@b.c"))


def ids(page: TaskPage) -> list[str]:
    return [task.id for task in page.tasks]


async def test_queues_lists_every_queue_with_an_enqueue(app: TaskQ, ask: Ask) -> None:
    assert await ask("queues") == []
    for name in ("low", "critical"):
        enqueue(app, name)

    assert await ask("queues") == ["critical", "low"]


async def test_queue_info_returns_the_state_of_a_queue(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
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


async def test_an_unknown_queue_is_reported(app: TaskQ, ask: Ask) -> None:
    with pytest.raises(QueueNotFoundError, match="no queue 'nowhere'"):
        await ask("queue_info", "nowhere")
    for method, *arguments in (
        ("tasks", "nowhere", TaskState.PENDING),
        ("tasks", "nowhere"),
        ("task", "nowhere", "id"),
        ("count", "nowhere", TaskState.PENDING),
        ("history", "nowhere"),
        ("memory_usage", "nowhere"),
        ("groups", "nowhere"),
        ("find_tasks", "nowhere", TaskState.PENDING),
        ("pause", "nowhere"),
        ("resume", "nowhere"),
        ("remove_queue", "nowhere"),
        ("run_task", "nowhere", "id"),
        ("archive_task", "nowhere", "id"),
        ("delete_task", "nowhere", "id"),
        ("retry_task", "nowhere", "id"),
        ("update_payload", "nowhere", "id", b""),
        ("move_task", "nowhere", "id", "low"),
        ("reconcile", "nowhere"),
        ("cluster_nodes", "nowhere"),
        ("run_all", "nowhere", TaskState.ARCHIVED),
        ("archive_all", "nowhere", TaskState.PENDING),
        ("delete_all", "nowhere", TaskState.PENDING),
        ("move_all", "nowhere", TaskState.PENDING, "low"),
    ):
        with pytest.raises(QueueNotFoundError, match="no queue 'nowhere'; there are none yet"):
            await ask(method, *arguments, **({"after": 5} if method == "retry_task" else {}))
    assert await ask("queues") == []


async def test_pages_of_tasks_start_with_the_next_to_run(app: TaskQ, ask: Ask) -> None:
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
async def test_a_page_can_span_queues_and_states(app: TaskQ, ask: Ask, page_size: int) -> None:
    """Tasks are ordered by state, and by queue within a state. No task is missed or shown twice."""
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


async def test_tasks_in_groups_are_listed_by_group(app: TaskQ, ask: Ask) -> None:
    """The queue and group are required, because a page over all groups would have no order."""
    enqueue(app)
    members = [enqueue(app, aggregate="digest") for _ in range(3)]
    enqueue(app, aggregate="other")

    for queue in (None, "default"):
        with pytest.raises(ConfigurationError, match="state 'aggregating' needs queue and group"):
            await ask("tasks", queue, TaskState.AGGREGATING)
    assert (await ask("tasks", "default")).total == 1
    page = await ask("tasks", "default", TaskState.AGGREGATING, group="digest", page_size=2)
    assert (len(page.tasks), page.total) == (2, 3)
    assert set(ids(page)) < {handle.id for handle in members}
    assert {(group.name, group.size) for group in await ask("groups", "default")} == {("digest", 3), ("other", 1)}
    assert (await ask("queue_info", "default")).groups == 2
    assert await ask("count", "default", TaskState.AGGREGATING, group="digest") == 3


async def test_many_groups_are_listed_in_several_requests(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    enqueue(app)
    names = [f"g{number:04}" for number in range(1500)]
    redis_server.client.sadd("asynq:{default}:groups", *names)
    for name in names[:3]:
        redis_server.client.zadd(f"asynq:{{default}}:g:{name}", {"x": 1})

    groups = await ask("groups", "default")

    assert [group.name for group in groups] == names
    assert [group.size for group in groups[:4]] == [1, 1, 1, 0]


async def test_groups_are_listed_in_pages(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """Each page asks for a bounded number of names, and together they are all."""
    enqueue(app)
    names = [f"g{number:04}" for number in range(1500)]
    redis_server.client.sadd("asynq:{default}:groups", *names)
    redis_server.client.zadd("asynq:{default}:g:g0007", {"x": 1})

    pages = [await ask("groups_page", "default", limit=100)]
    while pages[-1].cursor is not None:
        pages.append(await ask("groups_page", "default", limit=100, cursor=pages[-1].cursor))

    found = {group.name: group.size for page in pages for group in page.groups}
    assert sorted(found) == names
    assert (found["g0007"], found["g0008"]) == (1, 0)
    assert {page.total for page in pages} == {1500}
    assert max(len(page.groups) for page in pages) < 250


@rows(
    "options", [{"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": "-1"}, {"cursor": str(2**64)}, {"cursor": 7}]
)
async def test_an_invalid_page_of_groups_is_refused(app: TaskQ, ask: Ask, options: Any) -> None:
    enqueue(app)

    with pytest.raises(ConfigurationError, match=r"limit|cursor"):
        await ask("groups_page", "default", **options)


async def test_at_most_a_thousand_groups_are_counted(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """One look stays short, however many there are."""
    enqueue(app)
    names = [f"g{number:04}" for number in range(1500)]
    with redis_server.client.pipeline(transaction=False) as pipeline:
        pipeline.sadd("asynq:{default}:groups", *names)
        for name in names:
            pipeline.zadd(f"asynq:{{default}}:g:{name}", {"x": 1})
        pipeline.execute()

    info = await ask("queue_info", "default")

    assert (info.groups, info.sizes[TaskState.AGGREGATING], info.size) == (1500, 1000, 1001)


@rows(
    ("arguments", "group"),
    [(("default", TaskState.PENDING), "g"), (("default",), "g"), ((None, TaskState.AGGREGATING), "g")],
)
async def test_a_group_for_another_state_is_refused(ask: Ask, arguments: Any, group: str) -> None:
    with pytest.raises(ConfigurationError, match="group"):
        await ask("tasks", *arguments, group=group)


async def test_a_count_of_a_group_needs_its_name(app: TaskQ, ask: Ask) -> None:
    enqueue(app)

    with pytest.raises(ConfigurationError, match="state 'aggregating' needs the name of its group"):
        await ask("count", "default", TaskState.AGGREGATING)
    assert await ask("count", "default", TaskState.PENDING) == 1
    assert await ask("count", "default", TaskState.ARCHIVED) == 0


async def test_history_is_returned_for_each_day(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """Days without work are there too, today first."""
    enqueue(app)
    today = datetime.fromtimestamp(redis_server.client.time()[0], UTC).date()
    redis_server.client.set(f"asynq:{{default}}:processed:{today - timedelta(days=2)}", 7)
    redis_server.client.set(f"asynq:{{default}}:failed:{today - timedelta(days=2)}", 3)

    days = await ask("history", "default", days=90)

    assert len(days) == 90
    at = next(number for number, day in enumerate(days) if day.day == today - timedelta(days=2))
    assert at in (2, 3), "the third, or the next one if that day has ended meanwhile"
    assert (days[at].processed, days[at].failed) == (7, 3)
    assert {(day.processed, day.failed) for day in days[at + 1 :]} == {(0, 0)}
    assert days[at].day - days[at + 1].day == timedelta(days=1)


@rows("days", [0, 91, -1, True])
async def test_a_history_of_zero_days_is_refused(ask: Ask, days: int) -> None:
    with pytest.raises(ConfigurationError, match="days must be"):
        await ask("history", "default", days=days)


async def test_memory_is_estimated_from_samples(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """It grows with the number of tasks and their size, in whatever state they are."""
    for _ in range(100):
        enqueue(app)
    small = await ask("memory_usage", "default")
    for _ in range(100):
        enqueue(app, run_after=60)
    both = await ask("memory_usage", "default")
    for _ in range(30):
        enqueue(app, aggregate="g")

    assert 100 * 100 < small < 100 * 1000
    assert small < both < await ask("memory_usage", "default")


@rows("bounds", [{"page": 0}, {"page_size": 0}, {"page_size": 1001}, {"page": True}])
async def test_bounds_of_pages_are_checked(app: TaskQ, ask: Ask, bounds: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="page"):
        await ask("tasks", **bounds)


async def test_one_task_is_found_by_queue_and_id(app: TaskQ, ask: Ask) -> None:
    handle = enqueue(app, "low", task_id="welcome-7")
    enqueue(app)

    task = await ask("task", "low", "welcome-7")

    assert (task.id, task.name, task.state) == (handle.id, "email:deliver", TaskState.PENDING)
    with pytest.raises(TaskNotFoundError, match="welcome-7"):
        await ask("task", "default", "welcome-7")


@pytest.mark.parametrize(
    ("queue", "state"), [("default", TaskState.PENDING), ("default", TaskState.SCHEDULED), (None, None)]
)
async def test_a_page_of_large_tasks_is_read_in_several_requests(
    app: TaskQ,
    ask: Ask,
    redis_server: RedisServer,
    queue: str | None,
    state: TaskState | None,
) -> None:
    """The page is whole, and no call reads much more than a mebibyte, as a payload or as a result."""
    options = {"run_after": 60} if state is TaskState.SCHEDULED else {}
    handles = [await app.remote("t", **options).adelay(bytes(400_000)) for _ in range(6)]
    for handle in handles:
        redis_server.client.hset(f"asynq:{{default}}:t:{handle.id}", "result", bytes(400_000))
    redis_server.client.config_resetstat()

    page = await ask("tasks", queue, state, page_size=5)
    rest = await ask("tasks", queue, state, page=2, page_size=5)

    sent = [*ids(page), *ids(rest)]
    assert (len(page.tasks), page.total, sorted(sent)) == (5, 6, sorted(handle.id for handle in handles))
    reads = redis_server.client.info("commandstats")["cmdstat_hmget"]["calls"]
    calls = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert reads == 6
    assert calls - (2 if queue is None else 0) == 3 + 1, "two tasks a call: 2, 2 and 1, then the last"


async def test_an_undecodable_task_is_returned_with_a_problem(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """Its neighbours are listed all the same."""
    broken, gone, good = enqueue(app), enqueue(app), enqueue(app)
    redis_server.client.hset(f"asynq:{{default}}:t:{broken.id}", "msg", b"\xff\xff")
    redis_server.client.delete(f"asynq:{{default}}:t:{gone.id}")

    page = await ask("tasks", "default", TaskState.PENDING)
    task = await ask("task", "default", broken.id)

    assert [type(each) for each in page.tasks] == [UnreadableTask, UnreadableTask, TaskInfo]
    assert ids(page) == [broken.id, gone.id, good.id]
    assert page.tasks[1].problem == "it is listed, but its data is missing"
    assert (task.id, task.queue, task.message) == (broken.id, "default", b"\xff\xff")
    assert "xff" not in repr(task), "its bytes get into no log"


async def test_a_time_beyond_the_calendar_does_not_hide_a_task(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """Another program may have written it. The task is listed without the time, and a search continues after it."""
    first, second = enqueue(app, task_id="a", run_after=60), enqueue(app, task_id="b", run_after=60)
    redis_server.client.zadd("asynq:{default}:scheduled", {first.id: "+inf", second.id: "+inf"})

    page = await ask("tasks", "default", TaskState.SCHEDULED)
    found = await ask("find_tasks", "default", TaskState.SCHEDULED, limit=1)
    rest = await ask("find_tasks", "default", TaskState.SCHEDULED, cursor=found.cursor)

    assert [(task.id, task.next_run_at) for task in page.tasks] == [("a", None), ("b", None)]
    assert [task.id for task in (*found.tasks, *rest.tasks)] == ["a", "b"]
    assert (await ask("task", "default", "a")).next_run_at is None


async def test_an_invalid_group_does_not_hide_tasks(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """The key of its members has another type, so the group is empty."""
    enqueue(app, aggregate="good")
    redis_server.client.sadd("asynq:{default}:groups", "odd")
    redis_server.client.set("asynq:{default}:g:odd", "x")

    assert (await ask("queue_info", "default")).sizes[TaskState.AGGREGATING] == 1
    assert [(group.name, group.size) for group in await ask("groups", "default")] == [("good", 1), ("odd", 0)]
    assert await ask("memory_usage", "default") > 0


async def test_a_damaged_queue_does_not_hide_others(app: TaskQ, ask: Ask, redis_server: RedisServer) -> None:
    """A read of all queues reports its problem. A read of this queue alone raises an error."""
    enqueue(app, "odd")
    enqueue(app)
    redis_server.client.set("asynq:{odd}:retry", "x")

    default, odd = await ask("queue_infos")
    page = await ask("tasks")

    assert (default.name, default.size, default.problem) == ("default", 1, "")
    assert (odd.name, odd.size, "WRONGTYPE" in odd.problem) == ("odd", 0, True)
    assert abs(odd.as_of - default.as_of) < timedelta(minutes=1)
    assert [task.queue for task in page.tasks] == ["default"]
    with pytest.raises(BrokerReplyError, match="WRONGTYPE"):
        await ask("queue_info", "odd")


async def test_an_unreachable_redis_is_reported() -> None:
    app = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.01)

    with pytest.raises(BrokerUnavailableError, match="cannot reach"):
        Inspector(app).queues()
    with pytest.raises(BrokerUnavailableError, match="cannot reach"):
        await AsyncInspector(app).queues()


async def test_a_large_message_and_a_large_result_are_shown_by_their_sizes(
    app: TaskQ, ask: Ask, redis_server: RedisServer
) -> None:
    queue = app.runtime.keys.queue("default")
    size = (32 << 20) + 1
    enqueue(app, task_id="a")
    small = redis_server.client.hget(queue.task("a"), "msg")
    redis_server.client.hset(queue.task("a"), mapping={"msg": bytes(size)})
    redis_server.client.hset(queue.task("b"), mapping={"msg": small, "state": "completed", "result": bytes(size)})
    redis_server.client.zadd(queue.completed, {"b": 4_000_000_000})

    page = await ask("tasks", "default", TaskState.PENDING)
    found = await ask("find_tasks", "default", TaskState.PENDING, name="email:deliver")
    completed = await ask("tasks", "default", TaskState.COMPLETED)

    (large,) = page.tasks
    assert large == await ask("task", "default", "a")
    assert isinstance(large, UnreadableTask)
    assert (large.problem, large.message) == (
        "its message has 33,554,433 bytes, more than 33,554,432, and is not read",
        b"",
    )
    assert found.tasks == ()
    for task in (*completed.tasks, await ask("task", "default", "b")):
        assert task.result == b""
        assert str(task.oversized_result) == "33,554,433 bytes are stored, but not read here: the limit is 33,554,432"
    with pytest.raises(TaskStateError, match="too large to be moved"):
        await ask("move_task", "default", "a", "other")
