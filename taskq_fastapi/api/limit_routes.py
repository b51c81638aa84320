"""Routes about the limits of a queue's tasks."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit
from taskq_fastapi.api.parts import Parts, QueueQuery
from taskq_fastapi.api.problems import responses


class LimitChange(BaseModel):
    """What a limit is to be: either `rate` or `concurrency`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"queue": "default", "name": "mail:send", "rate": "100/m"}]}
    )

    queue: str = Field(examples=["default"])
    name: str = Field(description="Name of the limit: as a rule that of the task.", examples=["mail:send"])
    rate: str | None = Field(default=None, description="So many starts in a period.", examples=["100/m"])
    concurrency: int | None = Field(default=None, strict=True, ge=1, le=10**6, description="So many runs at once.")


def add_limit_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about limits."""
    inspector = parts.inspector
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/limits", tags=["limits"], responses=responses(404))
    async def limits(queue: QueueQuery) -> models.Limits:
        """List the limits of a queue's tasks, with what holds a place and what waits for one."""
        return models.Limits(limits=[models.Limit.model_validate(each) for each in await inspector.limits(queue)])

    @router.post("/limits", tags=["limits"], responses=responses(400, 404, 413, 415))
    async def set_limit(body: LimitChange, audit: AuditDep) -> models.Limits:
        """Set a limit over what the code says, for all workers and for what waits already."""
        with audit.action("set_limit", queue=body.queue, name=body.name, rate=body.rate, concurrency=body.concurrency):
            await inspector.set_limit(body.queue, body.name, rate=body.rate, concurrency=body.concurrency)
        return await limits(body.queue)

    @router.delete("/limits", tags=["limits"], responses=responses(400, 404, 413, 415))
    async def clear_limit(
        queue: QueueQuery,
        name: Annotated[str, Query(description="Name of the limit.", examples=["mail:send"])],
        audit: AuditDep,
    ) -> models.LimitCleared:
        """Let a limit be again what the code says."""
        with audit.action("clear_limit", queue=queue, name=name) as outcome:
            outcome["was_set"] = await inspector.clear_limit(queue, name)
        return models.LimitCleared(was_set=outcome["was_set"])
