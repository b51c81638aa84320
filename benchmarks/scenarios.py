"""Define one measurement per function. Each runs in a separate process: `python -m benchmarks.scenarios NAME URL JSON`.

Every task has its own id, arguments and a header; they are encoded and decoded in the timed part. A function prints one
JSON object of figures.
"""

import asyncio
import gc
import importlib
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import redis

from taskq_core import Signature, TaskQ
from taskq_core.cli.running import set_up_log
from taskq_core.wire import Keys
from taskq_core.wire.samples import SAMPLE_S
from taskq_core.worker import Worker, WorkerConfig, WorkerListener

Figures = dict[str, float]
PATIENCE_S = 60.0
"""Maximum seconds of an enqueue. It is long, so that a busy machine slows a measurement down but does not fail it."""


def app(url: str) -> TaskQ:
    """Return the queue application of all scenarios."""
    taskq = TaskQ(url, enqueue_timeout=PATIENCE_S)

    @taskq.task(name="bench:coroutine", headers={"tenant": "acme"})
    async def coroutine(number: int, text: str) -> None:
        pass

    @taskq.task(name="bench:plain", headers={"tenant": "acme"})
    def plain(number: int, text: str) -> None:
        pass

    return taskq


def calls(taskq: TaskQ, name: str, count: int) -> Iterator[Signature[Any]]:
    """Return calls of a task, each with different arguments."""
    task = taskq.tasks[name]
    return (Signature(task, (number, "some text"), {}) for number in range(count))


def queue_names(queues: int) -> dict[str, int]:
    """Return the names of some queues, with equal weights."""
    return {f"q{number}": 1 for number in range(queues)}


def _rate(count: int, call: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    call()
    return count / (time.perf_counter() - started)


# --- enqueue ----------------------------------------------------------------------------------------------------------


def enqueue_single(url: str, *, count: int, telemetry: str = "none", by_hand: bool = False) -> Figures:
    """Measure blocking `.delay()`, one call after another. `by_hand` as for `drain`."""
    write: Callable[[], object] = int
    if by_hand:
        write = _send_by_hand(telemetry)
    else:
        _configure(telemetry)
    taskq = app(url)
    task = taskq.tasks["bench:plain"]
    task.delay(0, "warm")
    before = time.process_time()

    def run() -> None:
        for number in range(count):
            write()
            task.delay(number, "some text")

    rate = _rate(count, run)
    return {"tasks_per_s": rate, "client_cpu_us": (time.process_time() - before) / count * 1e6}


def enqueue_async(url: str, *, count: int, callers: int) -> Figures:
    """Measure `.adelay()` from several coroutines at the same time."""
    taskq = app(url)
    task = taskq.tasks["bench:coroutine"]

    async def caller() -> None:
        for number in range(count // callers):
            await task.adelay(number, "some text")

    async def main() -> float:
        await task.adelay(0, "warm")
        gc.collect()
        started = time.perf_counter()
        await asyncio.gather(*[caller() for _ in range(callers)])
        rate = count / (time.perf_counter() - started)
        await taskq.aclose()
        return rate

    return {"tasks_per_s": _run(main())}


def enqueue_bulk(url: str, *, count: int) -> Figures:
    """Measure `client.enqueue_many()` with a generator."""
    taskq = app(url)
    taskq.client.enqueue_many(calls(taskq, "bench:plain", 200))
    return {"tasks_per_s": _rate(count, lambda: taskq.client.enqueue_many(calls(taskq, "bench:plain", count)))}


# --- work -------------------------------------------------------------------------------------------------------------


class _Started(WorkerListener):
    at = 0.0

    def started(self, worker: Any) -> None:
        self.at = time.perf_counter()


def drain(
    url: str,
    *,
    kind: str,
    concurrency: int,
    count: int,
    telemetry: str = "none",
    by_hand: bool = False,
    is_logged: bool = False,
) -> Figures:
    """Measure how fast a worker in one process drains a queue of tasks that do nothing.

    Args:
        url: URL of Redis.
        kind: "coroutine" or "plain".
        concurrency: Concurrency of the worker.
        count: Number of tasks.
        telemetry: The telemetry to set up; see `_configure`.
        by_hand: True to measure the cost of OpenTelemetry itself inside a worker: the tasks create the same spans and
            records as taskq would, and taskq creates none. The messages contain no trace.
        is_logged: True to log as `taskq worker` does by default: a line per run, here into a pipe that `cat` empties.
    """
    taskq = app(url)
    if by_hand:
        kind = "by_hand"
        _instrument_by_hand(taskq, telemetry)
    else:
        _configure(telemetry)
    taskq.client.enqueue_many(calls(taskq, f"bench:{kind}", count))
    _flush_spans()
    with _log_to_pipe() if is_logged else nullcontext():
        # `logging.shutdown` writes the lines that wait, which is part of the work.
        seconds, cpu_s = work(taskq, concurrency=concurrency, count=count, finish=logging.shutdown)
    return {"tasks_per_s": count / seconds, "worker_cpu_us": cpu_s / count * 1e6}


def work(
    taskq: TaskQ, *, concurrency: int, count: int, finish: Callable[[], object] = lambda: None
) -> tuple[float, float]:
    """Run all tasks of the queue with a worker in this process.

    Args:
        taskq: The queue application.
        concurrency: Concurrency of the worker.
        count: Number of tasks in the queue.
        finish: Called when the worker has stopped, as part of the measured work.

    Returns:
        Elapsed seconds since the worker has started, and CPU seconds of this process.
    """
    listener = _Started()
    worker = Worker(taskq, WorkerConfig(concurrency=concurrency, burst=True), listener=listener)
    before = resource.getrusage(resource.RUSAGE_SELF)
    status = worker.run()
    finish()
    seconds = time.perf_counter() - listener.at
    after = resource.getrusage(resource.RUSAGE_SELF)
    left = taskq.runtime.runner.run(_count(taskq))
    if status or left.processed != count:
        raise SystemExit(f"the worker processed {left.processed} of {count} tasks")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def _log_to_pipe() -> Iterator[None]:
    """Set up the log of `taskq worker`. Standard error is a pipe to `cat` meanwhile."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as cat:
        assert cat.stdin is not None
        before = os.dup(2)
        os.dup2(cat.stdin.fileno(), 2)
        cat.stdin.close()
        set_up_log(1)
        yield
        logging.shutdown()
        os.dup2(before, 2)


def _instrument_by_hand(taskq: TaskQ, telemetry: str) -> None:
    """Register a task that creates the spans and records of a run itself. taskq does not see its providers."""
    from opentelemetry import context
    from opentelemetry.trace import SpanKind, set_span_in_context

    from taskq_core.telemetry import extract

    provider, meter_provider = _providers(telemetry)
    tracer = provider.get_tracer("by hand")
    histograms = []
    if meter_provider is not None:
        meter = meter_provider.get_meter("by hand")
        histograms = [meter.create_histogram(f"histogram.{number}", "s") for number in range(3)]
    flags = "00" if telemetry == "unsampled" else "01"
    parent = extract({"traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"})
    attributes: dict[str, Any] = {f"attribute.{number}": "some text" for number in range(11)}
    labels = [{f"label.{number}": "some text" for number in range(count)} for count in (3, 5, 2)]

    @taskq.task(name="bench:by_hand", headers={"tenant": "acme"})
    async def by_hand(number: int, text: str) -> None:
        span = tracer.start_span("process default", parent, SpanKind.CONSUMER, attributes)
        around = set_span_in_context(span, parent)
        context.attach(around)
        if span.is_recording():
            span.set_attribute("state", "deleted")
        span.end()
        for histogram, label in zip(histograms, labels, strict=False):
            histogram.record(0.001, label, around)


def _send_by_hand(telemetry: str) -> Callable[[], object]:
    """Return a function that enqueues and creates the spans and records itself. taskq does not see its providers."""
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind, set_span_in_context

    from taskq_core.telemetry import extract

    provider, meter_provider = _providers(telemetry)
    tracer = provider.get_tracer("by hand")
    labels = [{f"label.{number}": "some text" for number in range(count)} for count in (6, 2)]
    records: list[Callable[[], object]] = []
    if meter_provider is not None:
        meter = meter_provider.get_meter("by hand")
        sent, enqueued = meter.create_counter("sent"), meter.create_counter("enqueued")
        duration = meter.create_histogram("duration", "s")
        records = [
            lambda: sent.add(1, labels[0]),
            lambda: enqueued.add(1, labels[1]),
            lambda: duration.record(0.001, labels[0]),
        ]
    flags = "00" if telemetry == "unsampled" else "01"
    parent = extract({"traceparent": f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}"})
    attributes: dict[str, Any] = {f"attribute.{number}": "some text" for number in range(9)}

    def send() -> None:
        span = tracer.start_span("send default", parent, SpanKind.PRODUCER, attributes)
        propagate.inject({}, set_span_in_context(span, parent))
        span.end()
        for record in records:
            record()

    return send


def _flush_spans() -> None:
    """Export the spans of the enqueues now, so that the time of the worker does not include it."""
    from opentelemetry import trace

    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush()


def _count(taskq: TaskQ) -> Any:
    from taskq_core.broker.operations.views import count_tasks

    return count_tasks(taskq.runtime.keys.queue("default"))


def _configure(telemetry: str) -> None:
    """Set up the OpenTelemetry SDK in this process.

    `none`: no SDK. `spans`: traces. `metrics`: traces and metrics. `unsampled`: traces and metrics, inside a request
    that is not sampled.
    """
    if telemetry == "none":
        return
    from opentelemetry import context, metrics, trace

    from taskq_core.telemetry import extract

    provider, meter_provider = _providers(telemetry)
    trace.set_tracer_provider(provider)
    if meter_provider is not None:
        metrics.set_meter_provider(meter_provider)
    if telemetry == "unsampled":
        context.attach(extract({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}))


def _providers(telemetry: str) -> tuple[Any, Any]:
    """Return providers whose exporters discard all data, so that only the creation of spans and records is measured."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Discard()))
    return provider, None if telemetry == "spans" else MeterProvider(metric_readers=[InMemoryMetricReader()])


def bare_telemetry(url: str, *, count: int) -> Figures:
    """Measure the CPU time of OpenTelemetry itself in a loop: of a span with eight attributes, and of a record."""
    _configure("metrics")
    from opentelemetry import metrics, trace
    from opentelemetry.trace import SpanKind

    from taskq_core.telemetry import extract

    tracer = trace.get_tracer("bare")
    histogram = metrics.get_meter("bare").create_histogram("bare", "s")
    attributes: dict[str, Any] = {f"attribute.{number}": "some text" for number in range(8)}
    sampled = extract({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
    unsampled = extract({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"})

    def cost(call: Callable[[], object]) -> float:
        lowest = float("inf")
        for _ in range(5):
            started = time.process_time()
            for _ in range(count // 5):
                call()
            lowest = min(lowest, (time.process_time() - started) / (count // 5) * 1e6)
        return lowest

    return {
        "span_us": cost(lambda: tracer.start_span("bare", sampled, SpanKind.CONSUMER, attributes).end()),
        "unsampled_us": cost(lambda: tracer.start_span("bare", unsampled, SpanKind.CONSUMER, attributes).end()),
        "record_us": cost(lambda: histogram.record(0.1, {"queue": "default", "type": "some:task"})),
    }


def latency(url: str, *, per_s: int, seconds: int, concurrency: int) -> Figures:
    """Measure the time from `.adelay()` to the start of the function in a worker process, at a steady rate."""
    import subprocess

    code = "from benchmarks.scenarios import latency_worker; import sys; latency_worker(sys.argv[1], int(sys.argv[2]))"
    with subprocess.Popen(
        [sys.executable, "-c", code, url, str(concurrency)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        taskq = TaskQ(url)
        stamp = taskq.remote("bench:stamp")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            await stamp.adelay(sent_ns=0)
            started = loop.time()
            for number in range(per_s * seconds):
                await asyncio.sleep(max(0.0, started + number / per_s - loop.time()))
                await stamp.adelay(sent_ns=time.time_ns())
            await asyncio.sleep(0.5)
            await taskq.aclose()

        _run(main())
        worker.terminate()
        delays = sorted(json.loads(worker.stdout.readline()))
    return {
        "p50_ms": statistics.median(delays) * 1e3,
        "p99_ms": delays[int(len(delays) * 0.99)] * 1e3,
        "tasks": len(delays),
    }


def due(url: str, *, tasks: int) -> Figures:
    """Measure how late a scheduled task starts. One task is due in each second. The worker runs in this process."""
    taskq = TaskQ(url)
    late: list[float] = []
    worker: Worker

    @taskq.task(name="bench:due")
    async def run(due_s: int) -> None:
        late.append(time.time() - due_s)
        if len(late) == tasks:
            worker.stop()

    first = int(time.time()) + 3
    for due_s in range(first, first + tasks):
        run.using(run_after=datetime.fromtimestamp(due_s, UTC)).delay(due_s)
    worker = Worker(taskq, WorkerConfig(concurrency=10))
    worker.run()
    return {"median_ms": statistics.median(late) * 1e3, "earliest_ms": min(late) * 1e3, "latest_ms": max(late) * 1e3}


def latency_worker(url: str, concurrency: int) -> None:
    """Run the worker of `latency`. Print a line when it has started, and the delays when it is stopped."""
    taskq = TaskQ(url)
    delays: list[float] = []

    @taskq.task(name="bench:stamp")
    async def stamp(sent_ns: int) -> None:
        if sent_ns:
            delays.append((time.time_ns() - sent_ns) / 1e9)

    class Ready(WorkerListener):
        def started(self, worker: Any) -> None:
            print("ready", flush=True)

    Worker(taskq, WorkerConfig(concurrency=concurrency), listener=Ready()).run()
    print(json.dumps(delays), flush=True)


def idle(url: str, *, seconds: int, queues: int = 1) -> Figures:
    """Measure the requests, commands (also those of scripts), connections and CPU time of an idle worker."""
    worker = Worker(app(url), WorkerConfig(queues=queue_names(queues), concurrency=10))
    samples = [Keys().queue(name).samples(SAMPLE_S) for name in queue_names(queues)]
    figures: Figures = {}

    def watch() -> None:
        with redis.Redis.from_url(url) as client:
            while client.exists(*samples) < queues:  # until the worker leads all of its queues
                time.sleep(0.1)
            time.sleep(16)  # until all services have done their first pass, even the search for damage
            before: Any = client.info("stats")
            cpu, started = time.process_time(), time.perf_counter()
            time.sleep(seconds)
            cpu, elapsed = time.process_time() - cpu, time.perf_counter() - started
            after: Any = client.info("stats")
            for figure, name in (
                ("requests_per_s", "total_reads_processed"),
                ("commands_per_s", "total_commands_processed"),
            ):
                figures[figure] = (after[name] - before[name] - 1) / elapsed
            figures["cpu_percent"] = cpu / elapsed * 100
            figures["connections"] = client.info("clients")["connected_clients"] - 1
        worker.stop()

    thread = threading.Thread(target=watch)
    thread.start()
    worker.run()
    thread.join()
    return figures


def _run(main: Coroutine[Any, Any, Any]) -> Any:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


ROOMS = (
    *("raw", "enqueueing", "growing", "waiting", "handing", "crowd", "workflows", "limiting", "computing"),
    *("telemetry", "inspecting", "django_site.measuring", "pages"),
)
"""Modules with further measurements. Those that import web frameworks come last, because the imports take memory."""


def _function(name: str) -> Callable[..., Figures]:
    if name in globals():
        return globals()[name]  # type: ignore[no-any-return]  # by its name
    rooms = (importlib.import_module(f"benchmarks.{room}") for room in ROOMS)
    return next(getattr(room, name) for room in rooms if hasattr(room, name))  # type: ignore[no-any-return]  # as above


if __name__ == "__main__":
    name, url, arguments, cpu = sys.argv[1:5]
    if cpu:
        os.sched_setaffinity(0, {int(cpu)})
    print(json.dumps(_function(name)(url, **json.loads(arguments))), flush=True)
