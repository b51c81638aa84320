"""Read which workers and schedulers are alive, and which queues the workers serve."""

from collections.abc import Sequence
from dataclasses import replace

from taskq_core.broker.operations import presence, services
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import BrokerAuthenticationError, BrokerReplyError, WireFormatError
from taskq_core.inspector.records import QueueInfo
from taskq_core.wire import Keys, ServerInfo

_STEP = 500
_OVERLAP = 50
"""Number of index members that each page repeats from the previous page. Without this, a page would miss members: a
heartbeat between two pages moves members to the end of the index, and the following members move up."""


def alive(index: str) -> RequestPlan[list[str]]:
    """Return the keys that an index of workers or schedulers lists and that have not expired."""
    members: dict[str, None] = {}  # a dict keeps the order, and a member that is on two pages counts once
    skip = 0
    while True:
        page = yield from ask(presence.list_alive(index, skip=skip, count=_STEP))
        members |= dict.fromkeys(page)
        if len(page) < _STEP:
            return presence.keys_of_index(index, members)
        skip += _STEP - _OVERLAP


def server_infos(keys: Keys) -> RequestPlan[list[ServerInfo]]:
    """Return the reports of the running workers of any language. Reports that cannot be read are left out."""
    infos: list[ServerInfo] = []
    for key in (yield from alive(keys.servers)):
        data = yield from ask(presence.read_server(key))
        try:
            infos += [ServerInfo.decode(data)] if data else []
        except WireFormatError:
            continue
    return infos


def with_workers(keys: Keys, infos: Sequence[QueueInfo]) -> RequestPlan[list[QueueInfo]]:
    """Return the queues with `is_served` set to whether a running worker serves them.

    This needs one call for each queue. The reports of workers are read only if a queue has no taskq worker, because a
    Go worker may serve it.
    """
    try:
        unserved = set()
        for info in infos:
            if not (yield from ask(services.has_worker(keys.queue(info.name)))):
                unserved.add(info.name)
        if unserved:
            unserved -= {name for server in (yield from server_infos(keys)) for name in server.queues}
    except (BrokerAuthenticationError, BrokerReplyError):
        unserved = set()  # without the right to read the workers, show every queue as served
    return [replace(info, is_served=info.name not in unserved) for info in infos]
