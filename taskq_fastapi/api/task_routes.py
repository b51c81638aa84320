"""Routes that list, find and show tasks, and change one."""

import base64
import json
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from taskq_core import ConfigurationError
from taskq_core.errors import TaskStateError
from taskq_core.inspector import TaskAction, TaskPage, UnreadableTask
from taskq_core.views import TaskFilter
from taskq_core.wire import TaskState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit, Shown
from taskq_fastapi.api.parts import (
    AGE_MAX,
    AnyQueueQuery,
    CursorQuery,
    GroupQuery,
    NewerQuery,
    OlderQuery,
    PageQuery,
    Parts,
    QueuePath,
    QueueQuery,
    TaskIdPath,
)
from taskq_fastapi.api.problems import responses

PAGE_SIZE_MAX = 200
"""Most tasks on a page, which come with their payloads."""
StateQuery = Annotated[TaskState | None, Query(description="Their state; any but aggregating, if it is left out.")]
ScanQuery = Annotated[int, Query(ge=1, le=10_000, description="Most tasks to read.")]
LimitQuery = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Most tasks to return.")]


def _as_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("it must be a text such as 2030-01-01T03:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_as_text)]


class TaskChange(BaseModel):
    """What is to be done to a task."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"action": "run"}, {"action": "retry", "after": 600}]},
    )

    action: TaskAction
    at: Moment | None = Field(default=None, description="When it may run, for retry.")
    after: float | None = Field(
        default=None, strict=True, ge=0, le=AGE_MAX, description="Seconds from now, for retry, instead of `at`."
    )
    to_queue: str | None = Field(default=None, min_length=1, description="The other queue, for move.")

    @property
    def options(self) -> dict[str, Any]:
        """What the inspector is asked with."""
        return {"at": self.at, "after": self.after, "to_queue": self.to_queue}


class Changed(BaseModel):
    """What was done to a task."""

    action: TaskAction
    told: int | None = Field(default=None, description="Worker processes that were told, for cancel.")


class PayloadText(BaseModel):
    """A payload in a form in which it can be read."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "text", "base64"] = Field(default="json", description="What `value` is.")
    value: Any = Field(description="JSON, or a text.", examples=[{"to": "b@example.com"}])

    def octets(self) -> bytes:
        """Return its bytes.

        Raises:
            ConfigurationError: The value is not what the format says.
        """
        wrong = ConfigurationError(f"value must be {self.format}")
        try:
            if self.format == "json":
                return json.dumps(self.value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
            if not isinstance(self.value, str):
                raise wrong
            return self.value.encode() if self.format == "text" else base64.b64decode(self.value, validate=True)
        except (ValueError, RecursionError):
            raise wrong from None


class PayloadChange(BaseModel):
    """Another payload for a task."""

    model_config = ConfigDict(extra="forbid")

    payload: PayloadText
    expected: PayloadText | None = Field(
        default=None, description="What was read before; if it is another by now, nothing is changed."
    )
    at: Moment | None = Field(default=None, description="When it may run, in the same step; without `expected`.")
    after: float | None = Field(
        default=None, strict=True, ge=0, le=AGE_MAX, description="Seconds from now, instead of `at`."
    )


def add_task_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes about tasks."""
    inspector, dashboard = parts.inspector, parts.dashboard
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get("/tasks", tags=["tasks"], responses=responses(404))
    async def tasks(
        shown: ShownDep,
        queue: AnyQueueQuery = None,
        state: Annotated[TaskState | None, Query(description="Their state; aggregating needs a group.")] = None,
        group: GroupQuery = None,
        page: PageQuery = 1,
        page_size: LimitQuery = 30,
    ) -> models.TaskPage:
        """List tasks by queue and state, what is next to run or was started first in front."""
        found: TaskPage = await inspector.tasks(queue, state, group=group, page=page, page_size=page_size)
        return models.TaskPage(
            tasks=[models.task_of(task, shown, is_listed=True) for task in found.tasks],
            total=found.total,
            page=found.page,
            page_size=found.page_size,
            pages=found.pages,
        )

    @router.get("/tasks/search", tags=["tasks"], responses=responses(404))
    async def search_tasks(
        shown: ShownDep,
        queue: AnyQueueQuery = None,
        state: StateQuery = None,
        name: Annotated[str | None, Query(description="Their type, whole.", examples=["image:resize"])] = None,
        text: Annotated[
            str, Query(description="Part of the id, the last error or, where payloads are shown, the payload.")
        ] = "",
        older_than: OlderQuery = None,
        newer_than: NewerQuery = None,
        cursor: CursorQuery = None,
        scan: ScanQuery = 5_000,
        limit: LimitQuery = 100,
    ) -> models.TasksFound:
        """Look inside the tasks of all queues and states. A text that is the whole id of tasks finds just these."""
        if state is TaskState.AGGREGATING:
            raise ConfigurationError("tasks in groups are found by queue and group, with /tasks/find")
        infos = await inspector.queue_infos() if queue is None else [await inspector.queue_info(queue)]
        wanted = TaskFilter(
            queue=queue,
            state=state,
            name=name,
            text=text,
            older_than=None if older_than is None else timedelta(seconds=older_than),
            newer_than=None if newer_than is None else timedelta(seconds=newer_than),
            in_payload=shown.may_ask_payloads,
        )
        found = await dashboard.search_tasks(infos, wanted, cursor=cursor, scan=scan, limit=limit)
        return models.TasksFound(
            tasks=[models.task_of(task, shown, is_listed=True) for task in found.tasks],
            scanned=found.scanned,
            total=found.total,
            next=found.cursor,
        )

    @router.get("/tasks/find", tags=["tasks"], responses=responses(404))
    async def find_tasks(
        shown: ShownDep,
        queue: QueueQuery,
        state: TaskState,
        group: GroupQuery = None,
        name: Annotated[str | None, Query(description="Part of their type.")] = None,
        error: Annotated[str | None, Query(description="Part of their last error.")] = None,
        payload: Annotated[str | None, Query(description="Part of their payload; only where it is shown.")] = None,
        older_than: OlderQuery = None,
        newer_than: NewerQuery = None,
        cursor: CursorQuery = None,
        scan: ScanQuery = 5_000,
        limit: LimitQuery = 100,
    ) -> models.TasksFound:
        """Look for tasks of one queue and state by what they hold; all that is given has to fit."""
        if payload is not None:
            shown.check_may_ask("a search in payloads")
        found = await inspector.find_tasks(
            queue,
            state,
            group=group,
            name=name,
            error=error,
            payload=payload,
            older_than=older_than,
            newer_than=newer_than,
            limit=limit,
            scan=scan,
            cursor=cursor,
        )
        return models.TasksFound(
            tasks=[models.task_of(task, shown, is_listed=True) for task in found.tasks],
            scanned=found.scanned,
            total=found.total,
            next=found.cursor,
        )

    @router.get("/tasks/{queue}/{task_id:taskq_any}", tags=["tasks"], responses=responses(404))
    async def task(queue: QueuePath, task_id: TaskIdPath, shown: ShownDep) -> models.Task:
        """Tell one task in full, with its last attempts."""
        return models.task_of(await inspector.task(queue, task_id), shown, is_listed=False)

    @router.post("/tasks/{queue}/{task_id:taskq_any}", tags=["tasks"], responses=responses(400, 404, 409, 413, 415))
    async def change_task(queue: QueuePath, task_id: TaskIdPath, body: TaskChange, audit: AuditDep) -> Changed:
        """Run a task now, let it wait until another time, archive, delete, cancel or move it."""
        await inspector.act_on((), body.action, **body.options)  # refuses options of another action
        told = None
        with audit.action(body.action.value, queue=queue, task_id=task_id, **body.options):
            match body.action:
                case TaskAction.RUN:
                    await inspector.run_task(queue, task_id)
                case TaskAction.RETRY:
                    await inspector.retry_task(queue, task_id, at=body.at, after=body.after)
                case TaskAction.ARCHIVE:
                    await inspector.archive_task(queue, task_id)
                case TaskAction.DELETE:
                    await inspector.delete_task(queue, task_id)
                case TaskAction.CANCEL:
                    await inspector.task(queue, task_id)  # workers go by the id alone: it has to be in this queue
                    told = await inspector.cancel_task(task_id)
                case TaskAction.MOVE:
                    assert body.to_queue is not None
                    await inspector.move_task(queue, task_id, body.to_queue)
        return Changed(action=body.action, told=told)

    @router.patch("/tasks/{queue}/{task_id:taskq_any}", tags=["tasks"], responses=responses(400, 404, 409, 413, 415))
    async def update_payload(
        queue: QueuePath, task_id: TaskIdPath, body: PayloadChange, audit: AuditDep, shown: ShownDep
    ) -> models.Task:
        """Replace the payload of a task that waits or is archived, and put it off if that is asked.

        Its unique lock follows.
        """
        shown.check_may_ask("to change a payload")
        if body.at is not None or body.after is not None:
            if body.expected is not None:
                raise ConfigurationError("expected is for a payload alone, without at and after")
            with audit.action("reschedule", queue=queue, task_id=task_id, at=body.at, after=body.after):
                await inspector.reschedule_task(
                    queue, task_id, at=body.at, after=body.after, payload=body.payload.octets()
                )
            return models.task_of(await inspector.task(queue, task_id), shown, is_listed=False)
        with audit.action("update_payload", queue=queue, task_id=task_id):
            expected = None
            if body.expected is not None:
                record = await inspector.task(queue, task_id)
                expected = b"" if isinstance(record, UnreadableTask) else record.payload
                if not _is_same(body.expected, expected):
                    raise TaskStateError(queue, task_id, str(record.state), "its payload is another by now")
            await inspector.update_payload(queue, task_id, body.payload.octets(), expected=expected)
        return models.task_of(await inspector.task(queue, task_id), shown, is_listed=False)


def _is_same(given: PayloadText, stored: bytes) -> bool:
    if given.octets() == stored:
        return True
    if given.format != "json":
        return False
    read = Shown(payloads=True, redact=None).octets("", "payload", stored, most=None)
    return read["format"] == "json" and json.dumps(read["value"]) == json.dumps(given.value)
