"""What tests of a FastAPI app need: `taskq_core.testing`, and clients for an app whose lifespan does not run.

::

    with capture(app, taskq) as tasks:
        TestClient(app).post("/signup", json={"email": "a@b.c"})
    tasks.assert_enqueued(send_welcome, to="a@b.c")

`with TestClient(app)` runs the lifespan; then `taskq_core.testing` alone does as well.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from taskq_core import TaskQ, testing
from taskq_core.testing import Captured, EnqueuedTask, TaskRun, adrain, drain
from taskq_fastapi.applications import DEFAULT_NAME
from taskq_fastapi.dependencies import client_dep, sync_client_dep

__all__ = ["Captured", "EnqueuedTask", "TaskRun", "adrain", "capture", "drain", "eager", "override_clients"]


@contextmanager
def override_clients(app: FastAPI, taskq: TaskQ, *, name: str = DEFAULT_NAME) -> Iterator[None]:
    """Give the routes of an app the clients of a queue application, whether its lifespan runs or not.

    Args:
        app: The app. A mounted sub-app has overrides of its own.
        taskq: The queue application.
        name: The one it stands for in `client_dep(name)` and `sync_client_dep(name)`.
    """
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
def capture(app: FastAPI, taskq: TaskQ, *, name: str = DEFAULT_NAME) -> Iterator[Captured]:
    """Capture what an app's routes and other code enqueue in a `with` block. As `taskq_core.testing.capture`.

    Args:
        app: The app.
        taskq: The queue application.
        name: See `override_clients`.
    """
    with override_clients(app, taskq, name=name), testing.capture(taskq) as tasks:
        yield tasks


@contextmanager
def eager(
    app: FastAPI, taskq: TaskQ, *, name: str = DEFAULT_NAME, retries: bool = False, raises: bool = True
) -> Iterator[Captured]:
    """Run each task at once that is enqueued in a `with` block. As `taskq_core.testing.eager`.

    Args:
        app: The app.
        taskq: The queue application.
        name: See `override_clients`.
        retries: Run again at once what failed or was snoozed.
        raises: Raise at the end of the block what tasks failed with.
    """
    with override_clients(app, taskq, name=name), testing.eager(taskq, retries=retries, raises=raises) as tasks:
        yield tasks
