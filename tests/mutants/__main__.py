"""`python -m tests.mutants`: apply deliberate errors to taskq, one at a time, and run the tests that must detect them.

The runner works on a copy of the tree in a temporary folder. It prints one line per mutant: the test that failed,
SURVIVED if all tests passed, or BROKEN if no test could run. It exits with 0 if the tests detected every mutant.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis")
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
FAILED_TEST = re.compile(r"^(?:FAILED|ERROR) (tests/\S*?::.*?)(?: - |$)", re.MULTILINE)
"""A line of pytest's summary about a test. A line about a file that cannot be imported has no `::`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests on each mutant and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="try mutants with this text in their name or file")
    only = parser.parse_args(arguments).only
    mutants = [each for each in MUTANTS if only in each.name or only in each.file]
    if not mutants:
        parser.error(f"no mutant has {only!r} in its name or file")
    if problems := [problem for each in mutants for problem in problems_of(each)]:
        print(*problems, sep="\n")
        return 1
    killed = 0
    with tempfile.TemporaryDirectory(prefix="taskq-") as folder:
        tree = Path(folder) / "taskq"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        control = run_tests(tree, sorted({each.tests for each in mutants}))
        if control != "SURVIVED":
            print(f"the tests fail without a mutant: {control}")
            return 1
        print("the tests pass without a mutant", flush=True)
        for mutant in mutants:
            started, verdict = time.monotonic(), try_mutant(mutant, tree)
            print(f"{mutant.name}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
            killed += verdict.startswith("killed")
    print(f"{killed} of {len(mutants)} mutants were killed")
    return 0 if killed == len(mutants) else 1


def problems_of(mutant: Mutant) -> Iterator[str]:
    """Yield the reasons why a mutant cannot be applied or tested."""
    text = (ROOT / mutant.file).read_text() if (ROOT / mutant.file).exists() else ""
    if text.count(mutant.old) != 1:
        yield f"{mutant.name}: {mutant.old!r} must occur once in {mutant.file}, not {text.count(mutant.old)} times"
    if mutant.old == mutant.new:
        yield f"{mutant.name}: the mutant does not change {mutant.file}"
    if not (ROOT / mutant.tests).exists():
        yield f"{mutant.name}: {mutant.tests} does not exist"


def try_mutant(mutant: Mutant, tree: Path) -> str:
    """Return the verdict of the tests on a mutant."""
    file = tree / mutant.file
    text = file.read_text()
    file.write_text(text.replace(mutant.old, mutant.new))
    try:
        return run_tests(tree, [mutant.tests])
    finally:
        file.write_text(text)


def run_tests(tree: Path, tests: Sequence[str]) -> str:
    """Run pytest in a tree until the first failure.

    Returns:
        `SURVIVED`, `killed by` and the test that failed, or `BROKEN` and the end of the output.
    """
    done = subprocess.run(
        (*PYTEST, *tests),
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return "SURVIVED"
    if failed := FAILED_TEST.search(done.stdout):
        return f"killed by {failed[1]}"
    return f"BROKEN: pytest exited with {done.returncode}\n{done.stdout[-2000:]}"


if __name__ == "__main__":
    sys.exit(main())
