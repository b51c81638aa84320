"""Doing one thing to all tasks of a state that fit, a part a call."""

from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ, TaskState
from taskq_core.broker.operations.operation import Operation
from taskq_core.broker.plans import run_plan
from taskq_core.errors import BrokerUnavailableError, QueueNotFoundError
from taskq_core.inspector import Inspector, MatchingReport, TaskAction, TaskFilter
from taskq_core.inspector.cursors import write_cursor
from taskq_core.inspector.matching import act_on_matching
from taskq_core.views import Dashboard
from tests.redis_server import RedisServer
from tests.rows import rows
from tests.taskq_core.inspector.conftest import Ask, Enqueue

pytestmark = pytest.mark.redis


def never() -> bool:
    return False


async def test_an_action_covers_all_queues_and_filters_by_content(ask: Ask, enqueue: Enqueue) -> None:
    wanted = [enqueue(), enqueue(queue="low")]
    other = enqueue(name="report")

    part = await ask("act_on_matching", TaskFilter(state=TaskState.PENDING, name_part="email"), TaskAction.ARCHIVE)

    assert {(each.queue, each.id) for each in part.report.done} == {(each.queue, each.id) for each in wanted}
    assert (part.scanned, part.next) == (3, None)
    assert (await ask("task", "default", other.id)).state is TaskState.PENDING


async def test_a_part_ends_at_its_time_limit_and_its_cursor_continues(ask: Ask, enqueue: Enqueue) -> None:
    for number in range(230):
        enqueue(queue=("a", "b")[number % 2])
    wanted = TaskFilter(state=TaskState.PENDING)

    done, cursor, parts = [], None, 0
    while parts == 0 or cursor is not None:
        part = await ask("act_on_matching", wanted, TaskAction.DELETE, cursor=cursor, has_time=never)
        done += part.report.done
        cursor, parts = part.next, parts + 1
        assert parts < 10

    assert (len(done), len(set(done)), parts) == (230, 230, 4)
    assert [info.size for info in await ask("queue_infos")] == [0, 0]


async def test_tasks_added_in_front_hide_no_matching_task(ask: Ask, enqueue: Enqueue) -> None:
    old = {enqueue().id for _ in range(150)}
    wanted = TaskFilter(queue="default", state=TaskState.PENDING)

    first = await ask("act_on_matching", wanted, TaskAction.ARCHIVE, has_time=never)
    for _ in range(5):
        enqueue()
    second = await ask("act_on_matching", wanted, TaskAction.ARCHIVE, cursor=first.next)

    assert old <= {each.id for each in (*first.report.done, *second.report.done)}


async def test_tasks_of_a_group_are_moved_by_their_group(ask: Ask, enqueue: Enqueue) -> None:
    enqueue(aggregate="g")
    enqueue(aggregate="h")
    wanted = TaskFilter(queue="default", state=TaskState.AGGREGATING, group="g")

    part = await ask("act_on_matching", wanted, TaskAction.MOVE, to_queue="low")

    assert len(part.report.done) == 1
    assert await ask("count", "low", TaskState.AGGREGATING, group="g") == 1
    assert await ask("count", "default", TaskState.AGGREGATING, group="h") == 1


async def test_the_target_queue_of_a_move_is_not_searched(ask: Ask, enqueue: Enqueue) -> None:
    enqueue()
    enqueue(queue="low")

    part = await ask("act_on_matching", TaskFilter(state=TaskState.PENDING), TaskAction.MOVE, to_queue="low")

    assert (len(part.report.done), part.report.skipped, part.scanned) == (1, {}, 1)


@rows(
    ("wanted", "action", "options", "said"),
    [
        (TaskFilter(state=TaskState.PENDING), TaskAction.RUN, {}, "run takes tasks that are"),
        (TaskFilter(state=TaskState.ACTIVE), TaskAction.DELETE, {}, "delete takes tasks that are"),
        (TaskFilter(state=TaskState.PENDING, group="g"), TaskAction.DELETE, {}, "has no groups"),
        (TaskFilter(state=TaskState.AGGREGATING, group="g"), TaskAction.DELETE, {}, "needs its queue"),
        (TaskFilter(state="sleeping"), TaskAction.DELETE, {}, "no state 'sleeping'"),  # type: ignore[arg-type]
        (TaskFilter(state=TaskState.PENDING), TaskAction.MOVE, {}, "to_queue"),
        (TaskFilter(state=TaskState.PENDING), TaskAction.RETRY, {}, "needs either at= or after="),
        (
            TaskFilter(state=TaskState.PENDING),
            TaskAction.DELETE,
            {"after": 1},
            "at= and after= are only for the action retry",
        ),
        (TaskFilter(state=TaskState.PENDING), TaskAction.DELETE, {"cursor": write_cursor([])}, "cursor must come from"),
        (TaskFilter(state=TaskState.PENDING), TaskAction.DELETE, {"cursor": "x"}, "cursor must come from"),
        (
            TaskFilter(queue="default", state=TaskState.PENDING),
            *(TaskAction.DELETE, {"cursor": write_cursor({"began_s": 1, "queue": "low"})}, "got one of queue 'low'"),
        ),
        (
            TaskFilter(state=TaskState.PENDING),
            *(TaskAction.DELETE, {"cursor": write_cursor({"began_s": 1, "at_s": 2})}, "got one of another action"),
        ),
        (TaskFilter(state=TaskState.PENDING), TaskAction.RETRY, {"after": 1e14}, "at most 100 years"),
        (TaskFilter(state=TaskState.PENDING, older_than=datetime(2020, 1, 1)), TaskAction.DELETE, {}, "time zone"),  # noqa: DTZ001
    ],
)
async def test_an_invalid_request_is_refused_and_changes_nothing(
    ask: Ask,
    enqueue: Enqueue,
    redis_server: RedisServer,
    wanted: TaskFilter,
    action: TaskAction,
    options: dict[str, Any],
    said: str,
) -> None:
    enqueue()

    with pytest.raises(ConfigurationError, match=said):
        await ask("act_on_matching", wanted, action, **options)

    assert (await ask("queue_info", "default")).sizes[TaskState.PENDING] == 1


async def test_an_unknown_queue_is_refused(ask: Ask) -> None:
    with pytest.raises(QueueNotFoundError):
        await ask("act_on_matching", TaskFilter(queue="none", state=TaskState.PENDING), TaskAction.DELETE)


async def test_all_parts_postpone_tasks_to_the_same_time(
    ask: Ask, enqueue: Enqueue, app: TaskQ, redis_server: RedisServer
) -> None:
    for _ in range(150):
        enqueue(run_after=10)
    wanted, at = TaskFilter(state=TaskState.SCHEDULED), datetime(2099, 1, 1, tzinfo=UTC)

    first = await ask("act_on_matching", wanted, TaskAction.RETRY, at=at, has_time=never)
    second = await ask("act_on_matching", wanted, TaskAction.RETRY, at=at, cursor=first.next)

    assert (len(first.report.done), len(second.report.done)) == (100, 50)
    scores = {score for _, score in redis_server.client.zrange("asynq:{default}:scheduled", 0, -1, withscores=True)}
    assert scores == {at.timestamp()}
    assert Inspector(app).count("default", TaskState.SCHEDULED) == 150


@pytest.mark.parametrize("failing", ["scan_tasks", "delete_tasks"])
def test_an_outage_during_an_action_returns_a_report_and_a_cursor(app: TaskQ, enqueue: Enqueue, failing: str) -> None:
    for _ in range(250):
        enqueue()
    seen: list[str] = []

    def send(operation: Operation[Any]) -> Any:
        seen.append(operation.name)
        if seen.count(failing) == 2 and operation.name == failing:
            raise BrokerUnavailableError("gone")
        return app.runtime.runner.run(operation)

    def step(cursor: str | None) -> MatchingReport:
        wanted = TaskFilter(queue="default", state=TaskState.PENDING)
        plan = act_on_matching(app, wanted, TaskAction.DELETE, cursor=cursor)
        return run_plan(plan, send)

    first = step(None)
    assert isinstance(first.report.failure, BrokerUnavailableError)
    assert (len(first.report.done), len(step(first.next).report.done)) == (100, 150)
    assert Inspector(app).queue_info("default").size == 0


def test_an_outage_at_the_start_raises(app: TaskQ, enqueue: Enqueue) -> None:
    enqueue()

    def send(operation: Operation[Any]) -> Any:
        if operation.name == "scan_tasks":
            raise BrokerUnavailableError("gone")
        return app.runtime.runner.run(operation)

    wanted = TaskFilter(state=TaskState.PENDING)
    with pytest.raises(BrokerUnavailableError):
        run_plan(act_on_matching(app, wanted, TaskAction.DELETE), send)


async def test_an_action_on_a_searched_id_changes_only_the_tasks_that_the_search_shows(
    ask: Ask, app: TaskQ, redis_server: RedisServer
) -> None:
    """Tasks that have the id in their payload do not change."""
    redis_server.client.sadd("asynq:queues", "default")
    job = app.remote("job")
    parent = app.client.enqueue(job.s(to="x"))
    child = app.client.enqueue(job.s(parent=parent.id))
    dashboard, inspector = Dashboard(Inspector(app)), Inspector(app)

    def searched(wanted: TaskFilter) -> list[str]:
        return [task.id for task in dashboard.search_tasks(inspector.queue_infos(), wanted).tasks]

    async def act(wanted: TaskFilter, action: TaskAction, **options: Any) -> list[str]:
        return [each.id for each in (await ask("act_on_matching", wanted, action, **options)).report.done]

    old = TaskFilter(state=TaskState.PENDING, text=parent.id, older_than=3600)
    archived = TaskFilter(state=TaskState.ARCHIVED, text=parent.id)
    assert searched(archived) == await act(archived, TaskAction.DELETE) == []
    assert searched(old) == await act(old, TaskAction.ARCHIVE) == [parent.id]
    assert searched(old) == await act(old, TaskAction.ARCHIVE) == []
    assert searched(archived) == await act(archived, TaskAction.DELETE) == [parent.id]
    pending = TaskFilter(state=TaskState.PENDING, text=parent.id)
    assert searched(pending) == await act(pending, TaskAction.DELETE) == [child.id]


async def test_an_id_in_the_target_queue_is_not_searched_as_text(
    ask: Ask, app: TaskQ, redis_server: RedisServer
) -> None:
    redis_server.client.sadd("asynq:queues", "default", "low")
    parent = app.client.enqueue(app.remote("job", queue="low").s(to="x"))
    app.client.enqueue(app.remote("job").s(parent=parent.id))
    wanted = TaskFilter(state=TaskState.PENDING, text=parent.id)

    part = await ask("act_on_matching", wanted, TaskAction.MOVE, to_queue="low")

    assert (part.report.done, part.next) == ([], None)


def test_a_failed_action_on_an_id_continues_with_no_other_task(app: TaskQ, redis_server: RedisServer) -> None:
    redis_server.client.sadd("asynq:queues", "default")
    job = app.remote("job")
    parent = app.client.enqueue(job.s(to="x"))
    app.client.enqueue(job.s(parent=parent.id))

    def send(operation: Operation[Any]) -> Any:
        answer = app.runtime.runner.run(operation)
        if operation.name == "delete_tasks":
            raise BrokerUnavailableError("the answer is lost")
        return answer

    wanted = TaskFilter(state=TaskState.PENDING, text=parent.id)
    first = run_plan(act_on_matching(app, wanted, TaskAction.DELETE), send)
    second = Inspector(app).act_on_matching(wanted, TaskAction.DELETE, cursor=first.next)

    assert isinstance(first.report.failure, BrokerUnavailableError)
    assert (second.report.done, second.next) == ([], None)
    assert Inspector(app).count("default", TaskState.PENDING) == 1
