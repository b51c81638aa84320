"""Store the queue applications of an app, and find them for a request.

They are stored on `app.state` and in the lifespan state that the server passes to every request. Starlette does not run
the lifespan of a mounted sub-app, but passes the state of the server to it. So a sub-app finds its own queue
applications first, and then those of the outer app.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fastapi.requests import HTTPConnection
from starlette.applications import Starlette

from taskq_core import ConfigurationError, TaskQ
from taskq_core.worker.background import BackgroundWorker

DEFAULT_NAME = "default"
"""Name of the queue application if an app has only one."""
STATE_KEY = "taskq_applications"
"""Attribute of `app.state` and key of the lifespan state for the queue applications by name."""
WORKERS_KEY = "taskq_workers"
"""Attribute of `app.state` and key of the lifespan state for the workers in this process, by the same names."""

_MISSING = (
    "this request has no queue application: create the app with FastAPI(lifespan=taskq_lifespan(taskq)). "
    "If you did, the lifespan did not run: a mounted sub-app needs taskq_lifespan on its outer app, "
    "and a test needs `with TestClient(app)`, or `capture(app, taskq)` of taskq_fastapi.testing"
)


@contextmanager
def registered(app: Starlette, key: str, values: Mapping[str, object]) -> Iterator[None]:
    """Add values by name to an attribute of `app.state` for a `with` block. Values of an outer block stay visible."""
    before: dict[str, object] | None = getattr(app.state, key, None)
    setattr(app.state, key, {**(before or {}), **values})
    try:
        yield
    finally:
        if before is None:
            delattr(app.state, key)
        else:
            setattr(app.state, key, before)


def workers(connection: HTTPConnection) -> dict[str, BackgroundWorker]:
    """Return the workers of this process by the name of their queue application."""
    own: Mapping[str, BackgroundWorker] = getattr(connection.app.state, WORKERS_KEY, {})
    outer: Mapping[str, BackgroundWorker] = connection.scope.get("state", {}).get(WORKERS_KEY, {})
    return {**outer, **own}


def find(connection: HTTPConnection, name: str) -> TaskQ:
    """Return the queue application of a request or WebSocket.

    Raises:
        ConfigurationError: No queue application has this name. The message says how to add one.
    """
    own: Mapping[str, TaskQ] = getattr(connection.app.state, STATE_KEY, {})
    outer: Mapping[str, TaskQ] = connection.scope.get("state", {}).get(STATE_KEY, {})
    taskq = own.get(name) or outer.get(name)
    if taskq is not None:
        return taskq
    known = sorted({*own, *outer})
    if not known:
        raise ConfigurationError(_MISSING)
    raise ConfigurationError(
        f"no queue application is named {name!r}; known are {', '.join(map(repr, known))}. "
        f"Ask for one with client_dep({known[0]!r}), or add {name!r} to the mapping given to taskq_lifespan"
    )
