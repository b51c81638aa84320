"""Which CPU does what. Figures are compared only within one placement.

Who talks to Redis one by one is bound by how quickly an idle CPU wakes up, so the same calls are several times as
quick with both on one CPU as on two; a drain is the other way round.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """CPUs of the processes of a measurement; none: the kernel chooses."""

    name: str
    words: str
    redis: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()
    """Of workers and of clients."""


def placements(cpus: list[int] | None = None) -> dict[str, Placement]:
    """Return the placements of this machine, or of one with these CPUs, by name."""
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
