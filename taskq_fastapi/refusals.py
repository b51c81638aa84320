"""Answer requests whose task was refused: 409 if another task is in its place, 503 if a later request may succeed.

The answer is the same wherever the refusal becomes known: `client.enqueue` raises it, and the app has `answer_refusal`
as exception handler, or a commit stores it in the handle, which a route passes to `accepted` or returns.
"""

from math import ceil
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler

from taskq_core import (
    BrokerError,
    CircuitOpenError,
    DuplicateTaskError,
    EnqueueError,
    QueueFullError,
    TaskHandle,
    TaskIdConflictError,
)
from taskq_core.handles import handle as handles
from taskq_fastapi.addresses import path_of, status_route
from taskq_fastapi.applications import DEFAULT_NAME

FULL_S = 30
"""Seconds after which a client may try again if the queue was full."""
AWAY_S = 5
"""Seconds after which a client may try again if Redis did not answer, or refused the task."""


async def answer_refusal(request: Request, error: Exception) -> Response:
    """Answer a request in which an enqueue raised an `EnqueueError`. Register it as exception handler of the app.

    Raises:
        EnqueueError: The error has another reason, so the answer is 500.

    Example:
        `app.add_exception_handler(EnqueueError, answer_refusal)`
    """
    refusal = _refusal(error, request, DEFAULT_NAME)
    if refusal is None:
        raise error
    return await http_exception_handler(request, refusal)


def check_accepted(handle: TaskHandle[Any], request: Request | None = None, name: str = DEFAULT_NAME) -> None:
    """Check that the task of a handle was sent, or may still be sent.

    Args:
        handle: The handle.
        request: The request, for the path of the existing task.
        name: Name of the queue application.

    Raises:
        HTTPException: The task was refused or could not be sent after the commit. The status is 409 or 503.
        TaskNotSentError: The transaction was rolled back, or the send failed for another reason.
    """
    error = handle.send_error
    refusal = None if error is None else _refusal(error, request, name)
    if refusal is not None:
        raise refusal from error
    handle.check_not_lost()


def _refusal(error: BaseException, request: Request | None, name: str) -> HTTPException | None:
    cause = error.__cause__
    if isinstance(error, DuplicateTaskError | TaskIdConflictError):
        existing = error.existing_id if isinstance(error, DuplicateTaskError) else error.task_id
        url = path_of(request, status_route(name), error.queue, existing) if request and existing else None
        detail = {
            "message": str(error),
            "queue": error.queue,
            "existing_id": existing or None,
            "status_url": url,
        }
        return HTTPException(409, detail, headers={"Location": url} if url else None)
    if isinstance(error, QueueFullError):
        return _try_again(f"queue {error.queue!r} is full", FULL_S)
    if isinstance(error, EnqueueError) and isinstance(cause, BrokerError):
        after_s = cause.retry_in_s if isinstance(cause, CircuitOpenError) else AWAY_S
        return _try_again(f"task {error.task!r} was not enqueued, because the queue does not answer", after_s)
    return None


def _try_again(detail: str, after_s: float) -> HTTPException:
    return HTTPException(503, detail, headers={"Retry-After": str(max(1, ceil(after_s)))})


handles.check_answer = check_accepted
