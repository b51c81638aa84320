"""Check for a health probe whether an application can work now. The check is fast and has a time limit.

The check is the same as that of a worker for `/readyz`. A script runs on each queue of the settings. The script fails
if keys have a wrong type or Redis refuses writes. Nothing is changed.
"""

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from taskq_core.app import TaskQ
from taskq_core.broker.operations.repair import probe
from taskq_core.errors import TaskQError
from taskq_core.inspector import Inspector
from taskq_core.service.blocking import DaemonThreads
from taskq_core.worker.health import queue_health

T = TypeVar("T")

ANSWER_MAX = 1_000_000
"""Maximum number of bytes to read of the answer of a health port."""
REQUEST_SHARE = 0.8
"""Share of the probe's timeout that one request may take. The probe then reports the error of the request, not a
timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """The result of a health probe.

    Attributes:
        reason: Why the application cannot work, "" if it can. It never contains a password.
        queues: The queues that were checked.
        workers: Active workers of this machine, None if not requested.
    """

    reason: str = ""
    queues: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    workers: int | None = None

    @property
    def is_ready(self) -> bool:
        """Whether tasks can be enqueued and run."""
        return not self.reason

    def document(self) -> dict[str, Any]:
        """Return the result as a dict in the format of the response body of `/readyz`."""
        document: dict[str, Any] = {"status": "ready" if self.is_ready else "unready"}
        if self.reason:
            document["reason"] = self.reason
        if self.workers is not None:
            document["workers"] = self.workers
        return document | {"queues": dict(self.queues)}


def probe_queues(app: TaskQ, *, with_worker: bool = False, timeout_s: float) -> Fitness:
    """Check whether tasks of an application can be enqueued and run. Never raises.

    Args:
        app: The queue application.
        with_worker: Also require an active worker of this machine, by its host name. A container has its own name.
        timeout_s: Maximum time for all requests.
    """

    def ask() -> Fitness:
        runtime = app.runtime
        queues = {}
        for name in app.settings.queues:
            key = runtime.keys.queue(name)
            queues[name] = queue_health(key, runtime.runner.run(probe(key), patience_s=timeout_s * REQUEST_SHARE))
        problems = [f"queue {name!r}: {found['problem']}" for name, found in queues.items() if not found["ok"]]
        if not with_worker:
            return Fitness(reason="; ".join(problems), queues=queues)
        host = socket.gethostname()
        workers = sum(each.host == host and each.status == "active" for each in Inspector(app).servers())
        if not workers:
            problems.append(f"no worker of this machine ({host}) takes tasks")
        return Fitness(reason="; ".join(problems), queues=queues, workers=workers)

    try:
        return within(timeout_s, ask)
    except TimeoutError:
        return Fitness(reason=f"Redis did not answer within {timeout_s:g} seconds")
    except TaskQError as error:
        return Fitness(reason=str(error))


def probe_port(host: str, port: int, *, timeout_s: float) -> tuple[bool, dict[str, Any]]:
    """Request `/readyz` of a worker or scheduler. Return whether it is ready, and its answer. Never raises.

    Args:
        host: Host of its health port.
        port: Health port of the worker or scheduler.
        timeout_s: Maximum time.
    """

    def ask() -> tuple[bool, dict[str, Any]]:
        with closing(http.client.HTTPConnection(host, port, timeout=timeout_s)) as connection:
            connection.request("GET", "/readyz")
            with closing(connection.getresponse()) as answer:
                body = json.loads(answer.read(ANSWER_MAX))
        if not isinstance(body, dict) or "status" not in body:
            raise ValueError("the answer does not come from a worker or scheduler")
        return answer.status == http.client.OK, body

    try:
        return within(timeout_s, ask)
    except TimeoutError:
        reason = f"{host}:{port} did not answer within {timeout_s:g} seconds"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = f"{host}:{port} does not answer health checks: {error}"
    return False, {"status": "unready", "reason": reason}


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Call a function in a daemon thread, and return its result.

    A thread is needed because looking up a host name has no timeout. If it takes too long, the thread is abandoned and
    does not keep the process alive.

    Args:
        seconds: Maximum time to wait.
        ask: The function. Its exception is raised here.

    Raises:
        TimeoutError: The function did not return in time.
    """
    threads = DaemonThreads(1)
    try:
        return threads.submit(ask).result(seconds)
    finally:
        threads.shutdown()
