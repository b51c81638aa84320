"""Measure workflows beside Celery's on one Redis: `python -m benchmarks.against_celery` (or `make bench-celery`).

Celery lives in a virtual environment of its own, which is made the first time (PyPI, `celery[redis]`). Each measurement
runs in a process of its own, taskq's and Celery's in turn, on the same Redis, which is emptied before each.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from tests.redis_server import RedisServer

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".venv" / "celery"
ROWS = (
    ("chain of {:,}", "chain", "workflow_chain", 1_000),
    ("group of {:,}", "group", "workflow_group", 100_000),
    ("chord of {:,}", "chord", "workflow_chord", 10_000),
    ("{:,} tasks limited to 1,000 a second", "limited", "limited", 10_000),
)


def celery() -> Path:
    """Return the interpreter of Celery's environment, which is made if it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "celery[redis]"], check=True)
    return python


def measure(command: list[str | Path], url: str) -> dict[str, Any]:
    """Run one measurement and return its figures."""
    environment = {**os.environ, "CELERY_BENCH_URL": url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{command[2:]} failed: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(lines[-1])
    return figures


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_celery", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="share of the counts to run, for a quick look")
    parser.add_argument("--only", choices=[kind for _, kind, _, _ in ROWS], action="append", help="kinds to measure")
    chosen = parser.parse_args()
    python = celery()
    version = subprocess.run(
        [python, "-c", "import celery; print(celery.__version__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"Celery {version}, {os.cpu_count()} processes; taskq: one process; seconds to enqueue + to run\n")
    print(f"| | taskq | Celery {version} |\n|---|---|---|")
    with RedisServer(tcp=True) as server:
        url = server.url
        for title, kind, function, count in ROWS:
            if chosen.only and kind not in chosen.only:
                continue
            count = max(10, int(count * chosen.share))
            server.client.flushall()
            arguments = json.dumps({"count": count})
            ours = measure([sys.executable, "-m", "benchmarks.scenarios", function, url, arguments, ""], url)
            server.client.flushall()
            theirs = measure([python, HERE / "celery_app.py", kind, str(count)], url)
            print(f"| {title.format(count)} | {_said(ours)} | {_said(theirs)} |", flush=True)


def _said(figures: dict[str, Any]) -> str:
    most = figures.get("most_in_a_second")
    limited = f", at most {most:,.0f} in a second" if most is not None else ""
    return f"{figures['enqueue_s']:.1f} + {figures['run_s']:.1f} s{limited}"


if __name__ == "__main__":
    main()
