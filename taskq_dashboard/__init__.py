"""A web dashboard with pages that update themselves.

::

    app.mount("/taskq", taskq_dashboard(taskq, login=authenticate))

The dashboard is an ASGI app. Mount it in FastAPI or Starlette, or run it alone: `taskq dashboard` serves it on this
machine. It refuses every request until you set who may see it, logs every action to `taskq.audit`, and loads nothing
from other servers.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from taskq_core import ConfigurationError, TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.settings.language import gettext, translated_with
from taskq_core.views import AsyncDashboard
from taskq_dashboard import pages as _pages  # noqa: F401 - registers the pages
from taskq_dashboard.languages import catalogue, language_of
from taskq_dashboard.people import Check, LoggedIn, Login, Role, User, basic_login
from taskq_dashboard.site import Site, secured
from taskq_dashboard.view import Services
from taskq_fastapi.api.access import Redact
from taskq_fastapi.api.origin import check_trusted
from taskq_fastapi.closed import is_closed
from taskq_fastapi.throttle import FAILED_LOGINS, LoginLimiter, TooManyError, end_attempt

__all__ = ["Check", "LoggedIn", "Login", "Redact", "Role", "User", "basic_login", "taskq_dashboard"]

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def taskq_dashboard(
    taskq: TaskQ,
    *,
    login: Login | None = None,
    dependencies: Sequence[Any] = (),
    allow_anonymous: bool = False,
    read_only: bool = False,
    viewers_see_payloads: bool = False,
    redact: Redact | None = None,
    trusted_origins: Sequence[str] = (),
    title: str = "taskq",
    failed_logins: str | None = FAILED_LOGINS,
) -> FastAPI:
    """Return the dashboard of a queue application, as an ASGI app.

    Args:
        taskq: The queue application. Its connections are closed by the lifespan that it is given to.
        login: Authenticates a request. It returns a `User`, a response such as a redirect to the login of the app, or
            None to refuse the request. Plain or asynchronous.
        dependencies: `Depends(...)` of functions that raise for users who may not see the dashboard. All other users
            are operators, unless `login` returns another role. Without dependencies and without a login, every request
            is answered 403.
        allow_anonymous: Whether everyone may see and change everything, without a login and without dependencies.
        read_only: Whether all changes are refused, for every role.
        viewers_see_payloads: Whether viewers see payloads, results and tracebacks, as operators do.
        redact: Called with the name of a task, the kind of a value (`payload`, `result`, `headers`, `error`,
            `traceback`, `progress`) and the value; returns the value to show. If it raises, the value is hidden.
        trusted_origins: Origins (`https://ops.example.com`) of the dashboard. Needed if a proxy changes the header
            `Host` and the browsers of users do not send `Sec-Fetch-Site`.
        title: Title of each page.
        failed_logins: Maximum rate of refused logins from one address, such as "10/m"; None: no limit.

    Raises:
        ConfigurationError: An argument is not valid, or `allow_anonymous` is given with a login or dependencies.
    """
    if not isinstance(taskq, TaskQ):
        raise ConfigurationError(f"taskq_dashboard takes a TaskQ, got {type(taskq).__name__}")
    for name, hook in (("login", login), ("redact", redact)):
        if hook is not None and not callable(hook):
            raise ConfigurationError(f"{name} must be a function, got {type(hook).__name__}")
    check_trusted(trusted_origins)
    limiter = LoginLimiter(failed_logins)
    guards = [*dependencies, *([] if login is None else [login])]
    inspector = AsyncInspector(taskq)
    site = Site(
        Services(
            taskq=taskq,
            inspector=inspector,
            dashboard=AsyncDashboard(inspector),
            login=login,
            is_closed=is_closed("taskq_dashboard", guards, allow_anonymous=allow_anonymous),
            read_only=read_only,
            viewers_see_payloads=viewers_see_payloads,
            redact=redact,
            trusted_origins=tuple(trusted_origins),
            title=title,
        ),
        limiter,
    )
    app = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None, dependencies=list(dependencies))

    async def answer(request: Request) -> Response:
        return await site.answer(request, _own_path(request.scope, request.path_params["path"]))

    app.router.route_class = _guarded(limiter)
    # One route serves all paths, so that the app's dependencies also run before files and error pages.
    app.add_api_route("/{path:taskq_any}", answer, methods=_METHODS, response_model=None)
    return app


def _guarded(limiter: LoginLimiter) -> type[APIRoute]:
    """Return the class of the dashboard's route. It sets the language and applies the limit of refused logins."""

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                with translated_with(catalogue(language_of(request))):
                    try:
                        await limiter.admit(request)
                    except TooManyError as error:
                        text = gettext("too many refused logins: try again in %(seconds)s s", seconds=error.seconds)
                        return secured(PlainTextResponse(text, error.status_code, headers=error.headers))
                    try:
                        return await handle(request)
                    except HTTPException as error:  # a dependency of the app refused the request
                        limiter.refuse(request, error.status_code, error.headers)
                        raise
                    finally:
                        end_attempt(request)

            return answer

    return Guarded


def _own_path(scope: Scope, path: str) -> str:
    """Return the path relative to the dashboard.

    If a proxy removes the `root_path` of the app from the address, the path of a mounted app still contains the mount
    path, which is the part by which `root_path` has grown.
    """
    root = scope.get("root_path", "")
    if scope["path"].startswith(root):
        return path
    mounted = root.removeprefix(scope.get("app_root_path", "")).strip("/")
    return path.removeprefix(f"{mounted}/") if mounted else path
