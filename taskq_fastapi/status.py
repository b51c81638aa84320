"""The status of one task for clients of an app, and the response to a request that enqueued one.

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
"""The state of a task that is sent when a transaction commits."""


class TaskAccepted(BaseModel):
    """A task that was enqueued, for an answer with the status 202."""

    id: str = Field(examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])
    queue: str = Field(examples=["default"])
    state: TaskState | Literal["deferred"] = Field(
        description="The state it was enqueued in; deferred: it is enqueued when a transaction commits.",
        examples=["pending"],
    )
    status_url: str | None = Field(
        default=None,
        description="Path at which its state is told, if the app tells it.",
        examples=["/tasks/status/default/01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"],
    )
    events_url: str | None = Field(
        default=None,
        description="Path at which its state is streamed as Server-Sent Events, if the app does that.",
        examples=["/tasks/events/default/01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"],
    )


class TaskProgress(BaseModel):
    """Progress last reported by the task."""

    done: float = Field(examples=[3])
    total: float | None = Field(default=None, examples=[10])
    message: str = Field(default="", examples=["page 3"])
    at: datetime = Field(description="When it said so.")


class TaskStatus(BaseModel):
    """The status of a task."""

    id: str = Field(examples=["01981b0c-7b0e-7cc3-98a9-0f8d3c6c7a51"])
    queue: str = Field(examples=["default"])
    name: str | None = Field(default=None, description="Its name; null once it is gone.", examples=["image:resize"])
    state: TaskState | Literal["gone"] = Field(
        description="gone: it has ended without being kept, or was deleted.", examples=["active"]
    )
    is_final: bool = Field(description="Whether it has ended: nothing changes any more by itself.")
    attempt: int = Field(default=0, description="Runs that were begun, the running one included.", examples=[1])
    max_attempts: int = Field(default=0, description="Runs after which it is given up.", examples=[26])
    next_run_at: datetime | None = Field(default=None, description="When it starts, or is tried again.")
    waits_for_limit: bool = Field(default=False, description="Whether it starts as soon as its limits let it.")
    started_at: datetime | None = Field(default=None, description="When its current or last run began.")
    ended_at: datetime | None = None
    progress: TaskProgress | None = Field(
        default=None, description="How far it is, as it told; null if it told nothing."
    )
    result: Any = Field(default=None, description="What it returned, once it is completed.")
    result_error: str | None = Field(
        default=None,
        description="Why a completed task has no result: it was too large to be stored.",
        examples=[str(OversizedResult(size=314_572_802, limit=16_777_216))],
    )
    error: str | None = Field(default=None, description="What its last run failed with, where the app tells that.")


def status_of_none(queue: str, task_id: str) -> TaskStatus:
    """Return the status of a task that no longer exists."""
    return TaskStatus(id=task_id, queue=queue, state=GONE, is_final=True)


def status_route(name: str) -> str:
    """Return the name of the status route of a queue application."""
    return f"taskq_status_{name}"


def events_route(name: str) -> str:
    """Return the name of the events route of a queue application."""
    return f"taskq_events_{name}"


@dataclass(frozen=True, slots=True)
class AcceptedDependency:
    """Gives what turns the handle of a task into the answer. Equal for equal names."""

    name: str

    async def __call__(self, request: Request, response: Response) -> Callable[[TaskHandle[Any]], TaskAccepted]:
        """Return a function that also sets the header `Location`; called by FastAPI.

        It raises `HTTPException` with 503 for a task whose sending after the commit failed.
        """

        def accepted(handle: TaskHandle[Any]) -> TaskAccepted:
            if handle.send_error is not None:
                detail = f"task {handle.name!r} was not enqueued after the commit"
                raise HTTPException(503, detail, headers={"Retry-After": "1"}) from handle.send_error
            answer = TaskAccepted(
                id=handle.id,
                queue=handle.queue,
                state=handle.first_state if handle.is_sent else DEFERRED,
                status_url=_path(request, status_route(self.name), handle),
                events_url=_path(request, events_route(self.name), handle),
            )
            if answer.status_url is not None:
                response.headers["Location"] = answer.status_url
            return answer

        return accepted


def _path(request: Request, route: str, handle: TaskHandle[Any]) -> str | None:
    """Return the path of a route of the app, or of the one it is mounted in; None if neither has it."""
    scope = request.scope
    if "/" in handle.queue:
        return None  # no route takes it
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
    """Return the dependency on what makes a `TaskAccepted` of a handle.

    Args:
        name: Of the queue application, as given to `taskq_lifespan` and `task_router`.
    """
    return AcceptedDependency(name)


AcceptedDep = Annotated[Callable[[TaskHandle[Any]], TaskAccepted], Depends(accepted_dep())]
"""Makes a `TaskAccepted` of the handle of a task, and sets the header `Location` of the answer."""
