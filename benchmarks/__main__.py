"""Run the measurements and print a table: `python -m benchmarks` (or `make bench`), `--peers` (`make bench-peers`).

Without `--peers`, taskq is compared with the raw limit of the same Redis, and with `--peers` with other task queues.
Each measurement runs several times, in separate processes with a separate Redis. The measurements take turns, so that
a slow period of the machine affects all of them. The table shows the median, with the lowest and highest in brackets.
"""

import argparse
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import aims, plan, publishing
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.compare import compare
from benchmarks.placement import placements
from benchmarks.results import Results
from benchmarks.session import DURABILITY, Session, adopt_orphans, say


def main() -> int:
    """Run the measurements that the command line selects. Return 1 if one could not be made."""
    options = _options()
    adopt_orphans()
    command = f"python -m benchmarks {shlex.join(sys.argv[1:])}".rstrip()
    transport = options.transport or ("tcp" if options.peers else "unix")
    session = Session(transport=transport, durability=options.durability, runs=options.runs)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that SIGTERM also ends the workers
    kept: list[Results] = []

    def keep(results: Results) -> None:
        kept.append(results)
        results.write(options.json)

    try:
        (compare if options.peers else _own)(options, session, command, keep)
    except KeyboardInterrupt:
        if not kept:
            raise
        say("interrupted: the results contain only complete rounds")
    kept[-1].print()
    print(f"\nWritten to {options.json}")
    if options.publish:
        (publishing.replace if options.peers else publishing.replace_aims)(kept[-1])
    return 1 if kept[-1].absent else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement (default 5)")
    parser.add_argument("--tasks", type=int, default=50_000, help="tasks of the larger measurements (default 50 000)")
    parser.add_argument("--only", default="", help="measure only rows whose title contains this text")
    parser.add_argument(
        "--aims",
        action="store_true",
        help="measure only rows that decide whether the aims in docs/explanation/performance-figures.md are met",
    )
    parser.add_argument("--large", action="store_true", help="also measure with ten million pending tasks (4 GB)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("benchmarks/results/latest.json"),
        help="file for the results (default %(default)s)",
    )
    parser.add_argument(
        "--transport",
        choices=("unix", "tcp"),
        help="connection to Redis of all measurements (default: unix; with --peers tcp)",
    )
    parser.add_argument(
        "--durability", choices=tuple(DURABILITY), default="none", help="persistence of Redis (default %(default)s)"
    )
    parser.add_argument(
        "--placement",
        choices=tuple(placements()),
        help="CPUs of all processes (default: apart; spread for measurements with two worker processes)",
    )
    peers = parser.add_argument_group("comparison with other task queues")
    peers.add_argument("--peers", action="store_true", help="measure other task queues as well")
    peers.add_argument(
        "--peer",
        action="append",
        choices=[peer.name for peer in PEERS],
        help="measure only this task queue; may be repeated",
    )
    peers.add_argument(
        "--keep", action="store_true", help="do not update installed task queues to their newest versions"
    )
    peers.add_argument(
        "--workflows",
        action="store_true",
        help="measure chains, groups, chords and a rate limit instead, only for taskq and Celery",
    )
    peers.add_argument(
        "--seconds",
        type=float,
        default=0.4,
        help="approximate duration of draining a queue in seconds (default %(default)s)",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="with --aims or --peers: update tables and pictures in docs/explanation/performance-figures.md",
    )
    options = parser.parse_args()
    if options.runs < 1 or options.tasks < 100:
        parser.error("--runs must be at least 1 and --tasks at least 100")
    if options.publish and (options.peers == options.aims or options.workflows):
        parser.error("--publish needs either --peers or --aims, and cannot be combined with --workflows")
    return options


def _own(options: argparse.Namespace, session: Session, command: str, keep: Callable[[Results], None]) -> None:
    started_s = time.monotonic()
    session.measure(
        plan.cases(
            plan.plan(options.tasks, large=options.large),
            options.placement or "apart",
            only=options.only,
            titles=aims.titles(options.tasks) if options.aims else (),
        ),
        lambda rows: keep(
            session.results(
                command=command,
                started_s=started_s,
                rows=rows,
                versions={"python": platform.python_version()},
                conditions={"tasks": options.tasks},
            )
        ),
    )


if __name__ == "__main__":
    raise SystemExit(main())
