"""Measure what traces and metrics cost in a worker: `python -m benchmarks.telemetry`.

Each round runs a worker without telemetry, with metrics only, inside traces that are not sampled, and inside traces
that are sampled. The worker exports with `configure()` over OTLP/HTTP to a collector in a separate process.
With `--peers`, each round also runs other task queues with their instrumentation, without and with telemetry. The first
use installs them into `.venv/peers`.
The floor is the CPU time of a loop without taskq that creates the same records and spans, one SDK call for each record,
and exports them in the same way.
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.peers.cases import Runner
from benchmarks.peers.environments import environment_of
from benchmarks.peers.telemetry import instrumented_peers, with_telemetry
from benchmarks.placement import Placement, on, placements
from benchmarks.scenarios import Figures, app, calls, work
from tests.redis_server import RedisServer

MODES: Mapping[str, str] = {
    "off": "off",
    "metrics": "metrics only",
    "unsampled": "metrics, no trace sampled",
    "sampled": "metrics, all traces sampled",
}
_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
_QUIET_S = 1.5
"""Seconds without a further span after which all spans have arrived."""
_PEERS_TASKS_S = 3.0
"""Seconds for which a peer's worker is busy without telemetry."""
_QUEUE_SIZE = 1 << 20
"""Maximum number of spans that wait for their export. It is large, so that all spans are exported, and measured."""


def traced_drain(url: str, *, mode: str, count: int, concurrency: int, collector: str) -> Figures:
    """Measure a worker in one process that drains a queue of tasks that do nothing.

    Args:
        url: URL of Redis.
        mode: A key of `MODES`.
        count: Number of tasks.
        concurrency: Concurrency of the worker.
        collector: URL of the collector.
    """
    from opentelemetry import context

    from taskq_core.telemetry import extract

    taskq = app(url)
    # Without an SDK, a client passes the current trace on and records nothing.
    token = context.attach(extract({"traceparent": _traceparent(mode)}))
    taskq.client.enqueue_many(calls(taskq, "bench:coroutine", count))
    context.detach(token)
    handle = _configure(mode, collector)
    finish = (lambda: handle.force_flush(60.0)) if handle is not None else (lambda: None)
    seconds, cpu_s = work(taskq, concurrency=concurrency, count=count, finish=finish)
    return {"tasks_per_s": count / seconds, "cpu_us": cpu_s / count * 1e6}


def telemetry_floor(url: str, *, mode: str, count: int, collector: str) -> Figures:
    """Measure the CPU time of OpenTelemetry alone, without taskq: the records and spans of a run, and their export."""
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Link, SpanKind, get_current_span, set_span_in_context

    from taskq_core.telemetry import extract

    if mode == "off":
        return {"cpu_us": 0.0}
    handle = _configure(mode, collector)
    meter, tracer = metrics.get_meter("floor"), trace.get_tracer("floor")
    histograms = [meter.create_histogram(f"histogram.{number}", "s") for number in range(3)]
    labels = [{f"label.{number}": "some text" for number in range(size)} for size in (3, 5, 2)]
    parent = extract({"traceparent": _traceparent(mode)})
    sender = get_current_span(parent).get_span_context()
    constant: dict[str, Any] = {f"attribute.{number}": "some text" for number in range(8)}
    before = resource.getrusage(resource.RUSAGE_SELF)
    for number in range(count):
        around = parent
        if mode == "sampled":
            attributes = {**constant, "id": str(number), "retried": 0, "max_retry": 25}
            span = tracer.start_span("process default", parent, SpanKind.CONSUMER, attributes, [Link(sender)])
            around = set_span_in_context(span, parent)
            span.set_attribute("state", "deleted")
            span.end()
        for histogram, label in zip(histograms, labels, strict=True):
            histogram.record(0.001, label, around)
    handle.force_flush(60.0)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_us": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count * 1e6}


def _traceparent(mode: str) -> str:
    return _PARENT + ("00" if mode == "unsampled" else "01")


def _configure(mode: str, collector: str) -> Any:
    if mode == "off":
        return None
    from taskq_core.telemetry import configure

    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector
    os.environ["OTEL_TRACES_EXPORTER"] = "none" if mode == "metrics" else "otlp"
    os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = str(_QUEUE_SIZE)
    return configure("benchmark")


# --- the collector ----------------------------------------------------------------------------------------------------


def collect() -> None:
    """Receive OTLP over HTTP. Print the URL, and for each line of stdin the number of spans received since the last."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                request = ExportTraceServiceRequest.FromString(body)
                received.extend(len(scope.spans) for each in request.resource_spans for scope in each.scope_spans)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    for _ in sys.stdin:
        print(sum(received), flush=True)
        received.clear()


class Collector:
    """A collector in a separate process. Runs during a `with` block."""

    def __init__(self) -> None:
        code = "from benchmarks.telemetry import collect; collect()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._line().strip()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def take_count(self) -> int:
        """Return the number of spans received since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def _collector() -> Iterator[Collector]:
    with on(placements()["apart"].redis):
        collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


# --- the rounds -------------------------------------------------------------------------------------------------------


def _measure(function: str, url: str, **arguments: object) -> Figures:
    """Run a function of this module in a separate process."""
    command = [sys.executable, "-m", "benchmarks.scenarios", function, url, json.dumps(arguments), ""]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def _round(options: argparse.Namespace, collector: Collector) -> dict[str, Figures]:
    rows: dict[str, Figures] = {}
    placement = placements()["apart"]
    for mode in options.mode or MODES:
        with _placed(placement) as server, on(placement.workers):
            arguments = {"mode": mode, "count": options.tasks, "collector": collector.url}
            found = _measure("traced_drain", server.unix_url, concurrency=options.concurrency, **arguments)
            spans = collector.take_count()
            floor = _measure("telemetry_floor", server.unix_url, **arguments)
            collector.take_count()
            rows[mode] = {**found, "floor_us": floor["cpu_us"], "spans": spans}
    return rows


class _Arrivals:
    """Counts the spans that a collector receives, and tells when no more arrive."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._last = time.monotonic()
        self.spans = 0

    def are_over(self) -> bool:
        """Return whether no span has arrived for some time."""
        now, count = time.monotonic(), self._collector.take_count()
        if count:
            self.spans, self._last = self.spans + count, now
        return now - self._last > _QUIET_S


def _peers_round(most: int, collector: Collector) -> dict[str, Figures]:
    """Measure each peer without and with telemetry, with the number of tasks that its speed allows."""
    rows: dict[str, Figures] = {}
    placement = placements()["apart"]
    for peer in instrumented_peers():
        environment = environment_of(peer, keep=True)
        plain = Runner(peer=peer, setting=peer.settings[0], environment=environment)
        row: Figures = {}
        count = 1000
        for _ in range(2):  # the first drain estimates the rate
            with _placed(placement) as server:
                found = plain.drain(server, placement, count=count)
            count = min(most, max(count, int(found.figures["rate"] * _PEERS_TASKS_S)))
        row["off_us"] = found.figures["worker_cpu_us"]
        collector.take_count()
        arrivals = _Arrivals(collector)
        setting = with_telemetry(peer.settings[0], collector.url)
        traced = replace(plain, setting=setting, is_over=arrivals.are_over)
        with _placed(placement) as server:
            found = traced.drain(server, placement, count=count)
        row |= {"on_us": found.figures["worker_cpu_us"], "spans": arrivals.spans / count}
        rows[f"{peer.name} {environment.version}, {peer.settings[0].name}"] = row
    return rows


@contextmanager
def _placed(placement: Placement) -> Iterator[RedisServer]:
    with RedisServer() as server:
        if placement.redis:
            os.sched_setaffinity(server.pid, placement.redis)
        yield server


def _medians(rounds: list[dict[str, Figures]]) -> dict[str, Figures]:
    return {
        row: {name: statistics.median(each[row][name] for each in rounds) for name in rounds[0][row]}
        for row in rounds[0]
    }


def _print_peers(rows: Mapping[str, Figures]) -> None:
    print("\n| worker | CPU us a task, off | on | on, tasks per second of CPU | spans a task |")
    print("|---|---|---|---|---|")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["on_us"]):
        print(
            f"| {name} | {row['off_us']:,.0f} | {row['on_us']:,.0f} | {1e6 / row['on_us']:,.0f} | {row['spans']:.1f} |"
        )


def main() -> None:
    """Measure in rounds, and print the medians as a table of Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--tasks", type=int, default=50_000, help="tasks of each worker (default %(default)s)")
    parser.add_argument("--concurrency", type=int, default=50, help="concurrency of the worker (default %(default)s)")
    parser.add_argument("--mode", choices=tuple(MODES), action="append", help="measure only this; may be repeated")
    parser.add_argument("--peers", action="store_true", help="also measure other task queues")
    options = parser.parse_args()
    started = time.monotonic()
    with _collector() as collector:
        rounds = [_round(options, collector) for _ in range(options.rounds)]
        peers = [_peers_round(options.tasks, collector) for _ in range(options.rounds if options.peers else 0)]
    rows = _medians(rounds)
    off = rows.get("off", {}).get("cpu_us", 0.0)
    print("| telemetry | tasks/s | CPU us a task | floor, CPU us | cost / (floor + off) | spans sent | received |")
    print("|---|---|---|---|---|---|---|")
    for mode, row in rows.items():
        sent = options.tasks if mode == "sampled" else 0
        ratio = row["cpu_us"] / (row["floor_us"] + off) if off else float("nan")
        print(
            f"| {MODES[mode]} | {row['tasks_per_s']:,.0f} | {row['cpu_us']:.1f} | {row['floor_us']:.1f} | {ratio:.2f} "
            f"| {sent:,} | {row['spans']:,.0f} |"
        )
    if peers:
        _print_peers(_medians(peers))
    print(f"\n{options.rounds} rounds in {time.monotonic() - started:.0f} s, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
