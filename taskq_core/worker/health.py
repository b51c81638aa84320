"""Decide whether a worker is ready, for `/readyz`.

Every few seconds a real script runs on every queue of the worker. The worker is ready while these scripts and its
fetching succeed and it is not stopping. A PING is not enough: a Redis that refuses every task may still answer it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations.repair import Probed, probe
from taskq_core.broker.waiting import WAITING, RedisWait
from taskq_core.clock import Clock
from taskq_core.errors import BrokerError
from taskq_core.service.loop import Service
from taskq_core.wire import QueueKeys

if TYPE_CHECKING:
    from taskq_core.service.health_server import ReadinessCheck

CHECK_EVERY_S = 15.0
"""Seconds between two checks of the queues while no problem is found."""
CHECK_AGAIN_S = 2.0
"""Seconds between two checks of the queues while there is a problem."""
CHECK_S = 5.0
"""Maximum seconds of one check of all queues."""
STALE_S = 60.0
"""Maximum age of the last check, and of the last dequeue while slots are free, for a ready worker."""


class Pulse(Struct, frozen=True):
    """The state of a worker that decides whether it is ready.

    Attributes:
        status: `new`, `active`, `stopped` or `closed`.
        running: Number of running tasks.
        concurrency: Maximum number of running tasks.
        dequeue_age_s: Seconds since Redis last answered a dequeue, None before the first answer.
        is_failing: Whether the last attempt to fetch failed.
        can_take: Whether a slot is free and the worker takes tasks.
    """

    status: str
    running: int
    concurrency: int
    dequeue_age_s: float | None
    is_failing: bool
    can_take: bool


def queue_health(queue: QueueKeys, probed: Probed) -> dict[str, Any]:
    """Return the entry of a queue for the health response: its number of pending tasks, or its problem."""
    needed = (queue.pending, queue.active, queue.lease, queue.wake)
    strange = [f"{key} is a {probed.strange[key]}" for key in needed if key in probed.strange]
    return {"ok": False, "problem": "; ".join(strange)} if strange else {"ok": True, "pending": probed.pending}


@dataclass(eq=False)
class Health(Service):
    """Decides whether a worker is ready.

    Attributes:
        queues: Key names of the queues that the worker serves.
        pulse: Returns the state of the worker.
        clock: Source of monotonic time.
        runner: Sends operations.
        scheduler: Decides whether the scheduler inside the worker is ready. None if the worker has no scheduler. The
            report includes the result but readiness does not depend on it, because other schedulers can take over.
        wait: Whether the starting worker waits for Redis, and why. None: it does not.
        found: Health of each queue at the last check, in the form of the response.
        checked_at: Monotonic time of the last check.
    """

    name = "health"

    queues: Sequence[QueueKeys]
    pulse: Callable[[], Pulse]
    clock: Clock
    runner: AsyncRunner
    scheduler: "ReadinessCheck | None" = None
    wait: RedisWait | None = None
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    checked_at: float | None = None

    async def check(self) -> None:
        """Run a script on every queue of the worker, and remember the health of each queue."""
        found: dict[str, dict[str, Any]] = {}
        until = asyncio.get_running_loop().time() + CHECK_S
        for queue in self.queues:
            left_s = max(0.1, until - asyncio.get_running_loop().time())
            try:
                found[queue.name] = queue_health(queue, await self.runner.run(probe(queue), patience_s=left_s))
            except BrokerError as error:
                found[queue.name] = {"ok": False, "problem": str(error)}
        self.found = found
        self.checked_at = self.clock.monotonic()

    def problem(self) -> tuple[str, str]:
        """Return the worker's status for the response, and why the worker is not ready ("" if it is ready)."""
        pulse = self.pulse()
        if self.wait is not None and self.wait.reason:
            return WAITING, self.wait.reason
        if pulse.status != "active":
            words = {"new": "starting", "stopped": "draining", "closed": "draining"}
            word = words.get(pulse.status, pulse.status)
            return word, "no task is taken yet" if word == "starting" else "no new task is taken"
        if self.checked_at is None:
            return "starting", "the queues were not checked yet"
        for name, queue in self.found.items():
            if not queue["ok"]:
                return "unready", f"queue {name!r}: {queue['problem']}"
        if pulse.is_failing:
            return "unready", "tasks cannot be fetched"
        age_s = self.clock.monotonic() - self.checked_at
        if age_s > STALE_S:
            return "unready", f"the queues were last checked {age_s:.0f} s ago"
        if pulse.can_take and pulse.dequeue_age_s is not None and pulse.dequeue_age_s > STALE_S:
            return "unready", f"slots are free, and the last dequeue was {pulse.dequeue_age_s:.0f} s ago"
        return "ready", ""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the worker is ready, and the body of the health response."""
        state, reason = self.problem()
        pulse = self.pulse()
        checked_age_s = None if self.checked_at is None else self.clock.monotonic() - self.checked_at
        body: dict[str, Any] = {
            "status": state,
            "running": pulse.running,
            "concurrency": pulse.concurrency,
            "last_dequeue_age_s": _rounded(pulse.dequeue_age_s),
            "last_check_age_s": _rounded(checked_age_s),
            "queues": self.found,
        }
        if self.scheduler is not None:
            _, body["scheduler"] = self.scheduler.report()
        if reason:
            body["reason"] = reason
        return state == "ready", body

    async def work(self) -> float:
        """Check the queues. Return the seconds until the next call."""
        await self.check()
        return CHECK_AGAIN_S if not all(queue["ok"] for queue in self.found.values()) else CHECK_EVERY_S


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 3)
