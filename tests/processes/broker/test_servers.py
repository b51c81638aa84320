"""Test servers that are frozen, killed and restarted: the duration of a call, and the result of the next call."""

import asyncio
import time
from pathlib import Path

import pytest

from taskq_core.broker.operations import new_tasks, views
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.errors import BrokerUnavailableError
from tests.redis_server import RedisServer
from tests.taskq_core.broker.test_aio import QUEUE, runner_of
from tests.taskq_core.broker.test_sync import runner_of as blocking_of

pytestmark = pytest.mark.redis


class TestBlocking:
    @pytest.mark.parametrize("is_warm", [True, False], ids=["connected", "connecting"])
    def test_the_call_ends_in_time_and_the_next_gets_its_own_response(self, is_warm: bool) -> None:
        """A frozen server accepts TCP connections, but does not respond to the handshake."""
        with RedisServer(tcp=True) as server:
            runner = blocking_of(server.url, timeout_s=30)
            if is_warm:
                runner.run(views.ping())
            server.pause()
            started = time.monotonic()
            with pytest.raises(BrokerUnavailableError):
                runner.run(new_tasks.register_queue("q", ["x"]), patience_s=0.2)
            took = time.monotonic() - started
            server.resume()

            assert took < 15, "below the 30 s of an unbounded wait"
            assert runner.run(views.list_queues("other"), patience_s=30) == []
            runner.close()

    def test_sending_a_long_message_ends_at_the_timeout(self) -> None:
        with RedisServer(tcp=True) as server:
            runner = blocking_of(server.url)
            runner.run(views.ping())
            server.pause()
            started = time.monotonic()
            with pytest.raises(BrokerUnavailableError):
                runner.run(
                    new_tasks.enqueue(QUEUE, [NewTask("a", b"m" * (16 << 20))], ReceiptSlot("t")), patience_s=0.2
                )
            took = time.monotonic() - started
            server.resume()
            runner.close()

        assert took < 10

    def test_a_restarted_server_is_used_again(self, tmp_path: Path) -> None:
        with RedisServer() as server:
            runner = blocking_of(server.unix_url)
            assert runner.run(views.ping())
            server.kill()
            with pytest.raises(BrokerUnavailableError):
                runner.run(views.ping())
            server.start()

            assert runner.run(views.ping(), patience_s=30)
            runner.close()


class TestAsyncio:
    @pytest.mark.parametrize("is_warm", [True, False], ids=["connected", "connecting"])
    async def test_the_call_ends_in_time_and_the_next_gets_its_own_response(self, is_warm: bool) -> None:
        with RedisServer(tcp=True) as server:
            runner = runner_of(server.url, timeout_s=30)
            if is_warm:
                await runner.run(views.ping())
            server.pause()
            started = time.monotonic()
            with pytest.raises(BrokerUnavailableError):
                await runner.run(new_tasks.register_queue("q", ["x"]), patience_s=0.2)
            took = time.monotonic() - started
            server.resume()

            assert took < 15, "below the 30 s of an unbounded wait"
            assert await runner.run(views.list_queues("other"), patience_s=30) == []
            await runner.aclose()

    async def test_a_restarted_server_is_used_again(self) -> None:
        with RedisServer() as server:
            runner = runner_of(server.unix_url)
            await asyncio.gather(*(runner.run(views.ping()) for _ in range(16)))
            server.kill()
            with pytest.raises(BrokerUnavailableError):
                await runner.run(views.ping())
            server.start()

            assert await runner.run(views.ping(), patience_s=30)
            await runner.aclose()
