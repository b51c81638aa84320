"""Routes about workers, Redis and the kinds of problems."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from taskq_core.inspector import WorkerAction
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit
from taskq_fastapi.api.parts import Concurrency, Parts
from taskq_fastapi.api.problems import Problem, kinds


class WorkerRequest(BaseModel):
    """A request to worker processes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"action": "quiet", "workers": ["web-1:4211"]}]}
    )

    action: WorkerAction
    workers: list[str] | None = Field(
        default=None, max_length=1000, description="Ids, hosts, or `<host>:<pid>`. Default: all workers."
    )
    concurrency: Concurrency | None = Field(default=None, description="New concurrency, for `scale`.")


def add_worker_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about workers, Redis and the kinds of problems."""
    inspector, dashboard = parts.inspector, parts.dashboard
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/workers", tags=["workers"], response_model=models.WorkersOverview)
    async def workers() -> Any:
        """List the running worker processes, including Go's, and their tasks, as of their last heartbeats."""
        return await dashboard.workers()

    @router.post("/workers/actions", tags=["workers"], response_model=models.WorkersAsked)
    async def control_workers(body: WorkerRequest, audit: AuditDep) -> Any:
        """Ask workers to take no new tasks, to take tasks again, to change their concurrency, or to stop.

        A worker that is not connected to Redis at this moment does not receive the request. Go workers ignore it.
        """
        with audit.action(f"{body.action}_workers", workers=body.workers, concurrency=body.concurrency):
            receivers = await inspector.control_workers(body.action, body.workers, concurrency=body.concurrency)
        return {"workers": [each.id for each in receivers]}

    @router.get("/redis", tags=["redis"], response_model=models.Store)
    async def store(may_change: Annotated[bool, Depends(parts.access.may_change)]) -> Any:
        """Return facts about the Redis server, and on a cluster the slots and nodes of the queues.

        `info` contains files, addresses and users of the server. It is empty for callers who may not make changes.
        """
        found = models.fields_of(await dashboard.store())
        return found if may_change else {**found, "info": {}}

    @router.get("/problems", tags=["problems"], response_model_exclude_none=True)
    async def problems() -> list[Problem]:
        """List the kinds of problems in responses of this API. A `type` is a name, not an address."""
        return kinds()
