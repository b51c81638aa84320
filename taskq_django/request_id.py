"""The id of a request: taken from its header or made, told in the response, in the log and to the tasks it enqueues.

For projects that have no such middleware yet; `CARRY["REQUEST_ID"]` names the function of one that has.
"""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from taskq_core.execution.propagation import request_id

HEADER = "X-Request-ID"
_USABLE = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)


def get_request_id() -> str:
    """Return the id of the request that this code works for, also in a task that the request enqueued; "" for none."""
    return request_id.get()


class RequestIdMiddleware:
    """Gives each request an id: that of its header `X-Request-ID`, if it is usable, else a new one.

    Usable are 1 to 128 letters, digits and `.:@/+=_-`. The response has the same header, and `request.id` is the id.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer a request."""
        if self._is_async:
            return self._acall(request)
        known = _begin(request)
        token = request_id.set(known)
        try:
            return _told(self._get_response(request), known)
        finally:
            request_id.reset(token)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        known = _begin(request)
        token = request_id.set(known)
        try:
            return _told(await self._get_response(request), known)
        finally:
            request_id.reset(token)


def _begin(request: Any) -> str:
    given = request.headers.get(HEADER, "")
    request.id = given if _USABLE.fullmatch(given) else uuid.uuid4().hex
    return str(request.id)


def _told(response: HttpResponseBase, known: str) -> HttpResponseBase:
    response.headers.setdefault(HEADER, known)
    return response
