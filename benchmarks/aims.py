"""The performance aims of taskq, the rows that decide whether they are met, and the table of the results.

The aims were set for a machine with two shared cores, with Redis on one of them. On another machine, the table only
shows the speed of that machine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measure import Measure
from benchmarks.results import Results, Row, shown

GO_DRAIN_PER_S = 12_800
"""Tasks per second of Go Asynq at concurrency 50, measured earlier: see `peers.reference`."""
_IDEAL_IO_PER_S = 100_000
_COUNTED = "no aim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One line of the table.

    Args:
        what: Description of the measurement.
        rows: Titles of the rows that decide whether the aim is met. The table's command selects the first with
            `--only`.
        unit: Unit of the value.
        least: Smallest value that meets the aim.
        most: Largest value that meets the aim. Without `least` and `most`, the table only shows the value.
        value: Computes the value from the medians of the rows, by title. None: the value is the median of the first
            row.
        is_optional: True to omit the line from the table if the value was not measured.
    """

    what: str
    rows: tuple[str, ...]
    unit: str
    least: float | None = None
    most: float | None = None
    value: Callable[[Mapping[str, float]], float] | None = None
    is_optional: bool = False

    @property
    def bound(self) -> str:
        """Return the aim as text, such as "at least 10,000 tasks/s"."""
        if self.least is not None:
            return f"at least {self._with_unit(self.least)}"
        return _COUNTED if self.most is None else f"at most {self._with_unit(self.most)}"

    def _with_unit(self, bound: float) -> str:
        return f"{bound:,.10g} {self.unit}".replace(" x", "x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a run for one aim."""

    aim: Aim
    value: float | None
    """The measured value, None if it was not measured."""
    row: Row | None
    """The row whose median is the value, None if the value was computed from several rows."""

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met. None if the value was not measured, or if the aim has no bound."""
        if self.value is None or self.aim.bound == _COUNTED:
            return None
        return (self.aim.least is None or self.value >= self.aim.least) and (
            self.aim.most is None or self.value <= self.aim.most
        )

    @property
    def share(self) -> float | None:
        """The value relative to the aim, in percent: at 100 the aim is just met, and more is better."""
        if self.value is None or self.is_met is None:
            return None
        if self.aim.least is not None:
            return self.value / self.aim.least * 100
        assert self.aim.most is not None
        return self.aim.most / max(self.value, 1e-9) * 100


def rows_of_aims(tasks: int, *, large: bool = False) -> list[Measure]:
    """Return the rows that only the aims need.

    Args:
        tasks: Number of tasks of the larger measurements.
        large: True to also measure with ten million pending tasks.
    """
    rate, few, many = "tasks_per_s", 2 * tasks, 20 * tasks
    rows = []
    for processes, words in ((1, "one"), (2, "two")):
        drained = {"processes": processes, "count": 4 * tasks}
        beside = "processes: one of 50 coroutines" if processes == 2 else ""
        title = f"processes: {words} of 50 coroutines"
        rows.append(Measure(title, "drain_by", drained, "rate", beside, "spread"))
        rows.append(Measure(f"{title}, worker's CPU us a task", "drain_by", drained, "worker_cpu_us", "", "spread"))
        rows.append(Measure(f"{title}, Redis's CPU us a task", "drain_by", drained, "redis_cpu_us", "", "spread"))
    for function, bare, ours in (
        ("beside_bare", "evalsha of redis-py", "delay()"),
        ("beside_bare_async", "await evalsha of redis-py", "adelay(), 1 caller"),
    ):
        for place in ("apart", "together"):
            counted, raw = {"count": tasks // 5}, f"single: bare {bare}, CPUs {place}"
            share = f"single: {ours} as a share of that, CPUs {place}"
            rows.append(Measure(raw, function, counted, "bare_per_s", "", place))
            rows.append(Measure(f"single: {ours}, CPUs {place}", function, counted, rate, raw, place))
            rows.append(Measure(share, function, counted, "share_percent", "", place, is_share=True))
    peak = "streaming: peak memory of a client that enqueues {:,}"
    rows.append(Measure(peak.format(few), "streamed", {"count": few}, "peak_mb"))
    rows.append(Measure(peak.format(many), "streamed", {"count": many}, "peak_mb", peak.format(few)))
    steady = {"per_s": 200, "seconds": 4}
    crowd = {**steady, "workers": 200, "processes": 8}
    for arguments, words, place in (
        (crowd, "latency with 200 workers in 8 processes", ""),
        (crowd, "latency with 200 workers in 8 processes, CPUs spread", "spread"),
        ({**steady, "producer": "go"}, "latency of tasks from Go", ""),
        ({**crowd, "producer": "go"}, "latency of tasks from Go with 200 workers in 8 processes", ""),
    ):
        for figure, part in (("p50_ms", "median"), ("p99_ms", "99th percentile")):
            rows.append(Measure(f"{words}, {part}", "latency_among", arguments, figure, "", place))
    due = {"others": many, "per_s": 30, "seconds": 6}
    for figure, part in (("median_ms", "median"), ("p99_ms", "99th percentile"), ("earliest_ms", "earliest")):
        rows.append(Measure(f"scheduled: start after its second among {many:,}, {part}", "due_among", due, figure))
    wide = {"kind": "coroutine", "concurrency": 1000, "count": few}
    rows.append(Measure("drain: coroutine, concurrency 1,000", "drain", wide, rate))
    for concurrency, count in ((50, tasks // 5), (1000, few)):
        raw = f"raw: coroutines that wait 10 ms on a bare loop, {concurrency:,} at a time"
        rows.append(Measure(raw, "bare_waits", {"concurrency": concurrency, "count": count}, rate))
        for kind in ("coroutine", "plain") if concurrency == 50 else ("coroutine",):
            title = f"waiting 10 ms: {kind}, concurrency {concurrency:,}"
            beside = raw if kind == "coroutine" else ""
            waiting = {"kind": kind, "concurrency": concurrency, "count": count}
            rows.append(Measure(title, "io_drain", waiting, rate, beside))
    for figure, words in (
        ("idle_commands_per_s", "commands run in Redis a second"),
        ("idle_requests_per_s", "requests to Redis a second"),
        ("idle_cpu_percent", "CPU percent"),
        ("rss_mb", "resident memory"),
        ("own_mb", "memory that it shares with nobody"),
        ("first_task_s", "from its start to its first task"),
    ):
        rows.append(Measure(f"worker process, idle: {words}", "idle_worker", {"seconds": 16}, figure))
    for workers, words in ((1, "one idle worker"), (50, "50 idle workers")):
        arguments = {"per_s": 100, "seconds": 3, "workers": workers, "processes": min(2, workers)}
        for figure in ("commands", "requests"):
            beside = f"crowd: {figure} a task, one idle worker" if workers > 1 else ""
            title = f"crowd: {figure} a task, {words}"
            rows.append(Measure(title, "crowd_commands", arguments, f"{figure}_a_task", beside))
    least = f"growth: drain {tasks:,} of {tasks + tasks // 5:,}"
    for pending in (tasks + tasks // 5, many, *((10 * many,) if large else ())):
        title = f"growth: drain {tasks:,} of {pending:,}"
        drained = {"count": tasks, "pending": pending}
        rows.append(Measure(title, "drain_among", drained, rate, least if title != least else ""))
        rows.append(Measure(f"{title}, Redis's CPU us a task", "drain_among", drained, "redis_cpu_us"))
    for state in ("pending", "scheduled"):
        kept = {"count": tasks, "state": state}
        for figure, words in (
            ("share_percent", "as a share of Asynq's"),
            ("ours_bytes", "here"),
            ("go_bytes", "of Asynq"),
        ):
            rows.append(Measure(f"memory of a {state} task, {words}", "waiting_memory", kept, figure))
    for figure, words in (
        ("delay_us", "delay() in a view"),
        ("atomic_us", "delay() in a view, in a transaction"),
        ("view_us", "the view without it"),
    ):
        rows.append(Measure(f"Django: {words}", "view_cost", {"count": tasks // 50}, figure))
    for figure, words in (
        ("runworker_s", "runworker is ready"),
        ("set_up_s", "Django is set up"),
        ("site_s", "Django is set up without taskq"),
    ):
        rows.append(Measure(f"Django: from the start of a process until {words}", "start_up", {"times": 3}, figure))
    return rows


def _ratio(over: str, under: str) -> Callable[[Mapping[str, float]], float]:
    return lambda medians: medians[over] / medians[under]


def _percent(part: str, whole: str) -> Callable[[Mapping[str, float]], float]:
    return lambda medians: medians[part] / medians[whole] * 100


def aims(tasks: int) -> list[Aim]:
    """Return the aims in the order of the table. `tasks` is the number of tasks of the larger measurements."""
    many = 20 * tasks
    one, two = "processes: one of 50 coroutines", "processes: two of 50 coroutines"
    drain, io = "drain: coroutine, concurrency 50", "waiting 10 ms: coroutine, concurrency 1,000"
    noop = "drain: coroutine, concurrency 1,000"
    streamed = f"streaming: peak memory of a client that enqueues {many:,}"
    least = f"growth: drain {tasks:,} of {tasks + tasks // 5:,}"
    ready, set_up, site = (
        f"Django: from the start of a process until {words}"
        for words in ("runworker is ready", "Django is set up", "Django is set up without taskq")
    )
    spans = "drain: coroutine, concurrency 50, a span and metrics a task"
    crowd, from_go = "latency with 200 workers in 8 processes", "latency of tasks from Go"

    def simple(what: str, title: str, unit: str, *, least: float | None = None, most: float | None = None) -> Aim:
        return Aim(what=what, rows=(title,), unit=unit, least=least, most=most)

    return [
        simple("drain, 50 coroutines, one process", drain, "tasks/s", least=80_000),
        simple("drain, 10 coroutines, one process", "drain: coroutine, concurrency 10", "tasks/s", least=40_000),
        Aim(
            what="drain, 50 coroutines, divided by Go Asynq's 12,800/s (measured earlier, not in this run)",
            rows=(drain,),
            unit="x",
            least=5,
            value=lambda medians: medians[drain] / GO_DRAIN_PER_S,
        ),
        simple("drain, 50 threads, one process", "drain: plain, concurrency 50", "tasks/s", least=60_000),
        Aim(
            what="drain, two processes divided by one process",
            rows=(two, one),
            unit="x",
            least=1.25,
            value=_ratio(two, one),
        ),
        *(
            simple(f"{whose} CPU per task, {words}", f"{title}, {whose} CPU us a task", "us")
            for whose in ("worker's", "Redis's")
            for words, title in (("one process", one), ("two processes", two))
        ),
        simple("drain with a span and metrics for each task", spans, "tasks/s", least=18_000),
        *(
            simple(f"{ours} as a share of a bare evalsha of redis-py, CPUs {place}", title, "%", least=85)
            for place in ("apart", "together")
            for ours, title in (
                ("delay()", f"single: delay() as a share of that, CPUs {place}"),
                ("adelay()", f"single: adelay(), 1 caller as a share of that, CPUs {place}"),
            )
        ),
        simple("bulk enqueue", "enqueue: enqueue_many()", "tasks/s", least=120_000),
        simple(f"peak memory of a client that streams {many:,}", streamed, "MB"),
        *(
            simple(f"enqueue to start at 200/s{who}{where}, {short}", f"{title}{where}, {part}", "ms", most=most)
            for who, title in (("", "latency at 200 tasks/s"), (", 200 workers waiting", crowd))
            for where in ("", ", CPUs spread")
            for short, part, most in (("median", "median", 0.35), ("99th percentile", "99th percentile", 0.8))
        ),
        simple("enqueue by Go to start at 200/s, 99th percentile", f"{from_go}, 99th percentile", "ms", most=3),
        simple(
            "enqueue by Go to start at 200/s, 200 workers waiting, 99th percentile",
            f"{from_go} with 200 workers in 8 processes, 99th percentile",
            "ms",
            most=3,
        ),
        simple(
            f"delay of the start of a scheduled task, among {many:,} others, 99th percentile",
            f"scheduled: start after its second among {many:,}, 99th percentile",
            "ms",
            most=20,
        ),
        simple(
            "tasks of 10 ms, 50 coroutines (ideal 5,000)",
            "waiting 10 ms: coroutine, concurrency 50",
            "tasks/s",
            least=4_800,
        ),
        simple(
            "tasks of 10 ms, 50 threads (ideal 5,000)", "waiting 10 ms: plain, concurrency 50", "tasks/s", least=4_800
        ),
        Aim(
            what="tasks of 10 ms, 1,000 coroutines, as a share of the ideal or of a drain of empty tasks",
            rows=(io, noop),
            unit="%",
            least=95,
            value=lambda medians: medians[io] / min(_IDEAL_IO_PER_S, medians[noop]) * 100,
        ),
        simple("idle worker, commands in Redis", "worker process, idle: commands run in Redis a second", "/s", most=2),
        simple("idle worker, CPU", "worker process, idle: CPU percent", "%", most=0.2),
        simple("idle worker, memory", "worker process, idle: resident memory", "MB", most=40),
        Aim(
            what="Redis commands per task with 50 idle workers on its queue, divided by those with one",
            rows=("crowd: commands a task, 50 idle workers", "crowd: commands a task, one idle worker"),
            unit="x",
            most=1.2,
            value=_ratio("crowd: commands a task, 50 idle workers", "crowd: commands a task, one idle worker"),
        ),
        simple(
            "from the start of a worker to its first task",
            "worker process, idle: from its start to its first task",
            "s",
        ),
        *(
            Aim(
                what=f"drain with {pending:,} pending, as a share of the drain with {tasks + tasks // 5:,} pending",
                rows=(f"growth: drain {tasks:,} of {pending:,}", least),
                unit="%",
                least=90,
                value=_percent(f"growth: drain {tasks:,} of {pending:,}", least),
                is_optional=pending > many,
            )
            for pending in (many, 10 * many)
        ),
        *(
            simple(
                f"memory in Redis of a {state} task, as a share of Asynq's",
                f"memory of a {state} task, as a share of Asynq's",
                "%",
                most=105,
            )
            for state in ("pending", "scheduled")
        ),
        simple("Django: delay() in a view", "Django: delay() in a view", "us", most=150),
        simple(
            "Django: delay() in a view, in a transaction", "Django: delay() in a view, in a transaction", "us", most=150
        ),
        Aim(
            what="Django: start-up time of runworker, divided by that of Django with the same apps",
            rows=(ready, set_up),
            unit="x",
            most=1.2,
            value=_ratio(ready, set_up),
        ),
        Aim(
            what="Django: start-up time of runworker, divided by that of Django without taskq",
            rows=(ready, site),
            unit="x",
            most=1.2,
            value=_ratio(ready, site),
        ),
    ]


def titles(tasks: int) -> set[str]:
    """Return the titles of all rows that decide whether aims are met."""
    return {title for aim in aims(tasks) for title in aim.rows}


def verdicts(results: Results, peers: Results | None = None) -> list[Verdict]:
    """Return the results of a run for all aims. `peers` is a run with `--peers`, which one of the aims needs."""
    rows = {row.title: row for row in results.rows}
    medians = {title: row.median for title, row in rows.items()}
    found = []
    for aim in aims(results.conditions["tasks"]):
        row = rows.get(aim.rows[0]) if aim.value is None else None
        value = None
        if all(title in rows for title in aim.rows):
            value = medians[aim.rows[0]] if aim.value is None else aim.value(medians)
        if value is not None or not aim.is_optional:
            found.append(Verdict(aim=aim, value=value, row=row))
    found.insert(3, _beside_peers(peers))
    return found


def _beside_peers(peers: Results | None) -> Verdict:
    """Compare the drain rate of taskq with that of the fastest other task queue in Python, from a `--peers` run."""
    rows = (
        [] if peers is None else [row for row in peers.rows if row.measure == "drain 50" and row.source == "measured"]
    )
    ours = max((row.median for row in rows if row.system == "taskq"), default=None)
    theirs = max(
        (row for row in rows if row.system not in ("taskq", "bullmq-npm")), key=lambda row: row.median, default=None
    )
    words = "the fastest task queue in Python" if theirs is None else f"{theirs.system}, the fastest in Python"
    aim = Aim(what=f"drain, concurrency 50, divided by {words} (in the run below)", rows=(), unit="x", least=12)
    value = ours / theirs.median if ours is not None and theirs is not None else None
    return Verdict(aim=aim, value=value, row=None)


def table(found: Sequence[Verdict]) -> str:
    """Return the table in Markdown."""
    lines = ["| measure | aim | measured | met | command |", "|---|---|---|---|---|"]
    for each in found:
        aim, row = each.aim, each.row
        measured = "not measured in this run"
        if each.value is not None:
            measured = f"{shown(each.value, aim.unit)} {aim.unit}".replace(" x", "x")
            if row is not None and row.highest > row.lowest:
                measured += f" ({shown(row.lowest, aim.unit)} to {shown(row.highest, aim.unit)})"
        met = {True: "yes", False: "**no**", None: ""}[each.is_met]
        command = f'`python -m benchmarks --only "{aim.rows[0]}"`' if aim.rows else "`python -m benchmarks --peers`"
        lines.append(f"| {aim.what} | {aim.bound} | {measured} | {met} | {command} |")
    return "\n".join(lines) + "\n"
