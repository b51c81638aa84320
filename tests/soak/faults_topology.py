"""Faults of Sentinel and Cluster: failovers, moved slots. For the numbers see `faults`."""

import contextlib
import time
from collections.abc import Callable, Iterator

import redis

from taskq_core.wire import DEFAULT_QUEUE
from tests.redis_cluster import close_slot, move_keys, open_slot
from tests.redis_server import RedisServer
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Stage
from tests.soak.stores import DOWN_AFTER_S, Cluster, Sentinels, wait_for_copy

FAILOVER_S = DOWN_AFTER_S + 40.0
"""Maximum duration of a failover: the detection of the failure, and some failed elections."""
NOTICED_S = 4.0
"""Seconds within which every worker must leave an old primary, which accepts writes for ten more and discards them."""
KEYS_AT_ONCE = 100


def sentinel_failover(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """28: kill the primary, or order a failover, under load."""
    store: Sentinels = stage.store
    old = store.primary
    if fault.variant % 2:
        over = stage.killed_primary()
        old.kill()
    else:
        over = stage.failover("a planned failover")
        store.sentinels[0].fail_over()
    yield from _taken_over(stage, lambda: store.primary, old)
    if old.is_running:
        yield NOTICED_S
    over()
    yield 1.0
    if not old.is_running:
        old.replica_of = store.primary
        old.start()
    yield from wait_for_copy(old)


def cluster_change(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """30: move the slot of a queue to another primary, or kill its primary, under load."""
    store: Cluster = stage.store
    keys = stage.keys(DEFAULT_QUEUE)
    slot = int(store.running[0].command("CLUSTER", "KEYSLOT", keys.pending))
    source = store.owner(slot)
    if fault.variant % 2:
        over = stage.killed_primary()
        source.kill()
        yield from _taken_over(stage, lambda: store.owner(slot), source)
        over()
        yield 1.0
        source.start()
        yield from wait_for_copy(source)
        return
    owners = {store.owner(other) for other in range(0, 16_384, 1_024)}
    target = min(owners - {source}, key=lambda server: server.port)
    over = stage.outage("the slot moves")
    open_slot(slot, source, target)
    while source.command("CLUSTER", "COUNTKEYSINSLOT", slot):
        move_keys(slot, source, target, most=KEYS_AT_ONCE)
        yield 0.005
    close_slot(slot, target, store.running)
    stage.ledger.write("moved", slot=slot, source=source.port, target=target.port)
    over()


def _taken_over(stage: Stage, find_primary: Callable[[], RedisServer], old: RedisServer) -> Iterator[float]:
    """Wait until another server is the primary."""
    began = time.monotonic()
    while time.monotonic() - began < FAILOVER_S:
        with contextlib.suppress(redis.RedisError, OSError, StopIteration, AssertionError):
            new = find_primary()
            if new is not old and new.command("ROLE")[0] == b"master":
                break
        yield 0.1
    took_s = time.monotonic() - began
    stage.expect(took_s < FAILOVER_S, f"no other server was primary after {took_s:.1f} s")
