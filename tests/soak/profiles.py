"""The profiles of the soak: leases, load, faults and the kind of Redis."""

from dataclasses import dataclass, replace

from taskq_core.broker.operations.workflows import OPENING_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Leases:
    """Timing settings of workers, in seconds."""

    lease: int
    heartbeat: float
    grace: int
    recover_every: float

    @property
    def takeover_s(self) -> float:
        """Maximum time from the last heartbeat of a worker until its tasks are available again.

        The recoverer's interval varies randomly by a fifth.
        """
        return self.lease + self.grace + 1.2 * self.recover_every

    @property
    def tolerated_s(self) -> float:
        """Maximum duration of an outage that certainly expires no lease.

        A lease is renewed at each heartbeat, its end is truncated to whole seconds, and a worker waits up to two
        seconds between attempts to reconnect.
        """
        return self.lease + self.grace - self.heartbeat - 1 - 2

    @property
    def long_s(self) -> float:
        """Duration of an outage that certainly expires every lease."""
        return self.lease + self.grace + 2.0


SHORT = Leases(lease=6, heartbeat=1.0, grace=2, recover_every=1.0)
REAL = Leases(lease=30, heartbeat=5.0, grace=30, recover_every=15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A configuration of the soak."""

    name: str
    minutes: float
    """Default duration of the whole soak."""
    faults: tuple[int, ...]
    """Numbers of the faults, each of which is injected at least once."""
    leases: Leases = SHORT
    rate: float = 55.0
    """Tasks per second of each of the three producers."""
    workers: int = 4
    schedulers: int = 2
    concurrency: int = 8
    shutdown_grace: float = 3.0
    reconcile_every: float = 4.0
    clean_every: float = 3.0
    dead_letters_every: float = 0.5
    leader_lease: float = 2.0
    calm_s: float = 3.0
    """Seconds without a fault between two rounds of faults."""
    warm_up_s: float = 5.0
    rest_s: float = OPENING_S + 30.0
    """Maximum seconds to wait until the queues are idle after the load.

    If a client died while it added members to a group, the group accepts members for another `OPENING_S` seconds.
    """
    store: str = "one"
    """Kind of Redis: `one`, `sentinel` or `cluster`, see `stores`."""
    replicated: bool = False
    """Whether producers wait until a replica has stored each task."""


CI_FAULTS = (1, 3, 4, 5, 6, 9, 13, 19, 22, 23, 24, 26, 31, 34, 35, 37, 38, 42, 70, 71)
LONG_FAULTS = (*CI_FAULTS, 2, 7, 8, 12, 14, 27, 36, 43)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="ci", minutes=3.4, faults=CI_FAULTS),
        Profile(
            name="long",
            minutes=60.0,
            faults=tuple(sorted(LONG_FAULTS)),
            leases=REAL,
            shutdown_grace=10.0,
            reconcile_every=30.0,
            clean_every=8.0,
            dead_letters_every=5.0,
            leader_lease=5.0,
            calm_s=20.0,
            warm_up_s=20.0,
            rest_s=240.0,
        ),
        Profile(
            name="sentinel",
            minutes=4.0,
            faults=(1, 3, 5, 6, 9, 28, 42),
            store="sentinel",
            replicated=True,
            rate=30.0,
        ),
        Profile(
            name="cluster",
            minutes=4.0,
            faults=(1, 3, 5, 6, 9, 30, 42),
            store="cluster",
            replicated=True,
            rate=30.0,
        ),
    )
}


def shortened(profile: Profile) -> Profile:
    """Return the profile with the lease and other times of `ci`."""
    ci = PROFILES["ci"]
    return replace(
        profile,
        leases=ci.leases,
        shutdown_grace=ci.shutdown_grace,
        reconcile_every=ci.reconcile_every,
        clean_every=ci.clean_every,
        dead_letters_every=ci.dead_letters_every,
        leader_lease=ci.leader_lease,
        calm_s=ci.calm_s,
        warm_up_s=ci.warm_up_s,
        rest_s=ci.rest_s,
    )
