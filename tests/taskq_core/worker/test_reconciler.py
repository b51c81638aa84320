"""A worker repairs damage while it goes on working."""

import asyncio
import itertools
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.operation import Operation
from taskq_core.repair.reconcile import FindingKind
from taskq_core.telemetry import WorkerMetrics
from taskq_core.wire import QueueKeys, build_message, encode_message
from taskq_core.worker.reconciler import AGAIN_S, FIRST_S, Reconciler
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Ends, Runner, context_of, push_raw, state_of, unled, until

pytestmark = pytest.mark.redis


class Hasty:
    """A clock that advances by two minutes at each read."""

    now = 0.0

    def time(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        self.now += 120
        return self.now


class TestService:
    async def test_one_of_several_workers_checks_a_queue(
        self, app: TaskQ, queue: QueueKeys, redis_server: RedisServer
    ) -> None:
        """The lease lasts until the next pass is due, even if the worker that took it is gone."""
        runner = AsyncRunner(app.runtime.endpoint)
        services = [
            Reconciler(context_of(app, runner, token=f"w{number}", reconcile_every=300), queue, unled())
            for number in range(3)
        ]

        first = [await each.work() for each in services]
        second = [await each.work() for each in services]

        assert all(0.8 * FIRST_S <= pause <= 1.2 * FIRST_S for pause in first)
        assert [each.passes for each in services] == [1, 0, 0]
        assert 240 <= second[0] <= 360
        assert all(120 <= pause <= 180 for pause in second[1:])
        assert 290_000 < redis_server.client.pttl(queue.leader("reconciler")) <= 300_000
        await runner.aclose()

    async def test_a_pass_with_too_many_findings_is_soon_followed_by_another(
        self,
        app: TaskQ,
        queue: QueueKeys,
        redis_server: RedisServer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("taskq_core.repair.reconcile.FINDINGS_MAX", 30)
        monkeypatch.setattr("taskq_core.worker.reconciler.RECHECK_S", 0.01)
        app.client.enqueue_many(app.remote("a:b").s() for _ in range(120))
        redis_server.client.delete(queue.pending)
        runner = AsyncRunner(app.runtime.endpoint)
        service = Reconciler(context_of(app, runner, token="w", reconcile_every=300), queue, unled())

        pauses = [await service.work() for _ in range(4)][1:]

        assert pauses[0] == AGAIN_S
        assert pauses[-1] > 100
        assert service.repairs == {FindingKind.NOT_LISTED: 120}
        assert "more findings in queue default" in caplog.text
        await runner.aclose()

    async def test_a_long_pass_keeps_its_lease(self, app: TaskQ, queue: QueueKeys, redis_server: RedisServer) -> None:
        """Each read of the clock advances it far beyond the lease."""
        runner = AsyncRunner(app.runtime.endpoint)
        service = Reconciler(context_of(app, runner, clock=Hasty()), queue, unled())
        await service.work()
        redis_server.client.config_resetstat()

        await service.work()

        calls: Any = redis_server.client.info("commandstats")
        assert service.passes == 1
        assert calls["cmdstat_set"]["calls"] > 3, "the lease was renewed again and again"
        await runner.aclose()

    async def test_a_worker_checks_one_queue_at_a_time(self, app: TaskQ, redis_server: RedisServer) -> None:
        """Each pass scans all keys of the server, so many queues must not be checked at the same time."""
        inner = AsyncRunner(app.runtime.endpoint)
        sent: list[str] = []

        class Noting:
            async def run(self, operation: Operation[Any]) -> Any:
                sent.extend(key.split("}")[0] for key in operation.keys[:1])
                return await inner.run(operation)

        runner: Any = Noting()
        context = context_of(app, runner)
        services = [Reconciler(context, app.runtime.keys.queue(f"q{number}"), unled()) for number in range(4)]
        for each in services:
            await each.work()  # the first check follows later

        await asyncio.gather(*(each.work() for each in services))

        assert [each.passes for each in services] == [1, 1, 1, 1]
        queues = [queue.rpartition("{")[2] for queue in sent]
        assert [queue for queue, _ in itertools.groupby(queues)] == ["q0", "q1", "q2", "q3"]
        await inner.aclose()

    async def test_metrics_count_repairs(self) -> None:
        reader = InMemoryMetricReader()
        metrics = WorkerMetrics(meter_provider=MeterProvider([reader]))

        metrics.repaired("default", "not_listed", 2)
        metrics.repaired("default", "not_listed", 1)

        data = reader.get_metrics_data()
        assert data is not None
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        (point,) = metric.data.data_points
        assert (metric.name, getattr(point, "value", None), dict(point.attributes or {})) == (
            "asynq.repairs",
            3,
            {"messaging.destination.name": "default", "messaging.asynq.repair.kind": "not_listed"},
        )


async def test_a_worker_runs_tasks_while_damage_is_repaired(
    app: TaskQ, start: Runner, queue: QueueKeys, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each intact task runs once while the test deletes structures of the queue."""
    runs: list[int] = []
    raw = redis_server.client

    @app.task(name="count", retention=600)
    async def count(number: int) -> None:
        runs.append(number)
        await asyncio.sleep(0)

    worker = await start(reconcile_every=0.1, concurrency=5, recover_every=0.1)
    handles = []
    for number in range(200):
        handles.append(await count.adelay(number))
        if number % 50 == 10:
            raw.delete(queue.pending)
        if number % 50 == 20:
            raw.hset(queue.task(f"stub-{number}"), "state", "active")
            raw.lpush(queue.active, f"gone-{number}")
            raw.zadd(queue.lease, {f"lost-{number}": 9_999_999_999})
            raw.zadd(queue.retry, {f"nothing-{number}": 9_999_999_999})
            push_raw(redis_server, queue, f"odd-{number}", b"\xff")

    await until(lambda: len(set(runs)) == 200, "all tasks have run")
    expected = {
        FindingKind.TASK_WITHOUT_MESSAGE: 4,
        FindingKind.LISTED_WITHOUT_TASK: 12,
    }
    await until(lambda: expected.items() <= worker.repairs.items(), "the damage is repaired")
    await until(lambda: raw.zcard(queue.quarantine) == 4, "what cannot be read is set aside")
    await until(lambda: not raw.llen(queue.active) and not raw.zcard(queue.lease), "nothing is active")

    assert sorted(runs) == list(range(200))
    assert {state_of(redis_server, queue, handle.id) for handle in handles} == {"completed"}
    assert "queue default was damaged" in caplog.text
    assert "listed_without_task" in caplog.text


async def test_a_repair_keeps_the_lease_of_a_running_task(
    app: TaskQ, start: Runner, queue: QueueKeys, redis_server: RedisServer
) -> None:
    """The test deletes its list entries during the run. They are restored, and the task is settled after one run."""
    ends = Ends()
    go = asyncio.Event()
    runs = 0

    @app.task(name="wait")
    async def wait() -> str:
        nonlocal runs
        runs += 1
        await go.wait()
        return "done"

    worker = await start(listener=ends, reconcile_every=0.05, lease=30, heartbeat=10, recover_every=60)
    handle = await wait.adelay()
    await until(lambda: runs == 1, "the task runs")

    redis_server.client.delete(queue.active, queue.lease)
    await until(lambda: worker.repairs.get(FindingKind.NOT_LISTED), "the task is listed again")
    go.set()
    await until(lambda: ends.of(handle.id) == ["completed"], "the task has ended")

    assert runs == 1
    await until(lambda: state_of(redis_server, queue, handle.id) == "completed", "the outcome is stored")


async def test_a_task_that_go_left_in_no_list_is_repaired_and_runs(
    app: TaskQ, start: Runner, queue: QueueKeys, redis_server: RedisServer
) -> None:
    """A Go worker without a lease takes the task off the list and is then refused, so no tool would find the task."""
    runs: list[str] = []

    @app.task(name="lost")
    async def lost() -> None:
        runs.append("run")

    message = build_message(type="lost", id="a", queue="default", retry=3, payload=b"{}")
    redis_server.client.hset(queue.task("a"), mapping={"msg": encode_message(message), "state": "active"})
    stale: Any = {"taskq_owner": "w:1"}
    redis_server.client.hset(queue.task("a"), mapping=stale)

    worker = await start(reconcile_every=0.1, recover_every=0.1, lease_grace=0)
    await until(lambda: worker.repairs.get(FindingKind.NOT_LISTED), "it is found")
    lease = redis_server.client.zscore(queue.lease, "a")
    assert lease is not None
    redis_server.client.zadd(queue.lease, {"a": 1})  # the new lease ends

    await until(lambda: runs == ["run"], "it runs")
