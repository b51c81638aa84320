"""What `python -m benchmarks` measures: taskq beside the raw limit of the same Redis.

Each row is a function of `scenarios` or of a module beside it, run in a process of its own.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.placement import Placement
from benchmarks.session import Case, CaseError, Figure, Found
from tests.redis_server import RedisServer

Plan = list[tuple[str, str, dict[str, Any], str, str]]
"""Title, function, arguments, figure, and title of the raw limit beside it."""
_UNITS: Mapping[str, str] = {"_us": "us", "_ms": "ms", "_s": "s", "percent": "%", "per_s": "/s", "second": "tasks"}
_MOST_S = 1200


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
            title = f"telemetry: drain with {words} written by the tasks, worker's CPU us a task"
            rows.append((title, "drain", {**arguments, "by_hand": True}, "worker_cpu_us", ""))
        enqueued = {"count": tasks // 10, "telemetry": telemetry}
        rows.append(
            (f"telemetry: delay() with {words}, CPU us a task", "enqueue_single", enqueued, "client_cpu_us", "")
        )
        if telemetry != "none":
            title = f"telemetry: delay() with {words} written beside it, CPU us a task"
            rows.append((title, "enqueue_single", {**enqueued, "by_hand": True}, "client_cpu_us", ""))
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
    for limit, words in (("rate", "a rate of 20 a second"), ("place", "a place")):
        for figure, part in (("median", "median"), ("p99", "99th percentile")):
            title = f"start of a task after {words} allows it, {part}"
            rows.append((title, "allowed", {"count": tasks // 250}, f"{limit}_{figure}_ms", ""))
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


def cases(tasks: int, only: str, placement: str) -> list[Case]:
    """Return the cases whose rows' titles contain a text, and those of the raw limits beside them.

    Rows of the same function with the same arguments belong to one case.
    """
    rows = plan(tasks)
    wanted = [row for row in rows if only in row[0]]
    limits = {row[4] for row in wanted} - {""}
    grouped: dict[str, list[tuple[str, str, dict[str, Any], str, str]]] = {}
    for row in rows:
        if row in wanted or row[0] in limits:
            grouped.setdefault(json.dumps(row[1:3], sort_keys=True), []).append(row)
    return [_case(rows, placement) for rows in grouped.values()]


def _case(rows: Sequence[tuple[str, str, dict[str, Any], str, str]], placement: str) -> Case:
    title, function, arguments, _, _ = rows[0]

    def run(server: RedisServer, place: Placement) -> Found:
        cpu = str(place.workers[0]) if len(place.workers) == 1 else ""
        return Found(figures=_measure(function, server.url, arguments, cpu), tasks=arguments.get("count"))

    return Case(
        system="taskq",
        setting=json.dumps(arguments),
        title=title,
        placement=placement,
        run=run,
        figures=[
            Figure(
                name=figure,
                measure=title,
                title=title,
                unit=_unit(figure),
                higher_is_better=_unit(figure) == "tasks/s",
                limit=limit,
            )
            for title, _, _, figure, limit in rows
        ],
    )


def _unit(figure: str) -> str:
    if figure in ("tasks_per_s", "steps_per_s"):
        return "tasks/s"
    return next(unit for ending, unit in _UNITS.items() if figure.endswith(ending))


def _measure(function: str, url: str, arguments: dict[str, Any], cpu: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scenarios", function, url, json.dumps(arguments), cpu]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_S, check=False)
    except subprocess.TimeoutExpired:
        raise CaseError(f"{function} took more than {_MOST_S} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CaseError(f"{function} failed: {' | '.join(lines[-3:])}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures
