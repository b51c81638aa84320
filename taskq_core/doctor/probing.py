"""Whether an application can work now, for a probe that is a command: quick, bounded in time, and one word at the end.

It asks what a worker asks for `/readyz`: a script runs on each queue of the settings, which needs the queue's keys to
be of their types and Redis to take writes. Nothing is changed.
"""

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from taskq_core.app import TaskQ
from taskq_core.broker.operations.repair import probe
from taskq_core.doctor.bounded import within
from taskq_core.errors import TaskQError
from taskq_core.inspector import Inspector
from taskq_core.worker.health import QueueHealth, judge_queue, queues_document

ANSWER_MAX = 1_000_000
"""Most bytes of an answer that are read."""
ASKED_FOR = 0.8
"""Share of the time that one question may take."""
ACTIVE = "active"
"""Status of a worker that takes tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitness:
    """What a probe found.

    Attributes:
        reason: Why the application cannot work, "" if it can. Never a password.
        queues: What was found of each queue, as far as they were asked.
        workers: Workers of this machine that take tasks, None where they were not asked for.
    """

    reason: str = ""
    queues: Mapping[str, QueueHealth] = field(default_factory=dict)
    workers: int | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it can work."""
        return not self.reason

    def document(self) -> dict[str, Any]:
        """Return it as the body of `/readyz` spells it."""
        document: dict[str, Any] = {"status": "ready" if self.is_ready else "unready"}
        if self.reason:
            document["reason"] = self.reason
        if self.workers is not None:
            document["workers"] = self.workers
        return document | {"queues": queues_document(self.queues)}


def probe_queues(app: TaskQ, *, with_worker: bool = False, timeout_s: float) -> Fitness:
    """Ask Redis whether tasks of an application can be worked on. Raises nothing.

    Args:
        app: The queue application.
        with_worker: Ask also for a worker of this machine, by the name of its host, which in a container is its own.
        timeout_s: Most seconds it may take in all.
    """
    patience_s = timeout_s * ASKED_FOR  # so that what is wrong is told, rather than that the time is over

    def ask() -> Fitness:
        runtime = app.runtime
        queues = {}
        for name in app.settings.queues:
            key = runtime.keys.queue(name)
            queues[name] = judge_queue(key, runtime.runner.run(probe(key), patience_s=patience_s))
        problems = [f"queue {name!r}: {found.problem}" for name, found in queues.items() if found.problem]
        if not with_worker:
            return Fitness(reason="; ".join(problems), queues=queues)
        host = socket.gethostname()
        workers = sum(each.host == host and each.status == ACTIVE for each in Inspector(app).servers())
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
    """Ask a worker or scheduler for its `/readyz`; return whether it is ready, and what it said. Raises nothing.

    Args:
        host: Where it tells its health.
        port: The same.
        timeout_s: Most seconds it may take in all.
    """

    def ask() -> tuple[bool, dict[str, Any]]:
        with closing(http.client.HTTPConnection(host, port, timeout=timeout_s)) as connection:
            connection.request("GET", "/readyz")
            with closing(connection.getresponse()) as answer:
                body = json.loads(answer.read(ANSWER_MAX))
        if not isinstance(body, dict) or "status" not in body:
            raise ValueError("the answer is not that of a worker or scheduler")
        return answer.status == http.client.OK, body

    try:
        return within(timeout_s, ask)
    except TimeoutError:
        reason = f"{host}:{port} did not answer within {timeout_s:g} seconds"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = f"{host}:{port} does not tell its health: {error}"
    return False, {"status": "unready", "reason": reason}
