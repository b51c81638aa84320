"""Response models: the status of a task, and the answer to a request that has enqueued a task.

::

    @app.post("/images", status_code=202)
    async def upload(path: str, client: ClientDep, accepted: AcceptedDep) -> TaskAccepted:
        return accepted(await client.enqueue(resize.s(path)))
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Response
from pydantic import BaseModel, Field

from taskq_core import OversizedResult, TaskHandle, TaskState
from taskq_core.handles.waits import StepKind
from taskq_fastapi.addresses import events_route, path_of, status_route, stream_route
from taskq_fastapi.applications import DEFAULT_NAME
from taskq_fastapi.refusals import check_accepted

GONE: Literal["gone"] = "gone"
"""The state of a task that no longer exists."""
DEFERRED: Literal["deferred"] = "deferred"
"""The state of a task that Redis does not have yet: it waits for the commit of a transaction, or in the outbox."""


class TaskAccepted(BaseModel):
    """An enqueued task, for a response with the status 202."""

    id: str = Field(examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])
    queue: str = Field(examples=["default"])
    state: TaskState | Literal["deferred"] = Field(
        description="State of the new task. deferred: it waits for the commit of a transaction, or in the outbox.",
        examples=["pending"],
    )
    status_url: str | None = Field(
        default=None,
        description="Path of the status of the task, if the app has such a route.",
        examples=["/tasks/status/default/01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"],
    )
    events_url: str | None = Field(
        default=None,
        description="Path of the stream of its status as Server-Sent Events, if the app has such a route.",
        examples=["/tasks/events/default/01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"],
    )
    stream_url: str | None = Field(
        default=None,
        description="Path of the stream of the values that it emits, if the app has such a route.",
        examples=["/tasks/stream/default/01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"],
    )


class TaskProgress(BaseModel):
    """Progress last reported by the task."""

    done: float = Field(examples=[3])
    total: float | None = Field(default=None, examples=[10])
    message: str = Field(default="", examples=["page 3"])
    at: datetime = Field(description="Time of the report.")


class TaskStatusWait(BaseModel):
    """The sleep, the signal, the answer, the sub-tasks or the next attempt of a step that a durable task waits for."""

    kind: StepKind = Field(examples=["signal"])
    name: str = Field(
        description="Name of the sleep, the signal, the question, the call or the step; or names of several signals.",
        examples=["review"],
    )
    number: int = Field(
        description="Number of the value, the question or the failure of the step, from 1; 0 for other waits.",
        examples=[1],
    )
    until: datetime | None = Field(description="End of the wait at the latest; null without a time limit.")
    signals: dict[str, int] = Field(
        default_factory=dict,
        description="The number of the value for each signal that ends the wait, by the name of the signal.",
        examples=[{"review": 1}],
    )


class TaskStatus(BaseModel):
    """The status of a task."""

    id: str = Field(examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])
    queue: str = Field(examples=["default"])
    name: str | None = Field(
        default=None, description="Name of the task; null if it no longer exists.", examples=["image:resize"]
    )
    state: TaskState | Literal["gone"] = Field(
        description="gone: the task ended without retention, or was deleted.", examples=["active"]
    )
    is_final: bool = Field(description="Whether the task has ended. An ended task changes only if a person reruns it.")
    attempt: int = Field(default=0, description="Number of started runs, including the current run.", examples=[1])
    max_attempts: int = Field(default=0, description="Maximum number of runs.", examples=[26])
    next_run_at: datetime | None = Field(default=None, description="Time of its start or its next attempt.")
    waits_for_limit: bool = Field(default=False, description="Whether it starts as soon as its limits allow it.")
    wait: TaskStatusWait | None = Field(
        default=None, description="What a durable task waits for; null if it does not wait."
    )
    started_at: datetime | None = Field(default=None, description="Start of its current or last run.")
    ended_at: datetime | None = None
    progress: TaskProgress | None = Field(
        default=None, description="Progress last reported by the task; null without a report."
    )
    result: Any = Field(default=None, description="Result of a completed task.")
    result_error: str | None = Field(
        default=None,
        description="Why a completed task has no result: it was too large to be stored.",
        examples=[str(OversizedResult(size=314_572_802, limit=16_777_216))],
    )
    error: str | None = Field(default=None, description="Error of its last failed run, if the app shows errors.")


def status_of_none(queue: str, task_id: str) -> TaskStatus:
    """Return the status of a task that no longer exists."""
    return TaskStatus(id=task_id, queue=queue, state=GONE, is_final=True)


@dataclass(frozen=True, slots=True)
class AcceptedDependency:
    """A dependency on a function that makes a `TaskAccepted` from a handle. Equal for equal names."""

    name: str

    async def __call__(self, request: Request, response: Response) -> Callable[[TaskHandle[Any]], TaskAccepted]:
        """Return a function that makes a `TaskAccepted` and sets the header `Location`. FastAPI calls this.

        The function raises `HTTPException` for a task that was refused or could not be sent after the commit, see
        `taskq_fastapi.refusals`, and `TaskNotSentError` for a task whose transaction was rolled back.
        """

        def accepted(handle: TaskHandle[Any]) -> TaskAccepted:
            check_accepted(handle, request, self.name)
            answer = TaskAccepted(
                id=handle.id,
                queue=handle.queue,
                state=handle.first_state if handle.is_sent else DEFERRED,
                status_url=path_of(request, status_route(self.name), handle.queue, handle.id),
                events_url=path_of(request, events_route(self.name), handle.queue, handle.id),
                stream_url=path_of(request, stream_route(self.name), handle.queue, handle.id),
            )
            if answer.status_url is not None:
                response.headers["Location"] = answer.status_url
            return answer

        return accepted


def accepted_dep(name: str = DEFAULT_NAME) -> AcceptedDependency:
    """Return the dependency on a function that makes a `TaskAccepted` from a handle.

    Args:
        name: Name of the queue application in `taskq_lifespan` and `task_router`.
    """
    return AcceptedDependency(name)


AcceptedDep = Annotated[Callable[[TaskHandle[Any]], TaskAccepted], Depends(accepted_dep())]
"""A function that makes a `TaskAccepted` from the handle of a task, and sets the header `Location`."""
