"""Read and write the results of measurements: one JSON document, described by `results.schema.json`.

Results of taskq alone and results of the comparison with other task queues have the same format.
"""

import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.noise import Noise
from benchmarks.peers.ledger import Account

SCHEMA = 1
DIGITS = {
    "tasks/s": 0,
    "ms": 2,
    "s": 2,
    "us": 1,
    "MB": 0,
    "B": 0,
    "%": 2,
    "/s": 2,
    "tasks": 0,
    "a task": 2,
    "connections": 0,
    "x": 2,
}
"""Number of decimals to show, by unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure of one system in one setting."""

    system: str
    measure: str
    """Name of the measure. Rows with the same measure may be compared."""
    setting: str
    title: str
    unit: str
    higher_is_better: bool
    placement: str
    runs: list[float]
    median: float
    lowest: float
    highest: float
    tasks: int | None = None
    """Number of tasks of a run."""
    ledger: dict[str, int] | None = None
    """How often tasks ran; sums over all runs. See `Account`."""
    noise: dict[str, float] | None = None
    """Medians over all runs. See `Noise`."""
    limit: float | None = None
    """Median of the row with the raw limit for this row."""
    source: str = "measured"
    """`measured`, or `reference` for a figure that was measured earlier, not in this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A case that could not be measured, and the reason."""

    system: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of a run of the harness, with a description of the machine."""

    taken: str
    command: str
    duration_s: float
    machine: dict[str, Any]
    versions: dict[str, str]
    conditions: dict[str, Any]
    placements: dict[str, str]
    noise: dict[str, float | None]
    rows: list[Row]
    absent: list[Absent] = field(default_factory=list)
    schema: int = SCHEMA

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            ValueError: The file has another version of the schema.
        """
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("schema") != SCHEMA:
            raise ValueError(f"{path} has schema {document.get('schema')!r}, expected {SCHEMA}")
        rows = [Row(**row) for row in document.pop("rows")]
        absent = [Absent(**entry) for entry in document.pop("absent")]
        return cls(rows=rows, absent=absent, **document)

    def write(self, path: Path) -> None:
        """Write the results to a file. Create missing folders."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def print(self) -> None:
        """Print a table."""
        print(f"{'taken':>12}: {self.taken}, in {self.duration_s:.0f} s, by {self.command}")
        for name in ("machine", "versions", "conditions", "placements", "noise"):
            print(f"{name:>12}: {', '.join(f'{key} {value}' for key, value in getattr(self, name).items())}")
        print(f"\n{'':12} {'measurement':64} {'median':>10}   {'(lowest to highest)':28} of raw")
        for row in self.rows:
            spread = f"({shown(row.lowest, row.unit)} to {shown(row.highest, row.unit)})"
            share = f"{row.median / row.limit:.0%}" if row.limit else ""
            kind = "" if row.source == "measured" else " measured earlier, not in this run"
            loose = "" if not row.ledger or row.ledger["once"] == row.ledger["expected"] else f" ledger: {row.ledger}"
            print(
                f"{row.system:12} {row.title:64} {shown(row.median, row.unit):>10}   {spread:28} {share}{kind}{loose}"
            )
        for entry in self.absent:
            print(f"{entry.system:12} {entry.what:64} not measured: {entry.reason}")


def shown(value: float, unit: str) -> str:
    """Format a figure with the decimals of its unit."""
    return f"{value:,.{DIGITS.get(unit, 2)}f}"


def summary(runs: list[float]) -> dict[str, Any]:
    """Return the fields of a `Row` that summarize its runs."""
    return {"runs": runs, "median": statistics.median(runs), "lowest": min(runs), "highest": max(runs)}


def noise_of(noises: Iterable[Noise | None]) -> dict[str, float] | None:
    """Return the medians of the noise of several runs, None if it is unknown."""
    known = [asdict(noise) for noise in noises if noise is not None]
    return {name: statistics.median(noise[name] for noise in known) for name in known[0]} if known else None


def ledger_of(accounts: Iterable[Account | None]) -> dict[str, int] | None:
    """Return the sums of several accounts, None without any."""
    known = [asdict(account) for account in accounts if account is not None]
    return {name: sum(account[name] for account in known) for name in known[0]} if known else None


def machine() -> dict[str, Any]:
    """Describe this machine."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
