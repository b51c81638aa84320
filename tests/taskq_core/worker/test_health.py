"""A worker's health over HTTP: it lives as long as its loop turns, and is ready when it really works."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.cli.running import worker_config
from taskq_core.service.health_server import HealthServer
from taskq_core.settings import Settings
from taskq_core.wire import QueueKeys
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.health import CHECK_AGAIN_S, CHECK_EVERY_S, STALE_S, Health, Pulse
from tests.probing import get
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until


class FakeTime:
    now = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


GOOD = {
    "status": "active",
    "running": 1,
    "concurrency": 10,
    "dequeue_age_s": 1.0,
    "is_failing": False,
    "can_take": True,
}


def judged(*, checked_ago_s: float | None = 1.0, problem: str = "", **pulse: Any) -> Health:
    health = Health((), lambda: Pulse(**{**GOOD, **pulse}), FakeTime(), None)  # type: ignore[arg-type]  # it is not asked
    health.checked_at = None if checked_ago_s is None else FakeTime.now - checked_ago_s
    low = {"ok": False, "problem": problem} if problem else {"ok": True, "pending": 0}
    health.found = {"default": {"ok": True, "pending": 3}, "low": low}
    return health


class TestReadiness:
    def test_a_healthy_worker_is_ready(self) -> None:
        assert judged().report() == (
            True,
            {
                "status": "ready",
                "running": 1,
                "concurrency": 10,
                "last_dequeue_age_s": 1.0,
                "last_check_age_s": 1.0,
                "queues": {"default": {"ok": True, "pending": 3}, "low": {"ok": True, "pending": 0}},
            },
        )

    def test_an_unhealthy_worker_reports_its_reason(self, subtests: pytest.Subtests) -> None:
        for case, status, reason in [
            ({"status": "new"}, "starting", "no task is taken yet"),
            ({"checked_ago_s": None}, "starting", "the queues were not checked yet"),
            ({"status": "stopped"}, "draining", "no new task is taken"),
            ({"status": "closed"}, "draining", "no new task is taken"),
            ({"problem": "no answer"}, "unready", "queue 'low': no answer"),
            ({"is_failing": True}, "unready", "tasks cannot be fetched"),
            ({"checked_ago_s": STALE_S + 1}, "unready", "the queues were last checked 61 s ago"),
            (
                {"dequeue_age_s": STALE_S + 1},
                "unready",
                "slots are free, and the last dequeue was 61 s ago",
            ),
        ]:
            with subtests.test(case=case, status=status, reason=reason):
                is_ready, body = judged(**case).report()

                assert (is_ready, body["status"], body["reason"]) == (False, status, reason)

    def test_a_full_or_just_started_worker_is_ready(self, subtests: pytest.Subtests) -> None:
        for case in [{"dequeue_age_s": None}, {"dequeue_age_s": 900.0, "can_take": False}]:
            with subtests.test(case=case):
                assert judged(**case).report()[0]

    def test_a_problem_is_reported_for_its_queue(self) -> None:
        _, body = judged(problem="no answer").report()

        assert body["queues"] == {"default": {"ok": True, "pending": 3}, "low": {"ok": False, "problem": "no answer"}}


@pytest.mark.redis
class TestChecking:
    @pytest.fixture
    async def runner(self, app: TaskQ) -> AsyncIterator[AsyncRunner]:
        runner = AsyncRunner(app.runtime.endpoint)
        yield runner
        await runner.aclose()

    async def test_the_health_check_runs_a_script_on_every_queue(
        self, app: TaskQ, runner: AsyncRunner, queue: QueueKeys, redis_server: RedisServer
    ) -> None:
        low = app.runtime.keys.queue("low")
        app.client.enqueue(app.remote("a:b").s())
        redis_server.client.set(low.lease, "not ours")
        health = Health((queue, low), lambda: Pulse(**GOOD), FakeTime(), runner)

        pause_s = await health.work()

        assert pause_s == CHECK_AGAIN_S
        assert health.found == {
            "default": {"ok": True, "pending": 1},
            "low": {"ok": False, "problem": "asynq:{low}:lease is a string"},
        }
        assert health.checked_at == FakeTime.now

    async def test_the_health_check_of_a_healthy_worker_reports_no_problem(
        self, runner: AsyncRunner, queue: QueueKeys
    ) -> None:
        assert await Health((queue,), lambda: Pulse(**GOOD), FakeTime(), runner).work() == CHECK_EVERY_S


@pytest.mark.redis
class TestWorker:
    async def test_a_worker_reports_ready_and_then_draining(self, app: TaskQ, start: Runner) -> None:
        ends = asyncio.Event()

        @app.task(name="wait")
        async def wait() -> None:
            await ends.wait()

        worker = await start(health_port=0)
        await until(lambda: ready(worker), "it is ready")
        await wait.adelay()
        await until(lambda: worker.running_count, "the task runs")
        status, body = await get(worker.health_port, "/readyz")
        assert (status, body["status"], body["running"]) == (200, "ready", 1)
        assert body["queues"] == {"default": {"ok": True, "pending": 0}}
        assert body["last_dequeue_age_s"] >= 0

        worker.stop()
        await until(lambda: worker.status == "stopped", "it stops")
        status, body = await get(worker.health_port, "/readyz")
        alive, _ = await get(worker.health_port, "/livez")
        assert (status, body["status"], alive) == (503, "draining", 200)

        ends.set()
        assert await start.ending(worker) == 0
        with pytest.raises(OSError, match=r"."):
            await get(worker.health_port, "/livez")

    async def test_a_worker_is_live_before_it_has_reached_redis(self, tmp_path: Any) -> None:
        app = TaskQ(f"unix://{tmp_path}/none.sock")
        worker = Worker(app, WorkerConfig(health_port=0))
        running = asyncio.create_task(worker.arun())
        await until(lambda: worker.health_port, "the port is open")

        assert (await get(worker.health_port, "/livez"))[0] == 200
        status, body = await get(worker.health_port, "/readyz")

        assert (status, body["status"]) in [(503, "starting"), (503, "waiting")]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        app.close()

    async def test_a_used_port_ends_the_worker(self, app: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
        taken = HealthServer(judged(), "127.0.0.1", 0)
        await taken.start()

        assert await Worker(app, WorkerConfig(health_port=taken.port)).arun() == 1
        assert f"its health endpoints cannot listen on 127.0.0.1:{taken.port}" in caplog.text
        await taken.close()

    async def test_without_a_health_port_no_server_starts(self, start: Runner) -> None:
        worker = await start()

        assert worker.health_port is None

    def test_health_is_served_on_the_loop_of_a_worker_process(self, app: TaskQ) -> None:
        """The worker runs as on the command line, on uvloop if it is installed."""
        worker = Worker(app, WorkerConfig(health_port=0))
        thread = threading.Thread(target=worker.run)
        thread.start()

        async def look() -> None:
            await until(lambda: worker.health_port, "the port is open")
            await until(lambda: ready(worker), "it is ready")

        asyncio.run(look())
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


async def ready(worker: Worker) -> bool:
    return (await get(worker.health_port, "/readyz"))[0] == 200


async def not_ready(worker: Worker) -> bool:
    return not await ready(worker)


def test_command_options_set_the_health_address(subtests: pytest.Subtests) -> None:
    for options, expected in [
        ({}, ("127.0.0.1", None)),
        ({"health_port": None, "health_host": None}, ("127.0.0.1", None)),
        ({"health_port": 8090}, ("127.0.0.1", 8090)),
        ({"health_port": 8090, "health_host": "0.0.0.0"}, ("0.0.0.0", 8090)),
    ]:
        with subtests.test(options=options, expected=expected):
            config = worker_config(Settings(), options)

            assert (config.health_host, config.health_port) == expected


def test_invalid_health_settings_are_refused(subtests: pytest.Subtests) -> None:
    for values, message in [
        ({"health_port": 70_000}, "health_port must be between 0 and 65535, got 70000"),
        ({"health_port": "80"}, "health_port must be a whole number, got '80'"),
        ({"health_host": " "}, "health_host must be an address, got ' '"),
    ]:
        with subtests.test(values=values, message=message):
            with pytest.raises(ConfigurationError) as caught:
                WorkerConfig(**values)

            assert str(caught.value) == message
