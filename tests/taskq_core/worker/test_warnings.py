"""A worker warns of what makes tasks wait or get lost though nothing has failed."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.presence import list_alive
from taskq_core.broker.operations.services import LOOKOUT
from taskq_core.clock import SYSTEM_CLOCK, Clock, RedisClock
from taskq_core.wire import ServerInfo
from taskq_core.worker.warnings import AGAIN_S, SETTLED_S, WorkerWarnings
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, context_of, until


class Shifted:
    """A clock of this machine that is ahead."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead_s = ahead_s

    def time(self) -> float:
        return SYSTEM_CLOCK.time() + self._ahead_s

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic()


def warnings_with(caplog: pytest.LogCaptureFixture, code: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().endswith(f"[{code}]")]


def warnings_of(app: TaskQ, runner: AsyncRunner, clock: Clock = SYSTEM_CLOCK, **config: Any) -> WorkerWarnings:
    context = context_of(app, runner, clock=clock, **config)
    context.redis_clock = RedisClock(SYSTEM_CLOCK)
    return WorkerWarnings(context)


async def test_a_worker_warns_of_a_redis_that_drops_keys(
    start: Runner, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        await start()
        await until(lambda: warnings_with(caplog, "eviction"), "the warning")
    finally:
        redis_server.client.config_set("maxmemory-policy", "noeviction")

    assert "maxmemory-policy is allkeys-lru" in warnings_with(caplog, "eviction")[0]


async def test_a_worker_warns_of_a_queue_of_the_command_line_that_nobody_knows(
    app: TaskQ, start: Runner, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    app.configure(replace(app.settings, queues={"default": 1, "low": 1}))
    redis_server.client.sadd("asynq:queues", "of-go")

    await start(queues={"defualt": 1, "of-go": 1, "low": 1})
    await until(lambda: redis_server.client.sismember("asynq:queues", "defualt"), "it has registered its queues")
    await start(queues={"defualt": 1})

    assert warnings_with(caplog, "queue-unknown") == [
        "this worker serves queue 'defualt', which is not in QUEUES (default, low) and has never been used; "
        "did you mean 'default'? [queue-unknown]"
    ]


async def test_a_worker_without_the_setting_queues_warns_of_no_unknown_queue(
    app: TaskQ, start: Runner, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await start(queues={"defualt": 1})
    await until(lambda: redis_server.client.sismember("asynq:queues", "defualt"), "it has registered its queues")

    assert warnings_with(caplog, "queue-unknown") == []


async def test_a_worker_warns_of_queues_that_no_worker_serves(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    """Queues missing in `QUEUES` are reported at once, the others after workers had time to start."""
    app.configure(replace(app.settings, queues={"default": 1, "lonely": 1, "critical": 1}))
    for name in ("first", "second"):
        app.task(name=name, queue="lonely")(lambda: None)
    app.task(name="fifth", queue="critcal")(lambda: None)
    app.task(name="third", queue="shared")(lambda: None)
    app.task(name="fourth")(lambda: None)
    await start(queues={"shared": 1})
    runner = AsyncRunner(app.runtime.endpoint)
    await until(lambda: app.runtime.endpoint and _serves(app, runner, "shared"), "the worker is known")
    service = warnings_of(app, runner)

    assert await service.work() == SETTLED_S
    misspelled = "no worker serves queue 'critcal', to which task 'fifth' goes; did you mean 'critical'? "
    misspelled += "[queue-unserved]"
    assert set(warnings_with(caplog, "queue-unserved")) == {misspelled}
    assert await service.work() == AGAIN_S
    assert await service.work() == AGAIN_S
    await runner.aclose()

    text = "no worker serves queue 'lonely', to which task 'first' and 1 more goes [queue-unserved]"
    assert set(warnings_with(caplog, "queue-unserved")) == {misspelled, text}


async def test_a_worker_warns_of_tasks_in_queues_that_only_go_workers_serve(
    app: TaskQ, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Go workers do not know a task of Python, and fail it."""
    app.task(name="durable", queue="go")(lambda: None)
    app.task(name="mixed", queue="both")(lambda: None)
    info = ServerInfo(host="go", pid=1, server_id="s", concurrency=1, queues={"go": 1, "both": 1}).encode()
    redis_server.client.set("asynq:servers:{go:1:s}", info)
    redis_server.client.zadd("asynq:servers", {"asynq:servers:{go:1:s}": 10**10})
    redis_server.client.set(app.runtime.keys.queue("both").leader(LOOKOUT), "a taskq worker")
    runner = AsyncRunner(app.runtime.endpoint)
    service = warnings_of(app, runner)

    await service.work()
    assert warnings_with(caplog, "queue-unserved") == []
    await service.work()
    await runner.aclose()

    assert warnings_with(caplog, "queue-unserved") == [
        "only Go workers serve queue 'go', to which task 'durable' goes; it fails there with 'handler not found' "
        "[queue-unserved]"
    ]


async def test_a_worker_warns_of_periodic_tasks_without_a_scheduler(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    beat = app.task(name="beat")(lambda: None)
    app.schedule("@hourly", beat, id="beat")
    runner = AsyncRunner(app.runtime.endpoint)
    service = warnings_of(app, runner, with_scheduler=False)

    await service.work()
    assert warnings_with(caplog, "no-scheduler") == []
    await service.work()
    assert len(warnings_with(caplog, "no-scheduler")) == 1
    assert "none of the 1 periodic tasks is enqueued" in warnings_with(caplog, "no-scheduler")[0]

    await start()
    await until(lambda: runner.run(list_alive(app.runtime.keys.schedulers, skip=0, count=1)), "the scheduler is known")
    other = warnings_of(app, runner, with_scheduler=False)
    await other.work()
    await other.work()
    await runner.aclose()
    assert len(warnings_with(caplog, "no-scheduler")) == 1


async def _serves(app: TaskQ, runner: AsyncRunner, queue: str) -> bool:
    return (await context_of(app, runner).fleet.of(queue))[1] > 0


@pytest.mark.parametrize(("ahead_s", "words"), [(5.0, "5.0 s ahead of"), (-3.0, "3.0 s behind")])
async def test_a_worker_warns_once_of_a_clock_that_differs(
    app: TaskQ, ahead_s: float, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    runner = AsyncRunner(app.runtime.endpoint)
    service = warnings_of(app, runner, Shifted(ahead_s))
    await service.work()
    await service.work()
    await runner.aclose()

    assert warnings_with(caplog, "clock-skew") == [f"this machine's clock is {words} Redis's clock [clock-skew]"]


async def test_a_worker_does_not_warn_without_a_problem(app: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    app.task(name="one")(lambda: None)
    runner = AsyncRunner(app.runtime.endpoint)
    service = warnings_of(app, runner, Shifted(0.5))
    await service.work()
    await service.work()
    await runner.aclose()

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
