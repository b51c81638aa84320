from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskq_core.telemetry import ClientMetrics, Tracing
from taskq_core.telemetry.instrumentor import TaskQInstrumentor
from taskq_core.telemetry.providers import switch


@pytest.fixture
def instrumentor() -> Iterator[TaskQInstrumentor]:
    instrumentor = TaskQInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    switch.turn_on()


def test_the_opentelemetry_launcher_finds_the_instrumentor() -> None:
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="taskq")

    assert entry.load() is TaskQInstrumentor


@pytest.mark.usefixtures("clean_globals")
def test_instrumenting_twice_writes_each_span_once(
    instrumentor: TaskQInstrumentor, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    trace.set_tracer_provider(provider)
    tracing = Tracing()
    tracing.start_producer("before").end()

    instrumentor.instrument()
    instrumentor.instrument()
    tracing.start_producer("after").end()

    assert [span.name for span in exporter.get_finished_spans()] == ["send before", "send after"]


@pytest.mark.usefixtures("clean_globals")
def test_other_providers_are_used(
    instrumentor: TaskQInstrumentor,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    meter_provider: MeterProvider,
    reader: InMemoryMetricReader,
) -> None:
    instrumentor.instrument(tracer_provider=provider, meter_provider=meter_provider)
    Tracing().start_producer("low").end()
    ClientMetrics().sent("low", "email")

    assert len(exporter.get_finished_spans()) == 1
    assert reader.get_metrics_data() is not None


@pytest.mark.usefixtures("clean_globals")
def test_instrumentation_can_be_removed_and_added_again(
    instrumentor: TaskQInstrumentor, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    trace.set_tracer_provider(provider)
    tracing = Tracing()
    instrumentor.instrument()
    instrumentor.uninstrument()
    tracing.start_producer("off").end()
    was_active = tracing.is_active
    instrumentor.instrument()
    tracing.start_producer("on").end()

    assert was_active is False
    assert [span.name for span in exporter.get_finished_spans()] == ["send on"]
