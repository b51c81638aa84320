"""A scheduler's health over HTTP: it is ready when it leads or waits to, and its queues take what is due."""

import asyncio
import json
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ
from taskq_core.cli.scheduler import banner, scheduler_config
from taskq_core.scheduler import Scheduler, SchedulerConfig
from taskq_core.scheduler.health import STALE_S, SchedulerState, TurnState
from taskq_core.service.health_server import HealthServer
from tests.clock import Clock
from tests.probing import get
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.scheduler.conftest import Looker, Runner, until


def judged(
    *,
    status: str = "active",
    leads: bool = True,
    entries: int = 2,
    answer_age_s: float | None = 1.0,
    age_s: float = 1.0,
    problem: str = "",
) -> tuple[bool, dict[str, Any]]:
    turns = {"default": TurnState(0.5, ""), "low": TurnState(age_s, problem)} if leads else {}
    return SchedulerState(status, leads, entries, answer_age_s, turns).report()


class TestJudging:
    def test_a_leader_is_ready(self) -> None:
        assert judged() == (
            True,
            {
                "status": "ready",
                "leads": True,
                "entries": 2,
                "last_answer_age_s": 1.0,
                "queues": {"default": {"ok": True}, "low": {"ok": True}},
            },
        )

    def test_a_follower_and_a_scheduler_without_entries_are_ready(self, subtests: pytest.Subtests) -> None:
        for case in [{"leads": False}, {"leads": False, "entries": 0, "answer_age_s": None}]:
            with subtests.test(case=case):
                is_ready, body = judged(**case)

                assert (is_ready, body["status"], body["leads"], body["queues"]) == (True, "ready", False, {})

    def test_a_scheduler_that_does_not_work_is_not_ready(self, subtests: pytest.Subtests) -> None:
        for case, status, reason in [
            ({"status": "new"}, "starting", "no periodic task is enqueued yet"),
            ({"status": "closed"}, "draining", "no more periodic tasks are enqueued"),
            ({"answer_age_s": None}, "starting", "the leader lease was not requested yet"),
            ({"answer_age_s": STALE_S + 1}, "unready", "Redis last answered 31 s ago"),
            ({"problem": "no answer"}, "unready", "queue 'low': no answer"),
            ({"age_s": STALE_S + 1}, "unready", "queue 'low': its last turn ended 31 s ago"),
        ]:
            with subtests.test(case=case, status=status, reason=reason):
                is_ready, body = judged(**case)

                assert (is_ready, body["status"], body["reason"]) == (False, status, reason)

    def test_a_problem_is_reported_at_its_queue(self) -> None:
        _, body = judged(problem="no answer")

        assert body["queues"] == {"default": {"ok": True}, "low": {"ok": False, "problem": "no answer"}}


async def status_of(scheduler: Scheduler) -> tuple[int, str]:
    status, body = await get(scheduler.health_port, "/readyz")
    return status, body["status"]


@pytest.mark.redis
class TestScheduler:
    async def test_leader_and_follower_are_ready(self, app: TaskQ, start: Runner) -> None:
        app.schedule("@every 1h", app.remote("work"), id="entry")
        first = await start(health_port=0)
        await until(lambda: first.leads)
        second = await start(health_port=0)

        for scheduler, leads in ((first, True), (second, False)):
            await until(lambda each=scheduler: _is(each, (200, "ready")))
            _, body = await get(scheduler.health_port, "/readyz")
            assert (body["leads"], body["entries"]) == (leads, 1)
            assert (await get(scheduler.health_port, "/livez"))[0] == 200
        await start.stop(first)
        with pytest.raises(OSError, match=r"."):
            await get(first.health_port, "/livez")

    async def test_a_queue_that_accepts_no_task_is_reported(
        self, app: TaskQ, start: Runner, looker: Looker, clock: Clock
    ) -> None:
        bad = looker.keys.queue("bad")
        looker.raw.set(bad.pending, "no list")
        app.schedule("* * * * * *", app.remote("work"), id="bad", queue="bad")
        app.schedule("* * * * * *", app.remote("work"))
        scheduler = await start(health_port=0)
        await clock.advance(2)
        await until(lambda: _is(scheduler, (503, "unready")))

        _, body = await get(scheduler.health_port, "/readyz")
        assert "WRONGTYPE" in body["queues"]["bad"]["problem"]
        looker.raw.delete(bad.pending)
        await clock.advance(10)
        await until(lambda: _is(scheduler, (200, "ready")))

    async def test_readiness_follows_an_outage_of_redis(self, clock: Clock) -> None:
        """The scheduler reports a reason without the password, and becomes ready again by itself."""
        with RedisServer(password="hunter2") as server, Relay(server.socket_path) as relay:
            app = TaskQ(relay.url.replace("redis://", "redis://:hunter2@"))
            app.schedule("@every 1h", app.remote("work"))
            runner = Runner(app)
            scheduler = await runner(health_port=0)
            await until(lambda: _is(scheduler, (200, "ready")))

            relay.cut()
            relay.refuse()
            await until(lambda: _is(scheduler, (503, "unready")), meanwhile=lambda: clock.skip(1))
            _, body = await get(scheduler.health_port, "/readyz")
            assert body["reason"]
            assert "hunter2" not in json.dumps(body)

            relay.forward()
            await until(lambda: _is(scheduler, (200, "ready")), meanwhile=lambda: clock.skip(1))
            await runner.close()
            await app.aclose()

    async def test_the_scheduler_is_live_before_it_reached_redis(self, tmp_path: Any) -> None:
        app = TaskQ(f"unix://{tmp_path}/none.sock")
        scheduler = Scheduler(app, SchedulerConfig(health_port=0))
        running = asyncio.create_task(scheduler.arun())
        await until(lambda: scheduler.health_port)

        assert (await get(scheduler.health_port, "/livez"))[0] == 200
        assert await status_of(scheduler) in [(503, "starting"), (503, "waiting")]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        app.close()

    async def test_a_port_in_use_is_reported(self, app: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
        taken = HealthServer(SchedulerState("new", False, 0, None, {}), "127.0.0.1", 0)
        await taken.start()

        assert await Scheduler(app, SchedulerConfig(health_port=taken.port)).arun() == 1

        told = f"the scheduler cannot start: its health endpoints cannot listen on 127.0.0.1:{taken.port}"
        assert told in caplog.text
        await taken.close()


async def _is(scheduler: Scheduler, expected: tuple[int, str]) -> bool:
    return await status_of(scheduler) == expected


def test_the_command_has_options_for_the_health_port(subtests: pytest.Subtests) -> None:
    for options, expected, shown in [
        ({}, ("127.0.0.1", None), ""),
        ({"health_port": None, "health_host": None}, ("127.0.0.1", None), ""),
        ({"health_port": 8090}, ("127.0.0.1", 8090), "health       http://127.0.0.1:8090/readyz"),
        ({"health_port": 8090, "health_host": "::"}, ("::", 8090), "health       http://[::]:8090/readyz"),
    ]:
        with subtests.test(options=options, expected=expected, shown=shown):
            config = scheduler_config(options)

            assert (config.health_host, config.health_port) == expected
            assert shown in banner(TaskQ(), config)


def test_invalid_ports_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="health_port must be between 0 and 65535, got 70000"):
        SchedulerConfig(health_port=70_000)
    with pytest.raises(ConfigurationError, match="health_host must be an address, got ''"):
        SchedulerConfig(health_host="")
