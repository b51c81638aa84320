"""Ask workers to take no new tasks, to take tasks again, to change their concurrency, or to stop."""

from collections.abc import Sequence

from taskq_core.app import TaskQ
from taskq_core.broker.operations import presence
from taskq_core.broker.plans import RequestPlan, ask
from taskq_core.codec.worker_requests import WorkerAction, WorkerRequest
from taskq_core.errors import ConfigurationError, WorkerNotFoundError
from taskq_core.inspector.known import hint
from taskq_core.inspector.presence import servers
from taskq_core.inspector.records import WorkerProcess


def control_workers(
    app: TaskQ, action: WorkerAction | str, workers: Sequence[str] | None = None, *, concurrency: int | None = None
) -> RequestPlan[list[WorkerProcess]]:
    """Ask running workers to take no new tasks, to take tasks again, to change their concurrency, or to stop.

    A worker that is not connected at this moment does not receive the request. Go workers ignore it.

    Args:
        action: `quiet`, `resume`, `scale` or `stop`.
        workers: Ids, hosts, or `<host>:<pid>`. None: all workers.
        concurrency: New concurrency of each worker, for `scale`.

    Returns:
        The workers that received the request, in their state before the request. Empty if no worker is connected.

    Raises:
        WorkerNotFoundError: No live worker has one of the names.
        ConfigurationError: The action or the concurrency is not valid.
    """
    request = WorkerRequest(action, concurrency)
    if isinstance(workers, str):
        raise ConfigurationError(f"workers is a list of names, got {workers!r}; write [{workers!r}]")
    keys, is_cluster = app.runtime.keys, app.runtime.endpoint.is_cluster
    running = yield from servers(keys)
    chosen = running if workers is None else [each for name in workers for each in _named(name, running)]
    chosen = list({each.id: each for each in chosen}.values())
    if not chosen:
        return []
    receivers = yield from ask(presence.send_control(keys.control, request.encode([each.id for each in chosen])))
    return chosen if receivers or is_cluster else []  # in a cluster, Redis counts only the subscribers of one node


def _named(name: str, running: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    """Return the workers that a name selects: the worker with this id or `<host>:<pid>`, or all workers of a host."""
    found = [each for each in running if name in (each.id, f"{each.host}:{each.pid}", each.host)]
    if not found:
        raise WorkerNotFoundError(name, hint(name, [f"{each.host}:{each.pid}" for each in running]))
    return found
