"""`python -m tests.soak`: run a soak. Ends with 0 if every invariant holds, 1 if one does not, 2 if it cannot run."""

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
    parser.add_argument("--profile", choices=sorted(PROFILES), default="ci", help="what it is made of (default: ci)")
    parser.add_argument("--minutes", type=float, help="wall time in all, instead of the profile's")
    parser.add_argument("--seed", type=int, help="what the schedule is drawn from (default: a new one, printed)")
    parser.add_argument(
        "--only", type=int, action="append", default=[], metavar="FAULT", help="plan this fault alone; may be repeated"
    )
    parser.add_argument(
        "--without",
        type=int,
        action="append",
        default=[],
        metavar="FAULT",
        help="leave this fault out of the same plan, to find out which of them it takes; may be repeated",
    )
    parser.add_argument("--plan", action="store_true", help="print the schedule and stop")
    parser.add_argument(
        "--short-leases",
        action="store_true",
        help="leases of seconds where the profile has real ones: tries all faults of `long` in minutes",
    )
    parser.add_argument("--keep", action="store_true", help="keep ledgers and Redis's data of a green run as well")
    parser.add_argument("--out", type=Path, help="folder for the report (default: build/soak/<profile>-<seed>)")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    profile = PROFILES[given.profile]
    if given.short_leases:
        profile = shortened(profile)
    try:
        planned = plan(profile, seed, minutes=given.minutes, only=given.only, without=given.without)
    except PlanError as error:
        print(f"this cannot be planned: {error}", file=sys.stderr)
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
