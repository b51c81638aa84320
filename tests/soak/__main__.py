"""Run a soak test: `python -m tests.soak`.

Exits with 0 if every invariant holds, with 1 if one is broken, and with 2 if the schedule is impossible.
"""

import argparse
import random
import sys
from pathlib import Path

from tests.soak.conductor import soak
from tests.soak.faults import NAMES
from tests.soak.profiles import PROFILES, shortened
from tests.soak.schedule import PlanError, plan


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="ci", help="which profile to run (default: ci)")
    parser.add_argument("--minutes", type=float, help="total duration, instead of the profile's")
    parser.add_argument("--seed", type=int, help="seed of the schedule (default: random, printed)")
    parser.add_argument(
        "--only", type=int, action="append", default=[], metavar="FAULT", help="inject only this fault; may be repeated"
    )
    parser.add_argument(
        "--without",
        type=int,
        action="append",
        default=[],
        metavar="FAULT",
        help="leave this fault out of the same schedule, to find the fault that causes a failure; may be repeated",
    )
    parser.add_argument("--plan", action="store_true", help="print the schedule and stop")
    parser.add_argument(
        "--short-leases",
        action="store_true",
        help="use leases of 6 s and the other short times of `ci`, so that all faults of `long` fit into minutes",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the ledgers and Redis's data also if all invariants hold"
    )
    parser.add_argument("--out", type=Path, help="folder for the report (default: build/soak/<profile>-<seed>)")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    profile = PROFILES[given.profile]
    if given.short_leases:
        profile = shortened(profile)
    try:
        planned = plan(profile, seed, minutes=given.minutes, only=given.only, without=given.without)
    except PlanError as error:
        print(f"impossible schedule: {error}", file=sys.stderr)
        return 2
    print(f"soak: profile {profile.name}, seed {seed}, {planned.load_s:.0f} s of load", flush=True)
    for fault in planned.faults:
        print(f"  {fault.start_s:6.1f} s  {fault.lasts_s:5.1f} s  {fault.number:>2}  {NAMES[fault.number]}", flush=True)
    if given.plan:
        return 0
    folder = given.out or Path("build") / "soak" / f"{profile.name}-{seed}"
    report = soak(profile, planned, folder.resolve(), everything=given.keep)
    print(f"report: {folder}/report.json, timeline: {folder}/timeline.svg", flush=True)
    return 0 if report["result"] == "green" else 1


if __name__ == "__main__":
    sys.exit(main())
