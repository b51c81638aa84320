"""Give each request an id, for its response, its log lines and the tasks it enqueues.

If your project already has such a middleware, set `PROPAGATE["REQUEST_ID"]` to its function instead.
"""

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from taskq_core.execution.propagation import request_id

HEADER = "X-Request-ID"
_USABLE = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)


def get_request_id() -> str:
    """Return the id of the current request, or in a task the id of the request that enqueued it. "" without one."""
    return request_id.get()


@sync_and_async_middleware
def RequestIdMiddleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:  # noqa: N802 - Django's settings name it as a class
    """Set `request.id` to the request's header `X-Request-ID` if it is valid, else to a new id.

    A valid id has 1 to 128 letters, digits and `.:@/+=_-`. The response gets the same header.
    """

    @contextmanager
    def identified(request: Any) -> Iterator[Callable[[HttpResponseBase], HttpResponseBase]]:
        given = request.headers.get(HEADER, "")
        request.id = known = given if _USABLE.fullmatch(given) else uuid.uuid4().hex

        def add_header(response: HttpResponseBase) -> HttpResponseBase:
            response.headers.setdefault(HEADER, known)
            return response

        token = request_id.set(known)
        try:
            yield add_header
        finally:
            request_id.reset(token)

    async def acall(request: HttpRequest) -> HttpResponseBase:
        with identified(request) as add_header:
            return add_header(await get_response(request))

    def call(request: HttpRequest) -> HttpResponseBase:
        with identified(request) as add_header:
            return add_header(get_response(request))

    return acall if iscoroutinefunction(get_response) else call
