"""The routes `/livez` and `/readyz`, which report the health of the workers in the process of an app.

::

    app = FastAPI(lifespan=taskq_lifespan(taskq, worker=True))
    app.include_router(health_router())
"""

from typing import Any

from fastapi import APIRouter, Request, Response

from taskq_fastapi.applications import workers


def health_router(*, show_details: bool = False) -> APIRouter:
    """Return a router with `/livez` and `/readyz`, which anyone may call.

    `/readyz` answers 200 while every worker of `taskq_lifespan(..., worker=...)` takes tasks and Redis executes its
    requests. Otherwise it answers 503, also while a dead worker is not replaced yet. Without a worker in the process
    it always answers 200, because most routes of an app do not need Redis.

    Args:
        show_details: Also return the queues of each worker with their sizes, and the texts of errors, which contain the
            address of Redis.
    """
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Report that the event loop runs."""
        return {"status": "alive"}

    @router.get("/readyz", responses={503: {"description": "A worker in this process takes no tasks."}})
    async def readyz(request: Request, response: Response) -> dict[str, Any]:
        """Report whether the workers in this process take tasks."""
        reports = {name: worker.report() for name, worker in workers(request).items()}
        is_ready = all(ready for ready, _ in reports.values())
        response.status_code = 200 if is_ready else 503
        response.headers["Cache-Control"] = "no-store"
        shown = None if show_details else ("status", "restarts")
        return {
            "status": "ready" if is_ready else "unready",
            "workers": {
                name: {key: value for key, value in body.items() if shown is None or key in shown}
                for name, (_, body) in reports.items()
            },
        }

    return router
