"""The route `/metrics`, with the same metrics as `taskq exporter`. It needs the extra `exporter`.

::

    app.include_router(metrics_router(taskq, dependencies=[Depends(prometheus)]))
"""

import logging
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Response

from taskq_core import ConfigurationError, TaskQ
from taskq_exporter import Exporter, ExporterConfig
from taskq_exporter.serving import wait_s

logger = logging.getLogger("taskq.exporter")


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
    if allow_anonymous and dependencies:
        raise ConfigurationError("metrics_router takes either dependencies or allow_anonymous=True, got both")
    guards = [*dependencies] if dependencies or allow_anonymous else [Depends(_refuse)]
    router = APIRouter(tags=["metrics"], dependencies=guards)
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


async def _refuse() -> None:
    logger.warning(
        "metrics_router answers 403: pass dependencies=[Depends(...)] that admit Prometheus, or allow_anonymous=True "
        "to let everybody see the names of queues and tasks, and how many there are"
    )
    raise HTTPException(403, "access is not configured; the log of the server explains how to allow it")
