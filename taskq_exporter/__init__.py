"""Metrics of all queues for Prometheus, under the names of Asynq's exporter, and additional metrics.

All numbers are read from Redis at each scrape. So counters continue after a restart of the exporter, and several
exporters show the same. A scrape costs a few commands per queue, however many tasks, groups and workers there are.
Simultaneous scrapes share one reading. While Redis does not answer, a scrape returns `taskq_up 0` before its deadline.

`series` makes metrics, `exporter` reads Redis, `serving` listens on a port, `django` has a view, and `fastapi` a route.
The package needs the extra `exporter`.
"""

from taskq_exporter.config import ExporterConfig
from taskq_exporter.exporter import Exporter, Exposition
from taskq_exporter.serving import run_exporter

__all__ = ["Exporter", "ExporterConfig", "Exposition", "run_exporter"]
