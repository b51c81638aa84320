"""The schedule of faults, determined by a seed.

::

    warm-up | round: one or two faults | calm | round | calm | ... | undo all faults, wait until idle, check

The same seed, profile and choice of faults give the same plan. Each fault has a separate seed for its details, such as
the worker that it kills, so that `--without` does not change the other faults.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.soak.profiles import Leases, Profile

OVERHEAD_S = 50.0
"""Seconds of a run without load: start, wait until idle, check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFault:
    """One injection of a fault.

    Attributes:
        number: Number of the fault, the key in `faults.FAULTS`.
        start_s: Seconds from the beginning of the load to its start.
        lasts_s: Approximate duration in seconds.
        seed: Seed of its details.
        variant: A number that selects one of its variants. It increases by one with each injection of the fault.
    """

    number: int
    start_s: float
    lasts_s: float
    seed: str
    variant: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The schedule of a run.

    Attributes:
        faults: The injections, sorted by start.
        load_s: Seconds for which producers enqueue.
    """

    seed: int
    profile: str
    faults: tuple[PlannedFault, ...]
    load_s: float


class PlanError(ValueError):
    """The requested schedule is impossible."""


def duration(number: int, leases: Leases, draw: random.Random, variant: int) -> float:
    """Return the duration of a fault in seconds. Faults 23 and 34 alternate between short and long outages."""
    takes_leases = leases.long_s + draw.uniform(0.5, 2.5)
    short_s = min(3.0, leases.tolerated_s - 1)
    match number:
        case 3 | 38:
            return takes_leases
        case 23 | 34:
            return takes_leases + 1.0 if variant % 2 else draw.uniform(2.0, short_s)
        case 28 | 30:
            return 17.0
        case 4:
            return leases.takeover_s + 6.0
        case 9:
            return 6.0
        case 6 | 70:
            return 9.0
        case 71:
            return draw.uniform(5.0, 7.0)
        case 24:
            return leases.lease + leases.grace + draw.uniform(1.0, 3.0)  # long enough for every lease to expire
        case 37:
            return draw.uniform(7.0, 9.0)
        case 42:
            return draw.uniform(5.0, 7.0)
        case 14:
            return leases.lease + 4.0
    return draw.uniform(3.0, 6.0)


def chosen(profile: Profile, only: Iterable[int] = (), without: Iterable[int] = ()) -> tuple[int, ...]:
    """Return the faults to inject.

    Raises:
        PlanError: The profile does not have a fault with this number.
    """
    only, without = tuple(only), tuple(without)
    for number in (*only, *without):
        if number not in profile.faults:
            raise PlanError(f"profile {profile.name!r} has no fault {number}; it has {profile.faults}")
    return tuple(number for number in profile.faults if number not in without and (not only or number in only))


def plan(
    profile: Profile,
    seed: int,
    *,
    minutes: float | None = None,
    only: Sequence[int] = (),
    without: Sequence[int] = (),
) -> Plan:
    """Return the plan of a run.

    Args:
        profile: Faults, leases and default duration.
        seed: Seed of the plan.
        minutes: Total duration, instead of the profile's.
        only: Plan only these faults.
        without: Leave these faults out of the same plan, to find the fault that causes a failure.

    Raises:
        PlanError: The time is too short to inject every fault once.
    """
    load_s = 60.0 * (profile.minutes if minutes is None else minutes) - OVERHEAD_S
    wanted = chosen(profile, only)
    left_out = set(wanted) - set(chosen(profile, only, without))
    pairing = random.Random(f"{seed}:pairs")
    left: list[int] = []
    placed: list[PlannedFault] = []
    counts: dict[int, int] = {}
    at = profile.warm_up_s
    while wanted:
        if not left:
            left = pairing.sample(wanted, len(wanted))
        size = min(len(left), 2 if len(wanted) > 1 else 1)
        round_: list[PlannedFault] = []
        for number in left[:size]:
            count = counts[number] = counts.get(number, 0) + 1
            own = f"{seed}:{number}:{count}"
            draw = random.Random(own)
            lasts_s = duration(number, profile.leases, draw, (seed + count) % 1_000_000)
            start_s = at + draw.uniform(0.0, 1.5)
            round_.append(PlannedFault(number=number, start_s=start_s, lasts_s=lasts_s, seed=own, variant=seed + count))
        end = max(fault.start_s + fault.lasts_s for fault in round_)
        if end + profile.calm_s > load_s:
            break
        del left[:size]
        placed += round_
        at = end + profile.calm_s
    missing = set(wanted) - {fault.number for fault in placed}
    if missing:
        raise PlanError(
            f"{load_s + OVERHEAD_S:.0f} s are too short for faults {sorted(missing)}; "
            "increase --minutes, or select faults with --only"
        )
    placed = [fault for fault in placed if fault.number not in left_out]
    placed.sort(key=lambda fault: (fault.start_s, fault.number))
    return Plan(seed=seed, profile=profile.name, faults=tuple(placed), load_s=load_s)
