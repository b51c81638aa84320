"""Test the clients' circuit breaker: its states with a simulated clock, and enqueues with a real server."""

import asyncio
import contextlib
import logging
import pickle
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from taskq_core import (
    BrokerUnavailableError,
    BulkEnqueueError,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    EnqueueError,
    TaskQ,
)
from taskq_core.client.circuit import PROBE_LOST_S, Circuit
from taskq_core.errors import BrokerFullError
from taskq_core.settings import CircuitSettings
from taskq_core.telemetry import ClientMetrics
from tests.logged import logged_here
from tests.redis_server import RedisServer

SILENCE = BrokerUnavailableError("no answer from redis://h/0: timeout")


class Bench:
    """A circuit with a simulated clock and pauses that are not random."""

    def __init__(self, *, jitter: float = 1.0, **settings: Any) -> None:
        self.now = 100.0
        self.opened = 0
        made = CircuitSettings(**{"failures": 3, "first_pause": 1, "max_pause": 4, **settings})
        self.circuit = Circuit(
            made, address="redis://h/0", opened=self.open, monotonic=lambda: self.now, jitter=lambda: jitter
        )

    def open(self) -> None:
        self.opened += 1

    def fail(self, times: int = 1, error: BaseException = SILENCE) -> None:
        for _ in range(times):
            with pytest.raises(type(error)), self.circuit.call():
                raise error

    def succeed(self) -> None:
        with self.circuit.call():
            pass

    def refused(self) -> CircuitOpenError:
        with pytest.raises(CircuitOpenError) as caught:
            self.circuit.begin()
        return caught.value


class TestStates:
    def test_the_circuit_opens_after_consecutive_failures(self) -> None:
        """A success in between resets the count of failures."""
        bench = Bench()
        bench.fail(2)
        bench.succeed()
        bench.fail(2)
        assert bench.circuit.state is CircuitState.CLOSED

        bench.fail()

        assert bench.circuit.state is CircuitState.OPEN
        assert bench.opened == 1

    def test_the_error_has_the_time_of_the_next_try_and_the_last_failure(self) -> None:
        bench = Bench()
        bench.fail(3)
        bench.now += 0.25

        error = bench.refused()

        assert isinstance(error, BrokerUnavailableError)
        assert not error.may_have_happened
        assert (error.address, error.failures, error.retry_in_s) == ("redis://h/0", 3, 0.75)
        assert str(error) == (
            "redis://h/0 failed 3 times in a row, so no request is sent for 0.8 s; "
            "the last failure: no answer from redis://h/0: timeout"
        )
        assert str(pickle.loads(pickle.dumps(error))) == str(error)

    def test_one_probe_is_sent_after_the_pause_while_other_calls_fail(self) -> None:
        bench = Bench()
        bench.fail(3)
        bench.now += 1

        is_probe = bench.circuit.begin()

        assert bench.circuit.state is CircuitState.HALF_OPEN
        bench.refused()
        bench.circuit.end(None, is_probe=is_probe)
        assert bench.circuit.state is CircuitState.CLOSED
        bench.fail(2)
        assert bench.circuit.state is CircuitState.CLOSED  # the success has reset the count and the pause
        bench.fail()
        assert bench.refused().retry_in_s == 1

    def test_each_failed_probe_doubles_the_pause_up_to_the_maximum(self) -> None:
        bench = Bench()
        bench.fail(3)

        pauses = []
        for _ in range(4):
            pauses.append(bench.refused().retry_in_s)
            bench.now += pauses[-1]
            bench.fail()

        assert pauses == [1, 2, 4, 4]
        assert bench.opened == 1  # failed probes do not count as openings

    def test_pauses_are_random(self) -> None:
        """Otherwise many processes would send their probes at the same time."""
        bench = Bench(jitter=0.5)
        bench.fail(3)

        assert bench.refused().retry_in_s == 0.5

    @pytest.mark.parametrize("error", [BrokerFullError("full"), None], ids=["refusal", "success"])
    def test_any_reply_closes_the_circuit(self, error: BaseException | None) -> None:
        """A server that refuses a request is reachable, and returns its own error."""
        bench = Bench()
        bench.fail(3)
        bench.now += 1

        bench.circuit.end(error, is_probe=bench.circuit.begin())

        assert bench.circuit.state is CircuitState.CLOSED

    def test_failures_of_calls_sent_before_opening_do_not_lengthen_the_pause(self) -> None:
        """Concurrent calls that fail together count as one failure."""
        bench = Bench()
        early = [bench.circuit.begin() for _ in range(10)]
        for each in early[:9]:
            bench.circuit.end(SILENCE, is_probe=each)
        assert bench.refused().retry_in_s == 1

        bench.now += 1
        is_probe = bench.circuit.begin()
        bench.circuit.end(SILENCE, is_probe=early[9])

        assert bench.circuit.state is CircuitState.HALF_OPEN
        bench.circuit.end(SILENCE, is_probe=is_probe)
        assert bench.refused().retry_in_s == 2

    def test_a_success_of_a_call_sent_before_opening_closes_the_circuit(self) -> None:
        bench = Bench()
        is_probe = bench.circuit.begin()
        bench.fail(3)

        bench.circuit.end(None, is_probe=is_probe)

        assert bench.circuit.state is CircuitState.CLOSED

    def test_a_cancelled_probe_allows_another_probe(self) -> None:
        """A cancelled coroutine, or Ctrl-C, says nothing about the server."""
        bench = Bench()
        bench.fail(3)
        bench.now += 1

        bench.fail(error=asyncio.CancelledError())

        assert bench.circuit.state is CircuitState.OPEN
        bench.succeed()
        assert bench.circuit.state is CircuitState.CLOSED

    def test_a_probe_that_never_ends_is_replaced_after_a_timeout(self) -> None:
        bench = Bench()
        bench.fail(3)
        bench.now += 1
        bench.circuit.begin()

        bench.now += PROBE_LOST_S - 0.1
        bench.refused()
        bench.now += 0.1

        bench.succeed()

    def test_a_disabled_circuit_never_opens(self) -> None:
        bench = Bench(failures=0)

        bench.fail(100)

        assert bench.circuit.state is CircuitState.CLOSED

    def test_opening_and_closing_are_logged_once_each(self, caplog: pytest.LogCaptureFixture) -> None:
        bench = Bench()
        with caplog.at_level(logging.INFO, logger="taskq.client"):
            bench.fail(3)
            bench.now += 1
            bench.fail()
            bench.now += 2
            bench.succeed()
            bench.succeed()

        assert [(record.levelname, record.getMessage()) for record in logged_here(caplog)] == [
            (
                "WARNING",
                "redis://h/0 failed to answer 3 times in a row: enqueues now fail at once, next try in 1.0 s; "
                "last error: no answer from redis://h/0: timeout",
            ),
            ("INFO", "redis://h/0 answers again: enqueues are sent again"),
        ]

    def test_a_metric_counts_openings(self) -> None:
        reader = InMemoryMetricReader()
        metrics = ClientMetrics(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
        circuit = Circuit(CircuitSettings(failures=1), address="redis://h/0", opened=metrics.circuit_opened)

        circuit.end(SILENCE, is_probe=circuit.begin())

        data = reader.get_metrics_data()
        assert data is not None
        (metric,) = [each for each in data.resource_metrics[0].scope_metrics[0].metrics if each.data.data_points]
        assert (metric.name, metric.data.data_points[0].value) == ("asynq.client.circuit_opened", 1)  # type: ignore[union-attr]  # a counter

    def test_only_one_of_several_threads_sends_a_probe(self) -> None:
        bench = Bench()
        bench.fail(3)
        bench.now += 1
        start, tried = threading.Barrier(8), []

        def call() -> None:
            start.wait()
            with contextlib.suppress(CircuitOpenError):
                tried.append(bench.circuit.begin())

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(tried) == 1


@pytest.fixture(params=["Client", "AsyncClient"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "AsyncClient")


class Application:
    def __init__(self, url: str, *, is_async: bool, **settings: Any) -> None:
        quick = {"enqueue_timeout": 0.5, "circuit_breaker": {"FAILURES": 2, "FIRST_PAUSE": 60, "MAX_PAUSE": 60}}
        self.taskq = TaskQ(url, **{**quick, **settings})
        self.is_async = is_async

    async def begin(self) -> Any:
        """Enqueue a first task successfully. On a stalled machine, an attempt may exceed its short timeout."""
        for _ in range(20):
            with contextlib.suppress(EnqueueError):
                return await self.send()
        return await self.send()

    async def send(self) -> Any:
        call = self.taskq.remote("t").s()
        if self.is_async:
            return await self.taskq.async_client.enqueue(call)
        return await asyncio.to_thread(self.taskq.client.enqueue, call)

    async def send_many(self, count: int) -> Any:
        calls = [self.taskq.remote("t").s() for _ in range(count)]
        if self.is_async:
            return await self.taskq.async_client.enqueue_many(calls)
        return await asyncio.to_thread(self.taskq.client.enqueue_many, calls)

    async def fail(self) -> EnqueueError:
        with pytest.raises(EnqueueError) as caught:
            await self.send()
        return caught.value

    @property
    def state(self) -> CircuitState:
        return self.taskq.async_client.circuit_state if self.is_async else self.taskq.client.circuit_state


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.mark.redis
class TestEnqueues:
    async def test_applications_do_not_share_a_circuit(self, server: RedisServer, is_async: bool) -> None:
        """Each application has its own endpoint, which may be a different server."""
        app = Application("redis://127.0.0.1:1/0", is_async=is_async, enqueue_timeout=0.01)
        other = Application(server.url, is_async=is_async, enqueue_timeout=30)
        for _ in range(3):
            await app.fail()

        assert (await other.send()).is_sent
        await app.taskq.aclose()
        await other.taskq.aclose()

    async def test_a_disabled_circuit_sends_every_enqueue(self, is_async: bool) -> None:
        app = Application("redis://127.0.0.1:1/0", is_async=is_async, circuit_breaker=False, enqueue_timeout=0.01)

        errors = [await app.fail() for _ in range(10)]
        await app.taskq.aclose()

        assert {type(error.__cause__) for error in errors} == {BrokerUnavailableError}

    async def test_an_open_circuit_stops_a_bulk_enqueue_at_once(self, is_async: bool) -> None:
        app = Application("redis://127.0.0.1:1/0", is_async=is_async, enqueue_timeout=0.01)
        for _ in range(2):
            await app.fail()

        with pytest.raises(BulkEnqueueError) as caught:
            await app.send_many(3)
        await app.taskq.aclose()

        assert isinstance(caught.value.__cause__, CircuitOpenError)
        assert (caught.value.enqueued, caught.value.may_have_happened) == (0, False)

    async def test_a_redis_that_refuses_requests_does_not_open_the_circuit(self, is_async: bool) -> None:
        """Each enqueue raises the error that Redis replied."""
        with RedisServer(options={"maxmemory-policy": "noeviction"}) as server:
            server.command("CONFIG", "SET", "maxmemory", "1")
            app = Application(server.url, is_async=is_async, enqueue_timeout=30)
            errors = [await app.fail() for _ in range(5)]
            await app.taskq.aclose()

        assert {type(error.__cause__) for error in errors} == {BrokerFullError}


def test_an_unknown_setting_is_refused_before_a_connection_is_opened() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'FAILURES'"):
        TaskQ(circuit_breaker={"FAILURE": 3})
