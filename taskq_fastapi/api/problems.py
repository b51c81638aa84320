"""Errors as problem documents (RFC 9457), and the route that makes them.

What a client is told names no address of Redis and repeats no payload.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Message

from taskq_core import BrokerError, ConfigurationError, TaskQError
from taskq_core.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    DuplicateTaskError,
    EntryNotFoundError,
    QueueNotEmptyError,
    QueueNotFoundError,
    QueueStateError,
    TaskActiveError,
    TaskIdConflictError,
    TaskNotFoundError,
    TaskStateError,
    WireFormatError,
    WorkerNotFoundError,
    WorkflowDamagedError,
    WorkflowNotFoundError,
)
from taskq_fastapi.api.origin import check_origin
from taskq_fastapi.throttle import OwnRefusal, Throttle, Visit

logger = logging.getLogger("taskq.fastapi")

MEDIA_TYPE = "application/problem+json"
BODY_MAX = 1024 * 1024
"""Most bytes of a request's body."""
PAYLOAD_BODY_MAX = 24 * 1024 * 1024
"""The same where the body holds a payload, which may have 16 MiB, in base64."""
_URN = "urn:taskq:problem:"
_METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
_SAFE = ("GET", "HEAD", "OPTIONS")
COSTLY = {
    "act_on_tasks",
    "finish_moves",
    "find_tasks",
    "reconcile",
    "remove_queue",
    "samples",
    "search_tasks",
    "search_workflows",
    "state_types",
}
"""Names of the routes that read or change many tasks."""


class WrongField(BaseModel):
    """What is wrong with one part of a request."""

    where: list[str | int] = Field(description="The way to it.", examples=[["query", "page"]])
    message: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """Why a request was refused or failed (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Names the kind of problem.", examples=[_URN + "queue-not-found"])
    title: str = Field(description="The kind in words, the same each time.", examples=["There is no such queue"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What it is this time.", examples=["no queue 'defualt'; did you mean 'default'?"])
    code: str | None = Field(
        default=None, description="Of an error of taskq: its code, as the page of errors and `taskq explain` know it."
    )
    errors: list[WrongField] | None = Field(default=None, description="What is wrong with the request, part by part.")
    may_have_happened: bool | None = Field(
        default=None, description="Of a change that Redis did not answer: whether it may have been made all the same."
    )


_KINDS: Sequence[tuple[type[TaskQError], int, str, str]] = (
    (QueueNotFoundError, 404, "queue-not-found", "There is no such queue"),
    (TaskNotFoundError, 404, "task-not-found", "There is no such task"),
    (WorkflowNotFoundError, 404, "workflow-not-found", "There is no such workflow, or it is kept no longer"),
    (EntryNotFoundError, 404, "schedule-not-found", "There is no such periodic entry"),
    (WorkerNotFoundError, 404, "worker-not-found", "There is no such worker"),
    (TaskActiveError, 409, "task-active", "The task runs"),
    (TaskStateError, 409, "task-state", "The state of the task does not allow it"),
    (QueueNotEmptyError, 409, "queue-not-empty", "The queue is not empty"),
    (QueueStateError, 409, "queue-state", "The queue does not stand as it would have to"),
    (DuplicateTaskError, 409, "lock-taken", "Another task holds the unique lock"),
    (TaskIdConflictError, 409, "id-taken", "The id is taken"),
    (WireFormatError, 409, "task-unreadable", "The task cannot be read"),
    (WorkflowDamagedError, 409, "workflow-unreadable", "The workflow cannot be read"),
    (ConfigurationError, 422, "invalid-request", "The request is not usable"),
    (BrokerUnavailableError, 503, "redis-unavailable", "Redis does not answer"),
    (BrokerFullError, 503, "redis-full", "Redis has no memory left"),
    (BrokerError, 503, "redis-refused", "Redis refused what it was asked"),
)
"""Kinds of errors, a subclass before its base."""
_STATUS_TITLES = {
    400: ("malformed-request", "The request cannot be read"),
    401: ("not-authenticated", "It is not known who asks"),
    403: ("forbidden", "This is not allowed"),
    404: ("not-found", "There is no such thing"),
    405: ("method-not-allowed", "This cannot be done here"),
    409: ("conflict", "It does not stand as it would have to"),
    413: ("too-large", "The request is too large"),
    415: ("not-json", "A change takes JSON"),
    429: ("too-many-requests", "Too many requests"),
    500: ("failed", "Something failed"),
    503: ("unavailable", "This cannot be answered now"),
}
_OTHER = ("refused", "The request was refused")
"""What stands for any other status that a dependency answers with."""
_EXAMPLES = {
    400: "The body cannot be read.",
    401: "It is not known who asks; said by your dependencies.",
    403: "The router is closed or for reading only, the request comes from another site, or payloads are not shown.",
    404: "There is no such queue, task or periodic entry.",
    409: "The state of the task or queue does not allow it.",
    413: "The request is too large.",
    415: "A change takes JSON.",
    422: "The request is not usable.",
    429: "Your address asks too often, or too much is under way already.",
    503: "Redis does not answer, or refuses.",
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problems of a route for its OpenAPI description. `/problems` brings in their schema."""
    return {status: _response(status) for status in sorted({401, 403, *statuses, 422, 429, 503})}


def _response(status: int) -> dict[str, Any]:
    word, title = next((kind[2:] for kind in _KINDS if kind[1] == status), None) or _STATUS_TITLES[status]
    example = {"type": _URN + word, "title": title, "status": status, "detail": _EXAMPLES[status]}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": _EXAMPLES[status], "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}


def kinds() -> list[Problem]:
    """Return the kinds of problems there are."""
    found = {word: (status, title) for status, (word, title) in _STATUS_TITLES.items()}
    found |= {word: (status, title) for _error, status, word, title in _KINDS}
    found[_OTHER[0]] = (400, _OTHER[1])
    return [
        Problem(type=_URN + word, title=title, status=status, detail=_EXAMPLES.get(status, title))
        for word, (status, title) in sorted(found.items())
    ]


def of_error(error: TaskQError) -> Response:
    """Return the problem of an error of taskq."""
    for kind, status, word, title in _KINDS:
        if not isinstance(error, kind):
            continue
        if isinstance(error, BrokerError):
            logger.warning("a request to the JSON API cannot be answered: %s", error)
            may_have_happened = getattr(error, "may_have_happened", None)
            more = {"code": error.code}
            if may_have_happened is not None:
                more["may_have_happened"] = may_have_happened
            return document(
                status, word, title, "the log of the server says more", more=more, headers={"Retry-After": "1"}
            )
        names = ("code", "queue", "task_id", "state")
        more = {name: getattr(error, name) for name in names if getattr(error, name, None)}
        return document(status, word, title, str(error), more=more)
    logger.error("a request to the JSON API failed", exc_info=error)
    return document(500, *_STATUS_TITLES[500], "the log of the server says more")


def of_http(error: StarletteHTTPException) -> Response:
    """Return the problem of an error that a dependency raised."""
    word, title = _STATUS_TITLES.get(error.status_code, _OTHER)
    detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
    return document(error.status_code, word, title, detail, headers=error.headers)


def of_validation(error: RequestValidationError) -> Response:
    """Return the problem of a request that is not what the description says."""
    wrong = [{"where": [str(part) for part in each["loc"]], "message": str(each["msg"])} for each in error.errors()]
    first = f"{'.'.join(wrong[0]['where'])}: {wrong[0]['message']}" if wrong else "it is not what is expected"
    word, title = next(kind[2:] for kind in _KINDS if kind[0] is ConfigurationError)
    return document(422, word, title, first, more={"errors": wrong})


def document(
    status: int,
    word: str,
    title: str,
    detail: str,
    *,
    more: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document."""
    body = {"type": _URN + word, "title": title, "status": status, "detail": detail, **(more or {})}
    text = json.dumps(body, default=str)  # escapes all that is not ASCII, half characters too
    return Response(text, status, headers=None if headers is None else dict(headers), media_type=MEDIA_TYPE)


def problem_route(
    refusal: Callable[[], HTTPException] | None, trusted_origins: Sequence[str], throttle: Throttle
) -> type[APIRoute]:
    """Return the class of the routes of a router.

    Args:
        refusal: What a closed router refuses with, None of an open one. It comes first, before anything is read.
        trusted_origins: Other origins that may change something.
        throttle: Counts the requests.
    """

    class ProblemRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            body_max = PAYLOAD_BODY_MAX if self.name == "update_payload" else BODY_MAX

            is_costly = self.name in COSTLY

            async def answer(request: Request) -> Response:
                visit: Visit | None = None
                try:
                    if refusal is not None:
                        raise refusal()
                    visit = throttle.enter(request, is_costly=is_costly)
                    if request.method not in _SAFE:
                        check_origin(request, trusted_origins)
                        response = await _with_body(request, body_max, handle)
                    else:
                        response = await handle(request)
                except RequestValidationError as error:
                    response = of_validation(error)
                except StarletteHTTPException as error:
                    if error.status_code < 400:
                        raise
                    if visit is not None and not isinstance(error, OwnRefusal):
                        visit.refuse(request, error.status_code, error.headers)
                    response = of_http(error)
                except TaskQError as error:
                    response = of_error(error)
                except Exception as error:
                    if _is_handled(request, error):
                        if visit is not None and not visit.is_known:
                            visit.refuse(request, 403, None)  # by a dependency, in the words of the app
                        raise
                    logger.exception("a request to the JSON API failed")
                    response = document(500, *_STATUS_TITLES[500], "the log of the server says more")
                response.headers["Cache-Control"] = "no-store"
                response.headers["X-Content-Type-Options"] = "nosniff"
                return response

            return answer

    return ProblemRoute


def add_refusals(router: APIRouter) -> None:
    """Add to each path what answers the methods that it does not take."""
    taken: dict[str, set[str]] = {}
    for route in router.routes:
        if isinstance(route, APIRoute):
            taken.setdefault(route.path, set()).update(route.methods or ())
    for path, methods in taken.items():
        router.add_api_route(path, _refuse(methods), methods=sorted(_METHODS - methods), include_in_schema=False)


def _refuse(methods: set[str]) -> Callable[[], Awaitable[None]]:
    allow = ", ".join(sorted(methods))

    async def refuse() -> None:
        raise HTTPException(405, f"here is only {allow}", headers={"Allow": allow})

    return refuse


def _is_handled(request: Request, error: Exception) -> bool:
    """Whether the app has a handler of its own for such an error, as one that a dependency raises."""
    handlers = getattr(request.app, "exception_handlers", {})
    return any(each in handlers for each in type(error).__mro__ if each not in (Exception, BaseException, object))


async def _with_body(request: Request, most: int, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    """Handle a request with a body. One that is no JSON is refused last: who may not ask is not told of it."""
    body = await _limited(request, most).body()
    is_json = not body or _is_json(body)
    messages: list[Message] = [{"type": "http.request", "body": body if is_json else b"null", "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await request.receive()

    try:
        return await handle(Request(request.scope, receive))
    except RequestValidationError:
        if is_json:
            raise
        raise HTTPException(400, "the body is no JSON") from None


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _limited(request: Request, most: int) -> Request:
    """Return the request with a body that may have so many bytes and not more."""
    too_large = HTTPException(413, f"the body may have {most} bytes")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large
    read = 0

    async def receive() -> Message:
        nonlocal read
        message = await request.receive()
        read += len(message.get("body", b""))
        if read > most:
            raise too_large
        return message

    return Request(request.scope, receive)
