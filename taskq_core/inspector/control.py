"""Requests to workers: take no new tasks, take tasks again, run more or fewer at a time, stop."""

from collections.abc import Sequence

from taskq_core.broker.operations import presence
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.errors import ConfigurationError, WorkerNotFoundError
from taskq_core.inspector.known import hint
from taskq_core.inspector.presence import servers
from taskq_core.inspector.records import WorkerProcess
from taskq_core.service.worker_control import WorkerRequest
from taskq_core.wire import Keys


def control_workers(
    keys: Keys, workers: Sequence[str] | None, request: WorkerRequest, *, is_cluster: bool
) -> RequestPlan[list[WorkerProcess]]:
    """Send a request to workers. Return its recipients, an empty list if no worker listens.

    A cluster counts the listeners of one node only, so all recipients are returned there.
    """
    if isinstance(workers, str):
        raise ConfigurationError(f"workers is a list of names, got {workers!r}; write [{workers!r}]")
    alive = yield from servers(keys)
    chosen = alive if workers is None else [each for name in workers for each in _named(name, alive)]
    chosen = list({each.id: each for each in chosen}.values())
    if not chosen:
        return []
    heard = yield from ask(presence.send_control(keys.control, request.encode([each.id for each in chosen])))
    return chosen if heard or is_cluster else []


def _named(name: str, alive: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    """Return the worker of an id or of `<host>:<pid>`, or all workers of a host."""
    found = [each for each in alive if name in (each.id, f"{each.host}:{each.pid}", each.host)]
    if not found:
        raise WorkerNotFoundError(name, hint(name, [f"{each.host}:{each.pid}" for each in alive]))
    return found
