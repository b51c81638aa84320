"""Tasks, as an operator lists, searches and selects them."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, TaskState
from taskq_core.inspector import (
    ALLOWED_STATES,
    SORTED_BY,
    FoundTasks,
    Inspector,
    QueueInfo,
    TaskAction,
    TaskOrder,
    TaskRef,
)
from taskq_core.inspector.cursors import write_cursor
from taskq_core.views import Dashboard, TaskFilter, labels
from taskq_core.views.tasks import SELECTED_MAX
from taskq_core.wire import build_message, encode_message
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.views.conftest import Ask

pytestmark = pytest.mark.redis


@pytest.fixture
def infos(app: TaskQ) -> Callable[[], list[QueueInfo]]:
    """Return a function that reads the current state of the queues."""
    return Inspector(app).queue_infos


def store(
    redis_server: RedisServer,
    *task_ids: str,
    queue: str = "default",
    state: str = "archived",
    score: int = 1_600_000_000,
    **fields: Any,
) -> None:
    """Store tasks of one state, as any producer and worker leave them."""
    pipeline = redis_server.client.pipeline()
    prefix = f"asynq:{{{queue}}}:"
    for task_id in task_ids:
        message = build_message(id=task_id, queue=queue, **{"type": "t", "payload": b"", **fields})
        pipeline.hset(f"{prefix}t:{task_id}", mapping={"msg": encode_message(message), "state": state})
        if state in ("pending", "active"):
            pipeline.rpush(prefix + state, task_id)
        else:
            pipeline.zadd(prefix + state, {task_id: score})
    pipeline.sadd("asynq:queues", queue)
    pipeline.execute()


def ids(tasks: Any) -> list[str]:
    return [task.id for task in tasks]


async def test_tasks_are_listed_by_queue_and_state(ask: Ask, redis_server: RedisServer, infos: Any) -> None:
    store(redis_server, "a", "b")
    store(redis_server, "c", queue="low")
    store(redis_server, "d", state="pending", queue="low")

    async def listed(skip: int = 0, count: int = 10, **wanted: Any) -> list[str]:
        return ids(await ask("tasks", infos(), TaskFilter(**wanted), skip=skip, count=count))

    assert await listed() == ["d", "b", "a", "c"]
    assert await listed(skip=1, count=2) == ["b", "a"]
    assert await listed(queue="low") == ["d", "c"]
    assert await listed(state=TaskState.ARCHIVED, queue="default") == ["b", "a"]
    assert await listed(queue="none such") == await listed(count=0) == await listed(skip=9) == []
    assert await listed(state="pending") == ["d"]
    with pytest.raises(ConfigurationError, match="use search_tasks for the other fields"):
        await listed(text="a")


@rows(
    ("wanted", "said"),
    [
        ({"state": "sleeping"}, "no state 'sleeping'"),
        ({"state": TaskState.PENDING, "queue": "default", "group": "g"}, "has no groups"),
        ({"state": TaskState.AGGREGATING}, "needs the name of its group"),
        ({"group": "g", "queue": "default"}, "needs its queue and the state"),
        ({"text": None}, "text must be a string"),
        ({"error": None}, "error must be a string"),
        ({"payload": None}, "payload must be bytes or a string"),
        ({"payload": "\ud800"}, "payload must be text, got a lone surrogate"),
        ({"queue": "\ud800"}, "queue must be text, got a lone surrogate"),
    ],
)
async def test_a_filter_that_is_not_valid_is_refused(
    ask: Ask, redis_server: RedisServer, infos: Any, wanted: dict[str, Any], said: str
) -> None:
    store(redis_server, "a")
    counted = infos()

    for method, options in (("tasks", {}), ("search_tasks", {}), ("select_tasks", {"states": tuple(TaskState)})):
        with pytest.raises(ConfigurationError, match=said):
            await ask(method, counted, TaskFilter(**wanted), **options)


async def test_tasks_of_a_group_are_listed_searched_and_selected(
    ask: Ask, app: TaskQ, redis_server: RedisServer
) -> None:
    redis_server.client.sadd("asynq:queues", "default")
    sent = [app.client.enqueue(app.remote("t", aggregate=group).s(number=n)).id for n, group in enumerate("gggh")]
    counted = Inspector(app).queue_infos()
    wanted = TaskFilter(queue="default", state=TaskState.AGGREGATING, group="g")
    states = ALLOWED_STATES[TaskAction.DELETE]

    listed = await ask("tasks", counted, wanted)
    second = await ask("tasks", counted, wanted, skip=1, count=1)
    searched = await ask("search_tasks", counted, wanted)
    selected = await ask("select_tasks", counted, wanted, states=states)
    refused = await ask("select_tasks", counted, wanted, states=[])

    assert sorted(ids(listed)) == sorted(ids(searched.tasks)) == sorted(ids(selected.tasks)) == sorted(sent[:3])
    assert ids(second) == ids(listed)[1:2]
    assert (selected.is_complete, refused.refused) == (True, {TaskState.AGGREGATING: 3})


async def test_a_search_covers_id_payload_error_type_and_age(ask: Ask, redis_server: RedisServer, infos: Any) -> None:
    now: Any = redis_server.client.time()
    store(redis_server, "order-1", type="shop:ship", payload=b'{"to": "a@b.c"}', score=now[0] - 7200)
    store(redis_server, "order-2", type="shop:ship", error_msg="SMTP timed out", score=now[0] - 60)
    store(redis_server, "x-3", type="shop:pay", queue="low", payload=b"\xff timed")
    store(redis_server, "x-4", state="active")

    async def found(**wanted: Any) -> list[str]:
        search = await ask("search_tasks", infos(), TaskFilter(**wanted))
        assert (search.total, search.cursor) == (4 if not wanted.get("queue") else 3, None)
        return ids(search.tasks)

    assert await found(text="order-") == ["order-2", "order-1"]
    assert await found(text="a@b.c") == ["order-1"]
    assert await found(text="timed") == ["order-2", "x-3"]
    assert await found(text="pay") == await found(text="low") == ["x-3"]
    assert await found(name="shop:pay") == ["x-3"]
    assert await found(name="shop:") == []
    assert await found(text="timed", name="shop:ship") == ["order-2"]
    assert await found(newer_than=timedelta(hours=1)) == ["order-2"]
    assert await found(older_than=timedelta(hours=1), queue="default") == ["order-1"]


async def test_a_complete_id_finds_its_tasks_and_reads_no_others(
    ask: Ask, redis_server: RedisServer, infos: Any
) -> None:
    store(redis_server, *(f"order-1{number}" for number in range(200)))
    store(redis_server, "order-1")
    store(redis_server, "order-1", queue="low", state="retry")

    search = await ask("search_tasks", infos(), TaskFilter(text="order-1"))
    in_low = await ask("search_tasks", infos(), TaskFilter(text="order-1", queue="low", older_than=timedelta(1)))
    waiting = await ask("search_tasks", infos(), TaskFilter(text="order-1", state=TaskState.SCHEDULED))

    assert [(task.queue, task.id) for task in search.tasks] == [("default", "order-1"), ("low", "order-1")]
    assert search.scanned == 2
    assert search.read_bytes > 0
    assert ids(in_low.tasks) == ["order-1"]
    assert ids(waiting.tasks) == []


async def test_a_search_reports_its_progress_and_can_be_continued(
    ask: Ask, redis_server: RedisServer, infos: Any
) -> None:
    store(redis_server, *(f"a{number:03}" for number in range(150)), state="pending")
    store(redis_server, *(f"b{number:03}" for number in range(150)), queue="low")
    store(redis_server, *(f"c{number:03}" for number in range(50)), queue="low", state="completed")
    wanted, seen, steps, read, cursor = TaskFilter(text="0"), [], 0, 0, None

    while True:
        search = await ask("search_tasks", infos(), wanted, scan=40, cursor=cursor)
        assert search.scanned <= 40
        assert search.total == 350
        seen += ids(search.tasks)
        read += search.scanned
        assert (search.read, search.matched) == (read, len(seen))
        steps, cursor = steps + 1, search.cursor
        if cursor is None:
            break

    assert len(seen) == len(set(seen))
    assert sorted(seen) == sorted(
        f"{letter}{number:03}"
        for letter, count in (("a", 150), ("b", 150), ("c", 50))
        for number in range(count)
        if "0" in f"{number:03}"
    )
    assert steps == 9


async def test_a_search_of_large_tasks_ends_at_its_limit_of_bytes(
    app: TaskQ, redis_server: RedisServer, infos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise ten thousand large tasks could fill the memory of a web server."""
    store(redis_server, *(f"{number:03}" for number in range(40)), payload=b"x" * 100_000)
    store(redis_server, "a", queue="low")
    counted = infos()

    dashboard = Dashboard(Inspector(app))
    with monkeypatch.context() as patch:
        patch.setattr("taskq_core.views.tasks.SCAN_BYTES", 2_000_000)
        first = dashboard.search_tasks(counted, TaskFilter(text="x"))
    rest = dashboard.search_tasks(counted, TaskFilter(text="x"), cursor=first.cursor)

    assert 20 <= first.scanned < 40
    assert 2_000_000 <= first.read_bytes < 4_100_000
    assert first.scanned + rest.scanned == 41
    assert rest.cursor is None


async def test_a_search_continues_after_an_emptied_queue(ask: Ask, redis_server: RedisServer, infos: Any) -> None:
    store(redis_server, "a0", "a1")
    store(redis_server, "b1", queue="low")
    first = await ask("search_tasks", infos(), TaskFilter(text="1"), scan=1)

    redis_server.client.delete("asynq:{default}:archived")
    second = await ask("search_tasks", infos(), TaskFilter(text="1"), cursor=first.cursor)

    assert ids(first.tasks) == ["a1"]
    assert ids(second.tasks) == ["b1"]


@rows(
    "cursor",
    [
        *("", "x", "ü", base64.b64encode(b"[" * 99_999).decode()),
        *(write_cursor("archived"), write_cursor(["nowhere", "default"]), write_cursor(["archived", "default", [-1]])),
    ],
)
async def test_a_foreign_cursor_is_refused(ask: Ask, redis_server: RedisServer, infos: Any, cursor: str) -> None:
    store(redis_server, "a1")

    with pytest.raises(ConfigurationError, match="cursor must come from the previous call"):
        await ask("search_tasks", infos(), TaskFilter(text="nothing"), cursor=cursor)


async def test_an_undecodable_task_is_found_by_its_id_and_bytes(
    ask: Ask, redis_server: RedisServer, infos: Any
) -> None:
    store(redis_server, "broken")
    redis_server.client.hset("asynq:{default}:t:broken", "msg", b"\xff\xffgarbage")

    for text in ("broken", "rok", "garb"):
        assert ids((await ask("search_tasks", infos(), TaskFilter(text=text))).tasks) == ["broken"]
    assert ids((await ask("search_tasks", infos(), TaskFilter(text="garb", name="t"))).tasks) == []


async def test_a_task_keeps_its_id_if_its_message_names_another(
    ask: Ask, redis_server: RedisServer, infos: Any
) -> None:
    """Otherwise deleting it would delete the other task."""
    store(redis_server, "other", queue="low")
    store(redis_server, "liar", payload=b"lie")
    message = build_message(id="other", queue="low", type="t", payload=b"lie")
    redis_server.client.hset("asynq:{default}:t:liar", "msg", encode_message(message))

    listed = await ask("tasks", infos(), TaskFilter(queue="default"))
    searched = await ask("search_tasks", infos(), TaskFilter(text="lie"))
    selected = await ask("select_tasks", infos(), TaskFilter(text="lie"), states=[TaskState.ARCHIVED])

    assert [(task.queue, task.id) for task in (*listed, *searched.tasks)] == [("default", "liar")] * 2
    assert selected.tasks == [TaskRef("default", "liar", TaskState.ARCHIVED)]


async def test_all_matching_tasks_are_selected_with_their_state(
    ask: Ask, redis_server: RedisServer, infos: Any
) -> None:
    store(redis_server, "a", "b", type="shop:ship")
    store(redis_server, "c", queue="low", state="retry")
    store(redis_server, "d", state="active", type="shop:ship")

    async def select(action: TaskAction, **wanted: Any) -> Any:
        return await ask("select_tasks", infos(), TaskFilter(**wanted), states=ALLOWED_STATES[action])

    all_of_them = await select(TaskAction.RUN)
    shipped = await select(TaskAction.DELETE, name="shop:ship")
    running = await select(TaskAction.CANCEL)

    archived = [TaskRef("default", each, TaskState.ARCHIVED) for each in "ab"]
    assert all_of_them.tasks == [TaskRef("low", "c", TaskState.RETRY), *archived]
    assert all_of_them.refused == {TaskState.ACTIVE: 1}
    assert all_of_them.is_complete
    assert sorted(shipped.tasks, key=lambda task: task.id) == archived
    assert shipped.refused == {TaskState.ACTIVE: 1}
    assert [task.id for task in running.tasks] == ["d"]
    assert running.refused == {TaskState.RETRY: 1, TaskState.ARCHIVED: 2}


async def test_a_selection_reads_all_tasks_in_several_searches(
    ask: Ask, redis_server: RedisServer, infos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_core.views.tasks.SCAN_BYTES", 1)  # each search reads only a part
    store(redis_server, *"abc", type="shop:ship", state="retry")
    store(redis_server, *(f"{number:03}" for number in range(300)), state="pending")

    selection = await ask("select_tasks", infos(), TaskFilter(name="shop:ship"), states=[TaskState.RETRY])
    cut = await ask(
        "select_tasks", infos(), TaskFilter(name="shop:ship"), states=[TaskState.RETRY], has_time=lambda: False
    )

    assert sorted(ref.id for ref in selection.tasks) == ["a", "b", "c"]
    assert selection.is_complete
    assert (cut.tasks, cut.is_complete) == ([], False)


@rows(
    ("state", "times"),
    [
        (TaskState.PENDING, "pending_since"),
        (TaskState.SCHEDULED, "next_run_at"),
        (TaskState.RETRY, "next_run_at"),
        (TaskState.ARCHIVED, "archived_at"),
        (TaskState.COMPLETED, "expires_at"),
    ],
)
async def test_tasks_of_one_state_are_listed_by_the_time_of_that_state(
    ask: Ask, redis_server: RedisServer, infos: Any, state: TaskState, times: str
) -> None:
    for number in range(3):
        store(redis_server, str(number), state=state, score=1_700_000_000 + number)
        redis_server.client.hset(f"asynq:{{default}}:t:{number}", "pending_since", (1_700_000_000 + number) * 10**9)
    if state is TaskState.PENDING:  # Redis has the newest first
        redis_server.client.rpush(
            "asynq:{default}:pending", *redis_server.client.lpop("asynq:{default}:pending", 3)[::-1]
        )

    async def listed(order: TaskOrder) -> list[Any]:
        return list(await ask("tasks", infos(), TaskFilter(state=state), order=order))

    newest, oldest = await listed(TaskOrder.NEWEST), await listed(TaskOrder.OLDEST)

    assert SORTED_BY[state] == times
    assert ids(newest) == ["2", "1", "0"]
    assert newest == oldest[::-1]
    assert [getattr(task, times).timestamp() for task in oldest] == [1_700_000_000, 1_700_000_001, 1_700_000_002]


@rows("order", [TaskOrder.NEWEST, TaskOrder.OLDEST])
async def test_a_search_can_begin_with_the_newest_or_oldest(
    ask: Ask, redis_server: RedisServer, infos: Any, order: TaskOrder
) -> None:
    for number in range(5):
        store(redis_server, f"a{number}", state="retry", score=1_700_000_000 + number)
    wanted, found, cursor = TaskFilter(text="a", state=TaskState.RETRY), [], None

    while True:
        search = await ask("search_tasks", infos(), wanted, scan=2, cursor=cursor, order=order)
        found += ids(search.tasks)
        cursor = search.cursor
        if cursor is None:
            break

    assert found == ["a0", "a1", "a2", "a3", "a4"][:: 1 if order is TaskOrder.OLDEST else -1]


@rows(
    ("numbers", "text"),
    [
        ((10_000, 20_000, 0, "x"), "Read 10,000 of 20,000 tasks, none matched so far."),
        ((10_000, 20_000, 50, "x"), "Read 10,000 of 20,000 tasks, 50 matched so far."),
        ((20_000, 20_000, 1_000, None), "All 20,000 tasks were read, 1,000 match."),
        ((20_005, 20_000, 0, None), "None of 20,000 tasks matches."),
        ((20_005, 20_000, 0, "x"), "Read 20,000 of 20,000 tasks, none matched so far."),
    ],
)
def test_a_search_that_has_not_read_everything_does_not_say_that_nothing_matches(
    numbers: tuple[int, int, int, str | None], text: str
) -> None:
    read, total, matched, cursor = numbers
    search = FoundTasks(tasks=(), scanned=1, total=total, cursor=cursor, read=read, matched=matched)

    assert labels.search_text(search, "tasks") == text


async def test_a_selection_is_bounded(ask: Ask, redis_server: RedisServer, infos: Any) -> None:
    for start in range(0, SELECTED_MAX + 1, 1000):
        store(redis_server, *(f"{number:06}" for number in range(start, min(start + 1000, SELECTED_MAX + 1))))

    selection = await ask("select_tasks", infos(), TaskFilter(), states=[TaskState.ARCHIVED])

    assert len({task.id for task in selection.tasks}) == SELECTED_MAX
    assert not selection.is_complete


async def test_a_selection_of_pending_tasks_starts_with_the_next_to_run(
    ask: Ask, redis_server: RedisServer, infos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_core.views.tasks.SELECTED_MAX", 3)
    store(redis_server, *"abcde", state="pending")  # the one at the end is next

    selection = await ask("select_tasks", infos(), TaskFilter(), states=[TaskState.PENDING])
    found = await ask("select_tasks", infos(), TaskFilter(name="t"), states=[TaskState.PENDING])

    assert [task.id for task in selection.tasks] == ["e", "d", "c"]
    assert not selection.is_complete
    assert [task.id for task in found.tasks] == ["c", "b", "a"]  # a search reads the newest first
    assert not found.is_complete


async def test_the_number_of_redis_commands_does_not_grow_with_the_tasks(
    redis_server: RedisServer, commands_of: Any, infos: Any
) -> None:
    async def costs() -> tuple[int, int]:
        counted = infos()
        page = await commands_of("tasks", counted, TaskFilter(), skip=20, count=20)
        return page, await commands_of("search_tasks", counted, TaskFilter(text="nothing"), scan=100)

    store(redis_server, *(f"{number:06}" for number in range(110)))
    await costs()  # connects, and brings the scripts along
    few = await costs()
    store(redis_server, *(f"{number:06}" for number in range(110, 3000)))
    many = await costs()

    assert few == many
