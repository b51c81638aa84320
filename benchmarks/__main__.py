"""Run the measurements and print a table: `python -m benchmarks` (or `make bench`).

Each measurement runs in a process of its own on a Redis of its own, several times, the measurements in turn, so that a
slow spell of the machine meets them all. The table gives the median and in brackets the lowest and the highest run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.redis_server import RedisServer

Plan = list[tuple[str, str, dict[str, Any], str, str]]
"""Title, function, arguments, figure, and title of the raw limit beside it."""


def plan(tasks: int) -> Plan:
    """Return what is measured."""
    rate = "tasks_per_s"
    rows: Plan = [
        ("raw: enqueue, batches of 200", "raw_enqueue", {"count": tasks, "batch": 200}, rate, ""),
        ("raw: enqueue, one a call", "raw_enqueue", {"count": tasks // 5, "batch": 1}, rate, ""),
        (
            "enqueue: delay(), one after another",
            "enqueue_single",
            {"count": tasks // 10},
            rate,
            "raw: enqueue, one a call",
        ),
        (
            "enqueue: adelay(), 1 caller",
            "enqueue_async",
            {"count": tasks // 10, "callers": 1},
            rate,
            "raw: enqueue, one a call",
        ),
        (
            "enqueue: adelay(), 50 callers",
            "enqueue_async",
            {"count": tasks, "callers": 50},
            rate,
            "raw: enqueue, batches of 200",
        ),
        ("enqueue: enqueue_many()", "enqueue_bulk", {"count": 2 * tasks}, rate, "raw: enqueue, batches of 200"),
    ]
    for concurrency in (10, 50, 200):
        raw = f"raw: dequeue and settle, {concurrency} at a time"
        rows.append((raw, "raw_drain", {"count": tasks, "concurrency": concurrency}, rate, ""))
        for kind in ("coroutine", "plain"):
            arguments = {"kind": kind, "concurrency": concurrency, "count": tasks}
            rows.append((f"drain: {kind}, concurrency {concurrency}", "drain", arguments, rate, raw))
    raw = "raw: dequeue and settle, 50 at a time"
    kinds = (("spans", "a span a task"), ("metrics", "a span and metrics a task"), ("unsampled", "metrics, unsampled"))
    for telemetry, words in kinds:
        for kind in ("coroutine", "plain"):
            arguments = {"kind": kind, "concurrency": 50, "count": tasks // 2, "telemetry": telemetry}
            rows.append((f"drain: {kind}, concurrency 50, {words}", "drain", arguments, rate, raw))
    for figure, words in (("span_us", "a span"), ("unsampled_us", "a span, unsampled"), ("record_us", "a record")):
        rows.append(
            (f"telemetry: {words}, OpenTelemetry alone, CPU us", "bare_telemetry", {"count": tasks // 2}, figure, "")
        )
    for telemetry, words in (("none", "nothing"), *kinds):
        arguments = {"kind": "coroutine", "concurrency": 50, "count": tasks // 2, "telemetry": telemetry}
        rows.append((f"telemetry: drain with {words}, worker's CPU us a task", "drain", arguments, "worker_cpu_us", ""))
        if telemetry != "none":
            title = f"telemetry: the same written by the tasks, {words}, CPU us a task"
            rows.append((title, "drain", {**arguments, "by_hand": True}, "worker_cpu_us", ""))
        enqueued = {"count": tasks // 10, "telemetry": telemetry}
        rows.append(
            (f"telemetry: delay() with {words}, CPU us a task", "enqueue_single", enqueued, "client_cpu_us", "")
        )
    rows += [
        ("latency at 200 tasks/s, median", "latency", {"per_s": 200, "seconds": 10, "concurrency": 10}, "p50_ms", ""),
        (
            "latency at 200 tasks/s, 99th percentile",
            "latency",
            {"per_s": 200, "seconds": 10, "concurrency": 10},
            "p99_ms",
            "",
        ),
        ("start of a scheduled task after its second, median", "due", {"tasks": 10}, "median_ms", ""),
        ("start of a scheduled task after its second, latest", "due", {"tasks": 10}, "latest_ms", ""),
        ("idle worker: requests to Redis a second", "idle", {"seconds": 10}, "requests_per_s", ""),
        ("idle worker: commands run in Redis a second", "idle", {"seconds": 10}, "commands_per_s", ""),
        ("idle worker: CPU percent", "idle", {"seconds": 10}, "cpu_percent", ""),
    ]
    for kind, count in (("chain", tasks // 50), ("group", 2 * tasks), ("chord", tasks // 5)):
        for figure, words in (("enqueue_s", "enqueue, s"), ("run_s", "run, s"), ("steps_per_s", "steps a second")):
            rows.append((f"{kind} of {count:,}: {words}", f"workflow_{kind}", {"count": count}, figure, ""))
    for figure, words in (("run_s", "run, s"), ("most_in_a_second", "most in a second")):
        title = f"{tasks // 5:,} tasks limited to 1,000 a second: {words}"
        rows.append((title, "limited", {"count": tasks // 5}, figure, ""))
    inspected = (
        ("look", "queue_info, memory_usage"),
        ("page", "a page of 1,000 tasks"),
        ("find", "find_tasks"),
        ("reconcile", "reconcile"),
        ("run_all", "run_all"),
        ("move_all", "move_all"),
        ("archive_all", "archive_all"),
        ("delete_all", "delete_all"),
        ("remove_queue", "remove_queue"),
    )
    for figure, words in inspected:
        title = f"longest call of {words}"
        rows.append((title, "longest_calls", {"count": 20 * tasks}, f"{figure}_ms", ""))
    for figure, words in (("queues", "all queues"), ("queue", "one queue"), ("tasks", "a page of archived tasks")):
        title = f"page of the dashboard, ms: {words}"
        rows.append((title, "dashboard_pages", {"count": 20 * tasks}, f"{figure}_ms", ""))
    return rows


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (default 3)")
    parser.add_argument("--tasks", type=int, default=50_000, help="tasks of the larger measurements (default 50 000)")
    parser.add_argument("--only", default="", help="only measurements whose title contains this")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows = [row for row in plan(options.tasks) if options.only in row[0]]
    needed = {row[4] for row in rows} - {""}
    rows = [row for row in plan(options.tasks) if row in rows or row[0] in needed]
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    redis_cpu, client_cpu = (str(cpus[-1]), str(cpus[0])) if len(cpus) > 1 else ("", "")
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    version = ""
    for _ in range(options.runs):
        done: set[tuple[str, str]] = set()
        for title, function, arguments, _figure, _raw in rows:
            key = (function, json.dumps(arguments, sort_keys=True))
            if key in done:
                continue
            done.add(key)
            print(f"... {title}", file=sys.stderr, flush=True)
            with RedisServer() as server:
                if redis_cpu:
                    os.sched_setaffinity(server.pid, {int(redis_cpu)})
                version = server.client.info("server")["redis_version"]
                measured.setdefault(key, []).append(_measure(function, server.url, arguments, client_cpu))
    report = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "python": platform.python_version(),
        "redis": version,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {_processor()}",
        "placement": f"Redis on CPU {redis_cpu}, clients and workers on CPU {client_cpu}"
        if redis_cpu
        else "not pinned",
        "transport": "unix socket, no persistence",
        "runs": options.runs,
        "rows": [],
    }
    by_title: dict[str, float] = {}
    for title, function, arguments, figure, raw in rows:
        values = [run[figure] for run in measured[function, json.dumps(arguments, sort_keys=True)]]
        by_title[title] = statistics.median(values)
        report["rows"].append(
            {
                "title": title,
                "figure": figure,
                "median": statistics.median(values),
                "lowest": min(values),
                "highest": max(values),
                "raw": by_title.get(raw),
            }
        )
    _print(report)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _measure(function: str, url: str, arguments: dict[str, Any], cpu: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scenarios", function, url, json.dumps(arguments), cpu]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise SystemExit(f"{function} failed:\n{done.stdout}{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def _print(report: dict[str, Any]) -> None:
    for name in ("taken", "command", "python", "redis", "machine", "placement", "transport"):
        print(f"{name:>10}: {report[name]}")
    print()
    print(f"{'measurement':52} {'median':>10}   {'(lowest to highest)':26} of raw")
    for row in report["rows"]:
        digits = 0 if row["figure"] == "tasks_per_s" else 2
        spread = f"({row['lowest']:,.{digits}f} to {row['highest']:,.{digits}f})"
        share = f"{row['median'] / row['raw']:.0%}" if row["raw"] else ""
        print(f"{row['title']:52} {row['median']:>10,.{digits}f}   {spread:26} {share}")


if __name__ == "__main__":
    raise SystemExit(main())
