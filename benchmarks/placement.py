"""Assign the processes of a measurement to CPUs. Compare figures only within one placement.

The placement matters: sequential calls are several times as fast if the client and Redis share one CPU, because each
call otherwise waits for an idle CPU to wake up. A drain is faster on two CPUs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The CPUs on which the processes of a measurement run. Empty: the kernel chooses."""

    name: str
    words: str
    redis: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()
    """CPUs of workers and clients."""


def placements(cpus: list[int] | None = None) -> dict[str, Placement]:
    """Return the placements by name, for the given CPUs or those of this machine."""
    if cpus is None:
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cpus) < 2:
        words = "everything on one CPU" if cpus else "not pinned"
        return {name: Placement(name=name, words=words) for name in ("apart", "together", "spread")}
    first, last = cpus[0], cpus[-1]
    spread = Placement(name="spread", words=f"Redis, clients and workers on CPUs {_listed(cpus)}, as the kernel likes")
    if len(cpus) >= 4:
        others = cpus[:-1]
        words = f"Redis on CPU {last}, clients and workers on CPUs {_listed(others)}"
        spread = Placement(name="spread", words=words, redis=(last,), workers=tuple(others))
    return {
        "apart": Placement(
            name="apart",
            words=f"Redis on CPU {last}, clients and workers on CPU {first}",
            redis=(last,),
            workers=(first,),
        ),
        "together": Placement(
            name="together", words=f"Redis, clients and workers on CPU {first}", redis=(first,), workers=(first,)
        ),
        "spread": spread,
    }


@contextmanager
def on(cpus: tuple[int, ...]) -> Iterator[None]:
    """Restrict processes that this thread starts in the block to these CPUs. Do nothing without CPUs."""
    if not cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cpus))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _listed(cpus: list[int]) -> str:
    whole = cpus == list(range(cpus[0], cpus[-1] + 1)) and len(cpus) > 2
    return f"{cpus[0]}-{cpus[-1]}" if whole else ", ".join(map(str, cpus))
