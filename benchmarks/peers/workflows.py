"""Compare workflows and a rate limit with Celery, the only peer that supports both.

taskq uses one process with 50 tasks at a time. Celery uses a process for each core.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial

from benchmarks.peers.environments import ROOT, Environment
from benchmarks.peers.settings import Peer
from benchmarks.placement import Placement
from benchmarks.session import Case, CaseError, Figure, Found
from tests.redis_server import RedisServer

_KINDS = (
    ("chain", "workflow_chain", "chain of {:,}", 50),
    ("group", "workflow_group", "group of {:,}", 0.5),
    ("chord", "workflow_chord", "chord of {:,}", 5),
    ("limited", "limited", "{:,} tasks limited to 1,000 a second", 5),
)
"""Kind on Celery, function of `scenarios`, title, and divisor of `--tasks` for the number of tasks."""

WITH_WORKFLOWS: Mapping[str, str] = {"taskq": "one process, 50 at a time", "celery": "a process for each core"}
_MOST_S = 1800


def workflow_cases(peer: Peer, environment: Environment, tasks: int, only: str) -> list[Case]:
    """Return the cases of a peer that has workflows."""
    cases = []
    for kind, function, words, part in _KINDS:
        count = max(10, round(tasks / part))
        title = words.format(count)
        if only and only not in title:
            continue
        figures = [
            Figure(name="enqueue_s", measure=f"{kind} enqueue", title=f"{title}: enqueue", unit="s"),
            Figure(name="run_s", measure=f"{kind} run", title=f"{title}: run", unit="s"),
        ]
        if kind == "limited":
            words = f"{title}: most in a second"
            figures.append(Figure(name="most_in_a_second", measure="limited most", title=words, unit="tasks"))
        command = (
            [sys.executable, "-m", "benchmarks.scenarios", function, "{url}", json.dumps({"count": count}), ""]
            if peer.name == "taskq"
            else [environment.program, "-m", "benchmarks.peers.celery_workflows", kind, str(count)]
        )
        cases.append(
            Case(
                system=peer.name,
                setting=WITH_WORKFLOWS[peer.name],
                title=title,
                placement="spread",
                run=partial(_run, command, count),
                figures=figures,
            )
        )
    return cases


def _run(command: list[str], count: int, server: RedisServer, placement: Placement) -> Found:
    variables = {**os.environ, "BENCH_URL": server.url}
    command = [word.replace("{url}", server.url) for word in command]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=_MOST_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CaseError(f"the workflow took more than {_MOST_S} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise CaseError(" | ".join(done.stderr.strip().splitlines()[-3:]))
    return Found(figures=json.loads(lines[-1]), tasks=count)
