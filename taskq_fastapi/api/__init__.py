"""The JSON API: the inspector over HTTP.

::

    app.include_router(taskq_router(taskq, dependencies=[Depends(operator)]), prefix="/taskq")

Responses are the records of `taskq_core.views` and of the inspector, as typed models. Errors are problem documents (RFC
9457). Without access rules the API refuses every request. It hides payloads by default, and logs every change to the
logger `taskq.audit`.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request

from taskq_core import ConfigurationError, TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.views import AsyncDashboard
from taskq_fastapi.api.access import Allowed, Redact, Who, access
from taskq_fastapi.api.bulk_routes import add_bulk_routes
from taskq_fastapi.api.origin import check_trusted
from taskq_fastapi.api.parts import Parts
from taskq_fastapi.api.problems import RESPONSES, Problem, problem_route
from taskq_fastapi.api.queue_routes import add_figure_routes, add_limit_routes, add_queue_routes
from taskq_fastapi.api.schedule_routes import add_schedule_routes
from taskq_fastapi.api.task_routes import add_task_list_routes, add_task_routes
from taskq_fastapi.api.worker_routes import add_worker_routes
from taskq_fastapi.api.workflow_routes import add_workflow_routes
from taskq_fastapi.closed import is_closed, refusal
from taskq_fastapi.throttle import FAILED_LOGINS, LoginLimiter, let_in

__all__ = ["Allowed", "Problem", "Redact", "Who", "taskq_router"]

_OPEN_FOR = "see, change and delete every task"


def taskq_router(
    taskq: TaskQ,
    *,
    dependencies: Sequence[Any] = (),
    allow_anonymous: bool = False,
    read_only: Allowed = False,
    show_payloads: Allowed = False,
    redact: Redact | None = None,
    who: Who | None = None,
    trusted_origins: Sequence[str] = (),
    failed_logins: str | None = FAILED_LOGINS,
) -> APIRouter:
    """Return a router with the JSON API of a queue application.

    Args:
        taskq: The queue application. Its connections are closed by the lifespan that it is given to.
        dependencies: `Depends(...)` of functions that raise for callers who may not use the API. Without any, the
            routes answer 403.
        allow_anonymous: Whether all callers are allowed, without dependencies.
        read_only: Whether changes are refused with 403: True, False, or a dependency that returns it for a request.
        show_payloads: Whether payloads, results and tracebacks are shown: True, False, or a dependency that returns it
            for a request. Callers who do not see payloads cannot search or change them.
        redact: Called with the name of a task, the kind of a value (`payload`, `result`, `headers`, `error`,
            `traceback`, `progress`) and the value; returns the value to show. With it, payloads can be neither searched
            nor changed. If it raises, the value is hidden.
        who: A dependency that returns the name of the caller for the audit log. Default: the address of the client.
        trusted_origins: Other origins (`https://ops.example.com`) whose pages may make changes.
        failed_logins: Maximum rate of requests from one address that the dependencies refuse, such as "10/m"; None: no
            limit.

    Raises:
        ConfigurationError: An argument is not valid, or both dependencies and `allow_anonymous` are given.
    """
    if not isinstance(taskq, TaskQ):
        raise ConfigurationError(f"taskq_router takes a TaskQ, got {type(taskq).__name__}")
    check_trusted(trusted_origins)
    closed = is_closed("taskq_router", dependencies, allow_anonymous=allow_anonymous)
    route_class = problem_route(
        (lambda: refusal("taskq_router", _OPEN_FOR)) if closed else None,
        tuple(trusted_origins),
        LoginLimiter(failed_logins),
    )
    # `_let_in` comes last, so that it runs only after the app's dependencies have authenticated the caller.
    router = APIRouter(dependencies=[*dependencies, Depends(_let_in)], route_class=route_class, responses=RESPONSES)
    inspector = AsyncInspector(taskq)
    parts = Parts(
        taskq=taskq,
        inspector=inspector,
        dashboard=AsyncDashboard(inspector),
        access=access(read_only=read_only, show_payloads=show_payloads, redact=redact, who=who),
    )
    add_bulk_routes(router, parts)
    add_task_list_routes(router, parts)
    add_task_routes(router, parts)
    add_queue_routes(router, parts)
    add_figure_routes(router, parts)
    add_worker_routes(router, parts)
    add_schedule_routes(router, parts)
    add_limit_routes(router, parts)
    add_workflow_routes(router, parts)
    return router


async def _let_in(request: Request) -> None:
    let_in(request)
