"""Find the node of a Redis Cluster that serves a request, and follow redirections to other nodes. Without I/O.

A cluster spreads its keys over 16 384 slots, and each primary serves some of them. A `SlotMap` records which node
serves which slot. `cluster_exchange` reads this map from a node before the first request and after a node failed, and
corrects the map when a node answers that a slot has moved. All runners of one endpoint share the map, on any number of
threads and event loops. An update replaces the map in one step.

While a slot moves to another node, its keys move one by one, and a script would find only some of them. Redis refuses
a request (`TRYAGAIN`) if some of its declared keys are missing, but a script also reads task keys that it does not
declare. So each script declares one more key of its slot, which never exists. Redis refuses the script as long as the
slot moves, and the runner sends the script again.
"""

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from taskq_core.broker.failures import RedirectedError
from taskq_core.broker.operations import presence
from taskq_core.broker.operations.operation import Operation
from taskq_core.errors import BrokerAuthenticationError, BrokerError, BrokerReplyError, BrokerUnavailableError
from taskq_core.wire.slots import SLOTS, key_slot

Server = tuple[str, int]

REDIRECTIONS_MAX = 5
"""Maximum number of redirections that one request follows. Another redirection makes the request fail."""

ASKING = ("ASKING",)
"""Command to send before a request that was redirected while its slot moves. It applies to the next command only."""


def slot_of(operation: Operation[Any]) -> int | None:
    """Return the slot of an operation, None if any node can answer."""
    return key_slot(operation.keys[0]) if operation.keys else None


def absent_key(operation: Operation[Any]) -> tuple[str, ...]:
    """Return a key that never exists, in the slot and with the prefix of a script's other keys.

    Each script declares this key, so that Redis refuses the script while the slot moves to another node.
    """
    if operation.script is None or not operation.keys:
        return ()
    key = operation.keys[0]
    before, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    if opened and closed and tag:
        return (f"{before}{{{tag}}}:absent",)
    return (f"{key.partition(':')[0]}:{{{key}}}:absent",)


class SlotMap:
    """Maps each cluster slot to the node that serves it.

    Args:
        seeds: Nodes to ask before the first map is known.
    """

    def __init__(self, seeds: Sequence[Server]) -> None:
        self._seeds = tuple(seeds)
        self._owners: list[Server | None] = []
        self._primaries: tuple[Server, ...] = ()
        self._turn = itertools.count()

    @property
    def is_known(self) -> bool:
        """True while the map is known: after a call of `learn`, until a call of `forget`."""
        return bool(self._owners)

    @property
    def primaries(self) -> tuple[Server, ...]:
        """The known primaries."""
        return self._primaries

    def owner(self, slot: int | None) -> Server | None:
        """Return the node that serves a slot, None if unknown. Calls without a slot return the primaries in turn."""
        owners, primaries = self._owners, self._primaries
        if not owners or not primaries:
            return None
        return primaries[next(self._turn) % len(primaries)] if slot is None else owners[slot]

    def sources(self) -> list[Server]:
        """Return the nodes that can be asked for the map. Each call starts with another node, to spread the load."""
        servers = list(dict.fromkeys((*self._primaries, *self._seeds)))
        start = next(self._turn) % len(servers)
        return servers[start:] + servers[:start]

    def learn(self, shards: Sequence[Any], asked: Server) -> None:
        """Replace the map by the answer to `CLUSTER SLOTS`: per range its first and last slot, then its nodes.

        `asked` is the node that answered.
        """
        owners: list[Server | None] = [None] * SLOTS
        primaries: dict[Server, None] = {}
        for first, last, primary, *_ in shards:
            server = (_host(primary[0]) or asked[0], int(primary[1]))
            primaries[server] = None
            owners[int(first) : int(last) + 1] = [server] * (int(last) + 1 - int(first))
        self._primaries, self._owners = tuple(primaries), owners

    def move(self, slot: int, server: Server) -> None:
        """Record that another node serves a slot."""
        owners = self._owners
        if owners:
            owners[slot] = server
        if server not in self._primaries:
            self._primaries = (*self._primaries, server)

    def forget(self) -> None:
        """Discard the map because a node has failed, so that the next request reads the new map of the cluster."""
        self._owners = []


def _host(reply: Any) -> str:
    """Decode the host of a node. Return "" if the node does not know its own address.

    The caller then uses the address to which it sent the request.
    """
    host = reply.decode() if isinstance(reply, bytes) else str(reply or "")
    return "" if host == "?" else host


class NodeRequest(Struct):
    """Operations to send to one node.

    Attributes:
        server: The node.
        operations: The operations.
        left_s: Timeout in seconds.
        is_asking: Whether to send `ASKING` before each operation.
        places: Index of each operation in the caller's sequence.
    """

    server: Server
    operations: list[Operation[Any]]
    left_s: float
    is_asking: bool = False
    places: list[int] = field(default_factory=list)


Outcomes = list[list[Any] | BrokerError]
"""For each `NodeRequest`, the answers to its operations, or the error with which the whole request failed."""


def cluster_exchange(
    slots: SlotMap, address: str, operations: Sequence[Operation[Any]], left_s: Callable[[], float]
) -> Generator[list[NodeRequest], Outcomes, list[Any]]:
    """Send operations to the nodes of their keys, and return one answer for each.

    The generator yields requests to send, at most one per node. For each request, the generator receives a list of the
    answers, or the error of the request.
    """
    if not slots.is_known:
        yield from learn_slots(slots, address, left_s)
    answers: list[Any] = [None] * len(operations)
    targets: dict[int, tuple[Server, bool]] = {}
    for place, operation in enumerate(operations):
        slot = slot_of(operation)
        server = slots.owner(slot)
        if server is None:
            slots.forget()
            raise BrokerUnavailableError.unchanged(f"no node of {address} serves slot {slot}")
        targets[place] = (server, False)
    for _ in range(REDIRECTIONS_MAX + 1):
        requests = _grouped(operations, targets, left_s())
        targets = {}
        for request, outcome in zip(requests, (yield requests), strict=True):
            if isinstance(outcome, BrokerError):
                slots.forget()
                raise outcome
            for place, answer in zip(request.places, outcome, strict=True):
                answers[place] = answer
                if isinstance(answer, RedirectedError):
                    server = (answer.server[0] or request.server[0], answer.server[1])
                    if not answer.is_ask:
                        slots.move(answer.slot, server)
                    targets[place] = (server, answer.is_ask)
                elif isinstance(answer, BrokerUnavailableError):
                    slots.forget()
        if not targets:
            return answers
    slots.forget()
    for place in targets:
        slot = slot_of(operations[place])
        answers[place] = BrokerUnavailableError.unchanged(f"the nodes of {address} redirect slot {slot} in a circle")
    return answers


def _grouped(
    operations: Sequence[Operation[Any]], targets: Mapping[int, tuple[Server, bool]], left_s: float
) -> list[NodeRequest]:
    """Group operations into one request per node.

    If one operation of a node needs `ASKING`, this command is sent before each operation of the node. It does not
    affect operations that do not need it.
    """
    requests: dict[Server, NodeRequest] = {}
    for place, (server, is_asking) in targets.items():
        request = requests.setdefault(server, NodeRequest(server, [], max(0.001, left_s)))
        request.operations.append(operations[place])
        request.places.append(place)
        request.is_asking |= is_asking
    return list(requests.values())


def learn_slots(
    slots: SlotMap, address: str, left_s: Callable[[], float]
) -> Generator[list[NodeRequest], Outcomes, None]:
    """Read the slot map from the first node that answers. Each node gets an equal share of the remaining time."""
    problems: list[BrokerError] = []
    sources = slots.sources()
    for index, server in enumerate(sources):
        share_s = left_s() / (len(sources) - index)
        if share_s <= 0:
            break
        (outcome,) = yield [NodeRequest(server, [presence.read_shards()], share_s)]
        answer = outcome if isinstance(outcome, BrokerError) else outcome[0]
        if isinstance(answer, BrokerAuthenticationError):
            raise answer
        if not isinstance(answer, BrokerError):
            slots.learn(answer, server)
            return
        problems.append(answer)
    is_permanent = any(getattr(each, "is_permanent", isinstance(each, BrokerReplyError)) for each in problems)
    raise BrokerUnavailableError.unchanged(
        f"cannot reach {address}: {'; '.join(map(str, problems))}", is_permanent=is_permanent
    )
