"""Store facts about a call that only Django's framework needs, in a header of the task.

Tasks without the header, from a schedule, the command line or Go, also run and have results.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from django.conf import settings
from django.utils import timezone

from taskq_django.tasks_backend.framework import AnyTask

HEADER = "django-task"
"""Name of the header that stores the facts."""


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts about a call that the header stores.

    Attributes:
        backend: Alias of the backend.
        queue_name: Queue in the framework, without the suffix of the priority band.
        positional: Number of positional arguments.
        priority: Priority of the task, -100 to 100.
        after_s, at: Earliest start, in seconds after the enqueue or as a datetime.
        enqueued_at: Time of the enqueue, by the caller's clock.
    """

    backend: str
    queue_name: str = msgspec.field(name="queue")
    positional: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(name="args", default=0)
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    after_s: float | None = None
    at: datetime | None = None
    enqueued_at: datetime | None = msgspec.field(name="enqueued", default=None)

    @classmethod
    def of_call(cls, task: AnyTask, args: list[Any]) -> "Facts":
        """Return the facts of a call that is made now."""
        start: datetime | timedelta | None = task.run_after
        return cls(
            backend=task.backend,
            queue_name=task.queue_name,
            positional=len(args),
            priority=int(task.priority),
            after_s=start.total_seconds() if isinstance(start, timedelta) else None,
            at=start if isinstance(start, datetime) else None,
            enqueued_at=datetime.now(UTC),
        )

    @property
    def run_after(self) -> datetime | timedelta | None:
        """Earliest start of the task."""
        return self.at if self.after_s is None else timedelta(seconds=self.after_s)

    def header(self) -> str:
        """Return the text of the header."""
        return msgspec.json.encode(self).decode()


def read_facts(headers: Mapping[str, str], task: AnyTask) -> Facts:
    """Return the facts in the header. If it is missing or unreadable, return facts that follow from the task itself."""
    try:
        facts = msgspec.json.decode(headers[HEADER], type=Facts)
        _ = facts.run_after
    except (KeyError, msgspec.DecodeError, UnicodeEncodeError, OverflowError, RecursionError):
        return Facts(backend=task.backend, queue_name=task.queue_name, priority=int(task.priority))
    return facts


def shown(moment: datetime | None) -> datetime | None:
    """Return a moment as Django shows times: naive in the project's time zone where `USE_TZ` is off."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment)
