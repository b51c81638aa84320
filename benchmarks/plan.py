"""List what `python -m benchmarks` measures: taskq in comparison with the raw limit of the same Redis.

Each row comes from a function. Functions of `scenarios` and of its `ROOMS` run in a separate process, functions of
`deployed` in this process.
"""

import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from benchmarks import deployed
from benchmarks.aims import rows_of_aims
from benchmarks.measure import Measure
from benchmarks.placement import Placement
from benchmarks.session import Case, Figure, Found, run_apart
from tests.redis_server import RedisServer


def plan(tasks: int, *, large: bool = False) -> list[Measure]:
    """Return all rows to measure.

    Args:
        tasks: Number of tasks of the larger measurements.
        large: True to also measure with ten million pending tasks.
    """
    rate = "tasks_per_s"
    rows = [
        Measure("raw: enqueue, batches of 200", "raw_enqueue", {"count": tasks, "batch": 200}, rate),
        Measure("raw: enqueue, one a call", "raw_enqueue", {"count": tasks // 5, "batch": 1}, rate),
        Measure(
            "enqueue: delay(), one after another",
            "enqueue_single",
            {"count": tasks // 10},
            rate,
            "raw: enqueue, one a call",
        ),
        Measure(
            "enqueue: adelay(), 1 caller",
            "enqueue_async",
            {"count": tasks // 10, "callers": 1},
            rate,
            "raw: enqueue, one a call",
        ),
        Measure(
            "enqueue: adelay(), 50 callers",
            "enqueue_async",
            {"count": tasks, "callers": 50},
            rate,
            "raw: enqueue, batches of 200",
        ),
        Measure("enqueue: enqueue_many()", "enqueue_bulk", {"count": 2 * tasks}, rate, "raw: enqueue, batches of 200"),
    ]
    for concurrency in (10, 50, 200):
        raw = f"raw: dequeue and settle, {concurrency} at a time"
        rows.append(Measure(raw, "raw_drain", {"count": tasks, "concurrency": concurrency}, rate))
        for kind in ("coroutine", "plain"):
            arguments = {"kind": kind, "concurrency": concurrency, "count": tasks}
            rows.append(Measure(f"drain: {kind}, concurrency {concurrency}", "drain", arguments, rate, raw))
    for concurrency in (10, 50):
        arguments = {"kind": "coroutine", "concurrency": concurrency, "count": tasks, "is_logged": True}
        title, unlogged = (
            f"drain: coroutine, concurrency {concurrency}, default settings",
            f"drain: coroutine, concurrency {concurrency}",
        )
        rows.append(Measure(title, "drain", arguments, rate, unlogged))
    raw = "raw: dequeue and settle, 50 at a time"
    kinds = (("spans", "a span a task"), ("metrics", "a span and metrics a task"), ("unsampled", "metrics, unsampled"))
    for telemetry, words in kinds:
        for kind in ("coroutine", "plain"):
            arguments = {"kind": kind, "concurrency": 50, "count": tasks // 2, "telemetry": telemetry}
            rows.append(Measure(f"drain: {kind}, concurrency 50, {words}", "drain", arguments, rate, raw))
    for figure, words in (("span_us", "a span"), ("unsampled_us", "a span, unsampled"), ("record_us", "a record")):
        rows.append(
            Measure(f"telemetry: {words}, OpenTelemetry alone, CPU us", "bare_telemetry", {"count": tasks // 2}, figure)
        )
    for telemetry, words in (("none", "nothing"), *kinds):
        arguments = {"kind": "coroutine", "concurrency": 50, "count": tasks // 2, "telemetry": telemetry}
        rows.append(
            Measure(f"telemetry: drain with {words}, worker's CPU us a task", "drain", arguments, "worker_cpu_us")
        )
        if telemetry != "none":
            title = f"telemetry: drain with {words} written by the tasks, worker's CPU us a task"
            rows.append(Measure(title, "drain", {**arguments, "by_hand": True}, "worker_cpu_us"))
        enqueued = {"count": tasks // 10, "telemetry": telemetry}
        rows.append(
            Measure(f"telemetry: delay() with {words}, CPU us a task", "enqueue_single", enqueued, "client_cpu_us")
        )
        if telemetry != "none":
            title = f"telemetry: delay() with {words} written beside it, CPU us a task"
            rows.append(Measure(title, "enqueue_single", {**enqueued, "by_hand": True}, "client_cpu_us"))
    handed = {"per_s": 200, "seconds": 10}
    for place, where in (("", ""), ("spread", ", CPUs spread")):
        for figure, part in (("p50_ms", "median"), ("p99_ms", "99th percentile")):
            raw = f"raw: from RPUSH to BLPOP of redis-py at 200/s{where}, {part}"
            bound = f"raw: from enqueue to dequeue by the same scripts at 200/s{where}, {part}"
            title = f"latency at 200 tasks/s{where}, {part}"
            rows += [
                Measure(raw, "bare_latency", handed, figure, "", place),
                Measure(bound, "scripts_latency", handed, figure, "", place),
                Measure(title, "latency", {**handed, "concurrency": 10}, figure, bound, place),
            ]
    rows += [
        Measure("start of a scheduled task after its second, median", "due", {"tasks": 10}, "median_ms"),
        Measure("start of a scheduled task after its second, latest", "due", {"tasks": 10}, "latest_ms"),
        Measure("idle worker: requests to Redis a second", "idle", {"seconds": 10}, "requests_per_s"),
        Measure("idle worker: commands run in Redis a second", "idle", {"seconds": 10}, "commands_per_s"),
        Measure("idle worker: CPU percent", "idle", {"seconds": 10}, "cpu_percent"),
    ]
    computing: tuple[tuple[str, dict[str, Any]], ...] = (
        ("1 process, 4 threads", {"processes": 1, "concurrency": 4}),
        ("2 processes, 2 threads in each", {"processes": 2, "concurrency": 2}),
        ("a process of its own for each of 4", {"processes": 1, "concurrency": 4, "is_apart": True}),
    )
    for words, how in computing:
        title = f"drain: tasks of 200,000 turns of a loop, {words}"
        rows.append(Measure(title, "drain_computing", {**how, "count": tasks // 20}, rate))
    for kind, count in (("chain", tasks // 50), ("group", 2 * tasks), ("chord", tasks // 5)):
        for figure, words in (("enqueue_s", "enqueue, s"), ("run_s", "run, s"), ("steps_per_s", "steps a second")):
            rows.append(Measure(f"{kind} of {count:,}: {words}", f"workflow_{kind}", {"count": count}, figure))
    for figure, words in (("run_s", "run, s"), ("most_in_a_second", "most in a second")):
        title = f"{tasks // 5:,} tasks limited to 1,000 a second: {words}"
        rows.append(Measure(title, "limited", {"count": tasks // 5}, figure))
    for limit, words in (("rate", "a rate limit of 20 a second"), ("permit", "a concurrency limit of 1")):
        for figure, part in (("median", "median"), ("p99", "99th percentile")):
            title = f"start of a task after {words} allows it, {part}"
            rows.append(Measure(title, "allowed", {"count": tasks // 250}, f"{limit}_{figure}_ms"))
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
        rows.append(Measure(title, "longest_calls", {"count": 20 * tasks}, f"{figure}_ms"))
    for figure, words in (("queues", "all queues"), ("queue", "one queue"), ("tasks", "a page of archived tasks")):
        title = f"page of the dashboard, ms: {words}"
        rows.append(Measure(title, "dashboard_pages", {"count": 20 * tasks}, f"{figure}_ms"))
    return [*rows, *rows_of_aims(tasks, large=large)]


def cases(measures: Sequence[Measure], placement: str, *, only: str = "", titles: Collection[str] = ()) -> list[Case]:
    """Return the cases of rows, and the cases of the rows that they are compared with.

    Rows of the same function with the same arguments on the same CPUs belong to one case.

    Args:
        measures: All rows.
        placement: Placement of rows that name none.
        only: Select the rows whose titles contain this text.
        titles: Select the rows with these titles. Empty: all rows.
    """
    measured = {_key(each) for each in measures if each.title in titles}
    wanted = [each for each in measures if only in each.title and (not titles or _key(each) in measured)]
    beside = {each.limit for each in wanted}
    grouped: dict[str, list[Measure]] = {}
    for each in measures:
        if each in wanted or each.title in beside:
            grouped.setdefault(_key(each), []).append(each)
    return [_case(rows, placement) for rows in grouped.values()]


def _key(measure: Measure) -> str:
    """Return the key that rows of the same case have in common."""
    return json.dumps([measure.function, measure.arguments, measure.placement], sort_keys=True)


def _case(rows: Sequence[Measure], placement: str) -> Case:
    first = rows[0]
    arguments = first.arguments
    from_outside: Callable[..., Found] | None = getattr(deployed, first.function, None)

    def run(server: RedisServer, place: Placement) -> Found:
        cpu = str(place.workers[0]) if len(place.workers) == 1 else ""
        return Found(figures=run_apart(first.function, server.url, arguments, cpu), tasks=arguments.get("count"))

    return Case(
        system="taskq",
        setting=json.dumps(arguments),
        title=first.title,
        placement=first.placement or placement,
        run=run if from_outside is None else partial(from_outside, **arguments),
        figures=[
            Figure(
                name=each.figure,
                measure=each.title,
                title=each.title,
                unit=each.unit,
                higher_is_better=each.is_share or each.unit == "tasks/s",
                limit=each.limit,
            )
            for each in rows
        ],
    )
