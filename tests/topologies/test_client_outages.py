"""A Redis that stops, hangs or comes back while clients enqueue. Each test runs for both clients."""

import asyncio
import contextlib
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from taskq_core import (
    BrokerUnavailableError,
    BulkEnqueueError,
    CircuitOpenError,
    CircuitState,
    EnqueueError,
    EnqueueUnknownError,
    Signature,
    TaskIdConflictError,
    TaskQ,
)
from taskq_core.broker.operations.operation import BATCH_MAX
from tests.redis_server import RedisServer
from tests.relay import Relay
from tests.taskq_core.client import test_back_pressure, test_bulk, test_circuit
from tests.taskq_core.client.test_back_pressure import blocks, script_calls
from tests.taskq_core.client.test_bulk import pending
from tests.taskq_core.client.test_client import Application, _send
from tests.taskq_core.client.test_late_enqueues import one, refuse_a_repeat
from tests.taskq_core.worker.conftest import until

pytestmark = pytest.mark.redis


@pytest.fixture(params=["Client", "AsyncClient"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "AsyncClient")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


# --- one task ---------------------------------------------------------------------------------------------------------


async def test_a_server_that_does_not_answer(is_async: bool) -> None:
    """The error says that the task may have been stored, and how to find out. Following this advice is safe."""
    with RedisServer() as server:
        app = Application(TaskQ(server.url, enqueue_timeout=2), is_async=is_async)
        task = app.taskq.remote("t")
        await app.send(task.s())
        server.pause()
        started = time.monotonic()

        with pytest.raises(EnqueueUnknownError) as caught:
            await app.send(task.using(task_id="id-1").s())
        took = time.monotonic() - started
        server.resume()
        with contextlib.suppress(TaskIdConflictError):
            await app.send(task.using(task_id="id-1").s())
        await app.taskq.aclose()

        assert caught.value.task_id == "id-1"
        assert "may or may not be in queue 'default'" in str(caught.value)
        assert took < 10
        assert server.client.lrange("asynq:{default}:pending", 0, 0) == [b"id-1"]
        assert server.client.llen("asynq:{default}:pending") == 2


async def test_a_server_that_comes_back_in_time(is_async: bool) -> None:
    with RedisServer() as server:
        app = Application(TaskQ(server.url, enqueue_timeout=20), is_async=is_async)
        await app.send(app.taskq.remote("t").s())
        server.stop()
        sending = asyncio.ensure_future(app.send(app.taskq.remote("t").s()))
        await asyncio.sleep(0.1)  # lets the first attempt fail; the outcome is the same if it does not
        server.start()  # not in another thread, because the server ends with the thread that started it

        handle = await sending
        await app.taskq.aclose()

        assert server.client.lrange("asynq:{default}:pending", 0, -1) == [handle.id.encode()]


async def test_a_call_with_an_unknown_result_does_not_affect_the_next(is_async: bool) -> None:
    """After a call without a reply, the next call has its own receipt."""
    with RedisServer() as server:
        app = Application(TaskQ(server.url, enqueue_timeout=2), is_async=is_async)
        await app.send(app.taskq.remote("t").s())
        server.pause()
        with pytest.raises(EnqueueUnknownError):
            await app.send(app.taskq.remote("t").s())
        server.resume()

        await app.send(app.taskq.remote("t").s())
        await app.taskq.aclose()

        assert len(server.client.keys("taskq:{default}:rcpt:*")) == 2


async def test_waiting_for_a_turn_ends_with_the_enqueue_timeout() -> None:
    with RedisServer() as server:
        taskq = TaskQ(server.url, enqueue_timeout=2)
        handle = await taskq.remote("t").adelay()
        server.pause()

        answers = await asyncio.gather(*[handle.arefresh() for _ in range(100)], return_exceptions=True)
        server.resume()
        await taskq.aclose()

    assert {type(answer) for answer in answers} == {BrokerUnavailableError}


def test_the_end_of_an_event_loop_cancels_waiting_enqueues() -> None:
    """`asyncio.run` cancels enqueues that are still running, without a deadlock or a warning."""
    with RedisServer() as server:
        taskq = TaskQ(server.url, enqueue_timeout=30)
        asyncio.run(_send(taskq))
        server.pause()

        async def leave() -> None:
            asyncio.ensure_future(taskq.remote("t").adelay())  # noqa: RUF006 - left behind on purpose
            for _ in range(5):
                await asyncio.sleep(0)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asyncio.run(leave())
        server.resume()
        taskq.close()


async def test_an_unanswered_enqueue_stays_unknown_when_a_replica_refuses_the_repeat() -> None:
    """The enqueue is repeated until the timeout, because another server may become primary."""
    with RedisServer() as server, Relay(server.socket_path) as relay:
        taskq = TaskQ(relay.url, enqueue_timeout=2)
        await refuse_a_repeat(taskq, server, relay, "read-only", one)
        await taskq.aclose()


# --- many tasks -------------------------------------------------------------------------------------------------------


async def test_a_bulk_enqueue_loses_redis_halfway(is_async: bool) -> None:
    """The error has the number of enqueued tasks and the ids with unknown results. This agrees with the queue."""
    with RedisServer() as server:
        app = test_bulk.Application(TaskQ(server.url, enqueue_timeout=2), is_async=is_async)
        task = app.taskq.remote("t")
        await app.send([task.s()])  # connects
        made: list[str] = []

        def calls() -> Iterator[Signature[Any]]:
            for n in range(5 * BATCH_MAX):
                if n == 3 * BATCH_MAX - 10:
                    server.pause()
                made.append(f"id-{n}")
                yield task.using(task_id=made[-1]).s()

        with pytest.raises(BulkEnqueueError) as caught:
            await app.send(calls())
        server.resume()
        await app.taskq.aclose()

        error = caught.value
        there = pending(server)[1:]
        assert error.may_have_happened
        assert error.enqueued % BATCH_MAX == 0
        assert there[: error.enqueued] == made[: error.enqueued]
        assert error.task_ids == tuple(made[error.enqueued : error.enqueued + len(error.task_ids)])
        assert set(there) <= set(made[: error.enqueued]) | set(error.task_ids)


async def test_a_bulk_enqueue_that_loses_redis_while_it_waits(is_async: bool) -> None:
    """The error has the number of enqueued tasks and the ids of the other tasks."""
    with RedisServer() as server:
        app = test_back_pressure.Application(server.url, blocks(10, 60), is_async=is_async, enqueue_timeout=2)
        ids = [f"id-{number}" for number in range(30)]
        sending = asyncio.ensure_future(app.send_many(app.call(task_id=each) for each in ids))
        await until(lambda: script_calls(server) >= 4, "what did not find room was tried again")
        server.kill()

        with pytest.raises(BulkEnqueueError) as caught:
            await sending
        await app.taskq.aclose()

    assert caught.value.enqueued == 10
    assert caught.value.task_ids == tuple(ids[10:])


# --- the circuit breaker ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pause", "kill"])
async def test_the_circuit_breaker_opens_after_failures(server: RedisServer, is_async: bool, how: str) -> None:
    """The first enqueues raise the actual error. Later ones fail without a request, and their errors say so."""
    app = test_circuit.Application(server.url, is_async=is_async)
    await app.begin()
    getattr(server, how)()

    first = [await app.fail() for _ in range(2)]
    after = [await app.fail() for _ in range(3)]
    await app.taskq.aclose()

    assert {type(error.__cause__) for error in first} == {BrokerUnavailableError}
    assert [type(error) for error in after] == [EnqueueError] * 3  # not EnqueueUnknownError: certainly not enqueued
    for error in after:
        assert isinstance(error.__cause__, CircuitOpenError)
        assert 0 < error.__cause__.retry_in_s <= 60
        assert error.__cause__.last_failure == str(first[-1].__cause__)
        assert "failed 2 times in a row, so no request is sent for" in str(error)


async def test_an_open_circuit_breaker_sends_nothing(server: RedisServer, is_async: bool) -> None:
    app = test_circuit.Application(server.url, is_async=is_async)
    await app.begin()
    server.pause()
    for _ in range(2):
        await app.fail()
    server.resume()
    server.client.config_resetstat()

    await app.fail()
    await app.taskq.aclose()

    assert "cmdstat_evalsha" not in server.client.info("commandstats")


async def test_the_circuit_breaker_closes_when_redis_is_back(server: RedisServer, is_async: bool) -> None:
    app = test_circuit.Application(
        server.url, is_async=is_async, circuit_breaker={"FAILURES": 2, "FIRST_PAUSE": 0.05, "MAX_PAUSE": 0.05}
    )
    await app.begin()
    server.kill()
    for _ in range(2):
        await app.fail()
    assert app.state is CircuitState.OPEN
    server.start()

    deadline = time.monotonic() + 60
    while app.state is not CircuitState.CLOSED:
        assert time.monotonic() < deadline
        try:
            await app.send()
        except EnqueueError:
            await asyncio.sleep(0.01)  # until the next attempt is due
    handle = await app.begin()
    await app.taskq.aclose()

    assert handle.is_sent


async def test_both_clients_of_an_application_share_the_circuit_breaker(server: RedisServer, is_async: bool) -> None:
    app = test_circuit.Application(server.url, is_async=is_async)
    server.kill()
    for _ in range(2):
        await app.fail()
    app.is_async = not is_async

    error = await app.fail()
    await app.taskq.aclose()

    assert isinstance(error.__cause__, CircuitOpenError)


async def test_failed_bulk_enqueues_count_for_the_circuit_breaker(server: RedisServer, is_async: bool) -> None:
    """If the queue is already registered, the batch itself fails."""
    app = test_circuit.Application(server.url, is_async=is_async)
    await app.begin()
    server.kill()
    for _ in range(2):
        with pytest.raises(BulkEnqueueError):
            await app.send_many(1)

    assert app.state is CircuitState.OPEN
    await app.taskq.aclose()


async def test_an_open_circuit_breaker_does_not_block_results_and_handles(server: RedisServer, is_async: bool) -> None:
    """The circuit breaker blocks only enqueues, because other requests have single callers with their own timeouts."""
    app = test_circuit.Application(server.url, is_async=is_async)
    handle = await app.begin()
    server.pause()
    for _ in range(3):
        await app.fail()
    server.resume()

    info = None
    deadline = time.monotonic() + 60
    while info is None:
        assert time.monotonic() < deadline
        with contextlib.suppress(BrokerUnavailableError):  # Redis may not respond within half a second
            info = await handle.arefresh()
    assert info.id == handle.id
    await app.taskq.aclose()
