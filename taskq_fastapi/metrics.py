"""`/metrics` in an app: what `taskq exporter` serves, on a route. It needs the extra `exporter`.

::

    app.include_router(metrics_router(taskq, dependencies=[Depends(prometheus)]))
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from taskq_core import TaskQ
from taskq_core.exporter import Exporter, ExporterConfig
from taskq_core.exporter.serving import wait_s
from taskq_fastapi.closed import guards

_OPEN_FOR = "see the names of queues and tasks, and how many there are"


def metrics_router(
    taskq: TaskQ,
    *,
    dependencies: Sequence[Any] = (),
    allow_anonymous: bool = False,
    config: ExporterConfig | None = None,
) -> APIRouter:
    """Return a router with `/metrics`: figures of all queues for Prometheus. It answers 200 even without Redis.

    Every process of the app returns the same figures, so scrape one. They contain nothing about the process; serve its
    metrics on another route.

    Args:
        taskq: The queue application. Its connections are closed by the lifespan that it is given to.
        dependencies: Who may scrape: `Depends(...)` of what raises for all others. Without any it answers 403.
        allow_anonymous: Whether everybody may scrape, without dependencies.
        config: How many labels there may be, and how long Redis may take; the rest of it says nothing here.

    Raises:
        ConfigurationError: Dependencies are given though everybody may ask.
    """
    guarded = guards("metrics_router", dependencies, allow_anonymous=allow_anonymous, open_for=_OPEN_FOR)
    router = APIRouter(tags=["metrics"], dependencies=guarded)
    exporter = Exporter(taskq, config)

    @router.get("/metrics", response_class=Response, include_in_schema=False)
    async def metrics(
        accept: Annotated[str, Header()] = "",
        accept_encoding: Annotated[str, Header()] = "",
        x_prometheus_scrape_timeout_seconds: Annotated[str, Header()] = "",
    ) -> Response:
        """Return the figures of all queues."""
        told = await exporter.expose(
            accept=accept, accept_encoding=accept_encoding, wait_s=wait_s(x_prometheus_scrape_timeout_seconds)
        )
        return Response(told.body, headers=told.headers)

    return router
