"""Run measurements in rounds, each on a new Redis. Measurements of taskq and of other queues are cases of a run."""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from benchmarks.noise import Noise, NoiseMeter
from benchmarks.peers.ledger import Account
from benchmarks.placement import Placement, placements
from benchmarks.results import Absent, Results, Row, ledger_of, machine, noise_of, summary
from tests.redis_server import RedisServer

DURABILITY: Mapping[str, dict[str, Any]] = {
    "none": {},
    "everysec": {"appendonly": True, "options": {"appendfsync": "everysec"}},
    "always": {"appendonly": True, "options": {"appendfsync": "always"}},
}
_CHILD_SUBREAPER = 36
_MOST_S = 1200


class CaseError(Exception):
    """A measurement failed. The text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of one run of a case."""

    figures: Mapping[str, float]
    account: Account | None = None
    tasks: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Describes a figure of a case: the row of the results that it becomes."""

    name: str
    measure: str
    title: str
    unit: str
    higher_is_better: bool = False
    limit: str = ""
    """Title of the row with the raw limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A measurement that runs once per round, on an empty Redis."""

    system: str
    setting: str
    title: str
    placement: str
    run: Callable[[RedisServer, Placement], Found]
    figures: Sequence[Figure]


@dataclass(slots=True, kw_only=True)
class Session:
    """A run of the harness: runs all cases in each round.

    Args:
        transport: `unix` or `tcp`, for all systems.
        durability: A key of `DURABILITY`, for all systems.
        runs: Number of rounds.
    """

    transport: str
    durability: str
    runs: int
    found: dict[int, list[tuple[Found, Noise | None]]] = field(default_factory=dict)
    absent: list[Absent] = field(default_factory=list)
    redis_version: str = ""
    made: int = 0
    """Number of complete rounds."""

    def once(self, case: Case) -> tuple[Found, Noise | None]:
        """Start a Redis, and run a case on it once.

        Raises:
            CaseError: The measurement failed.
        """
        placement = placements()[case.placement]
        with RedisServer(tcp=self.transport == "tcp", **DURABILITY[self.durability]) as server:
            if placement.redis:
                os.sched_setaffinity(server.pid, placement.redis)
            self.redis_version = str(server.client.info("server")["redis_version"])
            meter = NoiseMeter(time.monotonic(), server.pid)
            found = case.run(server, placement)
            return found, meter.read(time.monotonic())

    def measure(self, cases: Sequence[Case], keep: Callable[[list[Row]], None]) -> None:
        """Run every case in every round. Report a case that fails, and skip it from then on.

        Args:
            cases: The cases, which take turns.
            keep: Called after each round with the rows so far.
        """
        failed: set[int] = set()
        for number in range(self.runs):
            for index, case in enumerate(cases):
                if index in failed:
                    continue
                say(f"[{number + 1}/{self.runs}] {case.system}: {case.title}")
                try:
                    self.found.setdefault(index, []).append(self.once(case))
                except CaseError as error:
                    say(f"    {error}")
                    failed.add(index)
                    self.absent.append(Absent(system=case.system, what=case.title, reason=str(error)))
            self.made = number + 1
            done = [(case, self.found[index]) for index, case in enumerate(cases) if index not in failed]
            rows = [row for case, found in done for row in self._rows(case, found)]
            medians = {row.title: row.median for row in rows}
            limits = {figure.title: figure.limit for case, _ in done for figure in case.figures if figure.limit}
            keep([replace(row, limit=medians.get(limits.get(row.title, ""))) for row in rows])

    def _rows(self, case: Case, runs: list[tuple[Found, Noise | None]]) -> list[Row]:
        return [
            Row(
                system=case.system,
                measure=figure.measure,
                setting=case.setting,
                title=figure.title,
                unit=figure.unit,
                higher_is_better=figure.higher_is_better,
                placement=case.placement,
                **summary([found.figures[figure.name] for found, _ in runs]),
                tasks=runs[-1][0].tasks,
                ledger=ledger_of(found.account for found, _ in runs),
                noise=noise_of(noise for _, noise in runs),
            )
            for figure in case.figures
            if all(figure.name in found.figures for found, _ in runs)
        ]

    def results(
        self,
        *,
        command: str,
        started_s: float,
        rows: list[Row],
        versions: Mapping[str, str],
        conditions: Mapping[str, Any],
    ) -> Results:
        """Return the results of the run."""
        noises = [noise for runs in self.found.values() for _, noise in runs if noise is not None]
        whole: dict[str, float | None] = {}
        for name in ("steal_percent", "foreign_percent", "load"):
            values = [getattr(noise, name) for noise in noises]
            whole[f"{name}_median"] = statistics.median(values) if values else None
            whole[f"{name}_highest"] = max(values) if values else None
        return Results(
            taken=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            duration_s=round(time.monotonic() - started_s, 1),
            machine=machine(),
            versions={"redis": self.redis_version, **versions},
            conditions={
                "transport": self.transport,
                "durability": self.durability,
                "runs": self.made,
                **conditions,
            },
            placements={name: placement.words for name, placement in placements().items()},
            noise=whole,
            rows=rows,
            absent=self.absent,
        )


def run_apart(function: str, url: str, arguments: Mapping[str, Any], cpu: str = "") -> dict[str, float]:
    """Run a function of `benchmarks.scenarios` in a separate process, and return its figures.

    Args:
        function: Name of the function.
        url: URL of Redis.
        arguments: Further arguments of the function.
        cpu: Number of the CPU on which the process runs. Empty: the kernel chooses.

    Raises:
        CaseError: The process failed or took too long.
    """
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


def adopt_orphans() -> None:
    """Become the parent of orphaned processes of workers, so that they can be reaped and do not count as foreign."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1)


def say(text: str) -> None:
    """Print a line about the progress to stderr."""
    print(text, file=sys.stderr, flush=True)
