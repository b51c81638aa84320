"""Routes about workers and the store."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from taskq_core.inspector import WorkerAction
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit
from taskq_fastapi.api.parts import Parts, QueueQuery
from taskq_fastapi.api.problems import Problem, kinds, responses


class WorkerRequest(BaseModel):
    """A request to workers."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"action": "quiet", "workers": ["web-1:4211"]}]}
    )

    action: WorkerAction
    workers: list[str] | None = Field(
        default=None, max_length=1000, description="Ids, hosts, or `<host>:<pid>`. Left out: all workers."
    )
    concurrency: int | None = Field(
        default=None, strict=True, ge=1, le=100_000, description="Tasks at a time, for `scale`."
    )


def add_worker_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about workers and the store."""
    inspector, dashboard = parts.inspector, parts.dashboard
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/workers", tags=["workers"], responses=responses())
    async def workers() -> models.WorkersOverview:
        """List the worker processes that live, Go's too, and what they run, as of their last heartbeats."""
        return models.WorkersOverview.model_validate(await dashboard.workers())

    @router.post("/workers/actions", tags=["workers"], responses=responses(400, 404, 413, 415))
    async def control_workers(body: WorkerRequest, audit: AuditDep) -> models.WorkersAsked:
        """Ask workers to take no new tasks, to take tasks again, to change their concurrency, or to stop.

        A worker that is not connected to Redis at this moment misses the request. Go workers ignore it.
        """
        with audit.action(f"{body.action}_workers", workers=body.workers, concurrency=body.concurrency):
            asked = await inspector.control_workers(body.action, body.workers, concurrency=body.concurrency)
        return models.WorkersAsked(workers=[each.id for each in asked])

    @router.get("/redis", tags=["redis"], responses=responses(), dependencies=[Depends(parts.access.inside)])
    async def redis_info() -> dict[str, str | int]:
        """Tell what Redis says of itself (`INFO`); of a cluster, one of its nodes.

        It names files, addresses and users of the server: only who may change something is told.
        """
        return dict(await inspector.redis_info())

    @router.get("/redis/state", tags=["redis"], responses=responses())
    async def store() -> models.Store:
        """Tell how Redis stands, in figures, and where queues stand in a cluster."""
        return models.Store.model_validate(await dashboard.store())

    @router.get("/redis/place", tags=["redis"], responses=responses(404))
    async def place(queue: QueueQuery) -> models.Place:
        """Tell where a queue stands in a cluster."""
        nodes = await inspector.cluster_nodes(queue)
        return models.Place(slot=await inspector.key_slot(queue), nodes=nodes)

    @router.get("/problems", tags=["problems"], responses=responses(), response_model_exclude_none=True)
    async def problems() -> list[Problem]:
        """List the kinds of problems that this API answers with. A `type` is a name; nothing is behind it."""
        return kinds()
