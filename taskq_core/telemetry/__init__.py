"""Traces and metrics of tasks, on `opentelemetry-api` alone.

A task continues the trace of the request that enqueued it. `propagation` writes trace and baggage into the task's
headers, `recording` and `tracing` start the spans of enqueues and runs, `recording` and `worker_metrics` count them.
Without an SDK this package does nothing. `configure` sets up an SDK for programs without one, and imports it only then.
"""

from taskq_core.settings import OptIn, Relation
from taskq_core.telemetry import names
from taskq_core.telemetry.configure import TelemetryHandle, configure, flush_at_end, is_log_exporter
from taskq_core.telemetry.exceptions import type_name
from taskq_core.telemetry.gauges import GaugeBoard, Reading, gauges
from taskq_core.telemetry.launcher import launched
from taskq_core.telemetry.metrics import NOT_PROCESSED, RunOutcome
from taskq_core.telemetry.propagation import current_ids, current_traceparent, extract, fit, trace_id
from taskq_core.telemetry.recording import BatchSpan, ClientMetrics, ProducerSpan
from taskq_core.telemetry.tracing import FIRST_RUN, LINKS, LINKS_MAX, NO_RUN, RUN, ConsumerSpan, Tracing
from taskq_core.telemetry.worker_metrics import WorkerMetrics

__all__ = [
    "TelemetryHandle",
    "configure",
    "flush_at_end",
]  # names for users; other packages of taskq import names from the modules
