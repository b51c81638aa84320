"""Measure how the cost grows with queues, worker processes, waiting tasks and sizes of arguments.

`python -m benchmarks.growth` prints a table and writes JSON. `--publish` also replaces the figures in
docs/explanation/performance.md. `--large` adds ten million waiting tasks, which needs 4 GB of memory; `make nightly`
does this.
"""

import argparse
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import plan, publishing
from benchmarks.measure import Measure
from benchmarks.plots import PICTURES_OF_GROWTH
from benchmarks.results import Results, Row
from benchmarks.session import Session, adopt_orphans

QUEUES = (1, 10, 100, 1000)
PROCESSES = (1, 2, 4, 8, 16)
BYTES = {"100 bytes": 100, "1 kB": 1000, "10 kB": 10_000, "100 kB": 100_000, "1 MB": 1_000_000}
_BYTES_MOST = 200_000_000
"""Maximum bytes of all messages of a measurement."""
_IDLE_S = 60
"""Services of an idle worker with up to a hundred queues do some work only once a minute."""


def growth(tasks: int, *, large: bool = False) -> list[Measure]:
    """Return all rows to measure.

    Args:
        tasks: Number of tasks of most measurements. At most 20 times as many wait in Redis, with `large` 200 times.
        large: True to also measure with 200 times as many waiting tasks.
    """
    rows = []

    def add(picture: str, bar: str, function: str, arguments: dict[str, Any], figure: str, placement: str = "") -> None:
        rows.append(Measure(f"{PICTURES_OF_GROWTH[picture]}: {bar}", function, arguments, figure, "", placement))

    idle = {"queues": QUEUES, "seconds": _IDLE_S}
    for queues in QUEUES:
        bar = "1 queue" if queues == 1 else f"{queues:,} queues"
        add("queues", bar, "drain_among", {"count": tasks, "queues": queues}, "tasks_per_s")
        add("queues-commands", bar, "idle_by_queues", idle, f"{queues}_commands_per_s", "spread")
        add("queues-connections", bar, "idle_by_queues", idle, f"{queues}_connections", "spread")
    for processes in PROCESSES:
        bar = "1 process" if processes == 1 else f"{processes} processes"
        drained = {"processes": processes, "count": tasks}
        add("processes", bar, "drain_by", drained, "rate", "spread")
        add("processes-redis", bar, "drain_by", drained, "redis_cpu_us", "spread")
    for pending in (tasks // 5, 2 * tasks, 20 * tasks, *([200 * tasks] if large else [])):
        waiting = {"count": tasks // 5, "pending": pending}
        add("waiting", f"{pending:,} tasks", "drain_among", waiting, "tasks_per_s")
    for bar, size in BYTES.items():
        sized = {"count": min(tasks // 2, _BYTES_MOST // size), "size": size}
        add("bytes", bar, "drain_among", sized, "tasks_per_s")
        add("bytes-enqueued", bar, "drain_among", sized, "enqueued_per_s")
    return rows


def main() -> int:
    """Measure, print the table, and publish it if the command line says so. Return 1 if a row could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (default 3)")
    parser.add_argument("--tasks", type=int, default=50_000, help="tasks of most measurements (default 50 000)")
    parser.add_argument("--only", default="", help="measure only rows whose title contains this text")
    parser.add_argument("--large", action="store_true", help="also measure with ten million waiting tasks (4 GB)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("benchmarks/results/growth.json"),
        help="file for the results (default %(default)s)",
    )
    parser.add_argument("--publish", action="store_true", help="replace the figures in docs/explanation/performance.md")
    options = parser.parse_args()
    if options.runs < 1 or options.tasks < 100:
        parser.error("--runs must be at least 1 and --tasks at least 100")
    if options.publish and options.only:
        parser.error("--publish needs all rows, so it cannot be combined with --only")
    adopt_orphans()
    command = f"python -m benchmarks.growth {shlex.join(sys.argv[1:])}".rstrip()
    session, started_s = Session(transport="unix", durability="none", runs=options.runs), time.monotonic()
    kept: list[Results] = []

    def keep(rows: list[Row]) -> None:
        versions, conditions = {"python": platform.python_version()}, {"tasks": options.tasks}
        kept.append(
            session.results(command=command, started_s=started_s, rows=rows, versions=versions, conditions=conditions)
        )
        kept[-1].write(options.json)

    session.measure(plan.cases(growth(options.tasks, large=options.large), "apart", only=options.only), keep)
    kept[-1].print()
    print(f"\nWritten to {options.json}")
    if options.publish:
        publishing.replace_growth(kept[-1])
    return 1 if kept[-1].absent else 0


if __name__ == "__main__":
    raise SystemExit(main())
