"""Test telemetry in separate processes: without an SDK, at their end, and in forked children."""

import os
import subprocess
import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.taskq_core.telemetry.test_configure import Receiver


def test_telemetry_works_without_an_sdk() -> None:
    """Only `configure` needs the SDK."""
    code = """
import sys
sys.modules["opentelemetry.sdk"] = None
from taskq_core.errors import ConfigurationError
from taskq_core.telemetry import ClientMetrics, Tracing, WorkerMetrics, configure
Tracing().start_producer("low").end()
ClientMetrics().sent("low", "email")
WorkerMetrics().flush()
try:
    configure()
except ConfigurationError:
    sys.exit(0)
sys.exit("no error")
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_end_of_the_process_flushes_and_a_forked_child_exports_too(receiver: Receiver) -> None:
    code = """
import os, sys
from taskq_core.telemetry import Tracing, configure
configure("shop")
Tracing().start_producer("parent").end()
child = os.fork()
if child == 0:
    Tracing().start_producer("child").end()
    sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {"PATH": os.environ["PATH"], "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    environment["OTEL_METRICS_EXPORTER"] = "none"

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    names = sorted(
        span.name
        for _, body in receiver.requests
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert names == ["send child", "send parent"]
