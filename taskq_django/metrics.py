"""`/metrics` in a site: what `taskq exporter` serves, as a view. It needs the extra `exporter`.

::

    path("metrics", metrics_view(allow=lambda request: request.headers.get("Authorization") == f"Bearer {TOKEN}"))
"""

import asyncio
import logging
import threading
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from taskq_core.exporter import Exporter, ExporterConfig
from taskq_core.exporter.serving import wait_s
from taskq_django.app import taskq

logger = logging.getLogger("taskq.django")


def metrics_view(
    *, allow: Callable[[HttpRequest], bool] | None = None, config: ExporterConfig | None = None
) -> Callable[[HttpRequest], HttpResponse]:
    """Return a view with the metrics of all queues, for Prometheus. It answers 200 also without Redis.

    Every process of the site gives the same metrics.

    Args:
        allow: Says whether a request may see the metrics; others are answered 403. Without it all are.
        config: How many labels there may be, and how long Redis may take; the rest of it says nothing here.
    """
    exporter: list[Exporter] = []
    turn = threading.Lock()

    @require_safe
    def metrics(request: HttpRequest) -> HttpResponse:
        if allow is None:
            logger.warning(
                "metrics_view answers 403: give it allow=..., which says of a request whether it may see them"
            )
        if allow is None or not allow(request):
            return HttpResponse("this is closed\n", status=403, content_type="text/plain")
        with turn:  # who waits here is answered from the reading of the one before
            if not exporter:
                exporter.append(Exporter(taskq, config))
            told = asyncio.run(
                exporter[0].expose(
                    accept=request.headers.get("Accept", ""),
                    accept_encoding=request.headers.get("Accept-Encoding", ""),
                    wait_s=wait_s(request.headers.get("X-Prometheus-Scrape-Timeout-Seconds", "")),
                )
            )
        return HttpResponse(told.body, headers=told.headers)

    return metrics
