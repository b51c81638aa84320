"""Stream the values that a task emits to a browser, as Server-Sent Events.

::

    async def photo_log(request: HttpRequest, task_id: str) -> HttpResponseBase:
        return stream_response(request, await taskq.aget(task_id))

The view decides who may see the task.
"""

from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from taskq_core import TaskHandle
from taskq_core.views.event_streams import HEADERS, LAST_ID, Streams, emitted_events
from taskq_django.app import async_client

STREAMS_MAX = 1_000
"""Maximum number of open streams in this process."""
STREAM_S = 30.0
"""Seconds after which a stream ends and the browser reconnects, so that a stopping server does not wait for it."""
_streams = Streams(most=STREAMS_MAX, life_s=STREAM_S)


def stream_response(request: HttpRequest, handle: TaskHandle[Any]) -> HttpResponseBase:
    """Return a response that streams the values that a task emits, for an `async def` view on an ASGI server.

    It sends the event `item` for each value, `end` when the task has ended, and `trouble` while Redis does not answer.
    A browser that reconnects gets only the values that it does not have, and nothing more after `end`.

    Args:
        request: The request of the browser, with the id of the last event that it has received.
        handle: The task.
    """
    last_event_id = request.headers.get("Last-Event-ID")
    if last_event_id == LAST_ID:
        return HttpResponse(status=204)
    events = emitted_events(_streams, async_client.follow(handle.queue, handle.id), last_event_id)
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=dict(HEADERS))
