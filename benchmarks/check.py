"""Compare the cost of a task with that of an earlier commit: `python -m benchmarks.check` (or `make bench-check`).

The cost is the number of instructions that taskq and Redis execute for a task, counted by valgrind. It hardly depends
on the load of the machine, so one run shows a loss of 5 % in taskq. The count of Redis varies more, so there a loss
counts from 10 %. Without valgrind, the CPU times of five pairs of runs are compared, and a loss counts if it is 25 % in
each pair.

Both trees run the same jobs with the same Python and packages. Each job runs with few and with many tasks. The
difference is the cost of the further tasks: it contains no start and no end of a worker.
"""

import argparse
import asyncio
import compileall
import io
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = "taskq_core"
"""The package whose cost is compared."""
PROCESSES = ("taskq", "Redis")
"""The processes whose costs are compared."""
PARENT = "HEAD^"
PAIRS = 5
"""Number of runs in each tree without valgrind."""
SLOWER = 200
"""How much slower the clock of a worker is under valgrind, which makes programs 50 to 200 times slower."""
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is measured, and its two numbers of tasks."""

    title: str
    few: int
    many: int


JOBS: Mapping[str, Job] = {
    "enqueue": Job(title="delay()", few=50, many=350),
    "idle": Job(title="adelay(), and its start by an idle worker", few=10, many=40),
    "one": Job(title="dequeue, run and settle, one at a time", few=50, many=350),
    "fifty": Job(title="dequeue, run and settle, 50 at a time", few=200, many=1_200),
}


# --- jobs: this part runs in a separate process with the package of one tree ------------------------------------------


def run_jobs(names: Sequence[str], url: str, *, factor: int, is_slow: bool) -> None:
    """Run jobs, and print the CPU seconds of both processes before and after each counted part as JSON.

    Args:
        names: The jobs.
        url: URL of an empty Redis.
        factor: Multiplies the numbers of tasks.
        is_slow: Whether valgrind makes this process slower.
    """
    import redis

    import taskq_core
    from taskq_core import TaskQ
    from taskq_core.worker import Worker, WorkerConfig

    assert Path(os.environ["PYTHONPATH"]) in Path(taskq_core.__file__).parents, taskq_core.__file__
    taskq, server = TaskQ(url, enqueue_timeout=_PATIENCE_S), redis.Redis.from_url(url)
    services = ("recover", "clean", "reconcile", "aggregate", "dispatch", "relay", "dead_letters")
    # Services that run every few seconds would make the count depend on the time.
    rare: dict[str, Any] = dict.fromkeys(
        [*(f"{each}_every" for each in services), "heartbeat", "leader_lease", "safety_net"], 600.0
    )
    marks: list[tuple[float, float]] = []
    pause_s = 0.5 / SLOWER if is_slow else 0.01  # after it, a worker is idle
    ran: set[int] = set()
    ended = asyncio.Event()

    @taskq.task(name="check:work", headers={"tenant": "acme"})
    async def work(number: int, text: str) -> None:
        ran.add(number)
        ended.set()

    def mark() -> None:
        cpu = server.info("cpu")
        marks.append((time.process_time(), cpu["used_cpu_user"] + cpu["used_cpu_sys"]))
        server.echo("mark")  # valgrind begins a new count of each process at these two calls, see `Meter`
        os.getsid(0)

    @contextmanager
    def counted() -> Iterator[None]:
        mark()
        yield
        mark()

    def worker(concurrency: int, *, burst: bool) -> Worker:
        return Worker(
            taskq, WorkerConfig(concurrency=concurrency, burst=burst, with_scheduler=False, lease=3600, **rare)
        )

    def enqueue(count: int) -> None:
        with counted():
            for number in range(count):
                work.delay(number, "some text")

    async def idle(count: int) -> None:
        waiting = worker(1, burst=False)
        with counted():
            running = asyncio.create_task(waiting.arun())
            for number in range(count):
                await asyncio.sleep(pause_s)
                ended.clear()
                await work.adelay(number, "some text")
                await asyncio.wait_for(ended.wait(), _PATIENCE_S)
            await asyncio.sleep(pause_s)
            waiting.stop()
            await running

    async def drain(count: int, concurrency: int) -> None:
        taskq.client.enqueue_many(work.s(number, "some text") for number in range(count))
        with counted():
            await worker(concurrency, burst=True).arun()

    async def run() -> None:
        for name in names:
            job = JOBS[name]
            for count in (job.few, job.few, job.many):  # the first run imports modules and loads scripts
                ran.clear()
                if name == "enqueue":
                    enqueue(count * factor)
                elif name == "idle":
                    await idle(count * factor)
                else:
                    await drain(count * factor, 1 if name == "one" else 50)
                if name != "enqueue" and len(ran) != count * factor:
                    raise SystemExit(f"the worker ran {len(ran)} of {count * factor} tasks")
                server.flushdb()
        await taskq.aclose()

    with closing(server), asyncio.Runner(loop_factory=_slow_loop if is_slow else None) as runner:
        runner.run(run())
    print(json.dumps(marks))


def _slow_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose clock is as slow as a program under valgrind.

    So the timers of a worker run about as often per task as without valgrind, however busy the machine is.
    """
    real_time = time.monotonic

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            return super().select(timeout and timeout * SLOWER)

    time.monotonic = lambda: real_time() / SLOWER
    return asyncio.SelectorEventLoop(Selector())


# --- measuring --------------------------------------------------------------------------------------------------------

Costs = dict[tuple[str, str], float]
"""Costs of one task by the names of the job and the process."""


class JobsFailedError(Exception):
    """The jobs did not run with the package in this folder."""

    def __init__(self, tree: Path, output: str) -> None:
        super().__init__(output)
        self.tree = tree


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures instructions with this valgrind, or nanoseconds of CPU time if it is None."""

    valgrind: str | None

    @property
    def unit(self) -> str:
        """What is counted."""
        return f"lowest change of {PAIRS} pairs: CPU ns" if self.valgrind is None else "instructions"

    def limit_percent(self, job: str, process: str) -> float:
        """Return the increase from which on a task costs too much. Redis and an idle worker vary more than the rest."""
        if self.valgrind is None:
            return 25.0
        return 5.0 if process == "taskq" and job != "idle" else 10.0

    def measure(self, trees: tuple[Path, Path], names: Sequence[str]) -> tuple[Costs, Costs]:
        """Return the costs of a task in the current and in the earlier tree."""
        if self.valgrind is not None:  # both at the same time, under the same load
            with ThreadPoolExecutor(2) as pool:
                now, before = pool.map(lambda tree: self._measure(tree, names), trees)
            return now, before
        pairs = [tuple(self._measure(tree, names) for tree in trees) for _ in range(PAIRS)]
        # CPU times of the same code differ by half on a busy machine. A real loss is there in every pair.
        lowest = {key: min(pairs, key=lambda pair: pair[0][key] / pair[1][key]) for key in pairs[0][0]}
        return {key: pair[0][key] for key, pair in lowest.items()}, {key: pair[1][key] for key, pair in lowest.items()}

    def _measure(self, tree: Path, names: Sequence[str]) -> Costs:
        factor = 10 if self.valgrind is None else 1
        with tempfile.TemporaryDirectory(prefix="taskq-check-") as name:
            folder = Path(name)
            url = f"unix://{folder}/socket"
            server = subprocess.Popen(
                [*self._count(folder / "Redis", "echoCommand", within="processCommand"), *_redis_server(folder)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                _wait_for(folder / "socket")
                options = [f"--url={url}", f"--factor={factor}", *(f"--only={job}" for job in names)]
                if self.valgrind is not None:
                    options.append("--slow")
                ended = subprocess.run(
                    [*self._count(folder / "taskq", "getsid"), sys.executable, "-P", __file__, *options],
                    env={**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"},
                    capture_output=True,
                    text=True,
                    check=False,
                )
            finally:
                server.terminate()
                server.wait()
            if ended.returncode:
                raise JobsFailedError(tree, ended.stdout + ended.stderr)
            if self.valgrind is None:
                marks = [[seconds * 1e9 for seconds in mark] for mark in json.loads(ended.stdout)]
                parts = [
                    [after[which] - before[which] for before, after in zip(marks[::2], marks[1::2], strict=True)]
                    for which in (0, 1)
                ]
            else:
                parts = [_counted(folder / process, len(names) * 3) for process in PROCESSES]
        return {
            (job, process): (part[3 * index + 2] - part[3 * index + 1]) / (JOBS[job].many - JOBS[job].few) / factor
            for process, part in zip(PROCESSES, parts, strict=True)
            for index, job in enumerate(names)
        }

    def _count(self, file: Path, marker: str, *, within: str | None = None) -> list[str]:
        """Return the words before a command that count its instructions between two calls of the C function `marker`.

        With `within`, only instructions that this C function executes are counted.
        """
        if self.valgrind is None:
            return []
        tool = ["--tool=callgrind", f"--callgrind-out-file={file}", f"--dump-before={marker}"]
        return [self.valgrind, "--quiet", *tool, *([f"--toggle-collect={within}"] if within else []), "--"]


def _counted(file: Path, count: int) -> list[float]:
    """Return the instructions of each counted part from the files of a process, one for each mark."""
    parts = []
    for number in range(2, 2 * count + 1, 2):  # every second file contains what was executed between two parts
        found = re.search(r"^totals: (\d+)$", file.with_suffix(f".{number}").read_text(), re.MULTILINE)
        assert found is not None, file
        parts.append(float(found[1]))
    return parts


def _redis_server(folder: Path) -> list[str]:
    from tests.redis_server import bundled_redis_server  # imported late: the process of the jobs needs no tests

    # Work in the background would make the number of instructions depend on the time.
    quiet = ["--hz", "1", "--dynamic-hz", "no", "--activerehashing", "no", "--save", ""]
    return [
        str(bundled_redis_server()),
        "--port",
        "0",
        "--unixsocket",
        f"{folder}/socket",
        "--dir",
        str(folder),
        *quiet,
    ]


def _wait_for(path: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > until:
            raise SystemExit("redis-server has not started")
        time.sleep(0.01)


# --- comparing --------------------------------------------------------------------------------------------------------


def compare(before: Path, now: Path, names: Sequence[str] = tuple(JOBS), *, meter: Meter) -> bool:
    """Print the costs of a task in two folders that contain the package. Return whether it costs too much in `now`.

    Raises:
        JobsFailedError: The jobs do not run with one of the packages; with `now`, if they run with none.
    """
    for tree in (now, before):
        compileall.compile_dir(tree / PACKAGE, quiet=1)  # else the counts would contain the compiler
    new, old = meter.measure((now, before), names)
    is_slower = False
    print(f"{f'{meter.unit} of one task':54} {'before':>10} {'now':>10}   change")
    for (job, process), cost in new.items():
        percent = (cost / old[job, process] - 1) * 100
        is_loss = percent >= meter.limit_percent(job, process)
        is_slower |= is_loss
        row = f"{f'{JOBS[job].title}: {process}':54} {old[job, process]:10,.0f} {cost:10,.0f} {percent:+6.1f} %"
        print(row + "  SLOWER" * is_loss, flush=True)
    return is_slower


def check(base: str, meter: Meter) -> int:
    """Compare the package with that of a commit. Return 1 if a task costs too much, otherwise 0."""
    commit = _git("rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
    if not commit:
        print(f"NOT COMPARED: this clone does not contain {base}. If the clone is shallow, run `git fetch --deepen=1`.")
        return int(base != PARENT)  # CI passes for the first commit, and in a clone without history
    if not _git("diff", "--name-only", commit, "--", PACKAGE):
        print(f"{PACKAGE} is the same as in {commit[:10]}, so nothing is measured")
        return 0
    with tempfile.TemporaryDirectory(prefix="taskq-check-") as name:
        before, now = Path(name, "old"), Path(name, "new")
        archive = subprocess.run(["git", "archive", commit, PACKAGE], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(before, filter="data")
        shutil.copytree(ROOT / PACKAGE, now / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            is_slower = compare(before, now, meter=meter)
        except JobsFailedError as failure:
            print(failure)
            if failure.tree == now:
                print("The jobs of benchmarks/check.py do not run. If the interface has changed, change the jobs.")
                return 1
            print(f"NOT COMPARED: the jobs do not run with {commit[:10]} and the packages that are installed")
            return 0
    if not is_slower:
        return 0
    reasons = _git("log", "--format=%(trailers:key=Slower,valueonly,separator=%x0A)", f"{commit}..HEAD").split("\n")
    if any(reasons):
        print("Accepted, because a commit says why:", *filter(None, reasons))
        return 0
    print("This change makes tasks slower. If it has to, end the commit message with a line `Slower: REASON`.")
    return 1


def _git(*words: str) -> str:
    """Return what git prints, nothing if it fails."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Compare this tree with a commit, or run jobs for a comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument(
        "base", nargs="?", default=PARENT, metavar="BASE", help=f"commit to compare with (default {PARENT})"
    )
    parser.add_argument("--only", action="append", choices=list(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--factor", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--slow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.url:
        run_jobs(options.only, options.url, factor=options.factor, is_slow=options.slow)
        return 0
    return check(options.base, Meter(shutil.which("valgrind")))


if __name__ == "__main__":
    sys.exit(main())
