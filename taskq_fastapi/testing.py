"""Test helpers for FastAPI apps. They extend `taskq_core.testing` to apps whose lifespan does not run in a test.

::

    with capture(app, taskq) as tasks:
        TestClient(app).post("/signup", json={"email": "a@b.c"})
    tasks.assert_enqueued(send_welcome, to="a@b.c")

`with TestClient(app)` runs the lifespan; then the helpers of `taskq_core.testing` are enough.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from taskq_core import ConfigurationError, TaskQ, testing
from taskq_core.testing import Captured, EnqueuedTask, TaskRun, adrain, drain
from taskq_fastapi.applications import DEFAULT_NAME
from taskq_fastapi.dependencies import client_dep, sync_client_dep
from taskq_fastapi.depends import enable_depends

__all__ = [
    "Captured",
    "EnqueuedTask",
    "TaskRun",
    "adrain",
    "capture",
    "drain",
    "eager",
    "override_clients",
    "override_dependencies",
]


@contextmanager
def override_clients(app: FastAPI, taskq: TaskQ, *, name: str = DEFAULT_NAME) -> Iterator[None]:
    """Give the routes of an app the clients of a queue application, whether its lifespan runs or not.

    Args:
        app: The app. A mounted sub-app has separate overrides.
        taskq: The queue application.
        name: Its name in `client_dep(name)` and `sync_client_dep(name)`.

    Raises:
        ConfigurationError: The arguments have other types, for example because they are swapped.
    """
    if not isinstance(app, FastAPI) or not isinstance(taskq, TaskQ):
        raise ConfigurationError(
            "expected a FastAPI app and then a TaskQ, as in capture(app, taskq), "
            f"got {type(app).__name__} and {type(taskq).__name__}"
        )
    overrides = app.dependency_overrides
    before = dict(overrides)
    overrides[client_dep(name)] = lambda: taskq.async_client
    overrides[sync_client_dep(name)] = lambda: taskq.client
    try:
        yield
    finally:
        for dependency in (client_dep(name), sync_client_dep(name)):
            if dependency in before:
                overrides[dependency] = before[dependency]
            else:
                overrides.pop(dependency, None)


@contextmanager
def override_dependencies(
    taskq: TaskQ, overrides: Mapping[Callable[..., Any], Callable[..., Any]], *, app: FastAPI | None = None
) -> Iterator[None]:
    """Replace dependencies of tasks, and of the routes of an app.

    Args:
        taskq: The queue application.
        overrides: Replacements by dependency.
        app: An app whose routes get the same overrides. A mounted sub-app has separate overrides.
    """
    places = [enable_depends(taskq).dependency_overrides, *([] if app is None else [app.dependency_overrides])]
    before = [dict(place) for place in places]
    for place in places:
        place.update(overrides)
    try:
        yield
    finally:
        for place, known in zip(places, before, strict=True):
            place.clear()
            place.update(known)


@contextmanager
def capture(
    app: FastAPI, taskq: TaskQ, *, name: str = DEFAULT_NAME, state: Mapping[str, Any] | None = None
) -> Iterator[Captured]:
    """Capture the tasks that routes and other code enqueue in a `with` block, as `taskq_core.testing.capture` does.

    Args:
        app: The app.
        taskq: The queue application.
        name: See `override_clients`.
        state: As for `taskq_core.testing.capture`.
    """
    with override_clients(app, taskq, name=name), testing.capture(taskq, state=state) as tasks:
        yield tasks


@contextmanager
def eager(
    app: FastAPI,
    taskq: TaskQ,
    *,
    name: str = DEFAULT_NAME,
    retries: bool = False,
    raises: bool = True,
    state: Mapping[str, Any] | None = None,
) -> Iterator[Captured]:
    """Run each task at once when it is enqueued in a `with` block, as `taskq_core.testing.eager` does.

    Args:
        app: The app.
        taskq: The queue application.
        name: See `override_clients`.
        retries: Run failed and snoozed tasks again at once.
        raises: Raise the errors of failed tasks at the end of the block.
        state: As for `taskq_core.testing.capture`.
    """
    running = testing.eager(taskq, retries=retries, raises=raises, state=state)
    with override_clients(app, taskq, name=name), running as tasks:
        yield tasks
