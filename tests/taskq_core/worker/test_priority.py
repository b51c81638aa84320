"""Workers take urgent tasks first, retries ahead of a backlog where that is wished, and a kill loses none."""

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until


async def test_urgent_tasks_run_first_and_in_order(app: TaskQ, start: Runner) -> None:
    """This includes delayed tasks and tasks of a bulk enqueue."""
    ran: list[str] = []

    @app.task
    async def work(name: str) -> None:
        ran.append(name)

    await work.adelay("plain 1")
    await work.using(priority=5).adelay("urgent 1")
    app.client.enqueue_many(
        [work.s("plain 2"), work.using(priority=9).s("first"), work.using(priority=5).s("urgent 2")]
    )
    assert Inspector(app).count("default", TaskState.PENDING) == 5
    assert [each.priority for each in Inspector(app).tasks("default", TaskState.PENDING).tasks] == [9, 5, 5, 0, 0]
    await start(concurrency=1)
    await until(lambda: len(ran) == 5)

    assert ran == ["first", "urgent 1", "urgent 2", "plain 1", "plain 2"]


async def test_a_retry_with_priority_runs_before_the_backlog(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """This needs the option `retry_priority`. Without it the retry runs last."""
    ran: list[str] = []

    @app.task(retry_delay=0, max_retry=1)
    async def work(name: str) -> None:
        ran.append(name)
        if name != "other" and ran.count(name) == 1:
            raise ValueError(name)
        await until(lambda: redis_server.client.zcard("asynq:{default}:retry") == 0)

    await work.using(retry_priority=1).adelay("ahead")
    await work.adelay("behind")
    app.client.enqueue_many(work.s("other") for _ in range(30))
    await start(concurrency=1)
    await until(lambda: len(ran) == 34)

    assert ran.index("ahead", 1) < 10
    assert [name for name in ran[-3:] if name == "behind"] == ["behind"]
