"""Routes to list schedules, and to change them while schedulers run."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from taskq_core import PeriodicTask, TaskQ
from taskq_core.errors import EntryNotFoundError
from taskq_core.inspector import AsyncInspector
from taskq_core.scheduler.runtime_schedules import named_schedule
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit, Shown
from taskq_fastapi.api.parts import PageQuery, PageSizeQuery, Parts


class NewSchedule(BaseModel):
    """A schedule to add."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"id": "sales", "spec": "0 8 * * *", "task": "report", "tz": "Europe/Berlin"}]},
    )

    id: str = Field(description="Id of the schedule.", examples=["sales"])
    spec: str = Field(description="A cron line, `@hourly`, or `@every 90s`.", examples=["0 8 * * *"])
    task: str = Field(description="Name of the task.", examples=["report"])
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments by name.", examples=[{"kind": "sales"}])
    tz: str | None = Field(default=None, description="Time zone of the cron line.", examples=["Europe/Berlin"])
    options: dict[str, Any] = Field(
        default_factory=dict, description="Task options, `catch_up` and `window`.", examples=[{"queue": "low"}]
    )
    remote: bool = Field(default=False, description="Whether the code of the task is in another program.")
    replace: bool = Field(default=False, description="Replace a schedule that was added before under this id.")

    def entry(self, taskq: TaskQ) -> PeriodicTask:
        """Return the schedule entry. Raise an error if the task does not accept the arguments or options."""
        arguments = self.model_dump(include={"kwargs", "tz", "remote", "options"})
        return named_schedule(taskq, self.id, self.spec, self.task, **arguments)


class ScheduleChange(BaseModel):
    """A schedule to pause or resume."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"action": "pause", "id": "nightly"}]})

    action: Literal["pause", "resume"]
    id: str = Field(description="Id of the schedule.", examples=["nightly"])


def add_schedule_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about schedules."""
    inspector = parts.inspector
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/schedules", tags=["schedules"], response_model=models.Schedules)
    async def schedules(shown: ShownDep, page: PageQuery = 1, page_size: PageSizeQuery = 30) -> Any:
        """List the periodic entries of all live schedulers and the added schedules, by id."""
        found = await inspector.scheduler_entries()
        start = (page - 1) * page_size
        return {
            "schedules": [models.schedule_of(entry, shown) for entry in found[start : start + page_size]],
            "total": len(found),
            "page": page,
            "page_size": page_size,
        }

    @router.get("/schedules/{entry_id:taskq_any}/events", tags=["schedules"], response_model=models.SchedulerEvents)
    async def schedule_events(
        entry_id: Annotated[str, Path(description="Id of the schedule.", examples=["nightly"])],
        page: PageQuery = 1,
        page_size: PageSizeQuery = 30,
    ) -> Any:
        """List past enqueues of a schedule, the newest first. At most the last 1000 are stored."""
        events = await inspector.scheduler_events(entry_id, page=page, page_size=page_size)
        return {"events": events, "page": page, "page_size": page_size}

    @router.post("/schedules", tags=["schedules"], response_model=models.Schedule)
    async def add_schedule(body: NewSchedule, audit: AuditDep, shown: ShownDep) -> Any:
        """Add a schedule. Running schedulers load it within two seconds. It is stored in Redis until it is removed."""
        with audit.action("add_schedule", id=body.id, task=body.task, spec=body.spec):
            await inspector.add_schedule(body.entry(parts.taskq), replace=body.replace)
        return await _one(inspector, body.id, shown)

    @router.post("/schedules/actions", tags=["schedules"], response_model=models.Schedule)
    async def change_schedule(body: ScheduleChange, audit: AuditDep, shown: ShownDep) -> Any:
        """Pause or resume a schedule, whether it is declared in code or was added. Go schedulers ignore this."""
        with audit.action(f"{body.action}_schedule", id=body.id):
            change = inspector.pause_schedule if body.action == "pause" else inspector.resume_schedule
            await change(body.id)
        return await _one(inspector, body.id, shown)

    @router.delete("/schedules", tags=["schedules"], response_model=models.ScheduleRemoved)
    async def remove_schedule(
        id: Annotated[str, Query(description="Id of the schedule.", examples=["sales"])],  # noqa: A002 - as in answers
        audit: AuditDep,
    ) -> Any:
        """Remove a schedule that was added at run time."""
        with audit.action("remove_schedule", id=id):
            await inspector.remove_schedule(id)
        return {"id": id}


async def _one(inspector: AsyncInspector, entry_id: str, shown: Shown) -> dict[str, Any]:
    for entry in await inspector.scheduler_entries():
        if entry.id == entry_id:
            return models.schedule_of(entry, shown)
    raise EntryNotFoundError(entry_id)  # another request has just removed the schedule
