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
from urllib.parse import quote

from fastapi import Depends, HTTPException, Request, Response
from pydantic import BaseModel, Field
from starlette.routing import NoMatchFound

from taskq_core import OversizedResult, TaskHandle, TaskState
from taskq_fastapi.applications import DEFAULT_NAME

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
    """The sleep, the signal or the sub-tasks that a durable task waits for."""

    kind: Literal["sleep", "signal", "sub-tasks"] = Field(examples=["signal"])
    name: str = Field(description="Name of the sleep, the signal or the call.", examples=["review"])
    number: int = Field(
        description="Number of the value among those of the signal, from 1; 0 for other waits.", examples=[1]
    )
    until: datetime | None = Field(description="End of the wait at the latest; null without a time limit.")


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


def status_route(name: str) -> str:
    """Return the name of the status route of a queue application."""
    return f"taskq_status_{name}"


def stream_route(name: str) -> str:
    """Return the name of the route of the emitted values of a queue application's tasks."""
    return f"taskq_stream_{name}"


def events_route(name: str) -> str:
    """Return the name of the events route of a queue application."""
    return f"taskq_events_{name}"


@dataclass(frozen=True, slots=True)
class AcceptedDependency:
    """A dependency on a function that makes a `TaskAccepted` from a handle. Equal for equal names."""

    name: str

    async def __call__(self, request: Request, response: Response) -> Callable[[TaskHandle[Any]], TaskAccepted]:
        """Return a function that makes a `TaskAccepted` and sets the header `Location`. FastAPI calls this.

        The function raises `HTTPException` with 503 for a task that could not be sent after the commit.
        """

        def accepted(handle: TaskHandle[Any]) -> TaskAccepted:
            if handle.send_error is not None:
                detail = f"task {handle.name!r} was not enqueued after the commit"
                raise HTTPException(503, detail, headers={"Retry-After": "1"}) from handle.send_error
            handle.check_not_lost()
            answer = TaskAccepted(
                id=handle.id,
                queue=handle.queue,
                state=handle.first_state if handle.is_sent else DEFERRED,
                status_url=_path(request, status_route(self.name), handle),
                events_url=_path(request, events_route(self.name), handle),
                stream_url=_path(request, stream_route(self.name), handle),
            )
            if answer.status_url is not None:
                response.headers["Location"] = answer.status_url
            return answer

        return accepted


def _path(request: Request, route: str, handle: TaskHandle[Any]) -> str | None:
    """Return the path of the named route in the app or in the app that it is mounted in. None if neither has it."""
    scope = request.scope
    if "/" in handle.queue:
        return None  # the path parameter of the route accepts no slash
    values = {"queue": quote(handle.queue, safe=""), "task_id": quote(handle.id, safe="")}
    outermost = scope.get("app_root_path", scope.get("root_path", ""))
    for root, router in ((scope.get("root_path", ""), request.app.router), (outermost, scope.get("router"))):
        try:
            if router is not None:
                return f"{root.rstrip('/')}{router.url_path_for(route, **values)}"
        except NoMatchFound:
            continue
    return None


def accepted_dep(name: str = DEFAULT_NAME) -> AcceptedDependency:
    """Return the dependency on a function that makes a `TaskAccepted` from a handle.

    Args:
        name: Name of the queue application in `taskq_lifespan` and `task_router`.
    """
    return AcceptedDependency(name)


AcceptedDep = Annotated[Callable[[TaskHandle[Any]], TaskAccepted], Depends(accepted_dep())]
"""A function that makes a `TaskAccepted` from the handle of a task, and sets the header `Location`."""
