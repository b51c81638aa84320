"""`/livez` and `/readyz` of an app, which report on the workers in its process like the port of a worker.

::

    app = FastAPI(lifespan=taskq_lifespan(taskq, worker=True))
    app.include_router(health_router())
"""

from typing import Any

from fastapi import APIRouter, Request, Response

from taskq_fastapi.applications import workers


def health_router(*, show_details: bool = False) -> APIRouter:
    """Return a router with `/livez` and `/readyz`, open to everybody who reaches the app.

    `/readyz` answers 200 while each worker of `taskq_lifespan(..., worker=...)` takes tasks and Redis carries out what
    it is asked, and 503 otherwise: also while one has died and another one has not started yet. Without a worker in
    the process it always answers 200, because most routes of an app do not need Redis.

    Args:
        show_details: Include the details that the port of a worker shows: its queues with their sizes, and the text of
            errors, which contains the address of Redis.
    """
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Answer as long as the event loop turns."""
        return {"status": "alive"}

    @router.get("/readyz", responses={503: {"description": "A worker in this process does not work."}})
    async def readyz(request: Request, response: Response) -> dict[str, Any]:
        """Tell whether the workers in this process work."""
        reports = {name: worker.report() for name, worker in workers(request).items()}
        is_ready = all(ready for ready, _ in reports.values())
        response.status_code = 200 if is_ready else 503
        response.headers["Cache-Control"] = "no-store"
        kept = None if show_details else ("status", "restarts")
        return {
            "status": "ready" if is_ready else "unready",
            "workers": {
                name: {key: value for key, value in body.items() if kept is None or key in kept}
                for name, (_, body) in reports.items()
            },
        }

    return router
