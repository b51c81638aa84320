"""Routes about queues, their groups and their limits."""

from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from taskq_core.clock import utc_datetime
from taskq_core.errors import QueueNotPausedError, QueuePausedError
from taskq_core.views import LONGEST_SPAN
from taskq_core.wire import TaskState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit
from taskq_fastapi.api.parts import (
    Concurrency,
    CursorQuery,
    DaysQuery,
    GroupQuery,
    PageSizeQuery,
    Parts,
    QueuePath,
    QueueQuery,
    time_left,
)

SAMPLED_MAX = 100
"""Maximum number of queues in one answer about samples or types. Each queue needs requests to Redis."""


class QueueChange(BaseModel):
    """The requested state of a queue."""

    model_config = ConfigDict(extra="forbid")

    paused: bool = Field(
        strict=True,
        description="True: workers take no tasks of the queue.",
        examples=[True],
    )


class LimitChange(BaseModel):
    """A new value of a limit: either `rate` or `concurrency`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"queue": "default", "name": "mail:send", "rate": "100/m"}]}
    )

    queue: str = Field(examples=["default"])
    name: str = Field(description="Name of the limit, usually the name of the task.", examples=["mail:send"])
    rate: str | None = Field(default=None, description="Starts per period.", examples=["100/m"])
    concurrency: Concurrency | None = Field(default=None, description="Runs at the same time.")


def add_queue_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes that read, pause, resume and remove queues."""
    inspector, dashboard = parts.inspector, parts.dashboard
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/queues", tags=["queues"], response_model=models.QueuesOverview)
    async def queues() -> Any:
        """Return the state of every queue, and their totals."""
        return await dashboard.queues()

    @router.get("/queues/{queue:taskq_any}", tags=["queues"], response_model=models.QueueDetail)
    async def queue(queue: QueuePath, days: DaysQuery = 30) -> Any:
        """Return one queue in full: its state, its daily counters, and the types of its tasks."""
        return await dashboard.queue(queue, days=days)

    @router.patch("/queues/{queue:taskq_any}", tags=["queues"], response_model=models.QueueRow)
    async def pause_or_resume(queue: QueuePath, body: QueueChange, audit: AuditDep) -> Any:
        """Pause or resume a queue, for workers of any language. A repeated request changes nothing."""
        action = "pause" if body.paused else "resume"
        with suppress(QueuePausedError, QueueNotPausedError), audit.action(action, queue=queue):
            await (inspector.pause(queue) if body.paused else inspector.resume(queue))
        return (await dashboard.queue(queue, days=1)).queue

    @router.delete("/queues/{queue:taskq_any}", tags=["queues"], response_model=models.Removed)
    async def remove_queue(
        queue: QueuePath,
        audit: AuditDep,
        force: Annotated[
            bool, Query(description="Also delete waiting tasks. A queue with running tasks is never removed.")
        ] = False,
        cursor: CursorQuery = None,
    ) -> Any:
        """Remove a queue with all its data.

        If this takes longer than a second, the answer contains `next`: send the request again with it as `cursor`. The
        first request empties the queue. Tasks that are enqueued after it are not deleted.
        """
        with audit.action("remove_queue", queue=queue, force=force) as outcome:
            part = await inspector.remove_queue_part(queue, force=force, cursor=cursor, has_time=time_left())
            outcome |= {"deleted": part.deleted, "is_complete": part.next is None}
        return part


def add_figure_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about counters, samples, types and groups of queues."""
    inspector, dashboard = parts.inspector, parts.dashboard
    names_query = Query(max_length=SAMPLED_MAX, description="Names of queues. Default: all.")

    @router.get("/history", tags=["queues"], response_model=models.History)
    async def history(
        queue: Annotated[list[str], Query(max_length=1000, description="Names of queues. Default: all.")] = [],  # noqa: B006
        days: DaysQuery = 30,
    ) -> Any:
        """Return the daily counters of queues, added up. A queue that does not exist counts as 0."""
        return {"days": await dashboard.history(queue or await inspector.queues(), days=days)}

    @router.get("/samples", tags=["queues"], response_model=models.Samples)
    async def samples(
        queue: Annotated[list[str], names_query] = [],  # noqa: B006
        span: Annotated[
            int, Query(ge=60, le=int(LONGEST_SPAN.total_seconds()), description="Length of the period in seconds.")
        ] = 3600,
        until: Annotated[
            int | None, Query(ge=0, le=2**33, description="Unix second at which the period ends. Default: now.")
        ] = None,
        points: Annotated[int, Query(ge=10, le=1000, description="Maximum number of samples of each queue.")] = 360,
    ) -> Any:
        """Return the samples of queues in a period, for charts. Samples are stored for a month."""
        names = queue or (await inspector.queues())[:SAMPLED_MAX]
        end = None if until is None else utc_datetime(until)
        return {"queues": await dashboard.samples(names, span=timedelta(seconds=span), until=end, points=points)}

    @router.get("/types", tags=["queues"], response_model=models.TypesOverview)
    async def types(
        queue: Annotated[list[str], names_query] = [],  # noqa: B006
        hours: Annotated[int, Query(ge=0, le=24, description="Full hours before the current one.")] = 24,
    ) -> Any:
        """Return outcomes and durations of runs by task type, added up over queues."""
        return await dashboard.types(queue or (await inspector.queues())[:SAMPLED_MAX], hours=hours)

    @router.get("/groups", tags=["queues"], response_model=models.Groups)
    async def groups(queue: QueueQuery, cursor: CursorQuery = None, limit: PageSizeQuery = 100) -> Any:
        """List the groups of tasks that wait to be aggregated. Redis may return a few more than `limit`."""
        return await inspector.groups_page(queue, limit=limit, cursor=cursor)

    @router.get("/count", tags=["queues"], response_model=models.Count)
    async def count(queue: QueueQuery, state: TaskState, group: GroupQuery = None) -> Any:
        """Count the tasks of one state, or of one group."""
        return {"count": await inspector.count(queue, state, group=group)}


def add_limit_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about limits."""
    inspector = parts.inspector
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/limits", tags=["limits"], response_model=models.Limits)
    async def limits(queue: QueueQuery) -> Any:
        """List the limits of a queue's tasks, with their running and waiting tasks."""
        return {"limits": await inspector.limits(queue)}

    @router.post("/limits", tags=["limits"], response_model=models.Limits)
    async def set_limit(body: LimitChange, audit: AuditDep) -> Any:
        """Override a limit that the code declares, for all workers and for tasks that already wait."""
        with audit.action("set_limit", **body.model_dump()):
            await inspector.set_limit(body.queue, body.name, rate=body.rate, concurrency=body.concurrency)
        return await limits(body.queue)

    @router.delete("/limits", tags=["limits"], response_model=models.LimitCleared)
    async def clear_limit(
        queue: QueueQuery,
        name: Annotated[str, Query(description="Name of the limit.", examples=["mail:send"])],
        audit: AuditDep,
    ) -> Any:
        """Remove the override of a limit."""
        with audit.action("clear_limit", queue=queue, name=name) as outcome:
            outcome["was_set"] = await inspector.clear_limit(queue, name)
        return outcome
