"""Routes that return the status of one task, once or as Server-Sent Events, and the values that it emits.

::

    app.include_router(task_router(dependencies=[Depends(logged_in)]), prefix="/tasks")

    GET /tasks/status/{queue}/{task_id}
    GET /tasks/events/{queue}/{task_id}
    GET /tasks/stream/{queue}/{task_id}

A stream sends the event `status` after each change or `item` for each value, `end` when the task has ended, and
`trouble` while Redis does not answer. A client that reconnects with the id of `end` gets 204, which tells it not to
reconnect again. See `taskq_core.views.event_streams`.
"""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Response
from starlette.responses import StreamingResponse

from taskq_core import AsyncClient, BrokerError, ConfigurationError, TaskInfo
from taskq_core.errors import WireFormatError
from taskq_core.handles.subscription import TaskFollower
from taskq_core.settings import Duration, seconds
from taskq_core.views import event_streams
from taskq_core.views.event_streams import Event, StateUnavailableError, Streams
from taskq_core.views.status import status_of
from taskq_fastapi.addresses import events_route, status_route, stream_route
from taskq_fastapi.applications import DEFAULT_NAME
from taskq_fastapi.closed import guards
from taskq_fastapi.dependencies import client_dep
from taskq_fastapi.status import GONE, TaskStatus, status_of_none

logger = logging.getLogger("taskq.fastapi")

FIRST_PAUSE_S = 0.1
"""Seconds between a change of a streamed task and the next read. Each read doubles the pause, up to `poll_every`."""
_OPEN_FOR = "see every task whose id they know"
_NOT_FOUND = "there is no such task: it ended without retention, was deleted, or never existed"
_AWAY = "the queue does not answer"
_DAMAGED = "the task cannot be read"
_ERRORS: dict[int | str, dict[str, Any]] = {
    403: {"description": "The caller may not see the task."},
    404: {"description": _NOT_FOUND},
    503: {"description": _AWAY},
}

Shown = Callable[[TaskInfo], dict[str, Any]]
"""Returns the visible fields of the status of a task."""
QueueParam = Annotated[str, Path(description="The queue that the task is in.", examples=["default"])]
TaskIdParam = Annotated[str, Path(description="Id of the task.")]


def task_router(
    *,
    dependencies: Sequence[Any] = (),
    allow_anonymous: bool = False,
    name: str = DEFAULT_NAME,
    show_results: bool = True,
    show_errors: bool = False,
    poll_every: Duration = 1.0,
    stream_for: Duration = 30.0,
    max_streams: int = 1_000,
) -> APIRouter:
    """Return a router with the status of tasks. Payloads are never shown.

    Args:
        dependencies: `Depends(...)` of functions that raise for callers who may not see a task. They may use the path
            parameters `queue` and `task_id`, so that users see only their own tasks. Without any, the routes answer
            403.
        allow_anonymous: Whether everybody who knows the id of a task may see it, without dependencies.
        name: Name of the queue application in `taskq_lifespan`.
        show_results: Include the result of a task, its reported progress, and the values that it emits.
        show_errors: Include the text of its error, which may contain internal details.
        poll_every: Maximum time between two reads of a streamed task. Its end is sent at once.
        stream_for: Time after which a stream ends and the client reconnects.
        max_streams: Maximum number of open streams in this process; further requests get 503.

    Raises:
        ConfigurationError: A time is not valid, or both dependencies and `allow_anonymous` are given.
    """
    let_in = guards("task_router", dependencies, allow_anonymous=allow_anonymous, open_for=_OPEN_FOR)
    shown = partial(status_of, show_results=show_results, show_errors=show_errors)
    poll_s = seconds("poll_every", poll_every, allow_zero=False)
    streams = Streams(most=max_streams, life_s=seconds("stream_for", stream_for, allow_zero=False))
    router = APIRouter(tags=["tasks"], dependencies=let_in, responses=_ERRORS)
    requested = Depends(_requested_task(name, shown))
    _add_status_route(router, name, requested)
    _add_events_route(router, name, requested, streams, poll_s)
    if show_results:
        _add_stream_route(router, name, requested, streams)
    return router


@dataclass(frozen=True, slots=True)
class _RequestedTask:
    """The task that the path of a request names."""

    queue: str
    task_id: str
    follower: TaskFollower
    shown: Shown

    async def read_status(self) -> TaskStatus:
        info = await self.follower.find()
        return status_of_none(self.queue, self.task_id) if info is None else TaskStatus(**self.shown(info))


def _requested_task(name: str, shown: Shown) -> Callable[..., Awaitable[_RequestedTask]]:
    """Return the dependency on the task that the path of a request names."""

    async def requested_task(
        queue: QueueParam, task_id: TaskIdParam, client: Annotated[AsyncClient, Depends(client_dep(name))]
    ) -> _RequestedTask:
        try:
            return _RequestedTask(queue, task_id, client.follow(queue, task_id), shown)
        except ConfigurationError:
            raise HTTPException(404, _NOT_FOUND) from None

    return requested_task


def _add_status_route(router: APIRouter, name: str, requested: Any) -> None:
    @router.get("/status/{queue}/{task_id:path}", name=status_route(name))
    async def task_status(task: Annotated[_RequestedTask, requested], response: Response) -> TaskStatus:
        """Return the status of a task."""
        try:
            status = await task.read_status()
        except (BrokerError, WireFormatError) as error:
            logger.warning("a request for the status of a task failed: %s", error)
            raise HTTPException(503, _detail(error), headers={"Retry-After": "1"}) from None
        if status.state == GONE:
            raise HTTPException(404, _NOT_FOUND)
        response.headers["Cache-Control"] = "no-store"
        if not status.is_final:
            response.headers["Retry-After"] = "1"
        return status


def _add_events_route(router: APIRouter, name: str, requested: Any, streams: Streams, poll_s: float) -> None:
    @router.get(
        "/events/{queue}/{task_id:path}",
        name=events_route(name),
        response_class=StreamingResponse,
        responses=_of_streams("status"),
    )
    async def task_events(
        task: Annotated[_RequestedTask, requested],
        last_event_id: Annotated[str | None, Header(max_length=100)] = None,
    ) -> Response:
        """Stream the status of a task until it has ended."""
        status = None
        try:
            status = await task.read_status()
        except (BrokerError, WireFormatError):
            pass  # the stream reports the outage, and continues when Redis is back
        else:
            if status.is_final and last_event_id == _event(status).tag:
                return Response(status_code=204)
            if status.state == GONE and last_event_id is None:
                raise HTTPException(404, _NOT_FOUND)
        if not streams.has_room():
            raise HTTPException(503, "too many streams are open", headers={"Retry-After": "10"})
        return streamed(_events(streams, task, last_event_id, status, poll_s))


def _add_stream_route(router: APIRouter, name: str, requested: Any, streams: Streams) -> None:
    @router.get(
        "/stream/{queue}/{task_id:path}",
        name=stream_route(name),
        response_class=StreamingResponse,
        responses=_of_streams("item"),
    )
    async def task_stream(
        task: Annotated[_RequestedTask, requested],
        last_event_id: Annotated[str | None, Header(max_length=100)] = None,
    ) -> Response:
        """Stream the values that a task emits until it has ended."""
        if last_event_id == event_streams.LAST_ID:
            return Response(status_code=204)
        if not last_event_id:
            with suppress(BrokerError):  # the stream reports the outage, and continues when Redis is back
                page = await task.follower.read_stream("")
                if not (page.state or page.values):
                    raise HTTPException(404, _NOT_FOUND)
        if not streams.has_room():
            raise HTTPException(503, "too many streams are open", headers={"Retry-After": "10"})
        return streamed(event_streams.emitted_events(streams, task.follower, last_event_id))


def _of_streams(event: str) -> dict[int | str, dict[str, Any]]:
    """Return the documented responses of a route that streams events."""
    return {
        200: {"description": f"Events: {event}, end, trouble.", "content": {"text/event-stream": {}}},
        204: {"description": "The client has received `end`."},
    }


def streamed(events: AsyncIterator[str]) -> StreamingResponse:
    """Return the response that sends events."""
    return StreamingResponse(events, media_type="text/event-stream", headers=event_streams.HEADERS)


def _detail(error: Exception) -> str:
    """Return the text of an error for clients, without addresses."""
    return _DAMAGED if isinstance(error, WireFormatError) else _AWAY


def _event(status: TaskStatus) -> Event:
    return Event("end" if status.is_final else "status", status.model_dump_json(), is_last=status.is_final)


async def _events(
    streams: Streams, task: _RequestedTask, last_event_id: str | None, first: TaskStatus | None, poll_s: float
) -> AsyncIterator[str]:
    """Yield the events of a task's stream. `first` is the status that was just read, None if the read failed."""
    pause_s = FIRST_PAUSE_S

    async def read() -> list[Event]:
        nonlocal first
        try:
            status, first = first or await task.read_status(), None
        except (BrokerError, WireFormatError) as error:
            raise StateUnavailableError(json.dumps({"detail": _detail(error)})) from error
        return [_event(status)]

    async def wait(is_changed: bool, left_s: float) -> bool:
        nonlocal pause_s
        pause_s = FIRST_PAUSE_S if is_changed else min(2 * pause_s, poll_s)
        await task.follower.wait(min(pause_s, left_s))
        return True

    async with task.follower:
        async for event in streams.events(read, wait, last_event_id=last_event_id):
            yield event
