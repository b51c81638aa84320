"""Routes about queues and groups."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from taskq_core.clock import utc_datetime
from taskq_core.errors import QueueNotPausedError, QueuePausedError
from taskq_core.inspector import PAGE_SIZE_MAX
from taskq_core.views import LONGEST_SPAN
from taskq_core.wire import TaskState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit
from taskq_fastapi.api.parts import (
    BULK_S,
    CursorQuery,
    DaysQuery,
    GroupQuery,
    Parts,
    QueuePath,
    QueueQuery,
    time_left,
)
from taskq_fastapi.api.problems import responses
from taskq_fastapi.api.reconciling import Looks

SAMPLED_MAX = 100
"""Most queues whose samples or types are told at once: each takes calls of its own."""


class QueueChange(BaseModel):
    """How a queue is to be."""

    model_config = ConfigDict(extra="forbid")

    paused: bool = Field(strict=True, description="Whether workers take nothing of it.", examples=[True])


class QueueName(BaseModel):
    """A queue that is meant."""

    model_config = ConfigDict(extra="forbid")

    queue: str = Field(examples=["default"])


class ReconcileRequest(QueueName):
    """What to look for damage in."""

    repair: bool = Field(default=False, strict=True, description="Repair what is found; otherwise it is only told.")
    cursor: str | None = Field(default=None, description="`next` of the answer before, to go on.")


def add_queue_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about queues and groups."""
    inspector, dashboard = parts.inspector, parts.dashboard
    looks = Looks(inspector)
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/queues", tags=["queues"], responses=responses())
    async def queues() -> models.QueuesOverview:
        """Tell how every queue stands, and the sums."""
        return models.QueuesOverview.model_validate(await dashboard.queues())

    @router.get("/history", tags=["queues"], responses=responses())
    async def history(
        queue: Annotated[list[str], Query(max_length=1000, description="Names of queues; all without.")] = [],  # noqa: B006
        days: DaysQuery = 30,
    ) -> models.History:
        """Tell what queues did together, day by day. A queue that is not there adds nothing."""
        names = queue or await inspector.queues()
        found = await dashboard.history(names, days=days)
        return models.History(days=[models.DayRow.model_validate(day) for day in found])

    @router.get("/samples", tags=["queues"], responses=responses())
    async def samples(
        queue: Annotated[list[str], Query(max_length=SAMPLED_MAX, description="Names of queues; all without.")] = [],  # noqa: B006
        span: Annotated[
            int, Query(ge=60, le=int(LONGEST_SPAN.total_seconds()), description="How many seconds back from the end.")
        ] = 3600,
        until: Annotated[
            int | None, Query(ge=0, le=2**33, description="Unix second where it ends; now, if it is left out.")
        ] = None,
        points: Annotated[int, Query(ge=10, le=1000, description="Most samples of each queue.")] = 360,
    ) -> models.Samples:
        """Tell how queues stood in a span of time, for charts. Samples are kept for a month."""
        names = queue or (await inspector.queues())[:SAMPLED_MAX]
        end = None if until is None else utc_datetime(until)
        found = await dashboard.samples(names, span=timedelta(seconds=span), until=end, points=points)
        return models.Samples(queues=[models.QueueSeries.model_validate(each) for each in found])

    @router.get("/types", tags=["queues"], responses=responses())
    async def types(
        queue: Annotated[list[str], Query(max_length=SAMPLED_MAX, description="Names of queues; all without.")] = [],  # noqa: B006
        hours: Annotated[int, Query(ge=0, le=24, description="Hours before the one that has begun.")] = 24,
    ) -> models.TypesOverview:
        """Tell what became of the runs of queues together, by task type."""
        names = queue or (await inspector.queues())[:SAMPLED_MAX]
        return models.TypesOverview.model_validate(await dashboard.types(names, hours=hours))

    @router.get("/state-types", tags=["queues"], responses=responses(404))
    async def state_types(
        queue: QueueQuery,
        state: TaskState,
        scan: Annotated[int, Query(ge=1, le=10_000, description="Most tasks to read.")] = 2_000,
    ) -> models.StateTypes:
        """Count the tasks of one state by type, of as many as are read."""
        return models.StateTypes.model_validate(await dashboard.state_types(queue, state, scan=scan))

    @router.get("/groups", tags=["queues"], responses=responses(404))
    async def groups(
        queue: QueueQuery,
        cursor: CursorQuery = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="About how many groups to return.")] = 100,
    ) -> models.Groups:
        """List the groups of tasks that wait to become one. Those of an answer are sorted by name, not all together."""
        found = await inspector.groups_page(queue, limit=limit, cursor=cursor)
        return models.Groups(
            groups=[models.Group.model_validate(group) for group in found.groups], total=found.total, next=found.cursor
        )

    @router.get("/count", tags=["queues"], responses=responses(404))
    async def count(queue: QueueQuery, state: TaskState, group: GroupQuery = None) -> models.Count:
        """Count the tasks of one state, or of one group."""
        return models.Count(count=await inspector.count(queue, state, group=group))

    @router.post("/finish-moves", tags=["queues"], responses=responses(400, 404, 413, 415))
    async def finish_moves(body: QueueName, audit: AuditDep) -> models.Arrived:
        """Carry on moves out of a queue that were cut off. Workers do so by themselves every few minutes."""
        arrived = None
        with audit.action("finish_moves", queue=body.queue) as outcome:
            with suppress(TimeoutError):  # what is cut off in the middle of a move is carried on by the next call
                async with asyncio.timeout(BULK_S):
                    arrived = await inspector.finish_moves(body.queue)
            outcome["arrived"] = arrived
        return models.Arrived(arrived=arrived, is_complete=arrived is not None)

    @router.post("/reconcile", tags=["queues"], responses=responses(400, 404, 409, 413, 415, 429))
    async def reconcile(body: ReconcileRequest, audit: AuditDep) -> models.Reconciliation:
        """Look for damage in a queue, in the background. What takes longer than a second ends with `next`."""
        look_id = body.cursor
        if look_id is None:
            look_id = await looks.begin(body.queue, repair=body.repair, audit=audit)
        return await looks.follow(body.queue, look_id, for_s=BULK_S)

    @router.get("/queues/{queue:taskq_any}", tags=["queues"], responses=responses(404))
    async def queue(queue: QueuePath, days: DaysQuery = 30) -> models.QueueDetail:
        """Tell one queue in full: how it stands, its past, and which types of tasks are in it."""
        return models.QueueDetail.model_validate(await dashboard.queue(queue, days=days))

    @router.patch("/queues/{queue:taskq_any}", tags=["queues"], responses=responses(400, 404, 413, 415))
    async def pause_or_resume(queue: QueuePath, body: QueueChange, audit: AuditDep) -> models.QueueRow:
        """Keep workers, Go's too, from taking tasks of a queue, or let them again. It may be so already."""
        action = "pause" if body.paused else "resume"
        with suppress(QueuePausedError, QueueNotPausedError), audit.action(action, queue=queue):
            await (inspector.pause(queue) if body.paused else inspector.resume(queue))
        return models.QueueRow.model_validate((await dashboard.queue(queue, days=1)).queue)

    @router.delete("/queues/{queue:taskq_any}", tags=["queues"], responses=responses(400, 404, 409, 413, 415))
    async def remove_queue(
        queue: QueuePath,
        audit: AuditDep,
        force: Annotated[bool, Query(description="Also if tasks are in it; never while some run.")] = False,
        cursor: CursorQuery = None,
    ) -> models.Removed:
        """Remove a queue with all that belongs to it. What takes longer than a second ends with `next`.

        It is empty for everybody from the first request on; what is enqueued after that lives on.
        """
        with audit.action("remove_queue", queue=queue, force=force) as outcome:
            part = await inspector.remove_queue_part(queue, force=force, cursor=cursor, has_time=time_left())
            outcome |= {"deleted": part.deleted, "is_complete": part.next is None}
        return models.Removed(deleted=part.deleted, next=part.next)
