"""Response models of the API, derived from the records of the core.

A model has a field for each attribute and property of its record. The descriptions of the fields come from the
docstrings of the record. Durations are in seconds, times in UTC.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from taskq_core import Question, TaskInfo, TaskState
from taskq_core import views as records
from taskq_core.codec.oversized import OversizedResult
from taskq_core.handles.attempts import Attempt as StoredAttempt
from taskq_core.inspector import (
    ActionReport,
    DailyStats,
    FoundTasks,
    GroupPage,
    LimitInfo,
    PeriodicEntryInfo,
    QueueInfo,
    QueueRemoval,
    SchedulerEvent,
    Skip,
    UnreadableTask,
)
from taskq_core.inspector import TaskPage as PageOfTasks
from taskq_core.views import TaskRecord, TimelineEntry
from taskq_core.workflow import StepInfo, WorkflowGraph
from taskq_fastapi.api.access import LISTED_BYTES, Shown
from taskq_fastapi.status import TaskProgress

ID = "01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"
_SIZES = {"active": 2, "pending": 40, "aggregating": 0, "scheduled": 3, "retry": 1, "archived": 5, "completed": 0}
_EXAMPLES: Mapping[str, Any] = {"id": ID, "task_id": ID, "workflow_id": ID, "queue": "default", "sizes": _SIZES}
"""Example values by the name of the field."""
_NEXT = "Send this as `cursor` to continue; null at the end."
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def _printable(value: object) -> object:
    """Replace lone surrogates, which represent bytes that are not UTF-8. A response cannot contain them."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_printable)]


def text(value: str) -> str:
    """Return a text of the core in a form that a response can contain."""
    return str(_printable(value))


class Record(BaseModel):
    """Base of the models that are derived from records."""

    model_config = ConfigDict(from_attributes=True, ser_json_timedelta="float")


class Octets(BaseModel):
    """Bytes of a task in readable form."""

    size: int = Field(description="Number of bytes.", examples=[12])
    format: Literal["json", "text", "base64"] | None = Field(
        default=None, description="Form of `value`.", examples=["json"]
    )
    value: Any = Field(default=None, examples=[{"to": "a@example.com"}])
    omitted: Literal["hidden", "large"] | None = Field(
        default=None,
        description="Why there is no `value`. hidden: you may not see it. large: it is too large for a list.",
    )


# --- from a record to its model ---------------------------------------------------------------------------------------

_models: dict[type, type[Record]] = {}


def fields_of(record: object) -> dict[str, Any]:
    """Return the attributes and properties of a record by name."""
    return {name: getattr(record, name) for name in _types(type(record))}


def model_of(record: type, name: str = "", *, is_partial: bool = False, **replaced: Any) -> type[Record]:
    """Return the response model of a record class. It is created once. A field `cursor` of the record is named `next`.

    Args:
        record: A dataclass.
        name: Name of the model. "": the name of the record.
        is_partial: Whether every field may be missing.
        replaced: Types of fields that differ from the record, and of additional fields.
    """
    if record not in _models:
        described = _descriptions(record)
        fields: dict[str, Any] = {}
        for each, annotation in _types(record).items():
            kind = replaced.pop(each) if each in replaced else _response_type(annotation)
            default: Any = ...
            if is_partial:
                kind, default = kind | None, None
            if each == "cursor":
                fields["next"] = (kind, Field(default, description=_NEXT, validation_alias=each))
                continue
            examples = [_EXAMPLES[each]] if each in _EXAMPLES else None
            fields[each] = (kind, Field(default, description=described.get(each), examples=examples))
        fields |= {each: (kind, None) for each, kind in replaced.items()}
        summary = (inspect.getdoc(record) or "").partition("\n\n")[0]
        _models[record] = create_model(name or record.__name__, __base__=Record, __doc__=summary, **fields)
    return _models[record]


def list_of(model: Any) -> Any:
    """Return the type of a list of models."""
    return types.GenericAlias(list, (model,))


def wrapper(name: str, doc: str, **types_of_fields: Any) -> type[Record]:
    """Return the model of a response that has these fields."""
    fields: dict[str, Any] = {each: (kind, ...) for each, kind in types_of_fields.items()}
    return create_model(name, __base__=Record, __doc__=doc, **fields)


def _properties(record: type) -> dict[str, property]:
    return dict(inspect.getmembers(record, lambda each: isinstance(each, property)))


def _types(record: type) -> dict[str, Any]:
    properties = {
        name: typing.get_type_hints(each.fget)["return"]
        for name, each in _properties(record).items()
        if each.fget is not None
    }
    hints = typing.get_type_hints(record)
    found = {field.name: hints[field.name] for field in dataclasses.fields(record)}
    return found | {name: kind for name, kind in properties.items() if kind is not bytes}


def _descriptions(record: type) -> dict[str, str]:
    found = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(inspect.getdoc(record) or "")}
    return found | {name: inspect.getdoc(each) or "" for name, each in _properties(record).items()}


def _response_type(annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is str:
        return Text
    if dataclasses.is_dataclass(annotation):
        return model_of(typing.cast("type", annotation))
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_response_type, arguments))]  # noqa: UP007 - the members are known at run time only
    if origin in (Sequence, tuple):
        return list_of(_response_type(arguments[0]))
    if origin in (Mapping, dict):
        return types.GenericAlias(dict, tuple(map(_response_type, arguments)))
    return annotation


# --- queues, workers and the store ------------------------------------------------------------------------------------

QueueRow = model_of(QueueInfo, "QueueRow")
QueuesOverview = model_of(records.QueuesOverview)
QueueDetail = model_of(records.QueueDetail)
TypesOverview = model_of(records.TypesOverview)
Store = model_of(records.StoreRow, "Store")
WorkersOverview = model_of(records.WorkersOverview)
Groups = model_of(GroupPage, "Groups")
Removed = model_of(QueueRemoval, "Removed")
History = wrapper("History", "Daily counters, the oldest day first.", days=list_of(model_of(DailyStats, "DayRow")))
Samples = wrapper("Samples", "Samples of queues in a period.", queues=list_of(model_of(records.QueueSeries)))
Limits = wrapper("Limits", "The limits of a queue, by kind and name.", limits=list_of(model_of(LimitInfo)))
Count = wrapper("Count", "A number of tasks.", count=int)
SignalSent = wrapper("SignalSent", "A signal that was sent.", signal=Text)
StepForgotten = wrapper("StepForgotten", "Whether the step had a stored result.", was_stored=bool)
LimitCleared = wrapper("LimitCleared", "Whether the limit had an override.", was_set=bool)
WorkersAsked = wrapper("WorkersAsked", "Ids of the workers that received the request.", workers=list_of(Text))


# --- tasks ------------------------------------------------------------------------------------------------------------

Attempt = model_of(StoredAttempt, traceback=Any)
Task = model_of(
    TaskInfo,
    "Task",
    is_partial=True,
    payload=Octets,
    result=Octets,
    headers=Any,
    last_error=Any,
    progress=TaskProgress,
    oversized_result=model_of(OversizedResult),
    problem=Text | None,
    message=Octets | None,
    timeline=list_of(model_of(TimelineEntry, result=Octets, asked=Octets)) | None,
)
Questions = wrapper(
    "Questions", "Open questions of tasks, the oldest first.", questions=list_of(model_of(Question, asked=Octets))
)
QuestionAnswered = wrapper("QuestionAnswered", "A question that was answered.", number=int)
Tasks = model_of(PageOfTasks, tasks=list_of(Task))
TasksFound = model_of(FoundTasks, "TasksFound", tasks=list_of(Task))


def task_of(
    record: TaskRecord, shown: Shown, *, is_listed: bool = False, timeline: Sequence[TimelineEntry] | None = None
) -> dict[str, Any]:
    """Return the visible fields of a task. Payloads and results in lists are limited to `LISTED_BYTES`."""
    most = LISTED_BYTES if is_listed else None
    if isinstance(record, UnreadableTask):
        message = shown if shown.may_ask_payloads else Shown(payloads=False, redact=None)
        return {**fields_of(record), "message": message.octets("", "message", record.message, most=most)}
    name, progress = record.name, record.progress
    return {
        **fields_of(record),
        "payload": shown.octets(name, "payload", record.payload, most=most),
        "result": shown.octets(name, "result", record.result, most=most),
        "headers": shown.headers(name, {text(key): text(value) for key, value in record.headers.items()}),
        "last_error": shown.value(name, "error", text(record.last_error)),
        "attempts": [_attempt(name, each, shown) for each in record.attempts],
        "last_attempt": None if record.last_attempt is None else _attempt(name, record.last_attempt, shown),
        "progress": None
        if progress is None
        else {
            **fields_of(progress),
            "message": text(str(shown.value(name, "progress", text(progress.message)))),
        },
        "timeline": None
        if timeline is None
        else [
            {
                **fields_of(each),
                "result": shown.octets(name, "result", each.result),
                "asked": shown.octets(name, "payload", each.asked),
            }
            for each in timeline
        ],
    }


def question_of(question: Question, shown: Shown) -> dict[str, Any]:
    """Return the visible fields of a question."""
    asked = shown.octets(question.task, "payload", question.data, most=LISTED_BYTES)
    return {**fields_of(question), "asked": asked}


def tasks_of(found: Any, shown: Shown) -> dict[str, Any]:
    """Return the visible fields of a page of tasks, or of the tasks that a search found."""
    return {**fields_of(found), "tasks": [task_of(each, shown, is_listed=True) for each in found.tasks]}


def _attempt(name: str, attempt: StoredAttempt, shown: Shown) -> dict[str, Any]:
    traceback = shown.value(name, "traceback", text(attempt.traceback)) if shown.payloads else None
    return {**fields_of(attempt), "traceback": traceback}


class Skipped(BaseModel):
    """A number of skipped tasks, with the reason."""

    reason: Skip
    state: str = Field(description='State of the tasks, for the reasons "changed" and "state".', examples=["active"])
    count: int = Field(examples=[1])


class TaskAddress(BaseModel):
    """The queue and id of a task."""

    model_config = ConfigDict(extra="forbid")

    queue: str = Field(examples=["default"])
    id: str = Field(examples=[ID])
    state: TaskState | None = Field(
        default=None, description="Last known state. The task is skipped if its state has changed since."
    )
    generation: str | None = Field(
        default=None,
        description="`generation` of the task that you have read. A later task with the same id is skipped.",
    )


class Acted(BaseModel):
    """The outcome of an action on the tasks that this request processed."""

    done: int = Field(description="Number of changed tasks.", examples=[100])
    done_tasks: list[TaskAddress] = Field(description="The changed tasks, if the request has `tasks`.")
    skipped: list[Skipped]
    scanned: int = Field(description="Number of tasks that were read.", examples=[100])
    failure: str | None = Field(
        default=None, description="Redis failed before the end. Up to 100 more tasks may have been changed."
    )
    next: str | None = Field(description="Send the same request with this as `cursor` to continue; null at the end.")


def acted_of(report: ActionReport, *, scanned: int, following: str | None, names: bool) -> Acted:
    """Return the response for an action on tasks. `names` adds the queue and id of each changed task."""
    return Acted(
        done=len(report.done),
        done_tasks=[TaskAddress(queue=text(each.queue), id=text(each.id)) for each in report.done] if names else [],
        skipped=[
            Skipped(reason=reason, state=state, count=count)
            for (reason, state), count in sorted(report.skipped.items())
        ],
        scanned=scanned,
        failure=None if report.failure is None else "Redis did not answer, or refused; the server log has details",
        next=following,
    )


# --- schedules --------------------------------------------------------------------------------------------------------

Schedule = model_of(PeriodicEntryInfo, "Schedule", payload=Octets)
Schedules = wrapper(
    "Schedules", "A page of schedules, by id.", schedules=list_of(Schedule), total=int, page=int, page_size=int
)
ScheduleRemoved = wrapper("ScheduleRemoved", "A removed schedule.", id=Text)
SchedulerEvents = wrapper(
    "SchedulerEvents",
    "Past enqueues of a schedule, the newest first.",
    events=list_of(model_of(SchedulerEvent)),
    page=int,
    page_size=int,
)


def schedule_of(entry: PeriodicEntryInfo, shown: Shown) -> dict[str, Any]:
    """Return the visible fields of a schedule."""
    return {
        **fields_of(entry),
        "payload": shown.octets(entry.name, "payload", entry.payload, most=LISTED_BYTES),
    }


# --- workflows --------------------------------------------------------------------------------------------------------

model_of(StepInfo, "WorkflowStep", error=Any)
model_of(records.MemberRow, "Member", error=Any, result=Octets)
Workflow = model_of(WorkflowGraph, "Workflow")
Workflows = model_of(records.WorkflowsPage, "Workflows")
WorkflowSearch = model_of(records.WorkflowSearch)
StepDetail = model_of(records.StepDetail, result=Octets)


class WorkflowChanged(BaseModel):
    """The outcome of an action on a workflow."""

    action: Literal["cancel", "retry"]
    done: int = Field(description="For retry: steps that run again. For cancel: 1, or 0 if it had ended.", examples=[1])


def workflow_of(graph: WorkflowGraph, shown: Shown) -> dict[str, Any]:
    """Return the visible fields of a workflow. Errors are redacted like errors of tasks."""
    return {"info": graph.info, "steps": [_step(each, shown) for each in graph.steps]}


def step_of(found: records.StepDetail, shown: Shown) -> dict[str, Any]:
    """Return the visible fields of a step and of its members.

    The name of the task of a member is unknown, so its result is hidden if `redact` is set.
    """
    name = found.step.task
    of_members = shown if shown.may_ask_payloads else Shown(payloads=False, redact=None)
    members = [
        {
            **fields_of(each),
            "error": shown.value(name, "error", text(each.error)),
            "result": of_members.octets(name, "result", each.result, size=each.result_size),
        }
        for each in found.members
    ]
    return {
        **fields_of(found),
        "step": _step(found.step, shown),
        "result": shown.octets(name, "result", found.result, size=found.result_size),
        "members": members,
    }


def _step(record: StepInfo, shown: Shown) -> dict[str, Any]:
    return {**fields_of(record), "error": shown.value(record.task, "error", text(record.error))}
