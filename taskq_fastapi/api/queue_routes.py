"""Routes about queues and groups."""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from taskq_core.errors import QueueNotPausedError, QueuePausedError
from taskq_core.wire import TaskState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit
from taskq_fastapi.api.parts import (
    BULK_S,
    DaysQuery,
    GroupQuery,
    PageQuery,
    PageSizeQuery,
    Parts,
    QueuePath,
    QueueQuery,
    time_left,
)
from taskq_fastapi.api.problems import responses

RECONCILE_S = 30.0
"""Seconds that a look for damage may take in a request."""


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


class _TimeOverError(Exception):
    pass


def add_queue_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about queues and groups."""
    inspector, dashboard = parts.inspector, parts.dashboard
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

    @router.get("/groups", tags=["queues"], responses=responses(404))
    async def groups(queue: QueueQuery, page: PageQuery = 1, page_size: PageSizeQuery = 30) -> models.Groups:
        """List the groups of tasks that wait to become one, by name."""
        found = await inspector.groups(queue)
        start = (page - 1) * page_size
        return models.Groups(
            groups=[models.Group.model_validate(group) for group in found[start : start + page_size]],
            total=len(found),
            page=page,
            page_size=page_size,
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

    @router.post("/reconcile", tags=["queues"], responses=responses(400, 404, 413, 415))
    async def reconcile(body: ReconcileRequest, audit: AuditDep) -> models.ReconcileReport:
        """Look for damage in a queue. With damage it takes at least five seconds, and never more than thirty."""
        with audit.action("reconcile", queue=body.queue, repair=body.repair) as outcome:
            try:
                async with asyncio.timeout(RECONCILE_S):
                    report = await inspector.reconcile(body.queue, repair=body.repair)
            except TimeoutError:
                raise HTTPException(503, "it takes too long for a request: use `taskq queue reconcile`") from None
            outcome |= {"findings": len(report.findings), "repaired": report.repaired}
        return models.ReconcileReport.model_validate(report)

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
    ) -> models.Removed:
        """Remove a queue with all that belongs to it. What takes longer than a second is carried on by a repeat."""
        has_time, deleted, is_complete = time_left(), 0, True

        def progress(done: int, _total: int) -> None:
            nonlocal deleted
            deleted = done
            if not has_time():
                raise _TimeOverError

        with audit.action("remove_queue", queue=queue, force=force) as outcome:
            try:
                deleted = await inspector.remove_queue(queue, force=force, progress=progress)
            except _TimeOverError:
                is_complete = False
            outcome |= {"deleted": deleted, "is_complete": is_complete}
        return models.Removed(deleted=deleted, is_complete=is_complete)
