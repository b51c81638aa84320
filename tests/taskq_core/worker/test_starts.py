"""A run that may be the last of its task uses its attempt when it starts, not when a worker receives it."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from taskq_core import TaskQ, current_task
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import runs
from taskq_core.broker.operations.limits import ClaimCode
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.wire import QueueKeys, decode_message
from taskq_core.worker.run import Run
from taskq_core.worker.starts import Starts
from tests.clock import Clock, at_time
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, context_of, state_of, stored, until

pytestmark = pytest.mark.redis

LONG_AGO_NS = time.time_ns() - 1000 * 10**9
"""A lease that began then has ended, and so has every grace."""


@pytest.fixture
async def runner(app: TaskQ) -> Any:
    runner = AsyncRunner(app.runtime.endpoint)
    yield runner
    await runner.aclose()


async def take(runner: AsyncRunner, queue: QueueKeys, now_ns: int | None = None) -> Run:
    """Receive a task as a worker does that freezes before it starts the run."""
    step = at_time(now_ns, runs.dequeue(queue, owner="frozen", call=1, limit=1, lease_s=30))
    ((task_id, data),) = (await runner.run(step)).tasks
    return Run(queue, task_id, decode_message(data), SYSTEM_CLOCK.monotonic() + 30, number=1)


async def test_a_run_that_did_not_start_uses_no_attempt(
    app: TaskQ, start: Runner, runner: AsyncRunner, queue: QueueKeys
) -> None:
    """A task with `max_retry=0` runs at least once."""
    handle = await app.remote("once", max_retry=0).adelay()
    await take(runner, queue, now_ns=LONG_AGO_NS)
    app.task(name="once")(lambda: current_task().attempt)

    await start()

    assert await handle.aresult(PATIENCE_S) == 1


async def test_a_run_that_started_uses_an_attempt(
    app: TaskQ, start: Runner, runner: AsyncRunner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A task that ends its worker would go on forever otherwise."""
    handle = await app.remote("poison", max_retry=0).adelay()
    await take(runner, queue, now_ns=LONG_AGO_NS)
    await runner.run(at_time(LONG_AGO_NS, runs.mark_starts(queue, [(handle.id, 1)], owner="frozen")))

    await start()
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")

    assert "no attempt is left" in stored(redis_server, queue, handle.id).error_msg


async def test_a_worker_that_wakes_too_late_does_not_start_the_run(
    app: TaskQ, runner: AsyncRunner, queue: QueueKeys
) -> None:
    """It gives the task back, which is refused if another worker has taken it."""
    await app.remote("once", max_retry=0).adelay()
    run = await take(runner, queue, now_ns=LONG_AGO_NS)
    started: list[Run] = []
    given_back: list[Run] = []
    settler: Any = SimpleNamespace(return_unstarted=lambda run, now, why: given_back.append(run))
    context = context_of(app, runner, token="frozen")
    starts = Starts(context, settler, lambda run, now: started.append(run))

    starts.start(run, 0.0)
    await asyncio.sleep(0)
    await context.background.close(PATIENCE_S)

    assert (started, given_back) == ([], [run])
    assert not starts._waiting


async def test_only_starts_of_possibly_last_attempts_are_marked(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request marks all tasks of a dequeue before the first of them starts."""
    marks: list[int] = []
    mark_starts = runs.mark_starts
    seen: dict[str, Any] = {}

    def count(queue: QueueKeys, tasks: Any, **options: Any) -> Any:
        marks.append(len(tasks))
        return mark_starts(queue, tasks, **options)

    @app.task(name="look", retention=0)
    async def look() -> None:
        task_id = current_task().id
        fence, mark = await asyncio.to_thread(
            redis_server.client.hmget, queue.task(task_id), ["taskq_owner", "taskq_begun"]
        )
        seen[task_id] = mark and fence.rpartition(b":")[0] == mark

    monkeypatch.setattr("taskq_core.broker.operations.runs.mark_starts", count)
    last = [(await look.using(max_retry=0).adelay()).id for _ in range(3)]
    other = (await look.using(max_retry=1).adelay()).id
    ends = Ends()
    await start(listener=ends, concurrency=4)
    await until(lambda: len(ends.ends) == 4)

    assert seen == {**dict.fromkeys(last, True), other: None}
    assert marks == [3]


async def test_a_late_answer_to_a_claim_returns_its_slot(
    app: TaskQ, start: Runner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then, this worker has received the same task again, and claims or runs it."""
    places = asyncio.Semaphore(0)
    running: list[str] = []
    answers: list[ClaimCode] = []
    may_arrive = asyncio.Event()
    run = AsyncRunner.run

    async def delay_refusals(self: AsyncRunner, operation: Any, **options: Any) -> Any:
        answer = await run(self, operation, **options)
        if isinstance(answer, ClaimCode):
            answers.append(answer)
            if answer != ClaimCode.RUN:
                await may_arrive.wait()
        return answer

    async def hold(name: str) -> None:
        running.append(name)
        await places.acquire()

    monkeypatch.setattr(AsyncRunner, "run", delay_refusals)
    app.task(name="limited", concurrency=1)(hold)
    app.task(name="free")(hold)
    worker = await start(concurrency=3)
    producer = TaskQ(app.settings.url)  # does not know the limit
    for _ in range(2):
        await producer.remote("limited").adelay(name="limited")
    await producer.aclose()
    await until(lambda: len(answers) == 2)
    places.release()
    await until(lambda: len(running) == 2)
    places.release()
    await until(lambda: worker.running_count == 0)
    may_arrive.set()
    await clock.settle()

    for _ in range(3):
        await app.tasks["free"].adelay(name="free")
    await until(lambda: running.count("free") == 3)
    assert len(answers) == 3
    for _ in range(3):
        places.release()
