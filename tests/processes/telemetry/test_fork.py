"""Test the spans of a forked child."""

import os
import socket

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core.telemetry import Tracing
from tests.taskq_core.telemetry.test_spans import enqueue


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_different_id(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    tracing = Tracing(tracer_provider=provider)
    enqueue(tracing)
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        enqueue(tracing)
        span = exporter.get_finished_spans()[-1]
        os.write(writer, str((span.attributes or {})["messaging.client.id"]).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reader, 1000).decode() == f"{socket.gethostname()}:{child}"
    os.close(reader)
    os.close(writer)
