"""taskq for FastAPI: a lifespan that opens the queue application, and dependencies that give routes its client.

::

    app = FastAPI(lifespan=taskq_lifespan(taskq))

    @app.post("/signup")
    async def signup(email: str, client: ClientDep) -> dict[str, str]:
        handle = await client.enqueue(send_email.s(to=email))
        return {"task": handle.id}

A task enqueued in a route continues the trace of the request. Once sending has begun, the task is enqueued even if the
request is cancelled, for example because its client disconnected. There are no globals: the queue application belongs
to the app, and a mounted sub-app uses the queue application of its outer app.

In a test, `with TestClient(app)` runs the lifespan. To test without Redis, replace the client by a double:
`app.dependency_overrides[client_dep()] = lambda: double` (`sync_client_dep()` for `SyncClientDep`).
"""

from taskq_fastapi.api import taskq_router
from taskq_fastapi.dependencies import (
    ClientDep,
    InspectorDep,
    SyncClientDep,
    client_dep,
    inspector_dep,
    sync_client_dep,
)
from taskq_fastapi.depends import INJECTED, TaskDependencies, enable_depends
from taskq_fastapi.health import health_router
from taskq_fastapi.lifespan import taskq_lifespan
from taskq_fastapi.refusals import answer_refusal
from taskq_fastapi.router import task_router
from taskq_fastapi.status import AcceptedDep, TaskAccepted, TaskStatus, accepted_dep

__all__ = [
    "INJECTED",
    "AcceptedDep",
    "ClientDep",
    "InspectorDep",
    "SyncClientDep",
    "TaskAccepted",
    "TaskDependencies",
    "TaskStatus",
    "accepted_dep",
    "answer_refusal",
    "client_dep",
    "enable_depends",
    "health_router",
    "inspector_dep",
    "sync_client_dep",
    "task_router",
    "taskq_lifespan",
    "taskq_router",
]
