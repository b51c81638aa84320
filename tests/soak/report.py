"""The report of a soak: the printed text, the JSON file, and the ledgers and data that are kept."""

import json
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import taskq_core
from tests.soak.evidence import Evidence, Verdict
from tests.soak.faults import NAMES
from tests.soak.schedule import Plan
from tests.soak.stores import LOGGED_MS

SHOWN = 5
"""Maximum number of violations per invariant that are printed."""
KEPT_TASKS = 20
"""Maximum number of tasks whose history is in the report of a red run."""


def totals(evidence: Evidence, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the main figures of the run."""
    by_number = {verdict.number: verdict for verdict in verdicts}
    tasks = evidence.history.tasks.values()
    processes = evidence.incidents.processes.values()
    events = Counter(event["event"] for event in evidence.history.events)
    redis_restarts = sum(
        event["event"] == "outage over" and event["what"] == "redis killed" for event in evidence.history.events
    )
    recovery = by_number[11].figures
    return {
        "tasks run": sum(bool(task.runs) for task in tasks),
        "runs": sum(len(task.runs) for task in tasks),
        "kills": sum(process.died for process in processes) + redis_restarts,
        "restarts": len(processes) - len({process.place for process in processes}) + redis_restarts,
        "failovers": events["failover"],
        "lost": by_number[4].figures.get("lost", 0),
        "duplicates used": by_number[6].figures["used"],
        "duplicates allowed": by_number[6].figures["allowed"],
        "recoveries": recovery["recoveries"],
        "recovery p50 s": recovery.get("p50 s"),
        "recovery p99 s": recovery.get("p99 s"),
        "recovery max s": recovery.get("max s"),
        "longest Redis call ms": by_number[12].figures["longest call ms"],
        "longest Redis call without waiting ms": by_number[12].figures["without waiting for a processor ms"],
    }


def as_json(plan: Plan, evidence: Evidence, verdicts: Sequence[Verdict], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `report.json`."""
    red = [verdict for verdict in verdicts if not verdict.holds]
    suspects = list(dict.fromkeys(task_id for verdict in red for task_id in verdict.tasks))[:KEPT_TASKS]
    return {
        "result": "red" if red else "green",
        "seed": plan.seed,
        "profile": plan.profile,
        **facts,
        "python": platform.python_version(),
        "code": str(Path(taskq_core.__file__).parent),
        "totals": totals(evidence, verdicts),
        "invariants": [{**asdict(verdict), "holds": verdict.holds} for verdict in verdicts],
        "schedule": [asdict(fault) | {"what": NAMES[fault.number]} for fault in plan.faults],
        "failing tasks": {task_id: evidence.history.of_task(task_id) for task_id in suspects},
        "incidents": [
            event
            for event in evidence.history.events
            if event["who"] == "conductor" and event["event"] not in ("attempt", "acknowledged")
        ],
    }


def text(report: dict[str, Any]) -> str:
    """Return the text that is printed at the end."""
    lines = []
    for verdict in report["invariants"]:
        figures = ", ".join(f"{name} {value}" for name, value in verdict["figures"].items())
        mark = "holds" if verdict["holds"] else "BROKEN"
        lines.append(f"{verdict['number']:>3}  {mark:<6}  {verdict['title']}{f'  ({figures})' if figures else ''}")
        lines += [f"               {sentence}" for sentence in verdict["failures"][:SHOWN]]
        if len(verdict["failures"]) > SHOWN:
            lines.append(f"               and {len(verdict['failures']) - SHOWN} more")
    found = report["totals"]
    lines += [
        "",
        f"tasks run {found['tasks run']} ({found['runs']} runs), kills {found['kills']}, restarts {found['restarts']}, "
        f"failovers {found['failovers']}",
        f"lost {found['lost']}, duplicates {found['duplicates used']} of {found['duplicates allowed']} allowed",
        f"recovery of {found['recoveries']} tasks"
        + (
            f": p50 {found['recovery p50 s']} s, p99 {found['recovery p99 s']} s, max {found['recovery max s']} s"
            if found["recoveries"]
            else ""
        ),
        f"longest Redis call {found['longest Redis call ms'] or f'under {LOGGED_MS}'} ms",
        f"{report['result'].upper()}: seed {report['seed']}, profile {report['profile']}, "
        f"{report['wall_s']:.0f} s in total",
    ]
    return "\n".join(lines)


def keep(report: dict[str, Any], folder: Path, *, everything: bool) -> None:
    """Write `report.json`. Delete the ledgers and Redis's data of a green run, unless `everything` is set."""
    (folder / "report.json").write_text(json.dumps(report, indent=1, default=str) + "\n")
    if report["result"] == "green" and not everything:
        for name in ("ledger", "redis"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for file in [*folder.glob("*.ready"), *folder.glob("django-*"), folder / "effects.table"]:
            file.unlink(missing_ok=True)
