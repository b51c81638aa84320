"""How queues stand, for Prometheus: read from Redis when it scrapes, under the names of Asynq's exporter and some more.

All numbers come from Redis, so counters go on where they were when an exporter starts anew, and several exporters tell
the same. A scrape costs a few commands a queue, however many tasks, groups and workers there are; scrapes that
come at the same time share one reading. While Redis does not answer, a scrape says `taskq_up 0` within a deadline.

`reading` asks Redis, `series` makes series of the answers, `exporter` ties both together and `serving` listens on a
port. It needs the extra `exporter`.
"""

from taskq_core.exporter.config import ExporterConfig
from taskq_core.exporter.exporter import Exporter, Exposition
from taskq_core.exporter.serving import run_exporter

__all__ = ["Exporter", "ExporterConfig", "Exposition", "run_exporter"]
