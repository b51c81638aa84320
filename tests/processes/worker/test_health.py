"""Test the readiness of a worker whose Redis accepts no writes, or is unavailable for a while."""

import json

import pytest

from taskq_core import TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.wire import QueueKeys
from taskq_core.worker import health
from taskq_core.worker.health import Health, Pulse
from tests.probing import get
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until
from tests.taskq_core.worker.test_health import GOOD, FakeTime, not_ready, ready


class TestChecking:
    async def test_a_redis_that_responds_but_accepts_no_writes_is_reported(self, queue: QueueKeys) -> None:
        """A PING would succeed."""
        with RedisServer(tcp=True) as primary, RedisServer(replica_of=primary) as server:
            app = TaskQ(server.unix_url)
            runner = AsyncRunner(app.runtime.endpoint)
            health = Health((queue,), lambda: Pulse(**GOOD), FakeTime(), runner)

            async def is_told() -> bool:
                await health.check()
                assert health.found["default"]["problem"]
                return "READONLY" in health.found["default"]["problem"]

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("taskq_core.worker.health.CHECK_S", 1.0)  # a timeout would be reported as another problem
                await until(is_told)

            await runner.aclose()
            app.close()


class TestWorker:
    async def test_redis_becomes_unavailable_and_comes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The worker is not ready during the outage, with a reason without the password. Later it is ready again."""
        monkeypatch.setattr(health, "CHECK_EVERY_S", 0.05)
        monkeypatch.setattr(health, "CHECK_AGAIN_S", 0.05)
        with RedisServer(tcp=True, password="hunter2") as server:
            app = TaskQ(server.url)
            runner = Runner(app)
            worker = await runner(health_port=0)
            await until(lambda: ready(worker), "it is ready")

            server.stop()
            await until(lambda: not_ready(worker), "it is not ready")
            _, body = await get(worker.health_port, "/readyz")
            assert body["status"] == "unready"
            assert body["reason"]
            assert "hunter2" not in json.dumps(body)
            assert (await get(worker.health_port, "/livez"))[0] == 200

            server.start()
            await until(lambda: ready(worker), "it is ready again")
            await runner.close()
            await app.aclose()
