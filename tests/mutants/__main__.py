"""`python -m tests.mutants`: apply deliberate errors to taskq, one at a time, and run the tests that must detect them.

The runner works on copies of the tree in a temporary folder. It prints one line per mutant: the test that failed,
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
from compileall import compile_dir
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue

from tests.mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis")
PACKAGES = ("taskq_core", "taskq_dashboard", "taskq_django", "taskq_exporter", "taskq_fastapi")
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
DEFAULT_SUITE = ("-n", "2")
FAILED_TEST = re.compile(r"^(?:FAILED|ERROR) (tests/\S*?::.*?)(?: - |$)", re.MULTILINE)
"""A line of pytest's summary about a test. A line about a file that cannot be imported has no `::`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests on each mutant and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="try mutants with this text in their name or file")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="mutants to try at the same time (default: 1)")
    parser.add_argument("--whole", action="store_true", help="try mutants that survive with the default suite as well")
    given = parser.parse_args(arguments)
    mutants = [each for each in MUTANTS if given.only in each.name or given.only in each.file]
    if not mutants:
        parser.error(f"no mutant has {given.only!r} in its name or file")
    if problems := [f"{each.name}: {problem}" for each in mutants for problem in problems_of(each)]:
        print(*problems, sep="\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="taskq-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(given.jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        tree = trees.get()
        control = run_tests(tree, sorted({path for each in mutants for path in each.tests}))
        trees.put(tree)
        if control != "SURVIVED":
            print(f"the tests fail without a mutant: {control}")
            return 1
        print("the tests pass without a mutant", flush=True)

        def try_one(mutant: Mutant) -> bool:
            started, tree = time.monotonic(), trees.get()
            verdict = try_mutant(mutant, tree, whole=given.whole)
            trees.put(tree)
            print(f"{mutant.name}: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
            return verdict.startswith("killed")

        with ThreadPoolExecutor(given.jobs) as pool:
            killed = sum(pool.map(try_one, mutants))
    print(f"{killed} of {len(mutants)} mutants were killed")
    return 0 if killed == len(mutants) else 1


def problems_of(mutant: Mutant) -> Iterator[str]:
    """Yield the reasons why a mutant cannot be applied or tested."""
    text = (ROOT / mutant.file).read_text() if (ROOT / mutant.file).exists() else ""
    if text.count(mutant.old) != 1:
        yield f"{mutant.old!r} must occur once in {mutant.file}, but occurs {text.count(mutant.old)} times"
    if mutant.old == mutant.new:
        yield f"{mutant.name}: the mutant does not change {mutant.file}"
    for path in mutant.tests:
        if not (ROOT / path).exists():
            yield f"{mutant.name}: {path} does not exist"


def copy_tree(tree: Path) -> Path:
    """Copy the tree and compile its packages, so that the many processes of the tests start quickly.

    The compiled files contain a hash of their source, because a mutant may have the time and size of the original.
    """
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    for package in PACKAGES:
        compile_dir(tree / package, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return tree


def try_mutant(mutant: Mutant, tree: Path, *, whole: bool) -> str:
    """Return the verdict of the tests on a mutant."""
    with applied(mutant, tree):
        verdict = run_tests(tree, mutant.tests)
        if verdict == "SURVIVED" and whole:
            verdict = run_tests(tree, DEFAULT_SUITE)
    return verdict


@contextmanager
def applied(mutant: Mutant, tree: Path) -> Iterator[None]:
    """Apply a mutant to its file for the time of a block."""
    file = tree / mutant.file
    text = file.read_text()
    file.write_text(text.replace(mutant.old, mutant.new))
    try:
        yield
    finally:
        file.write_text(text)


def run_tests(tree: Path, arguments: Sequence[str]) -> str:
    """Run pytest in a tree until the first failure.

    Returns:
        `SURVIVED`, `killed by` and the test that failed, or `BROKEN` and the end of the output.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        (*PYTEST, *arguments),
        cwd=tree,
        env=environment,
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
