"""Fixtures: an SDK that keeps spans and metrics in memory, and a process in which no SDK is configured yet."""

from collections.abc import Iterator

import pytest
from opentelemetry import _logs, metrics, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """The spans that ended under `provider`."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """Return the reader of the metrics recorded by `meter_provider`."""
    return InMemoryMetricReader()


@pytest.fixture
def meter_provider(reader: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider([reader], shutdown_on_exit=False)


@pytest.fixture
def clean_globals() -> Iterator[None]:
    """Nothing is configured when the test begins, and whatever it configures is gone afterwards."""
    traces, meters = trace.get_tracer_provider.__globals__, metrics.get_meter_provider.__globals__
    logs = _logs.get_logger_provider.__globals__
    places = [
        (traces, "_TRACER_PROVIDER"),
        (traces, "_TRACER_PROVIDER_SET_ONCE"),
        (meters, "_METER_PROVIDER"),
        (meters, "_METER_PROVIDER_SET_ONCE"),
        (logs, "_LOGGER_PROVIDER"),
        (logs, "_LOGGER_PROVIDER_SET_ONCE"),
    ]
    saved = [home[name] for home, name in places]
    textmap = propagate.get_global_textmap()
    for home, name in places:
        home[name] = Once() if name.endswith("ONCE") else None

    yield

    for (home, name), value in zip(places, saved, strict=True):
        home[name] = value
    propagate.set_global_textmap(textmap)
