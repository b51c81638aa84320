"""Traces and metrics of tasks, on `opentelemetry-api` alone.

A task continues the trace of the request that enqueued it: `propagation` carries trace and baggage in the task's
headers (`envelope` in the payload, for peers without headers), `spans` opens the span of the sender and that of the
run, `metrics` counts both. Without an SDK none of it runs. `configure` sets up an SDK for programs that have none; it
alone imports the SDK, when it is called.
"""

from taskq_core.telemetry.configure import TelemetryHandle, configure
from taskq_core.telemetry.envelope import trace_id, unwrap, wrap
from taskq_core.telemetry.metrics import ClientMetrics, Outcome, WorkerMetrics
from taskq_core.telemetry.propagation import extract, fit, inject
from taskq_core.telemetry.spans import ConsumerSpan, ProducerSpan, Relation, Tracing, type_name

__all__ = [
    "ClientMetrics",
    "ConsumerSpan",
    "Outcome",
    "ProducerSpan",
    "Relation",
    "TelemetryHandle",
    "Tracing",
    "WorkerMetrics",
    "configure",
    "extract",
    "fit",
    "inject",
    "trace_id",
    "type_name",
    "unwrap",
    "wrap",
]
