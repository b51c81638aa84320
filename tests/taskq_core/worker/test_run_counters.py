"""How workers count what becomes of runs by task type, and hand it in."""

import logging
from typing import Any

import pytest

from taskq_core import BrokerUnavailableError, Discard, Retry, SkipRetry, Snooze, TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.scripts import load
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.telemetry import RunOutcome
from taskq_core.wire import QueueKeys, TaskMessage
from taskq_core.wire.tallies import HOUR_S, OTHER_TYPES, TYPES_MOST, TypeCounters
from taskq_core.worker.run import Run
from taskq_core.worker.run_counters import RunCounters
from tests.logged import logged_here
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.worker.conftest import PATIENCE_S, Runner, context_of, until


def counters_of(app: TaskQ, runner: AsyncRunner, now_s: float = 0.0) -> RunCounters:
    context = context_of(app, runner)
    context.redis_clock.learn(int(now_s * 1e9), SYSTEM_CLOCK.monotonic())
    return RunCounters(context)


def handed_in(server: RedisServer, queue: QueueKeys) -> dict[str, TypeCounters]:
    """Return the stored counters, summed over all hours."""
    sums: dict[str, TypeCounters] = {}
    for key in server.client.scan_iter(match=queue.tally(0)[:-1] + "*"):
        found: Any = server.client.hgetall(key)
        for name, text in found.items():
            tally = TypeCounters.decode(text)
            assert tally is not None
            sums.setdefault(name.decode(), TypeCounters.empty()).add(tally)
    return sums


async def test_a_worker_stores_the_outcomes_of_its_runs(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """This happens when the worker stops at the latest. Failures are counted as by the queue's own counters."""
    ended: list[str] = []

    @app.task(name="fine", retention=0)
    async def fine() -> None:
        ended.append("fine")

    @app.task(name="kept", retention=600)
    async def kept() -> None:
        ended.append("kept")

    @app.task(name="ends", max_retry=3)
    async def ends(how: str) -> None:
        ended.append(how)
        raise {
            "fails": ValueError("x"),
            "gives up": SkipRetry("x"),
            "retries": Retry(after=600),
            "snoozes": Snooze(after=600),
            "discards": Discard("x"),
        }[how]

    for _ in range(5):
        await fine.adelay()
    await kept.adelay()
    for how in ("fails", "gives up", "retries", "snoozes", "discards"):
        await ends.adelay(how)
    worker = await start()
    await until(lambda: len(ended) == 11)

    await start.stop(worker)

    found = handed_in(redis_server, queue)
    assert {name: (each.processed, each.failed, each.archived) for name, each in found.items()} == {
        "fine": (5, 0, 0),
        "kept": (1, 0, 0),
        "ends": (4, 3, 1),
    }
    assert redis_server.client.mget(queue.processed, queue.failed) == [b"10", b"3"]
    for each in found.values():
        assert sum(each.buckets) == each.processed


async def test_workflow_steps_in_another_queue_are_counted(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    @app.task(name="here")
    async def here() -> None:
        pass

    @app.task(name="there", queue="other")
    async def there() -> None:
        pass

    worker = await start(queues={"default": 1, "other": 1})
    handle = await (here.s() | there.si() | here.si()).adelay()
    await handle.aresult(timeout=PATIENCE_S)
    await start.stop(worker)

    found = handed_in(redis_server, queue), handed_in(redis_server, app.runtime.keys.queue("other"))
    assert [{name: each.processed for name, each in of.items()} for of in found] == [{"here": 2}, {"there": 1}]


async def test_workers_store_counters_while_they_run(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_core.worker.run_counters.HAND_IN_S", 0.05)

    @app.task(name="work")
    async def work() -> None:
        pass

    for _ in range(2):
        await start()
    for _ in range(50):
        await work.adelay()

    await until(lambda: sum(each.processed for each in handed_in(redis_server, queue).values()) == 50)


def ended(queue: QueueKeys, name: str, duration_s: float, outcome: RunOutcome = RunOutcome.COMPLETED) -> Run:
    run = Run(queue, "id", TaskMessage(type=name), 0.0)
    run.outcome, run.duration_s = outcome, duration_s
    return run


async def test_the_duration_of_runs_is_stored(app: TaskQ, redis_server: RedisServer, queue: QueueKeys) -> None:
    runner = AsyncRunner(app.runtime.endpoint)
    tally = counters_of(app, runner, 500_000.5 * HOUR_S)
    tally.add(queue, [ended(queue, "work", 0.003)] * 9 + [ended(queue, "work", 42.0)])

    await tally.hand_in()
    await tally.hand_in()
    await runner.aclose()

    found = handed_in(redis_server, queue)["work"]
    assert (found.processed, found.total_ms) == (10, 42_027)
    assert redis_server.client.exists(queue.tally(500_000))
    assert 0.0025 < (found.percentile_s(0.5) or 0) < 0.005
    assert 30 < (found.percentile_s(0.99) or 0) < 60


async def test_task_types_over_the_maximum_are_counted_together(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    runner = AsyncRunner(app.runtime.endpoint)
    tally = counters_of(app, runner)
    tally.add(queue, [ended(queue, f"t{number}", 1) for number in range(TYPES_MOST + 50)])

    await tally.hand_in()
    await runner.aclose()

    found = handed_in(redis_server, queue)
    assert len(found) == TYPES_MOST + 1
    assert found[OTHER_TYPES].processed == 50


@pytest.mark.parametrize("trap", ["drop_reply_to", "drop_request"])
async def test_counters_with_a_lost_reply_are_stored_once(
    redis_server: RedisServer, queue: QueueKeys, trap: str
) -> None:
    redis_server.client.script_load(load("count_runs").text)
    with Relay(redis_server.socket_path) as relay:
        far = TaskQ(relay.url)
        runner = AsyncRunner(far.runtime.endpoint)
        tally = counters_of(far, runner)
        tally.add(queue, [ended(queue, "work", 1)] * 3)
        getattr(relay, trap)(load("count_runs").sha.encode())

        with pytest.raises(BrokerUnavailableError):
            await tally.hand_in()
        tally.add(queue, [ended(queue, "work", 1)] * 4)
        for _ in range(2):  # first the earlier batch, then the newer counts
            await tally.hand_in()
        await runner.aclose()
        await far.aclose()

    assert handed_in(redis_server, queue)["work"].processed == 7


async def test_counters_are_kept_while_redis_is_unreachable(redis_server: RedisServer, queue: QueueKeys) -> None:
    """The counters are kept until Redis is back, and runs that end in between are added later."""
    with Relay(redis_server.socket_path) as relay:
        far = TaskQ(relay.url)
        runner = AsyncRunner(far.runtime.endpoint)
        tally = counters_of(far, runner)
        tally.add(queue, [ended(queue, "work", 1)] * 3)
        relay.refuse()
        with pytest.raises(BrokerUnavailableError):
            await tally.hand_in()
        tally.add(queue, [ended(queue, "work", 1)] * 4)
        relay.forward()

        await tally.hand_in()
        await tally.hand_in()
        await runner.aclose()
        await far.aclose()

    assert handed_in(redis_server, queue)["work"].processed == 7


async def test_counters_in_a_key_of_another_type_are_logged(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, caplog: pytest.LogCaptureFixture
) -> None:
    runner = AsyncRunner(app.runtime.endpoint)
    tally = counters_of(app, runner)
    redis_server.client.set(queue.tally(0), "x")
    tally.add(queue, [ended(queue, "work", 1)])

    await tally.hand_in()
    await tally.hand_in()
    await runner.aclose()

    assert [record.levelno for record in logged_here(caplog)] == [logging.ERROR], "once: it is not sent again"
    assert "the key of the counters of queue default has a wrong type" in caplog.text
