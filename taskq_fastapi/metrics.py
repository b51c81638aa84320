"""The route `/metrics`, with the same metrics as `taskq exporter`. It needs the extra `exporter`.

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
    """Return a router with `/metrics`: metrics of all queues for Prometheus. It answers 200 even without Redis.

    Every process of the app returns the same metrics, so scrape one process. They contain nothing about the process
    itself.

    Args:
        taskq: The queue application. Its connections are closed by the lifespan that it is given to.
        dependencies: `Depends(...)` of functions that raise for callers who may not scrape. Without any, the route
            answers 403.
        allow_anonymous: Whether everybody may scrape, without dependencies.
        config: Limits of labels, and the timeout for Redis. The other fields have no effect here.

    Raises:
        ConfigurationError: Both dependencies and `allow_anonymous` are given.
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
        """Return the metrics of all queues."""
        exposed = await exporter.expose(
            accept=accept, accept_encoding=accept_encoding, wait_s=wait_s(x_prometheus_scrape_timeout_seconds)
        )
        return Response(exposed.body, headers=exposed.headers)

    return router
