"""Routes that return the status of one task: once, and as Server-Sent Events until it has ended.

::

    app.include_router(task_router(dependencies=[Depends(logged_in)]), prefix="/tasks")

    GET /tasks/status/{queue}/{task_id}
    GET /tasks/events/{queue}/{task_id}

A stream sends the event `status` after each change, `end` when the task has ended, and `trouble` while Redis does not
answer. A client that reconnects with the id of `end` gets 204, which tells it not to reconnect again. See
`taskq_fastapi.streams`.
"""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Response
from starlette.responses import StreamingResponse

from taskq_core import AsyncClient, BrokerError, ConfigurationError, TaskInfo
from taskq_core.errors import WireFormatError
from taskq_core.handles.subscription import TaskFollower
from taskq_core.settings import Duration, seconds
from taskq_core.views.status import status_of
from taskq_fastapi.applications import DEFAULT_NAME
from taskq_fastapi.closed import guards
from taskq_fastapi.dependencies import client_dep
from taskq_fastapi.status import TaskStatus, events_route, status_of_none, status_route
from taskq_fastapi.streams import Event, StateUnavailableError, Streams

logger = logging.getLogger("taskq.fastapi")

FIRST_LOOK_S = 0.1
"""Seconds between a change of a streamed task and the next read. Each read doubles the pause, up to `poll_every`."""
_OPEN_FOR = "see every task whose id they know"
_NOT_FOUND = "there is no such task: it has ended and is not stored, or was deleted, or never existed"
_AWAY = "the queue does not answer"
_DAMAGED = "the task cannot be read"

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
        show_results: Include the result of a task, and its reported progress.
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
    router = APIRouter(tags=["tasks"], dependencies=let_in)
    ask = client_dep(name)
    errors: dict[int | str, dict[str, Any]] = {
        403: {"description": "The caller may not see the task."},
        404: {"description": _NOT_FOUND},
        503: {"description": _AWAY},
    }

    @router.get("/status/{queue}/{task_id:path}", name=status_route(name), responses=errors)
    async def task_status(
        queue: QueueParam, task_id: TaskIdParam, response: Response, client: Annotated[AsyncClient, Depends(ask)]
    ) -> TaskStatus:
        """Return the status of a task."""
        async with _followed(client, queue, task_id) as follower:
            try:
                info = await follower.look()
            except (BrokerError, WireFormatError) as error:
                logger.warning("a request for the status of a task failed: %s", error)
                raise HTTPException(503, _detail(error), headers={"Retry-After": "1"}) from None
        if info is None:
            raise HTTPException(404, _NOT_FOUND)
        status = TaskStatus(**shown(info))
        response.headers["Cache-Control"] = "no-store"
        if not status.is_final:
            response.headers["Retry-After"] = "1"
        return status

    stream_of_events = {"description": "Events: status, end, trouble.", "content": {"text/event-stream": {}}}

    @router.get(
        "/events/{queue}/{task_id:path}",
        name=events_route(name),
        response_class=StreamingResponse,
        responses={
            **errors,
            200: stream_of_events,
            204: {"description": "The client has received `end`."},
        },
    )
    async def task_events(
        queue: QueueParam,
        task_id: TaskIdParam,
        client: Annotated[AsyncClient, Depends(ask)],
        last_event_id: Annotated[str | None, Header(max_length=100)] = None,
    ) -> Response:
        """Stream the status of a task until it has ended."""
        follower, status = _followed(client, queue, task_id), None
        try:
            status = _status_of(await follower.look(), queue, task_id, shown)
        except (BrokerError, WireFormatError):
            pass  # the stream reports the outage, and continues when Redis is back
        else:
            if status.is_final and last_event_id == _event(status).tag:
                return Response(status_code=204)
            if status.name is None and last_event_id is None:
                raise HTTPException(404, _NOT_FOUND)
        if not streams.has_room:
            raise HTTPException(503, "too many streams are open", headers={"Retry-After": "10"})

        async def current() -> TaskStatus:
            return _status_of(await follower.look(), queue, task_id, shown)

        return streams.response(_events(streams, follower, current, last_event_id, status, poll_s))

    return router


def _followed(client: AsyncClient, queue: str, task_id: str) -> TaskFollower:
    try:
        return client.follow(queue, task_id)
    except ConfigurationError:
        raise HTTPException(404, _NOT_FOUND) from None


def _detail(error: Exception) -> str:
    """Return the text of an error for clients, without addresses."""
    return _DAMAGED if isinstance(error, WireFormatError) else _AWAY


def _status_of(info: TaskInfo | None, queue: str, task_id: str, shown: Shown) -> TaskStatus:
    return status_of_none(queue, task_id) if info is None else TaskStatus(**shown(info))


def _event(status: TaskStatus) -> Event:
    return Event("end" if status.is_final else "status", status.model_dump_json(), is_last=status.is_final)


async def _events(
    streams: Streams,
    follower: TaskFollower,
    current: Callable[[], Awaitable[TaskStatus]],
    last_event_id: str | None,
    first: TaskStatus | None,
    poll_s: float,
) -> AsyncIterator[str]:
    """Yield the events of a task's stream. `first` is the status that was just read, None if the read failed."""
    pause_s = FIRST_LOOK_S

    async def read() -> Event:
        nonlocal first
        try:
            status, first = first or await current(), None
        except (BrokerError, WireFormatError) as error:
            raise StateUnavailableError(json.dumps({"detail": _detail(error)})) from error
        return _event(status)

    async def wait(is_changed: bool, left_s: float) -> bool:
        nonlocal pause_s
        pause_s = FIRST_LOOK_S if is_changed else min(2 * pause_s, poll_s)
        await follower.wait(min(pause_s, left_s))
        return True

    async with follower:
        async for event in streams.events(read, wait, last_event_id=last_event_id):
            yield event
