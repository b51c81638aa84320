"""Routes that list, search and show tasks, and change one task."""

import base64
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from taskq_core import ConfigurationError
from taskq_core.errors import TaskStateError
from taskq_core.inspector import TaskAction, TaskFilter, UnreadableTask
from taskq_core.wire import TaskState
from taskq_fastapi.api import models
from taskq_fastapi.api.access import Audit, Shown
from taskq_fastapi.api.parts import (
    AGE_MAX,
    AnyQueueQuery,
    GroupQuery,
    PageQuery,
    Parts,
    QueuePath,
    TaskIdPath,
)

PAGE_SIZE_MAX = 200
"""Maximum number of tasks on a page. It is small because tasks include their payloads."""
NamePath = Annotated[str, Path(description="Name of the signal or the step.", examples=["review"])]
TASK = "/tasks/{queue}/{task_id:taskq_any}"
LimitQuery = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Maximum number of tasks to return.")]


class SearchQuery(BaseModel):
    """A search for tasks. A task must match every parameter that is given."""

    model_config = ConfigDict(extra="forbid")

    queue: str | None = Field(default=None, description="Name of the queue. Default: all.", examples=["default"])
    state: TaskState | None = Field(
        default=None, description="State of the tasks. Default: every state except aggregating."
    )
    group: str | None = Field(
        default=None, description="Group of the tasks. Requires the state aggregating and a queue.", examples=["user:7"]
    )
    name: str | None = Field(default=None, description="Whole name of the tasks.", examples=["image:resize"])
    name_part: str = Field(default="", description="Text that the name of the tasks contains.")
    error: str = Field(default="", description="Text that their last error contains.")
    payload: str = Field(
        default="", description="Text that their payload contains. Allowed only if payloads are shown."
    )
    text: str = Field(
        default="",
        description="Text that the id, the name, the queue or the last error contains or, if payloads are shown, the "
        "payload.",
    )
    older_than: int | None = Field(default=None, ge=0, le=AGE_MAX, description="Minimum age in seconds.")
    newer_than: int | None = Field(default=None, ge=0, le=AGE_MAX, description="Maximum age in seconds.")
    cursor: str | None = Field(default=None, description="`next` of the previous answer, to continue.")
    scan: int = Field(default=5_000, ge=1, le=10_000, description="Maximum number of tasks to read.")
    limit: int = Field(default=100, ge=1, le=PAGE_SIZE_MAX, description="Maximum number of tasks to return.")


def _as_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a time must be a text such as 2030-01-01T03:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_as_text)]


class StartChange(BaseModel):
    """A new start time: `at`, `after` or neither."""

    model_config = ConfigDict(extra="forbid")

    at: Moment | None = Field(default=None, description="When the task may run.")
    after: float | None = Field(
        default=None, strict=True, ge=0, le=AGE_MAX, description="Seconds from now, instead of `at`."
    )


_GENERATION = "`generation` of the task that you have read: a later task with the same id is not changed."
GenerationField = Annotated[str, Field(default="", description=_GENERATION)]
GenerationQuery = Annotated[str, Query(description=_GENERATION)]


class TaskChange(StartChange):
    """An action on a task. `retry` takes `at` or `after`, `move` takes `to_queue`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action": "run"}, {"action": "retry", "after": 600}]})

    action: TaskAction
    to_queue: str | None = Field(default=None, min_length=1, description="The other queue, for move.")
    generation: GenerationField

    @property
    def options(self) -> dict[str, Any]:
        """The options of the action, as keyword arguments for the inspector."""
        return {"at": self.at, "after": self.after, "to_queue": self.to_queue}


class Changed(BaseModel):
    """The outcome of an action on a task."""

    action: TaskAction
    received_by: int | None = Field(
        default=None, description="For cancel: number of worker processes that received the request."
    )


class SignalValue(BaseModel):
    """The value of a signal."""

    model_config = ConfigDict(extra="forbid")

    value: Any = Field(default=None, description="Any JSON.", examples=[{"approved": True}])
    number: int = Field(
        default=0,
        ge=0,
        description="`wait.number` of the task: the signal is refused if this wait is over.",
    )
    generation: GenerationField


class AnswerValue(BaseModel):
    """The answer to a question."""

    model_config = ConfigDict(extra="forbid")

    value: Any = Field(description="JSON that fits the schema of the question.", examples=[True])
    generation: GenerationField


class PayloadText(BaseModel):
    """A payload in readable form."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["json", "text", "base64"] = Field(default="json", description="Form of `value`.")
    value: Any = Field(description="JSON, or a text.", examples=[{"to": "b@example.com"}])

    def octets(self) -> bytes:
        """Return the bytes of the payload.

        Raises:
            ConfigurationError: The value does not have this format.
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


class PayloadChange(StartChange):
    """A new payload for a task. With `at` or `after`, the start changes in the same step."""

    payload: PayloadText
    expected: PayloadText | None = Field(
        default=None, description="The payload that was read before. If the stored payload differs, nothing is changed."
    )
    generation: GenerationField


def add_task_list_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes that list and search tasks."""
    inspector, dashboard = parts.inspector, parts.dashboard
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806

    @router.get("/tasks", tags=["tasks"], response_model=models.Tasks)
    async def tasks(
        shown: ShownDep,
        queue: AnyQueueQuery = None,
        state: Annotated[
            TaskState | None, Query(description="State of the tasks. The state aggregating requires a group.")
        ] = None,
        group: GroupQuery = None,
        page: PageQuery = 1,
        page_size: LimitQuery = 30,
    ) -> Any:
        """List tasks by queue and state: the next to run or first started first, of ended tasks the newest first."""
        return models.tasks_of(await inspector.tasks(queue, state, group=group, page=page, page_size=page_size), shown)

    @router.get("/questions", tags=["tasks"], response_model=models.Questions)
    async def questions(
        shown: ShownDep,
        queue: AnyQueueQuery = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of questions.")] = 100,
    ) -> Any:
        """List the open questions that tasks ask people, the oldest first."""
        found = await inspector.questions(queue, limit=limit)
        return {"questions": [models.question_of(each, shown) for each in found]}

    @router.get("/tasks/search", tags=["tasks"], response_model=models.TasksFound)
    async def search_tasks(shown: ShownDep, query: Annotated[SearchQuery, Query()]) -> Any:
        """Search tasks. A text that is a whole task id finds only tasks with that id.

        Each request reads a limited number of tasks. Repeat it with `cursor` until `next` is null: only then does an
        empty answer mean that no task matches.
        """
        if query.payload:
            shown.check_may_ask("a search in payloads")
        infos = await inspector.queue_infos() if query.queue is None else [await inspector.queue_info(query.queue)]
        wanted = TaskFilter(**query.model_dump(exclude={"cursor", "scan", "limit"}), in_payload=shown.may_ask_payloads)
        found = await dashboard.search_tasks(infos, wanted, cursor=query.cursor, scan=query.scan, limit=query.limit)
        return models.tasks_of(found, shown)


def add_task_routes(router: APIRouter, parts: Parts) -> None:
    """Add the routes that show and change one task. Add them after the lists, whose paths they also match."""
    inspector, dashboard = parts.inspector, parts.dashboard
    ShownDep = Annotated[Shown, Depends(parts.access.shown)]  # noqa: N806
    AuditDep = Annotated[Audit, Depends(parts.access.change)]  # noqa: N806

    @router.get(TASK, tags=["tasks"], response_model=models.Task)
    async def task(queue: QueuePath, task_id: TaskIdPath, shown: ShownDep) -> Any:
        """Return one task in full, with its last attempts and its steps."""
        record = await inspector.task(queue, task_id)
        return models.task_of(record, shown, timeline=await dashboard.timeline(queue, task_id))

    @router.post(f"{TASK}/signals/{{name:taskq_any}}", tags=["tasks"], response_model=models.SignalSent)
    async def signal_task(
        queue: QueuePath, task_id: TaskIdPath, name: NamePath, body: SignalValue, audit: AuditDep
    ) -> Any:
        """Send a value to a task that waits for this signal, or will wait for it."""
        with audit.action("signal", queue=queue, task_id=task_id, name=name):
            await inspector.signal_task(
                queue, task_id, name, body.value, number=body.number, generation=body.generation
            )
        return {"signal": name}

    @router.post(f"{TASK}/questions/{{number}}/answer", tags=["tasks"], response_model=models.QuestionAnswered)
    async def answer_task(
        queue: QueuePath,
        task_id: TaskIdPath,
        number: Annotated[int, Path(ge=1, description="`number` of the question.", examples=[1])],
        body: AnswerValue,
        audit: AuditDep,
    ) -> Any:
        """Answer a question of a task. Only the first answer counts. The task can read the name of the caller."""
        with audit.action("answer", queue=queue, task_id=task_id, question=number):
            await inspector.answer_task(queue, task_id, number, body.value, by=audit.who, generation=body.generation)
        return {"number": number}

    @router.delete(f"{TASK}/steps/{{name:taskq_any}}", tags=["tasks"], response_model=models.StepForgotten)
    async def forget_step(
        queue: QueuePath, task_id: TaskIdPath, name: NamePath, audit: AuditDep, generation: GenerationQuery = ""
    ) -> Any:
        """Delete the stored result of a step of a task that does not run. Its next run repeats the step."""
        with audit.action("forget_step", queue=queue, task_id=task_id, name=name):
            return {"was_stored": await inspector.forget_step(queue, task_id, name, generation=generation)}

    @router.post(TASK, tags=["tasks"])
    async def change_task(queue: QueuePath, task_id: TaskIdPath, body: TaskChange, audit: AuditDep) -> Changed:
        """Run a task now, retry it later, archive, delete, cancel or move it."""
        await inspector.act_on((), body.action, **body.options)  # called without tasks, this only checks the options
        received_by = None
        with audit.action(body.action.value, queue=queue, task_id=task_id, **body.options):
            if body.action is TaskAction.CANCEL:
                # `cancel_task` takes no queue, so check here that the task is in the queue of the path.
                found = await inspector.task(queue, task_id)
                received_by = await inspector.cancel_task(task_id, generation=body.generation or found.generation)
            else:
                change = getattr(inspector, f"{body.action}_task")
                options = {name: value for name, value in body.options.items() if value is not None}
                await change(queue, task_id, **options, generation=body.generation)
        return Changed(action=body.action, received_by=received_by)

    @router.patch(TASK, tags=["tasks"], response_model=models.Task)
    async def update_payload(
        queue: QueuePath, task_id: TaskIdPath, body: PayloadChange, audit: AuditDep, shown: ShownDep
    ) -> Any:
        """Replace the payload of a waiting or archived task, and optionally its start. Its unique lock is updated."""
        shown.check_may_ask("to change a payload")
        if body.at is not None or body.after is not None:
            if body.expected is not None:
                raise ConfigurationError("expected cannot be combined with at or after")
            with audit.action("reschedule", queue=queue, task_id=task_id, at=body.at, after=body.after):
                await inspector.reschedule_task(
                    queue,
                    task_id,
                    at=body.at,
                    after=body.after,
                    payload=body.payload.octets(),
                    generation=body.generation,
                )
        else:
            with audit.action("update_payload", queue=queue, task_id=task_id):
                expected = None if body.expected is None else await stored_payload(queue, task_id, body.expected)
                await inspector.update_payload(
                    queue, task_id, body.payload.octets(), expected=expected, generation=body.generation
                )
        return models.task_of(await inspector.task(queue, task_id), shown)

    async def stored_payload(queue: str, task_id: str, expected: PayloadText) -> bytes:
        """Return the stored payload. Refuse the request if the payload has changed since the caller read it."""
        record = await inspector.task(queue, task_id)
        stored = b"" if isinstance(record, UnreadableTask) else record.payload
        if not _is_same(expected, stored):
            raise TaskStateError(queue, task_id, str(record.state), "the payload has changed since it was read")
        return stored


def _is_same(given: PayloadText, stored: bytes) -> bool:
    if given.octets() == stored:
        return True
    if given.format != "json":
        return False
    read = Shown(payloads=True, redact=None).octets("", "payload", stored)
    return read["format"] == "json" and json.dumps(read["value"]) == json.dumps(given.value)
