"""The route that applies an action to many tasks: to named tasks, or to all tasks that match a filter."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from taskq_core import ConfigurationError
from taskq_core.inspector import ActionReport, TaskFilter, TaskRef
from taskq_core.wire import TaskState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit, Shown
from taskq_fastapi.api.parts import Age, Parts, time_left
from taskq_fastapi.api.task_routes import TaskChange

NAMED_MAX = 200
"""Maximum number of named tasks, so that a request ends within about a second."""


class BulkFilter(BaseModel):
    """Selects tasks of one state, in one queue or all queues, that match every given field."""

    model_config = ConfigDict(extra="forbid")

    state: TaskState = Field(examples=["archived"])
    queue: str | None = Field(default=None, examples=["default"])
    group: str | None = Field(
        default=None, description="Group of the tasks. Requires the state aggregating and a queue."
    )
    name: str | None = Field(default=None, description="Whole name of the tasks.")
    name_part: str | None = Field(default=None, description="Text that the name of the tasks contains.")
    error: str | None = Field(default=None, description="Text that their last error contains.", examples=["timed out"])
    payload: str | None = Field(
        default=None, description="Text that their payload contains. Allowed only if payloads are shown."
    )
    text: str | None = Field(
        default=None,
        description="Text that the id, the name, the queue or the last error contains or, if payloads are shown, the "
        "payload.",
    )
    older_than: Age | None = Field(default=None, description="In seconds.")
    newer_than: Age | None = Field(default=None, description="In seconds.")


class BulkAction(TaskChange):
    """An action on many tasks: either on `tasks` or on the tasks that match `filter`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"action": "run", "filter": {"queue": "default", "state": "archived", "error": "timed out"}},
                {"action": "delete", "tasks": [{"queue": "default", "id": models.ID}]},
            ]
        },
    )

    tasks: list[models.TaskAddress] | None = Field(default=None, max_length=NAMED_MAX)
    filter: BulkFilter | None = None
    cursor: str | None = Field(default=None, description="`next` of the previous answer, to continue.")


def add_bulk_routes(router: APIRouter, parts: Parts) -> None:
    """Add the route for many tasks."""
    inspector = parts.inspector
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.post("/tasks/actions", tags=["tasks"])
    async def act_on_tasks(body: BulkAction, audit: AuditDep, shown: ShownDep) -> models.Acted:
        """Apply one action to many tasks.

        If a filter takes longer than a second, the answer contains `next`: send the request again with it as `cursor`.
        Tasks that do not allow the action are skipped and counted. The action applies only to tasks that existed at the
        first request, and once to each.
        """
        if (body.tasks is None) == (body.filter is None):
            raise ConfigurationError("give either tasks or filter")
        if body.tasks is not None and body.cursor is not None:
            raise ConfigurationError("cursor can be combined with filter, but not with tasks")
        if body.filter is not None:
            return await by_filter(body, body.filter, audit, shown)
        assert body.tasks is not None
        return await by_name(body, body.tasks, audit)

    async def by_filter(body: BulkAction, wanted: BulkFilter, audit: Audit, shown: Shown) -> models.Acted:
        if wanted.payload:
            shown.check_may_ask("a search in payloads")
        facts = {**wanted.model_dump(exclude={"payload", "text"}, exclude_defaults=True), "state": wanted.state.value}
        facts |= {name: "given" for name in ("payload", "text") if getattr(wanted, name)}  # may quote payloads
        tasks = TaskFilter(**wanted.model_dump(exclude_none=True), in_payload=shown.may_ask_payloads)
        with audit.action(f"{body.action.value}_all", **facts, **body.options) as outcome:
            part = await inspector.act_on_matching(
                tasks, body.action, **body.options, cursor=body.cursor, has_time=time_left()
            )
            outcome |= _outcome(part.report)
        return models.acted_of(part.report, scanned=part.scanned, following=part.next, names=False)

    async def by_name(body: BulkAction, named: list[models.TaskAddress], audit: Audit) -> models.Acted:
        refs = [TaskRef(each.queue, each.id, each.state, each.generation) for each in named]
        with audit.action(f"{body.action.value}_tasks", **body.options) as outcome:
            report = await inspector.act_on(refs, body.action, **body.options)
            outcome |= {**_outcome(report), "tasks": [(each.queue, each.id) for each in report.done]}
        return models.acted_of(report, scanned=len(set(refs)) - report.untouched, following=None, names=True)


def _outcome(report: ActionReport) -> dict[str, object]:
    return {
        "done": len(report.done),
        "skipped": sum(report.skipped.values()),
        "failure": None if report.failure is None else type(report.failure).__name__,
    }
