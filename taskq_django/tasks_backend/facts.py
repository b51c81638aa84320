"""What travels with a task for the framework alone: a header, beside the payload that everybody reads.

A task that came without it, from a schedule, the command line or Go, runs and is found all the same.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from taskq_django.tasks_backend.framework import AnyTask

HEADER = "django-task"
"""Name of the header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the framework wants to know of a call besides its arguments.

    Attributes:
        backend: Alias of the backend.
        queue_name: Queue by its name in the framework, without its band.
        priority: Its priority.
        run_after: When it may start.
        positional: How many arguments were given by position.
        enqueued_at: When it was enqueued, by the clock of who did.
    """

    backend: str
    queue_name: str
    priority: int
    run_after: datetime | timedelta | None
    positional: int
    enqueued_at: datetime | None

    @classmethod
    def of_call(cls, task: AnyTask, args: list[Any]) -> "Facts":
        """Return those of a call that is made now."""
        return cls(
            backend=task.backend,
            queue_name=task.queue_name,
            priority=int(task.priority),
            run_after=task.run_after,
            positional=len(args),
            enqueued_at=datetime.now(UTC),
        )

    def header(self) -> str:
        """Return them as text."""
        noted: dict[str, object] = {"backend": self.backend, "queue": self.queue_name, "args": self.positional}
        if self.priority:
            noted["priority"] = self.priority
        if isinstance(self.run_after, timedelta):
            noted["after_s"] = self.run_after.total_seconds()
        elif self.run_after is not None:
            noted["at"] = self.run_after.isoformat()
        if self.enqueued_at is not None:
            noted["enqueued"] = self.enqueued_at.isoformat()
        return json.dumps(noted, separators=(",", ":"))


def read_facts(headers: Mapping[str, str], task: AnyTask) -> Facts:
    """Return what a header says; where it says nothing, or nothing that can be read, what the task itself says."""
    own = Facts(
        backend=task.backend,
        queue_name=task.queue_name,
        priority=task.priority,
        run_after=None,
        positional=0,
        enqueued_at=None,
    )
    try:
        noted = json.loads(headers[HEADER])
        run_after: datetime | timedelta | None = None
        if "after_s" in noted:
            run_after = timedelta(seconds=noted["after_s"])
        elif "at" in noted:
            run_after = datetime.fromisoformat(noted["at"])
        enqueued = noted.get("enqueued")
        positional, priority = int(noted.get("args", 0)), noted.get("priority", 0)
        return Facts(
            backend=str(noted.get("backend", own.backend)),
            queue_name=str(noted.get("queue", own.queue_name)),
            priority=priority if isinstance(priority, int) and math.fabs(priority) <= 100 else own.priority,
            run_after=run_after,
            positional=max(0, positional),
            enqueued_at=None if enqueued is None else datetime.fromisoformat(enqueued),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return own


def shown(moment: datetime | None) -> datetime | None:
    """Return a moment as Django shows times: naive in the project's time zone where `USE_TZ` is off."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment)
