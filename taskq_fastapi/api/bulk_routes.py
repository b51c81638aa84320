"""The route that does one thing to many tasks: to those that are named, or to all that fit."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from taskq_core import ConfigurationError
from taskq_core.inspector import ActionReport, Matching, TaskAction, TaskRef
from taskq_core.wire import TaskState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit, Shown
from taskq_fastapi.api.parts import AGE_MAX, Parts, time_left
from taskq_fastapi.api.task_routes import TaskChange

CHUNK = 100
"""Most tasks that are acted on before the time is looked at."""
CANCELLED = 20
"""The same for those that are cancelled, each of which takes two calls."""
NAMED_MAX = 1_000
"""Most tasks that are named one by one."""


def _whole(value: object) -> object:
    """Take what JSON calls an integer, 5 and 5.0, and neither true nor "5"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("it must be a whole number")
    return value


Age = Annotated[int, Field(ge=0, le=AGE_MAX), BeforeValidator(_whole)]


class BulkFilter(BaseModel):
    """Which tasks are meant: all of a state, of one queue or any, that fit what is given."""

    model_config = ConfigDict(extra="forbid")

    state: TaskState = Field(examples=["archived"])
    queue: str | None = Field(default=None, examples=["default"])
    group: str | None = Field(default=None, description="With the state aggregating and a queue.")
    name: str | None = Field(default=None, description="Part of their type.")
    error: str | None = Field(default=None, description="Part of their last error.", examples=["timed out"])
    payload: str | None = Field(default=None, description="Part of their payload; only where it is shown.")
    older_than: Age | None = Field(default=None, description="Seconds.")
    newer_than: Age | None = Field(default=None, description="Seconds.")


class BulkAction(TaskChange):
    """What is to be done to many tasks: either to `tasks` or to those of `filter`."""

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
    cursor: str | None = Field(default=None, description="`next` of the answer before, to go on.")


def add_bulk_routes(router: APIRouter, parts: Parts) -> None:
    """Add the route for many tasks."""
    inspector = parts.inspector
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.post("/tasks/actions", tags=["tasks"])
    async def act_on_tasks(body: BulkAction, audit: AuditDep, shown: ShownDep) -> models.Acted:
        """Do one thing to many tasks. What takes longer than a second ends with `next`, and the caller goes on.

        What cannot be done to one is skipped and told. Only what was there at the first request is touched, each once.
        """
        if (body.tasks is None) == (body.filter is None):
            raise ConfigurationError("give either tasks or filter")
        if body.filter is not None:
            return await by_filter(body, body.filter, audit, shown)
        assert body.tasks is not None
        return await by_name(body, body.tasks, audit)

    async def by_filter(body: BulkAction, wanted: BulkFilter, audit: Audit, shown: Shown) -> models.Acted:
        if wanted.payload is not None:
            shown.check_may_ask("a search in payloads")
        matching = Matching(**wanted.model_dump())
        told = {**wanted.model_dump(exclude={"payload", "state"}), "state": wanted.state.value}
        with audit.action(f"{body.action.value}_all", **told, **body.options) as outcome:
            part = await inspector.act_on_matching(
                matching, body.action, **body.options, cursor=body.cursor, has_time=time_left()
            )
            outcome |= _outcome(part.report)
        return models.acted_of(part.report, scanned=part.scanned, following=part.next, names=False)

    async def by_name(body: BulkAction, named: list[models.TaskAddress], audit: Audit) -> models.Acted:
        start, has_time, report = _offset(body.cursor, len(named)), time_left(), ActionReport()
        most = CANCELLED if body.action is TaskAction.CANCEL else CHUNK
        refs = [TaskRef(each.queue, each.id, each.state) for each in named]
        with audit.action(f"{body.action.value}_tasks", **body.options) as outcome:
            await inspector.act_on((), body.action, **body.options)  # refused also if nothing is left to do
            at = start
            while at < len(refs) and report.failure is None and (at == start or has_time()):
                chunk = await inspector.act_on(refs[at : at + most], body.action, **body.options)
                report.done += chunk.done
                report.skipped += chunk.skipped
                report.failure = chunk.failure
                at += most if chunk.failure is None else 0
            outcome |= {**_outcome(report), "tasks": [(each.queue, each.id) for each in report.done]}
        following = str(at) if at < len(refs) else None
        return models.acted_of(report, scanned=min(at, len(refs)) - start, following=following, names=True)


def _outcome(report: ActionReport) -> dict[str, object]:
    return {
        "done": len(report.done),
        "skipped": sum(report.skipped.values()),
        "failure": None if report.failure is None else type(report.failure).__name__,
    }


def _offset(cursor: str | None, most: int) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 6 and int(cursor) <= most):
        raise ConfigurationError(f"cursor must come from the answer before, got {cursor[:80]!r}")
    return int(cursor)
