"""Serve the metrics of `taskq exporter` as a Django view. Needs the extra `exporter`.

::

    path("metrics", metrics_view(taskq, allow=is_prometheus))
"""

import asyncio
import logging
import threading
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from taskq_core import TaskQ
from taskq_exporter import Exporter, ExporterConfig
from taskq_exporter.serving import wait_s

logger = logging.getLogger("taskq.exporter")


def metrics_view(
    taskq: TaskQ, *, allow: Callable[[HttpRequest], bool] | None = None, config: ExporterConfig | None = None
) -> Callable[[HttpRequest], HttpResponse]:
    """Return a view with the metrics of all queues, for Prometheus.

    It answers 200 even if Redis cannot be reached, because Prometheus then still scrapes the metric that reports it.
    Every process of the site returns the same metrics.

    Args:
        taskq: The queue application: `taskq_django.taskq`.
        allow: Returns whether a request may see the metrics. Otherwise the view answers 403. None: always 403.
        config: Maximum number of labels and of seconds for Redis. The address in it has no effect here.
    """
    exporter: list[Exporter] = []
    turn = threading.Lock()

    @require_safe
    def metrics(request: HttpRequest) -> HttpResponse:
        if allow is None:
            logger.warning(
                "metrics_view answers 403: pass allow=..., a function that returns whether a request may see metrics"
            )
        if allow is None or not allow(request):
            return HttpResponse("access to the metrics is not allowed\n", status=403, content_type="text/plain")
        with turn:  # a request that has waited here gets the metrics that the previous request has read
            if not exporter:
                exporter.append(Exporter(taskq, config))
            scrape = asyncio.run(
                exporter[0].expose(
                    accept=request.headers.get("Accept", ""),
                    accept_encoding=request.headers.get("Accept-Encoding", ""),
                    wait_s=wait_s(request.headers.get("X-Prometheus-Scrape-Timeout-Seconds", "")),
                )
            )
        return HttpResponse(scrape.body, headers=scrape.headers)

    return metrics
