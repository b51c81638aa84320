"""Where an app keeps its queue applications while its lifespan runs, and how a request finds them.

They stand in two places, and nowhere else: on `app.state`, and in the lifespan state that the server hands to every
request. Starlette runs no lifespan for a mounted sub-app and passes the server's state on to it, so a sub-app finds its
own queue applications first and those of the app it is mounted in after them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fastapi.requests import HTTPConnection
from starlette.applications import Starlette

from taskq_core import ConfigurationError, TaskQ

DEFAULT_NAME = "default"
"""Name of the queue application where only one is given."""
STATE_KEY = "taskq_applications"
"""Attribute of `app.state`, and key of the lifespan state."""

_MISSING = (
    "this request has no queue application: create the app with FastAPI(lifespan=taskq_lifespan(taskq)). "
    "If it is created so, its lifespan does not run: a mounted sub-app needs taskq_lifespan on the app that it is "
    "mounted in, and a test needs `with TestClient(app)` or an entry in app.dependency_overrides"
)


@contextmanager
def registered(app: Starlette, taskqs: Mapping[str, TaskQ]) -> Iterator[None]:
    """Keep queue applications on an app for the time of a `with` block, beside those of an enclosing one."""
    before: dict[str, TaskQ] | None = getattr(app.state, STATE_KEY, None)
    setattr(app.state, STATE_KEY, {**(before or {}), **taskqs})
    try:
        yield
    finally:
        if before is None:
            delattr(app.state, STATE_KEY)
        else:
            setattr(app.state, STATE_KEY, before)


def find(connection: HTTPConnection, name: str) -> TaskQ:
    """Return the queue application of a request or WebSocket.

    Raises:
        ConfigurationError: There is none of this name, or none at all; the message says how to give one.
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
