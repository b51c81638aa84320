"""Run the static checks of CI, and print how long each step took.

Several steps run at the same time. The output of a step is printed at its end. A failed step does not stop the others,
so one run shows all problems.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
NOT_DONE = 77
"""Exit status of a check that could not be made, as in Automake."""
PACKAGES = (
    "taskq_core",
    "taskq_dashboard",
    "taskq_django",
    "taskq_exporter",
    "taskq_fastapi",
    "taskq_migrate",
    "taskq_pydantic_ai",
    "taskq_sqlalchemy",
    "taskq_terminal",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check: a command that exits with 0 if it finds no problem."""

    name: str
    command: tuple[str, ...]


STEPS = (
    Step(name="types", command=(sys.executable, "-m", "mypy")),
    Step(name="wheel", command=(sys.executable, "scripts/check_wheel.py")),
    Step(name="lint", command=(sys.executable, "-m", "ruff", "check", "--output-format", "concise", ".")),
    Step(name="format", command=(sys.executable, "-m", "ruff", "format", "--check", ".")),
    Step(name="imports", command=(str(TOOLS / "lint-imports"), "--no-logo", "--no-cache")),
    Step(name="circles", command=(sys.executable, "-m", "scripts.check_circles")),
    Step(name="errors", command=(sys.executable, "scripts/error_page.py")),
    Step(name="blocking", command=(sys.executable, "scripts/blocking.py")),
    Step(name="waits", command=(sys.executable, "scripts/check_waits.py")),
    Step(
        name="security",
        command=(
            sys.executable,
            *["-m", "bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml"],
            *PACKAGES,
        ),
    ),
    Step(name="lua", command=(sys.executable, "scripts/check_lua.py")),
    Step(name="texts", command=(sys.executable, "scripts/translations.py")),
    Step(name="lock", command=(sys.executable, "scripts/lock.py")),
    Step(name="audit", command=(sys.executable, "scripts/audit.py")),
    Step(name="proto", command=(sys.executable, "scripts/generate_proto.py", "--check")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The exit status and the duration of a step."""

    name: str
    status: int
    duration_s: float

    @property
    def verdict(self) -> str:
        """The result. A check that could not be made does not fail the run, but is not reported as ok."""
        return {0: "ok", NOT_DONE: "NOT DONE"}.get(self.status, "FAILED")


def run(step: Step) -> Outcome:
    """Run a static check and print its output once it has ended."""
    started = time.monotonic()
    done = subprocess.run(step.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    outcome = Outcome(name=step.name, status=done.returncode, duration_s=time.monotonic() - started)
    output = done.stdout.decode(errors="replace").rstrip()
    print(f"--- {step.name}: {outcome.verdict}, {outcome.duration_s:.0f} s\n{output}".rstrip(), flush=True)
    return outcome


def main() -> int:
    """Run the steps that the command line names. Return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [step.name for step in STEPS]
    parser.add_argument("--only", action="append", choices=names, help="run this step only; may be repeated")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="steps at the same time (default: 2)")
    options = parser.parse_args()
    wanted = options.only or names
    os.environ["PATH"] = f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}"

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(run, [step for step in STEPS if step.name in wanted]))

    print(f"--- Python {sys.version.split()[0]}")
    for outcome in outcomes:
        print(f"{outcome.name:<8} {outcome.duration_s:>5.0f} s  {outcome.verdict}")
    sys.stdout.flush()
    return 1 if any(outcome.status not in (0, NOT_DONE) for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
