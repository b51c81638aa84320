"""Errors as problem documents (RFC 9457), and the route class that sends them.

A problem contains no address of Redis and no payload.
"""

import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import HTTPException, Request, Response
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
    StepError,
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
from taskq_fastapi.throttle import LoginLimiter, OwnRefusal, end_attempt, is_let_in

logger = logging.getLogger("taskq.fastapi")

MEDIA_TYPE = "application/problem+json"
BODY_MAX = 1024 * 1024
"""Maximum number of bytes in the body of a request."""
PAYLOAD_BODY_MAX = 24 * 1024 * 1024
"""Maximum number of bytes in a body that contains a payload: 16 MiB in base64."""
_URN = "urn:taskq:problem:"
_SAFE = ("GET", "HEAD", "OPTIONS")


class WrongField(BaseModel):
    """An error in a part of a request."""

    where: list[str | int] = Field(description="Path to the part of the request.", examples=[["query", "page"]])
    message: str = Field(examples=["Input should be greater than or equal to 1"])


class Problem(BaseModel):
    """The reason why a request was refused or failed (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Name of the kind of problem.", examples=[_URN + "queue-not-found"])
    title: str = Field(description="Text of the kind of problem.", examples=["There is no such queue"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="Details of the problem.", examples=["no queue 'defualt'; did you mean 'default'?"])
    code: str | None = Field(
        default=None, description="Code of the taskq error, as in the error reference and `taskq explain`."
    )
    errors: list[WrongField] | None = Field(default=None, description="Errors in the parts of the request.")
    may_have_happened: bool | None = Field(
        default=None, description="Whether the change may have been made, although Redis did not answer."
    )


_KINDS: Sequence[tuple[type[TaskQError], int, str, str]] = (
    (QueueNotFoundError, 404, "queue-not-found", "There is no such queue"),
    (TaskNotFoundError, 404, "task-not-found", "There is no such task"),
    (WorkflowNotFoundError, 404, "workflow-not-found", "There is no such workflow, or it is no longer stored"),
    (EntryNotFoundError, 404, "schedule-not-found", "There is no such schedule"),
    (WorkerNotFoundError, 404, "worker-not-found", "There is no such worker"),
    (TaskActiveError, 409, "task-active", "The task is running"),
    (TaskStateError, 409, "task-state", "The state of the task does not allow it"),
    (QueueNotEmptyError, 409, "queue-not-empty", "The queue is not empty"),
    (QueueStateError, 409, "queue-state", "The state of the queue does not allow it"),
    (DuplicateTaskError, 409, "lock-taken", "Another task holds the unique lock"),
    (TaskIdConflictError, 409, "id-taken", "The id is taken"),
    (WireFormatError, 409, "task-unreadable", "The task cannot be read"),
    (WorkflowDamagedError, 409, "workflow-unreadable", "The workflow cannot be read"),
    (StepError, 422, "step-refused", "The signal or the step is not valid"),
    (ConfigurationError, 422, "invalid-request", "The request is not valid"),
    (BrokerUnavailableError, 503, "redis-unavailable", "Redis does not answer"),
    (BrokerFullError, 503, "redis-full", "Redis has no memory left"),
    (BrokerError, 503, "redis-refused", "Redis refused the request"),
)
"""Exception class, HTTP status, name and title of each kind of problem. A subclass precedes its base class."""
_STATUSES = {
    400: ("malformed-request", "The request cannot be read"),
    401: ("not-authenticated", "The caller is not authenticated"),
    403: ("forbidden", "The request is not allowed"),
    404: ("not-found", "The object does not exist"),
    409: ("conflict", "The current state does not allow the request"),
    413: ("too-large", "The request is too large"),
    415: ("not-json", "A change must be JSON"),
    422: ("invalid-request", "The request is not valid"),
    429: ("too-many-requests", "Too many requests"),
    500: ("failed", "The request failed"),
    503: ("unavailable", "The request cannot be answered now"),
}
"""Kinds of problems of responses without an error of taskq, by HTTP status."""
_OTHER = ("refused", "The request was refused")
"""Kind of problem for any other HTTP status."""


def _response(status: int) -> dict[str, Any]:
    word, title = _STATUSES[status]
    example = {"type": _URN + word, "title": title, "status": status, "detail": f"{title}."}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": title, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}


RESPONSES: dict[int | str, dict[str, Any]] = {status: _response(status) for status in _STATUSES if status != 500}
"""Error responses that the OpenAPI description lists for all routes. The route `/problems` adds their schema."""


def kinds() -> list[Problem]:
    """Return all kinds of problems."""
    found = {word: (status, title) for status, (word, title) in (*_STATUSES.items(), (400, _OTHER))}
    found |= {word: (status, title) for _error, status, word, title in _KINDS}
    return [
        Problem(type=_URN + word, title=title, status=status, detail=title)
        for word, (status, title) in sorted(found.items())
    ]


def status_of(error: TaskQError) -> int:
    """Return the HTTP status for an error of taskq. It is 500 for errors that no request can cause."""
    return next((status for kind, status, *_ in _KINDS if isinstance(error, kind)), 500)


def of_error(error: TaskQError) -> Response:
    """Return the response for an error of taskq."""
    kind = next((each[1:] for each in _KINDS if isinstance(error, each[0])), None)
    if kind is None:
        logger.error("a request to the JSON API failed", exc_info=error)
        return document(500, *_STATUSES[500], "the server log has details")
    if isinstance(error, BrokerError):
        logger.warning("a request to the JSON API failed: %s", error)
        facts = _facts(error, "code", "may_have_happened")
        return document(*kind, "the server log has details", more=facts, headers={"Retry-After": "1"})
    facts = _facts(error, "code", "queue", "task_id", "existing_id", "state")
    more = {name: value for name, value in facts.items() if value}
    return document(*kind, str(error), more=more)


def _facts(error: TaskQError, *names: str) -> dict[str, Any]:
    return {name: getattr(error, name) for name in names if getattr(error, name, None) is not None}


def of_http(error: StarletteHTTPException) -> Response:
    """Return the response for an HTTP error, such as that of a dependency."""
    detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
    return document(
        error.status_code, *_STATUSES.get(error.status_code, _OTHER), detail, headers=dict(error.headers or {})
    )


def of_validation(error: RequestValidationError) -> Response:
    """Return the response for a request that is not valid."""
    if any(each["type"] == "json_invalid" for each in error.errors()):
        return document(400, *_STATUSES[400], "the body is not JSON")
    wrong = [{"where": [str(part) for part in each["loc"]], "message": str(each["msg"])} for each in error.errors()]
    first = f"{'.'.join(wrong[0]['where'])}: {wrong[0]['message']}" if wrong else "the request is not valid"
    return document(422, *_STATUSES[422], first, more={"errors": wrong})


def document(
    status: int,
    word: str,
    title: str,
    detail: str,
    *,
    more: Mapping[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a response with a problem document."""
    body = {"type": _URN + word, "title": title, "status": status, "detail": detail, **(more or {})}
    text = json.dumps(body, default=str)  # escapes all characters that are not ASCII, including lone surrogates
    return Response(text, status, headers=headers, media_type=MEDIA_TYPE)


def problem_route(
    refusal: Callable[[], HTTPException] | None, trusted_origins: Sequence[str], limiter: LoginLimiter
) -> type[APIRoute]:
    """Return the class of the routes of a router. Errors of other libraries are left to the app.

    Args:
        refusal: Returns the error of a closed router. None: the router is open.
        trusted_origins: Other origins whose pages may make changes.
        limiter: Counts the requests that the dependencies refuse.
    """

    class ProblemRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            body_max = PAYLOAD_BODY_MAX if self.name == "update_payload" else BODY_MAX

            async def answer(request: Request) -> Response:
                try:
                    if refusal is not None:
                        raise refusal()
                    await limiter.admit(request)
                    if request.method not in _SAFE:
                        check_origin(request, trusted_origins)
                        request = _limited(request, body_max)
                    response = await handle(request)
                except RequestValidationError as error:
                    response = of_validation(error)
                except StarletteHTTPException as error:
                    if error.status_code < 400:
                        raise
                    if refusal is None and not isinstance(error, OwnRefusal):
                        limiter.refuse(request, error.status_code, error.headers)
                    response = of_http(error)
                except TaskQError as error:
                    response = of_error(error)
                except Exception:
                    if not is_let_in(request):
                        # An unexpected error of an app's dependency also counts as a refusal.
                        limiter.refuse(request, 403)
                    raise
                finally:
                    end_attempt(request)
                response.headers["Cache-Control"] = "no-store"
                response.headers["X-Content-Type-Options"] = "nosniff"
                return response

            return answer

    return ProblemRoute


def _limited(request: Request, most: int) -> Request:
    """Return a request whose body raises an error when it is read, if it has more than `most` bytes."""
    too_large = HTTPException(413, f"the body may have at most {most} bytes")
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
