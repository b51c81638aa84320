"""Which node of a Redis Cluster serves a request, by what the nodes have said. Without input or output.

A cluster spreads its keys over 16 384 slots, and each primary serves some of them. A `SlotMap` holds who serves which;
the runners ask a node for it before the first request and again after a node failed, and correct it when a node says
that a slot has moved. All runners of one endpoint share it, on any number of threads and event loops: what is learnt
replaces what was known in one step.

While a slot moves to another node its keys do too, one after the other, and a script would find only some of them.
Redis refuses a request (`TRYAGAIN`) if the keys it declares are not all there, but a script also reads task keys that
it does not declare. So each script is given one more key of its slot, one that never exists: it is refused whole as
long as the slot moves, and sent again until it has arrived.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from taskq_core.broker.operations.operation import Operation
from taskq_core.wire.slots import SLOTS, key_slot

Server = tuple[str, int]

REDIRECTIONS_MAX = 5
"""Times one request is sent on from node to node before it fails."""

ASKING = ("ASKING",)
"""Said before a request that a node sent on while its slot moves; it holds for the next request alone."""


def slot_of(operation: Operation[Any]) -> int | None:
    """Return the slot of an operation; None: any node can answer."""
    return key_slot(operation.keys[0]) if operation.keys else None


def absent_key(operation: Operation[Any]) -> tuple[str, ...]:
    """Return the key that a script declares beyond its own: of its slot and prefix, and never there."""
    if operation.script is None or not operation.keys:
        return ()
    key = operation.keys[0]
    before, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    if opened and closed and tag:
        return (f"{before}{{{tag}}}:absent",)
    return (f"{key.partition(':')[0]}:{{{key}}}:absent",)


class SlotMap:
    """Who serves which slot.

    Args:
        seeds: Nodes to ask as long as no other is known.
    """

    def __init__(self, seeds: Sequence[Server]) -> None:
        self._seeds = tuple(seeds)
        self._owners: list[Server | None] = []
        self._primaries: tuple[Server, ...] = ()
        self._turn = itertools.count()

    @property
    def is_known(self) -> bool:
        """False until `learn` was called, and after `forget`."""
        return bool(self._owners)

    @property
    def primaries(self) -> tuple[Server, ...]:
        """The primaries, as far as known."""
        return self._primaries

    def owner(self, slot: int | None) -> Server | None:
        """Return who serves a slot, or for None another primary at each call; None if that is not known."""
        owners, primaries = self._owners, self._primaries
        if not owners or not primaries:
            return None
        return primaries[next(self._turn) % len(primaries)] if slot is None else owners[slot]

    def sources(self) -> list[Server]:
        """Return the nodes to ask who serves which slot, in turn another one first."""
        servers = list(dict.fromkeys((*self._primaries, *self._seeds)))
        start = next(self._turn) % len(servers)
        return servers[start:] + servers[:start]

    def learn(self, shards: Sequence[Any], asked: Server) -> None:
        """Take over what a node answered to `CLUSTER SLOTS`: per range its first and last slot, then its nodes."""
        owners: list[Server | None] = [None] * SLOTS
        primaries: dict[Server, None] = {}
        for first, last, primary, *_ in shards:
            server = (_host(primary[0]) or asked[0], int(primary[1]))
            primaries[server] = None
            owners[int(first) : int(last) + 1] = [server] * (int(last) + 1 - int(first))
        self._primaries, self._owners = tuple(primaries), owners

    def move(self, slot: int, server: Server) -> None:
        """Note that a slot is served by another node."""
        owners = self._owners
        if owners:
            owners[slot] = server
        if server not in self._primaries:
            self._primaries = (*self._primaries, server)

    def forget(self) -> None:
        """Ask anew before the next request: a node failed, and another may have taken its place."""
        self._owners = []


def _host(reply: Any) -> str:
    """Read a host; blank where a node does not know its own address, which is then the one it was reached at."""
    host = reply.decode() if isinstance(reply, bytes) else str(reply or "")
    return "" if host == "?" else host
