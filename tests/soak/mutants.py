"""`python -m tests.soak.mutants`: test the soak. It must be red for each of seventeen deliberate errors in the code.

Each mutant is a small change of a copy of the tree, with a schedule of faults that exposes the error. A control run
with all these faults on an unchanged copy must be green. Exits with 0 if all runs have the expected result.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COPIED = ("taskq_core", "taskq_django", "taskq_fastapi", "tests")
LUA = "taskq_core/broker/lua"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of one place in a file. The old text must occur exactly once."""

    file: str
    old: str
    new: str


class StalePatchError(Exception):
    """The code that a mutant changes was not found. The mutant must be updated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A deliberate error in the code.

    Attributes:
        faults: Numbers of the faults that expose the error.
        shows: Invariants of which at least one must be broken. Others may be broken as well.
    """

    name: str
    changes: tuple[Change, ...]
    faults: tuple[int, ...]
    shows: frozenset[int]


MUTANTS = (
    Mutant(
        name="no fence",
        changes=(
            Change(file=f"{LUA}/_ends.lua", old="owner == fence", new="owner"),
            Change(
                file=f"{LUA}/extend_leases.lua",
                old="fields[1] == owner .. score",
                new="fields[1]",
            ),
        ),
        faults=(3,),
        shows=frozenset({7}),
    ),
    Mutant(
        name="fence without run",
        changes=(
            Change(
                file=f"{LUA}/_ends.lua",
                old="owner == fence",
                new="owner and string.gsub(owner, '%.%d+:', ':') == string.gsub(fence, '%.%d+:', ':')",
            ),
        ),
        faults=(70,),
        shows=frozenset({6}),
    ),
    Mutant(
        name="receipt compared for equality",
        changes=(
            Change(
                file=f"{LUA}/_receipt.lua",
                old="elseif last and tonumber(last) > tonumber(call) then",
                new="elseif false then",
            ),
        ),
        faults=(71,),
        shows=frozenset({6}),
    ),
    Mutant(
        name="recovery without re-check",
        changes=(
            Change(
                file=f"{LUA}/recover.lua",
                old="is_lost and score == ARGV[i + 2] and message == ARGV[i + 3]",
                new="true",
            ),
        ),
        faults=(4,),
        shows=frozenset({1, 6, 10}),
    ),
    Mutant(
        name="no ack retry",
        changes=(
            Change(
                file="taskq_core/worker/settler.py",
                old="if now < run.lease_until + self._context.grace_s:",
                new="if now < 0:",
            ),
        ),
        faults=(13,),
        shows=frozenset({6}),
    ),
    Mutant(
        name="request for tasks without receipt",
        changes=(
            Change(
                file=f"{LUA}/settle_and_dequeue.lua",
                old="-- include _hand_out",
                new="ARGV[3] = '0' -- no receipt\n-- include _hand_out",
            ),
        ),
        faults=(13,),
        shows=frozenset({11}),
    ),
    Mutant(
        name="ack before handler",
        changes=(
            Change(
                file="taskq_core/worker/executor.py",
                old="        if task.is_coroutine or (task.runs_in_process and self._processes is not None):\n"
                "            self._start_coroutine(run)\n        else:\n",
                new="        self._report_end(run)\n"
                "        if task.is_coroutine or (task.runs_in_process and self._processes is not None):\n"
                "            self._start_coroutine(run)\n        else:\n",
            ),
        ),
        faults=(1,),
        shows=frozenset({4}),
    ),
    Mutant(
        name="no lease extension",
        changes=(Change(file="taskq_core/worker/keepalive.py", old="        self._extend(runs)\n", new=""),),
        faults=(6,),
        shows=frozenset({6}),
    ),
    Mutant(
        name="leaking lock",
        changes=(
            Change(
                file=f"{LUA}/_unique.lua",
                old="if is_lock(lock) and redis.pcall('GET', lock) == id then",
                new="if false then",
            ),
        ),
        faults=(5,),
        shows=frozenset({1}),
    ),
    Mutant(
        name="no allow-oom",
        changes=(Change(file=f"{LUA}/extend_leases.lua", old="redis.call('DEL', KEYS[2])\n", new=""),),
        faults=(24,),
        shows=frozenset({6}),
    ),
    Mutant(
        name="permit not released",
        changes=(
            Change(file=f"{LUA}/settle.lua", old="limits.release_permits(id, key, of_sequence[outcome])", new=""),
            Change(file=f"{LUA}/_limits.lua", old="if not holds then", new="if false then"),
        ),
        faults=(5,),
        shows=frozenset({3, 26}),
    ),
    Mutant(
        name="workflow step stored twice",
        changes=(
            Change(
                file=f"{LUA}/put_steps.lua",
                old="if not redis.call('ZSCORE', KEYS[5], ARGV[i]) then",
                new="if true then",
            ),
        ),
        faults=(1,),
        shows=frozenset({6}),
    ),
    Mutant(
        name="step before its predecessors",
        changes=(
            Change(file=f"{LUA}/_flow.lua", old="if add('p' .. j, -1) == 0 then", new="if add('p' .. j, -1) <= 1 then"),
        ),
        faults=(1,),
        shows=frozenset({17}),
    ),
    Mutant(
        name="step stored too late",
        changes=(
            Change(
                file="taskq_core/execution/step_record.py",
                old="stored = self._record[field] = _accepted(await self._ask(store, at_end=True))",
                new="stored = self._record[field] = value\n"
                "        request = self._ask(store, at_end=True)\n"
                "        if field[:2] == 's:':\n"
                "            asyncio.get_running_loop().call_later(0.5, asyncio.ensure_future, request)\n"
                "        else:\n"
                "            stored = self._record[field] = _accepted(await request)",
            ),
        ),
        faults=(1,),
        shows=frozenset({27}),
    ),
    Mutant(
        name="caught failure of a step not stored",
        changes=(
            Change(
                file="taskq_core/execution/step_record.py",
                old="if each.data and each.is_caught_by(branch.get()):",
                new="if False:",
            ),
        ),
        faults=(1,),
        shows=frozenset({27}),
    ),
    Mutant(
        name="repeated signal stored twice",
        changes=(
            Change(file=f"{LUA}/signal.lua", old="elseif known[2] and known[1] == mark then", new="elseif false then"),
        ),
        faults=(13,),
        shows=frozenset({27}),
    ),
    Mutant(
        name="end of sub-tasks does not wake the task",
        changes=(
            Change(
                file=f"{LUA}/_flow.lua",
                old="      resume(prefix, own, now.ns, now.ms, task, 'c:' .. name)\n",
                new="",
            ),
        ),
        faults=(1,),
        shows=frozenset({3}),
    ),
)


def apply(mutant: Mutant, tree: Path) -> None:
    """Change a tree.

    Raises:
        StalePatchError: An old text does not occur exactly once in its file.
    """
    for change in mutant.changes:
        file = tree / change.file
        text = file.read_text()
        if text.count(change.old) != 1:
            raise StalePatchError(
                f"mutant {mutant.name!r}: {change.old!r} stands {text.count(change.old)} times in {change.file}, "
                "expected once"
            )
        file.write_text(text.replace(change.old, change.new))


def copy(folder: Path) -> Path:
    """Copy the working tree, and return the path of the copy."""
    tree = folder / "tree"
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def run(tree: Path, faults: Sequence[int], *, seed: int, out: Path, minutes: float) -> dict[str, Any]:
    """Run a soak with some faults in a tree and return its report.

    Raises:
        RuntimeError: The soak failed to run, or ran code outside the tree.
    """
    only = [word for fault in faults for word in ("--only", str(fault))]
    command = [sys.executable, "-m", "tests.soak", "--seed", str(seed), "--minutes", str(minutes), "--out", str(out)]
    command.append("--keep")
    done = subprocess.run(
        [*command, *only],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1) or not (out / "report.json").exists():
        raise RuntimeError(f"the soak failed to run (status {done.returncode}):\n{done.stdout[-3000:]}")
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    if not Path(report["code"]).is_relative_to(tree):
        raise RuntimeError(f"the soak ran the code in {report['code']}, not that in {tree}")
    return report


def broken(report: dict[str, Any]) -> set[int]:
    """Return the numbers of the broken invariants."""
    return {verdict["number"] for verdict in report["invariants"] if not verdict["holds"]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.mutants", description=__doc__)
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument(
        "--only", action="append", choices=[*names, "control"], help="run only this mutant; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the schedules (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("build") / "soak-mutants", help="folder for the reports")
    given = parser.parse_args(arguments)
    wanted = given.only or ["control", *names]
    out = given.out.resolve()
    failed = []
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="taskq-mutant-") as folder:
            tree = copy(Path(folder))
            faults: Sequence[int] = sorted({fault for mutant in MUTANTS for fault in mutant.faults})
            expected: frozenset[int] = frozenset()
            if name != "control":
                mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
                apply(mutant, tree)
                faults, expected = mutant.faults, mutant.shows
            minutes = 2.2 if name == "control" else 1.3
            report = run(tree, faults, seed=given.seed, out=out / name.replace(" ", "-"), minutes=minutes)
        found = broken(report)
        is_right = not found if name == "control" else bool(found & expected)
        if not is_right:
            failed.append(name)
        verdict = f"red: {sorted(found)}" if found else "green"
        print(f"{'ok    ' if is_right else 'FAILED'}  {name:<26} {verdict}", flush=True)
        for each in report["invariants"]:
            if not each["holds"]:
                print(f"          {each['number']:>2}  {each['failures'][0]}", flush=True)
    print(f"{len(wanted) - len(failed)} of {len(wanted)} with the expected result", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
