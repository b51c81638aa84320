"""Count the function calls and the files of an enqueue, and the function calls of a run.

A profiler counts them alike on every machine. A change that makes a task 10 % more expensive fails here.
"""

import asyncio
import statistics
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from taskq_core import TaskQ
from taskq_core.telemetry import RunOutcome, Tracing, WorkerMetrics
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer

ROUNDS = 50
COMPREHENSIONS = 5 if sys.version_info < (3, 12) else 0
"""Additional calls of an enqueue with Python 3.11, in which a comprehension is a function call."""
_OURS = "/taskq_core/"


class Calls:
    """Counts the function calls of this thread: those of Python code (ours and others) and those of C code.

    Functions that the standard library generates for our classes, such as constructors of dataclasses, are ours.
    Each `with` block is a round. A busy machine can add calls to single rounds, for example when a request is repeated,
    so only what most rounds have in common counts.
    """

    def __init__(self) -> None:
        self._rounds: list[Counter[str]] = []
        self._files: Counter[str] = Counter()

    @property
    def files(self) -> set[str]:
        """The modules whose functions most rounds called, only ours."""
        return {module for module, rounds in self._files.items() if rounds > len(self._rounds) / 2}

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("taskq_"):
            self._rounds[-1]["ours"] += 1
            self._modules.add(module)
        elif event in ("call", "c_call"):
            self._rounds[-1]["others"] += 1

    def __enter__(self) -> "Calls":
        self._rounds.append(Counter())
        self._modules: set[str] = set()
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        self._rounds[-1]["others"] -= 2  # this function and `sys.setprofile`
        self._files.update(self._modules)

    def each(self, kind: str) -> float:
        """Return the median calls of the rounds."""
        return statistics.median(calls[kind] for calls in self._rounds)


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield app
    app.close()


def test_a_blocking_enqueue_makes_few_python_calls_in_few_files(app: TaskQ) -> None:
    task = app.remote("note")
    task.delay(number=0)  # connects, and loads the script

    calls = Calls()
    for number in range(ROUNDS):
        with calls:
            task.delay(number=number)

    assert 0 < calls.each("ours") <= 34.5 + COMPREHENSIONS
    assert 0 < calls.each("others") <= 65
    assert len(calls.files) <= 12, sorted(calls.files)


async def _enqueue(make: Callable[[int], Awaitable[object]]) -> Calls:
    await make(0)
    calls = Calls()
    for number in range(ROUNDS):
        with calls:
            await make(number)
    return calls


def test_an_asyncio_enqueue_makes_few_python_calls_in_few_files(app: TaskQ) -> None:
    task = app.remote("note")

    async def main() -> Calls:
        calls = await _enqueue(lambda number: task.adelay(number=number))
        await app.aclose()
        return calls

    calls = asyncio.run(main())

    assert 0 < calls.each("ours") <= 39.5 + COMPREHENSIONS
    assert len(calls.files) <= 15, sorted(calls.files)


def _drain(app: TaskQ, count: int) -> int:
    """Let a worker empty a queue, and return how many function calls it made to run the tasks."""
    task = app.tasks["note"]
    app.client.enqueue_many(task.s(number=number) for number in range(count))
    calls = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        file = frame.f_code.co_filename
        if event == "call" and _OURS in file and not file.endswith(_NOT_OF_A_RUN):
            calls += 1

    worker = Worker(app, WorkerConfig(concurrency=500, burst=True))
    sys.setprofile(note)
    try:
        assert worker.run() == 0
    finally:
        sys.setprofile(None)
    assert worker.ended_count == count
    return calls


_NOT_OF_A_RUN = ("/broker/stream.py",)
"""Keeps the loop turning while an answer is on its way, which takes as many calls as it takes time."""


@pytest.mark.nightly  # a busy machine can disturb a worker
def test_a_run_makes_a_bounded_number_of_python_calls(redis_server: RedisServer) -> None:
    """The task is an empty coroutine and the worker has no telemetry.

    The test measures the cost of 1,500 additional runs.
    """
    calls = []
    for count in (500, 2_000):
        app = TaskQ(redis_server.unix_url, enqueue_timeout=30)

        @app.task(name="note", headers={"tenant": "acme"})
        async def note(number: int) -> None:
            pass

        calls.append(_drain(app, count))
        app.close()

    assert 0 < (calls[1] - calls[0]) / 1_500 <= 25.5


def test_spans_and_metrics_of_a_run_make_a_bounded_number_of_python_calls() -> None:
    """The test counts only the calls that taskq makes in addition to OpenTelemetry's own."""
    tracing = Tracing(tracer_provider=TracerProvider())
    metrics = WorkerMetrics(meter_provider=MeterProvider(metric_readers=[InMemoryMetricReader()]))

    def run(number: int) -> None:
        metrics.waited("default", "note", 0.1)
        headers = {"traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-{number + 1:016x}-01"}
        span = tracing.start_consumer("default", "note", f"{number}", retried=0, max_retry=1, headers=headers)
        token = span.attach()
        context.detach(token)
        span.end("deleted")
        metrics.record("default", "note", RunOutcome.COMPLETED, 0.001, context=span.context)

    run(0)
    metrics.flush()
    calls = Calls()
    for number in range(ROUNDS):
        with calls:
            run(number)

    assert 0 < calls.each("ours") <= 25


def test_metrics_of_a_batch_make_a_bounded_number_of_python_calls() -> None:
    """Count OpenTelemetry's calls too: each run is recorded in three histograms, and counted with the others."""
    reader = InMemoryMetricReader()
    metrics = WorkerMetrics(meter_provider=MeterProvider(metric_readers=[reader]))

    def settle_dozen() -> None:
        for _ in range(12):
            metrics.waited("default", "note", 0.1)
            metrics.record("default", "note", RunOutcome.COMPLETED, 0.001)
        metrics.flush()

    settle_dozen()
    calls = Calls()
    for _ in range(ROUNDS):
        with calls:
            settle_dozen()

    assert 0 < calls.each("ours") <= 12 * 4.5
    assert 0 < calls.each("others") <= 12 * 260
